"""A live block on the engine without an engine: what was measured is what is judged."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import pytest
from small_worlds import small_trace

from benchmarks.closed_loop import agreement, live_scores, replayed_scores
from benchmarks.contention import LOADS, Contention
from benchmarks.frame_loop import CameraClock, FrameRow, Meter, pareto_points
from benchmarks.live_block import Block, LiveSetup, Outcome, _as_run, _maker, recording_name, run_block
from benchmarks.policy_runs import BLIND, REFERENCES
from benchmarks.policy_table import Table, render_agreement
from benchmarks.record_contention import marks, phases
from benchmarks.scores import score
from benchmarks.simulator import ladder_of, simulate, simulate_oracle
from benchmarks.traces import TracePoint, TraceWorld
from edge_runtime import Bundle, default_bundle_path
from edge_runtime.backends.null import NullBackend
from edge_runtime.controller_bands import DeviceLimits
from edge_runtime.manifest import OperatingPoint
from edge_runtime.policies import make_policy


class Answer(NamedTuple):
    """The part of an operating point that choosing among them looks at."""

    name: str
    accuracy: dict[str, float]


def one_a_width(bundle: Bundle) -> tuple[OperatingPoint, ...]:
    """The shipped bundle's cheapest point of each width, as far as accuracy rises with the width."""
    cheapest = {p.width: p for p in sorted(bundle.manifest.points, key=lambda p: -p.madds)}
    return pareto_points(tuple(cheapest.values()), {p.name: 8.0 * p.width for p in cheapest.values()})


def compute(point: OperatingPoint) -> None:
    """Takes CPU time for as long as the point's width asks: 2 to 8 ms."""
    until_s = time.thread_time() + 0.008 * point.width
    while time.thread_time() < until_s:
        pass


def test_a_live_block_answers_frames_and_is_judged_by_what_it_measured() -> None:
    bundle = Bundle.load(default_bundle_path())
    points = one_a_width(bundle)
    known = tuple(TracePoint(p.name, p.accuracy["select"], 8.0 * p.width) for p in points)
    recording = small_trace(frames=30, points=known, latency_ms=np.ones((30, len(known)), np.float32))
    kind = recording_name("stationary", 30.0)
    setup = LiveSetup(bundle, Meter(NullBackend(bundle, compute), 1), points, {kind: recording}, 1.0)
    outcome = run_block(Block("static", "stationary", 30.0, 0), setup, points[0].name)
    scores, run, oracle = outcome.scores, outcome.run, outcome.oracle
    assert outcome.replayed.frames == 30
    assert outcome.replayed.oracle_accuracy == scores.oracle_accuracy  # judged by the same minutes
    assert scores.frames == 30
    answered = run.point >= 0
    assert answered.sum() + scores.dropped == 30
    assert run.latency_ms[answered].min() >= 8.0 * points[-1].width
    assert np.all(run.best[run.on_time] > 0)  # an answer in time was possible, since it was given
    assert oracle.world == kind


@pytest.mark.parametrize("policy", BLIND)
def test_live_and_replay_make_the_same_policy(policy: str) -> None:
    points = small_trace(frames=1).points
    make = _maker(policy, points[1].name, DeviceLimits())
    assert make(ladder_of(points, 0)).name == policy
    if policy == "best-static":
        run = simulate(TraceWorld(small_trace(frames=3)), make(ladder_of(points, 0)))
        assert run.point.tolist() == [1, 1, 1]


def test_live_and_replayed_scores_are_kept_apart_and_references_come_from_the_blocks_of_ours() -> None:
    world = TraceWorld(small_trace(frames=3))
    oracle = simulate_oracle(world)
    live, replayed = (
        score(
            simulate(TraceWorld(small_trace(frames=3)), make_policy("static", ladder_of(world.points, 0), point=name)),
            oracle,
        )
        for name in ("small", "large")
    )
    runs = {Block(p, "step", 30.0, 0): Outcome(live, oracle, oracle, replayed) for p in ("pi", "ours", "alert")}
    kind = recording_name("step", 30.0)
    found = live_scores(runs)[kind]
    assert live != replayed
    assert found["pi"] == found["ours"] == [live]
    assert replayed_scores(runs)[kind] == {"pi": [replayed], "ours": [replayed], "alert": [replayed]}
    assert [len(found[reference]) for reference in REFERENCES] == [1, 1]


def test_the_page_tells_how_far_live_and_replay_are_apart() -> None:
    def table(value: float) -> Table:
        return {"recorded step 30 fps": {"ours": {"in_time_accuracy": value}}}

    text = render_agreement(table(0.9), table(0.89), table(0.85))
    assert text.splitlines()[-1] == "| recorded step 30 fps | ours | 90.00 | 89.00 | 85.00 |"


