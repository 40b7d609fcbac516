"""Tables and fleets from small runs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from benchmarks.closed_loop import main as closed_loop
from benchmarks.fleet import FLEET, draw_device, run_device, tails
from benchmarks.parallel import run_all
from benchmarks.policy_runs import Job, run_job
from benchmarks.policy_table import main as policy_table
from benchmarks.policy_table import render, simulate_table, summary, verdict


def test_a_job_judges_every_policy_and_both_references() -> None:
    scores = run_job(Job("step", 0, ("ours", "best-static")))
    assert list(scores) == ["ours", "best-static", "best of each second", "oracle"]
    assert scores["oracle"].regret == 0.0
    assert scores["oracle"].attainment == 1.0
    assert 0.0 <= scores["best of each second"].regret <= 1.0
    assert scores["ours"].recovery_frames is not None


def test_changed_constants_reach_our_controller_only() -> None:
    name = "step_up_dwell_s"
    usual = run_job(Job("bursts", 0, ("ours", "alert")))
    slow = run_job(Job("bursts", 0, ("ours", "alert"), ((name, 30.0),)))
    assert slow["ours"] != usual["ours"]
    assert slow["alert"] == usual["alert"]


def test_the_table_says_where_ours_is_behind() -> None:
    row = {"in_time_accuracy": 0.5}
    assert verdict({"step": {"ours": row, "pi": {"in_time_accuracy": 0.5004}}})[0].endswith("every trace.")
    lines = verdict({"step": {"ours": row, "pi": {"in_time_accuracy": 0.52}, "oracle": {"in_time_accuracy": 0.6}}})
    assert lines[-1] == "- step: pi is ahead of ours by 2.00 points of in-time accuracy."


def test_the_table_shows_live_below_replay_and_the_best_in_bold() -> None:
    table = simulate_table(["stationary"], ["static", "threshold"], range(1), 1, {})
    table["stationary"]["static"]["attainment"] = 0.25  # so that they differ, whatever the machine recorded
    live = {"stationary": {p: {**row, "attainment": 0.125} for p, row in table["stationary"].items()}}
    shown = render(table, live).splitlines()
    head = shown.index("**Attainment on feasible frames, %**")
    assert shown[head + 5] == "| stationary, live | **12.50** | **12.50** |"
    replayed = [cell.strip() for cell in shown[head + 4].split("|")[2:4]]
    assert sorted(cell.startswith("**") for cell in replayed) == [False, True]
    assert not any("live" in line for line in render(table, {}).splitlines())


def test_a_summary_is_the_mean_over_the_seeds() -> None:
    runs = [run_job(Job("stationary", seed, ("static",)))["static"] for seed in (0, 1)]
    found = summary(runs)
    assert found["in_time_accuracy"] == pytest.approx(sum(r.in_time_accuracy for r in runs) / 2, abs=1e-5)
    assert found["runs"] == 2


def test_a_device_is_its_seed() -> None:
    assert draw_device(7) == draw_device(7)
    assert draw_device(7) != draw_device(8)
    fleet = [draw_device(seed) for seed in range(300)]
    low, high = FLEET["ambient_c"]
    assert all(low <= d.ambient.from_c <= high for d in fleet)
    assert sum(not d.thermometer for d in fleet) / 300 == pytest.approx(FLEET["without_thermometer"], abs=0.1)
    first, again = (run_device(draw_device(3), ("ours",), 3.0)["ours"] for _ in range(2))
    assert first == again


def test_tails_look_at_the_bad_end() -> None:
    values = [i / 100 for i in range(101)]
    assert tails(values, worst_is_high=False)["p5"] == pytest.approx(0.05)
    assert tails(values, worst_is_high=True)["p5"] == pytest.approx(0.95)
    assert tails(values, worst_is_high=True)["worst"] == 1.0


def test_jobs_in_other_processes_come_back_with_their_answers() -> None:
    assert dict(run_all(abs, [-1, 2, -3], 2, "jobs")) == {-1: 1, 2: 2, -3: 3}


def test_a_live_run_that_is_too_short_says_how_long_it_must_be() -> None:
    result = CliRunner().invoke(closed_loop, ["--minutes", "0.5", "--loads", "step", "--rates", "30", "--dry"])
    assert result.exit_code == 2
    assert "8 blocks need at least --minutes 2" in result.output


def test_an_unknown_trace_is_refused_with_the_known_ones() -> None:
    result = CliRunner().invoke(policy_table, ["--dry", "--kinds", "stap"])
    assert result.exit_code == 2
    assert "no trace is named 'stap'" in result.output
    assert "thermal ramp" in result.output


def test_a_simulation_is_the_same_in_another_process() -> None:
    code = (
        "import json; from benchmarks.policy_runs import Job, run_job;"
        "print(json.dumps(run_job(Job('bursts', 1, ('ours',)))['ours'].as_json()))"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(there) == run_job(Job("bursts", 1, ("ours",)))["ours"].as_json()
