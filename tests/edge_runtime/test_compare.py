"""The regression gate: it finds what was planted, and is silent where only the device was noisy."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from profile_results import ENVIRONMENT, blocks_of, point_of, result_of

from edge_runtime import cli
from edge_runtime.errors import ResultError
from edge_runtime.profiling.compare import compare_results, draw_log_medians, student_quantile
from edge_runtime.profiling.result import ProfileResult, Verdict, save_result

POINTS = {"small": 0.2, "middle": 0.6, "large": 1.0, "largest": 4.0}


def noisy_run(seed: int, slowdown: float = 1.0, only: str | None = None, **changes: Any) -> ProfileResult:
    """One profile of POINTS on a device with noise of its own.

    Every run has a level (0.5 %), every round a level that all points share (3 %, with one round in eight disturbed by
    30 %), every block its own (2 %), every sample a little.
    """
    generator = np.random.default_rng(seed)
    level = float(np.exp(0.005 * generator.normal()))
    shared = level * np.exp(0.03 * generator.normal(size=8))
    shared[generator.integers(0, 8)] *= 1.3
    points = []
    for name, p50_ms in POINTS.items():
        slower = slowdown if only in (None, name) else 1.0
        blocks = blocks_of(p50_ms * slower, shared=list(shared), noise=0.02, generator=generator)
        points.append(point_of(name, blocks))
    return result_of(points, **changes)


def test_twenty_repeats_of_the_same_raise_at_most_one_alarm() -> None:
    alarms = [compare_results(noisy_run(2 * seed), noisy_run(2 * seed + 1)).regressed for seed in range(20)]
    assert sum(alarms) <= 1


def test_without_a_limit_the_noise_alone_still_raises_few_alarms() -> None:
    alarms = [compare_results(noisy_run(2 * s), noisy_run(2 * s + 1), fail_over=0.0).regressed for s in range(30)]
    assert sum(alarms) <= 2  # two in a hundred are asked for; the bootstrap of 8 rounds is not exact


def test_a_slowdown_of_ten_percent_is_found_every_time() -> None:
    found = [
        compare_results(quiet_run(2 * seed), quiet_run(2 * seed + 1, 1.10)).regressed for seed in range(20)
    ]  # fmt: skip
    assert sum(found) == 20


def test_most_slowdowns_of_ten_percent_are_found_on_a_noisy_device() -> None:
    found = [compare_results(noisy_run(2 * seed), noisy_run(2 * seed + 1, 1.10)).regressed for seed in range(20)]
    assert sum(found) >= 13


def quiet_run(seed: int, slowdown: float = 1.0) -> ProfileResult:
    """A profile on a device that nobody else uses: rounds 1 % apart, blocks 1 %."""
    generator = np.random.default_rng(seed)
    shared = [float(np.exp(0.01 * generator.normal())) for _ in range(8)]
    return result_of([
        point_of(name, blocks_of(p50 * slowdown, shared=shared, noise=0.01, generator=generator))
        for name, p50 in POINTS.items()
    ])  # fmt: skip


def test_a_point_that_seems_steady_by_chance_is_given_the_spread_of_the_others() -> None:
    def run(seed: int) -> ProfileResult:
        generator = np.random.default_rng(seed)
        noise = {name: 0.0 if name == "small" else 0.05 for name in POINTS}
        return result_of([
            point_of(name, blocks_of(p50_ms, noise=noise[name], generator=generator)) for name, p50_ms in POINTS.items()
        ])  # fmt: skip

    steady, *others = compare_results(run(0), run(1)).points
    widths = [point.ratio_high / point.ratio for point in others]
    assert steady.ratio_high / steady.ratio > 0.5 * (np.mean(widths) - 1.0) + 1.0


def test_noise_that_all_points_share_widens_the_interval_of_their_mean() -> None:
    steady = [list(blocks_of(p50, noise=0.03, generator=np.random.default_rng(1))) for p50 in POINTS.values()]
    shared = list(np.exp(0.1 * np.random.default_rng(2).normal(size=8)))
    moved = [list(blocks_of(p50, shared=shared, noise=0.03)) for p50 in POINTS.values()]
    calm, moving = (draw_log_medians(points, 0).mean(axis=1).std() for points in (steady, moved))
    assert moving > 2.0 * calm


def test_a_single_slower_point_is_found_and_named() -> None:
    comparison = compare_results(noisy_run(1), noisy_run(2, 1.4, only="middle"))
    assert comparison.regressed
    assert [p.name for p in comparison.points if "slower" in p.verdict] == ["middle"]
    assert "slower: middle +" in comparison.sentences[-1]


def test_a_faster_version_is_no_regression_and_is_told() -> None:
    comparison = compare_results(noisy_run(1), noisy_run(2, 0.6))
    assert not comparison.regressed
    assert {point.verdict for point in comparison.points} == {"faster"}
    assert comparison.sentences[-1].startswith("no regression: median latency over 4 points -")


def test_the_ratio_is_that_of_the_medians_and_lies_in_its_interval() -> None:
    comparison = compare_results(result_of({"a": 2.0, "b": 1.0}), result_of({"a": 3.0, "b": 1.5}))
    assert comparison.overall_ratio == pytest.approx(1.5)
    assert comparison.overall_low < 1.5 < comparison.overall_high
    assert all(p.ratio_low < p.ratio < p.ratio_high for p in comparison.points)


def _with_accuracy(select: float, test: float) -> ProfileResult:
    point = point_of("a", blocks_of(1.0), accuracy={"select": select, "test": test})
    return result_of([point])


@pytest.mark.parametrize(
    ("select", "test", "regressed"), [(0.6, 0.6, False), (0.6, 0.591, False), (0.7, 0.58, True), (0.58, 0.6, True)]
)
def test_a_loss_of_accuracy_beyond_the_limit_fails_on_any_split(select: float, test: float, regressed: bool) -> None:
    comparison = compare_results(_with_accuracy(0.6, 0.6), _with_accuracy(select, test))
    assert comparison.regressed is regressed
    if regressed:
        assert "regressed: a lost 2.0 points" in comparison.sentences[-1]


def test_exactly_the_limit_of_accuracy_is_allowed() -> None:
    assert not compare_results(_with_accuracy(0.6, 0.6), _with_accuracy(0.59, 0.59)).regressed


def test_a_slower_run_on_a_much_busier_device_cannot_be_judged() -> None:
    busy = Verdict(False, "unstable: foreign load 80 %")
    points = [point_of(name, blocks_of(1.5 * p50, foreign_load=0.8)) for name, p50 in POINTS.items()]
    comparison = compare_results(result_of(POINTS), result_of(points, verdict=busy))
    assert comparison.inconclusive
    assert not comparison.regressed
    assert comparison.sentences[-1].startswith("inconclusive: ")
    assert "B is unstable: foreign load 80 %" in comparison.sentences


@pytest.mark.parametrize(("foreign_load", "inconclusive"), [(0.4, False), (0.6, True)])
def test_a_slower_run_without_a_core_for_each_thread_cannot_be_judged(foreign_load: float, inconclusive: bool) -> None:
    a, b = (
        result_of([point_of(name, blocks_of(factor * p50, foreign_load=foreign_load)) for name, p50 in POINTS.items()])
        for factor in (1.0, 1.5)
    )  # 2 threads on 4 cores
    comparison = compare_results(a, b)
    assert (comparison.inconclusive, comparison.regressed) == (inconclusive, not inconclusive)


def test_a_busier_device_that_is_not_slower_is_judged() -> None:
    points = [point_of(name, blocks_of(p50, foreign_load=0.8)) for name, p50 in POINTS.items()]
    comparison = compare_results(result_of(POINTS), result_of(points))
    assert not comparison.inconclusive
    assert not comparison.regressed


DIFFERENCES: dict[str, tuple[dict[str, Any], str]] = {
    "another state of the bundle": (
        {"bundle": replace(result_of(POINTS).bundle, manifest_sha256="cd" * 32)},
        "different bundles: tiny with hashes abababab and cdcdcdcd",
    ),
    "another bundle": (
        {"bundle": replace(result_of(POINTS).bundle, name="big", manifest_sha256="cd" * 32)},
        "different bundles: tiny and big with hashes abababab and cdcdcdcd",
    ),
    "another processor": (
        {"environment": replace(ENVIRONMENT, cpu_model="Other")}, "different processors: Test CPU and Other",
    ),
    "another engine": (
        {"environment": replace(ENVIRONMENT, versions={"onnxruntime": "1.32.0"})},
        "different versions of onnxruntime: 1.30.0 and 1.32.0",
    ),
    "on battery": ({"environment": replace(ENVIRONMENT, on_battery=True)}, "different power: unknown and True"),
    "interrupted": ({"complete": False}, "B was interrupted"),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENCES)
def test_what_else_differs_is_named(name: str) -> None:
    changes, sentence = DIFFERENCES[name]
    assert sentence in compare_results(result_of(POINTS), result_of(POINTS, **changes)).sentences
    assert sentence not in compare_results(result_of(POINTS), result_of(POINTS)).sentences


def test_points_of_one_result_only_are_counted() -> None:
    comparison = compare_results(result_of(POINTS), result_of({"small": 0.2, "new": 1.0}))
    assert [point.name for point in comparison.points] == ["small"]
    assert "4 points are in one result only, first: large (2 threads)" in comparison.sentences


def test_results_without_a_common_point_cannot_be_compared() -> None:
    with pytest.raises(ResultError, match="have no point with the same name, backend and threads"):
        compare_results(result_of({"a": 1.0}), result_of({"b": 1.0}))


def test_two_blocks_are_too_few_to_judge() -> None:
    short = result_of([point_of("a", blocks_of(1.0, rounds=2))])
    with pytest.raises(ResultError, match="a point has 2 blocks, expected at least 3"):
        compare_results(short, short)


def test_results_with_different_numbers_of_blocks_and_runs_are_compared() -> None:
    long = result_of([point_of("a", blocks_of(1.0, rounds=25, runs=40))])
    assert compare_results(result_of({"a": 1.0}), long).points[0].ratio == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("probability", "freedom", "value"),
    [(0.99, 14, 2.624), (0.975, 10, 2.228), (0.999, 10, 4.144), (0.9995, 14, 4.140), (0.95, 1000, 1.646)],
)
def test_quantiles_of_student_are_those_of_the_tables(probability: float, freedom: int, value: float) -> None:
    assert student_quantile(probability, freedom) == pytest.approx(value, rel=0.005)


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs `edge-runtime compare` on two results: (exit code, standard output, standard error)."""

    def run(a: ProfileResult, b: ProfileResult, *arguments: str) -> tuple[int, str, str]:
        paths = [str(save_result(result, tmp_path / name)) for result, name in ((a, "a.json"), (b, "b.json"))]
        monkeypatch.setattr(sys, "argv", ["edge-runtime", "compare", *paths, *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capsys.readouterr()

    return run


def test_the_command_fails_with_code_1_for_a_regression_and_0_without(compare: Command) -> None:
    slower = result_of({name: 1.3 * p50 for name, p50 in POINTS.items()})
    code, out, err = compare(result_of(POINTS), slower)
    assert (code, err) == (1, "")
    assert out.splitlines()[0].split()[:4] == ["point", "threads", "A", "p50"]
    assert out.splitlines()[-1].startswith("regressed: median latency over 4 points +30.0 %")
    assert compare(slower, slower)[0] == 0
    assert compare(result_of(POINTS), slower, "--fail-over", "50%")[0] == 0
    assert compare(result_of(POINTS), slower, "--fail-over", "0.5")[0] == 0


def test_the_command_gives_json(compare: Command) -> None:
    code, out, _ = compare(result_of(POINTS), result_of(POINTS), "--format", "json")
    values = json.loads(out)
    assert (code, values["regressed"], values["overall_ratio"]) == (0, False, 1.0)
    assert [point["name"] for point in values["points"]] == list(POINTS)


def test_the_command_has_a_code_of_its_own_for_what_cannot_be_judged(compare: Command) -> None:
    points = [point_of(name, blocks_of(1.5 * p50, foreign_load=0.8)) for name, p50 in POINTS.items()]
    assert compare(result_of(POINTS), result_of(points))[0] == 9
    code, _, err = compare(result_of({"a": 1.0}), result_of({"b": 1.0}))
    assert code == 9
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("text", ["x", "-5%", "1000%", "nan", "%"])
def test_limits_that_make_no_sense_are_refused(compare: Command, text: str) -> None:
    code, _, err = compare(result_of(POINTS), result_of(POINTS), "--fail-over", text)
    assert code == 2
    assert "expected a share such as 5% or 0.05" in err
