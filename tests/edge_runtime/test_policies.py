"""The compared policies: one interface, each with its paper's behaviour on a simulated device."""

from __future__ import annotations

import itertools

import pytest
from simulated_device import ALL, COOL, LADDER, SimulatedDevice

from edge_runtime.budget import Budget
from edge_runtime.controller import Controller, ControllerSettings
from edge_runtime.controller_ladder import LadderPoint, pareto
from edge_runtime.errors import PolicyError
from edge_runtime.policies import POLICIES, make_policy
from edge_runtime.readings import UNKNOWN

BLIND = [name for name in POLICIES if name != "oracle"]


def device_of(name: str, deadline_ms: float = 16.0, **options: object) -> SimulatedDevice:
    """A device under a policy; the oracle sees its true latencies."""
    device = SimulatedDevice(deadline_ms=deadline_ms)
    if name == "oracle":
        options["latency_ms_of"] = lambda point: device.true_ms[point] * device.slowdown
    device.policy = make_policy(name, LADDER, **options)  # type: ignore[arg-type]
    return device


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_has_the_same_surface(name: str) -> None:
    device = device_of(name)
    decisions = device.run(1.0)
    policy = device.policy
    assert policy.name == name
    assert policy.ladder == LADDER
    assert policy.ladder[policy.current].name == decisions[-1].point
    assert policy.switches == sum(d.switched for d in decisions)
    device.resident = frozenset(["p1", "p2"])
    assert {d.point for d in device.run(1.0)} <= {"p1", "p2"}
    policy.pinned = "p2"
    assert {(d.point, d.reason) for d in device.run(0.5)} == {("p2", "pinned")}
    policy.pinned = None
    policy.replace_ladder([LadderPoint(p.name, p.accuracy, 2.0 * p.latency_ms) for p in LADDER])
    assert policy.ladder[0].latency_ms == 4.0
    assert policy.ladder[policy.current].name == "p2"
    device.resident = ALL
    device.budget = Budget(16.0, min_accuracy=0.7)
    assert {d.point for d in device.run(1.0)} <= {"p4", "p5"}


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_survives_times_without_sense(name: str) -> None:
    device = device_of(name)
    for slowdown, age_ms in ((1e-9, 0.0), (1e9, 0.0), (1.0, 1e9), (1.0, -1e9), (0.0, 16.0), (1.0, 16.0)):
        device.slowdown, device.age_ms = slowdown, age_ms
        assert {d.point for d in device.run(0.3)} <= ALL


@pytest.mark.parametrize("name", ["ours", "threshold", "pi", "alert", "oracle"])
def test_a_policy_that_adapts_is_on_time_again_after_a_step_and_returns(name: str) -> None:
    device = device_of(name)
    assert device.run(5.0)[-1].point in ("p4", "p5")
    device.slowdown = 2.0
    device.run(3.0)
    device.late = 0
    loaded = device.run(2.0)[-1]
    assert device.late <= (30 if name == "pi" else 0)  # PI oscillates between two steps of the ladder
    assert device.true_ms[loaded.point] >= 4.0
    device.slowdown = 1.0
    assert device.run(5.0)[-1].point in ("p4", "p5")


@pytest.mark.parametrize("name", ["static", "best-static", "slackfit"])
def test_a_policy_that_does_not_watch_the_machine_stays(name: str) -> None:
    device = device_of(name)
    before = device.run(1.0)[-1].point
    device.slowdown = 3.0
    assert {d.point for d in device.run(1.0)} == {before}


def test_static_takes_the_most_accurate_point_or_the_given_one() -> None:
    assert device_of("static", 1.0).frame().point == "p5"
    assert device_of("static", 1.0, point="p2").frame().point == "p2"
    with pytest.raises(PolicyError, match="policy static: no operating point 'p9'; choose one of p0, p1"):
        make_policy("static", LADDER, point="p9")


def test_best_static_without_a_point_takes_what_fits_the_first_deadline() -> None:
    device = device_of("best-static", 9.0)
    assert device.frame().point == "p3"
    device.budget = Budget(100.0)
    assert device.frame().point == "p3"


def test_threshold_counts_twenty_frames_before_each_step() -> None:
    device = device_of("threshold")
    device.run(2.0)
    device.slowdown = 3.0
    points = [d.point for d in device.run(4.0)]
    changes = [i for i in range(1, len(points)) if points[i] != points[i - 1]]
    assert all(b - a >= 20 for a, b in itertools.pairwise(changes))
    assert points[-1] < points[0]


def test_slackfit_gives_a_frame_that_waited_a_cheaper_bucket() -> None:
    device = device_of("slackfit", 13.0)
    assert device.frame().point == "p5"
    device.age_ms = 6.0
    assert device.frame().point == "p2"
    device.age_ms = 12.5
    assert device.frame().point == "p0"


def test_alert_weighs_accuracy_against_the_risk_of_being_late() -> None:
    sure, risky = LadderPoint("sure", 0.5, 2.0), LadderPoint("risky", 0.55, 15.0)
    assert first_of("alert", (sure, risky), 16.0) == "sure"
    assert first_of("alert", (sure, LadderPoint("risky", 0.99, 15.0)), 16.0) == "risky"


def test_the_oracle_knows_the_coming_frame() -> None:
    device = device_of("oracle", 9.0)
    for slowdown, point in ((1.0, "p3"), (4.0, "p0"), (0.1, "p5"), (9.0, "p0")):
        device.slowdown = slowdown
        assert device.frame().point == point
    with pytest.raises(PolicyError, match="oracle needs the true latencies"):
        make_policy("oracle", LADDER)


def test_ours_takes_constants_and_the_others_have_their_own() -> None:
    policy = make_policy("ours", LADDER, ControllerSettings(miss_weight=3.0))
    assert isinstance(policy, Controller)
    assert policy.settings.miss_weight == 3.0
    make_policy("threshold", LADDER, ControllerSettings(miss_weight=3.0), window=5)


def test_an_unknown_policy_names_those_there_are() -> None:
    with pytest.raises(PolicyError, match="no policy is named 'best'; choose one of ours, static, best-static"):
        make_policy("best", LADDER)


def test_the_pareto_front_leaves_out_what_a_faster_point_reaches() -> None:
    points = [LadderPoint("a", 0.5, 1.0), LadderPoint("b", 0.5, 2.0), LadderPoint("c", 0.6, 3.0)]
    assert [p.name for p in pareto(points)] == ["a", "c"]


def first_of(name: str, ladder: tuple[LadderPoint, ...], deadline_ms: float) -> str:
    """The first choice of a policy."""
    policy = make_policy(name, ladder)
    return policy.choose(0.0, Budget(deadline_ms), UNKNOWN, {p.name for p in ladder}).point


def test_readings_mean_nothing_to_the_compared_policies() -> None:
    for name in BLIND[1:]:
        hot, cool = device_of(name), device_of(name)
        hot.readings, cool.readings = COOL, UNKNOWN
        assert [d.point for d in hot.run(1.0)] == [d.point for d in cool.run(1.0)]