def test_the_score_of_a_block_is_what_its_rows_say() -> None:
    trace = small_trace(frames=4)
    rows = [
        FrameRow(0, "large", 0.0, True, 1.0, 20.0, 20.0, 0, 21.0, True, False),
        FrameRow(1, "large", 0.0, True, 1.0, 60.0, 20.0, 1, 61.0, False, False),
        FrameRow(3, "small", 0.0, True, 1.0, 4.0, 4.0, 0, 5.0, True, True),
    ]
    run = _as_run(Block("ours", "step", 30.0, 0), trace, rows, ())
    assert run.score == pytest.approx([0.6, 0.0, 0.0, 0.4])
    assert run.point.tolist() == [2, 2, -1, 0]
    assert run.switches == 1
    assert run.feasible.all()


class FakeTime:
    """A clock that moves when somebody waits; `late_s` is added to each wait."""

    def __init__(self) -> None:
        self.now_s, self.late_s = 50.0, 0.0

    def wait(self, seconds: float) -> None:
        self.now_s += seconds + self.late_s


def test_an_answer_is_judged_by_the_deadline_of_its_own_moment() -> None:
    trace = small_trace(frames=4, fps=1.0).with_deadline(30.0, lambda at_s: 0.5 if at_s >= 2.0 else 1.0)
    assert [(at_s, budget.deadline_ms) for at_s, budget in trace.budgets] == [(0.0, 30.0), (2.0, 15.0)]
    rows = [FrameRow(i, "small", 0.0, True, 1.0, 4.0, 4.0, 0, 5.0, True, False) for i in range(4)]
    run = _as_run(Block("ours", "deadlines", 1.0, 0), trace, rows, ())
    assert run.best == pytest.approx([0.6, 0.6, 0.5, 0.5])


def test_a_camera_gives_the_newest_frame_and_counts_the_others() -> None:
    fake = FakeTime()
    camera = CameraClock(100.0, 12, 50.005, lambda: fake.now_s, fake.wait)
    seen, ages = [], []
    for frame in camera.frames():
        seen.append(frame.index)
        ages.append(round(camera.age_ms, 3))
        if len(seen) == 3:
            fake.now_s += 0.046  # busy from 20 ms on until 66 ms: frames 3, 4 and 5 are gone, 6 waits
    assert seen == [0, 1, 2, 6, 7, 8, 9, 10, 11]
    assert camera.dropped == 3
    assert ages[3] == pytest.approx(6.0)
    assert not camera.slept_through


def test_frames_that_pass_while_the_process_waits_for_a_core_are_nobodys_fault() -> None:
    fake = FakeTime()
    camera = CameraClock(100.0, 6, 50.005, lambda: fake.now_s, fake.wait)
    seen = []
    for frame in camera.frames():
        seen.append(frame.index)
        fake.late_s = 0.024 if len(seen) == 1 else 0.0  # the wake-up for frame 1 comes with frame 3
    assert seen == [0, 3, 4, 5]
    assert camera.slept_through == {1: pytest.approx(24.0), 2: pytest.approx(14.0)}


def test_children_work_while_the_script_says_so_and_leave_with_it() -> None:
    with Contention(LOADS["step"], 0.9, 0) as contention:
        children = list(contention._children)
        assert children
        contention.begin(time.monotonic())
        time.sleep(1.0)
        levels = contention.levels
    assert [level for _, level in levels] == [0.0, 1.0, 0.0]
    assert all(at_s >= due_s for (at_s, _), due_s in zip(levels, [0.0, 0.3, 0.6], strict=True))
    assert all(child.poll() is not None for child in children)
    assert [what for _, what in marks(levels)] == ["load on", "load off"]
    assert set(phases(levels, 27, 30.0)) == {0.0, 1.0}


def test_agreement_names_the_pair_that_is_furthest_apart() -> None:
    live = {"a": {"ours": {"in_time_accuracy": 0.50}, "pi": {"in_time_accuracy": 0.45}}}
    replayed = {"a": {"ours": {"in_time_accuracy": 0.51}, "pi": {"in_time_accuracy": 0.50}}}
    found = agreement(live, replayed)
    assert (found["within_2_points"], found["of"], found["worst"], found["worst_points"]) == (1, 2, "a, pi", -5.0)


def test_points_that_a_faster_one_equals_are_left_out() -> None:
    best, equal, slow = (Answer(name, {"select": accuracy}) for name, accuracy in (("a", 0.5), ("b", 0.5), ("c", 0.6)))
    kept = pareto_points((slow, equal, best), {"a": 1.0, "b": 2.0, "c": 3.0})
    assert [p.name for p in kept] == ["a", "c"]
