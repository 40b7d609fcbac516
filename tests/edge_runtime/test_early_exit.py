"""The anytime runner: it stops when sure, out of time or out of looks, and always has an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import file_values, manifest_values, write_bundle

from edge_runtime.backends import BackendOptions
from edge_runtime.bundle import Bundle
from edge_runtime.early_exit import (
    FAILED,
    OUT_OF_LOOKS,
    OUT_OF_TIME,
    SURE,
    EarlyExitRunner,
    LookClock,
    cut,
    shrink,
)
from edge_runtime.early_exit_backend import OPENERS, EarlyExitBackend, ProgramParts
from edge_runtime.errors import BackendError, BundleError
from edge_runtime.exit_records import EarlyExits, ExitSetting, LookParts
from edge_runtime.frame import Frame
from edge_runtime.readings import Readings

PATCH, SIDE, CLASSES, LOOKS = 8, 16, 3, 4


def settings(max_looks: int = LOOKS, threshold: float = 0.9) -> ExitSetting:
    shares = (1.0, *(0.0,) * (max_looks - 1))
    return ExitSetting("plan", max_looks, (threshold,) * (max_looks - 1), 1.0, shares)


def exits(classifier: str = "recurrent", **changes: Any) -> EarlyExits:
    facts: dict[str, Any] = {
        "patch": PATCH, "looks": LOOKS, "classifier": classifier, "policy_memory": 2,
        "classifier_memory": 1 if classifier == "recurrent" else 0, "temperatures": (1.0,) * LOOKS,
        "parts": (LookParts("glance", "policy", "focus", ("classifier",) * LOOKS),), "settings": (settings(),),
    }  # fmt: skip
    return EarlyExits(**{**facts, **changes})


class FakeTime:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class FakeParts:
    """Look k takes its own time and gives confidence by script; class k wins look k."""

    def __init__(self, clock: FakeTime, confidences: list[float], seconds: list[float] | None = None) -> None:
        self.clock, self.confidences = clock, confidences
        self.seconds = seconds or [0.010] * len(confidences)
        self.images: list[np.ndarray] = []
        self.memories: list[np.ndarray] = []
        self.places = [np.array([[0.0, 1.0]], np.float32)] * len(confidences)
        self.fail_at: int | None = None

    def encode(self, look: int, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.clock.now_s += self.seconds[look]
        self.images.append(image.copy())
        if look == self.fail_at:
            raise BackendError("the engine broke")
        return np.full((1, 2), look, np.float32), np.full((1, 1, 2, 2), look, np.float32)

    def place(self, feature_map: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.memories.append(memory.copy())
        return self.places[int(feature_map[0, 0, 0, 0])], memory + 1

    def answer(self, look: int, vector: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p = self.confidences[look]
        rest = (1 - p) / (CLASSES - 1)
        scores = np.log(np.full((1, CLASSES), rest, np.float32))
        scores[0, look % CLASSES] = np.log(p)
        return scores, memory + 1

    def close(self) -> None:
        pass


def runner(
    confidences: list[float], seconds: list[float] | None = None, setting: ExitSetting | None = None
) -> tuple[EarlyExitRunner, FakeParts, FakeTime]:
    clock = FakeTime()
    parts = FakeParts(clock, confidences, seconds)
    made = EarlyExitRunner(parts, exits(), setting or settings(), (SIDE, SIDE), CLASSES, clock)
    return made, parts, clock


def best(scores: np.ndarray) -> int:
    return int(scores[0].argmax())


@pytest.mark.parametrize(
    ("confidences", "looks", "reason"),
    [([0.95, 0.5, 0.5, 0.5], 1, SURE), ([0.5, 0.6, 0.92, 0.5], 3, SURE), ([0.5, 0.6, 0.7, 0.8], 4, OUT_OF_LOOKS)],
)
def test_a_run_stops_at_the_first_sure_answer_or_after_the_last_look(
    confidences: list[float], looks: int, reason: str
) -> None:
    made, parts, _ = runner(confidences)
    assert best(made.run()) == (looks - 1) % CLASSES
    assert made.last is not None
    assert (made.last.looks, made.last.reason) == (looks, reason)
    assert made.last.confidence == pytest.approx(confidences[looks - 1], abs=1e-5)
    assert len(parts.images) == looks
    assert len(made.last.boxes) == looks - 1
    assert made.last.look_ms == pytest.approx([10.0] * looks)


def test_the_points_own_cap_ends_a_run() -> None:
    made, _, _ = runner([0.5] * 4, setting=settings(max_looks=2))
    made.run()
    assert made.last is not None
    assert (made.last.looks, made.last.reason) == (2, OUT_OF_LOOKS)


@pytest.mark.parametrize(("deadline_ms", "looks"), [(5.0, 1), (15.0, 1), (25.0, 2), (35.0, 3), (45.0, 4)])
def test_another_look_begins_only_when_it_is_expected_to_end_in_time(deadline_ms: float, looks: int) -> None:
    made, _, clock = runner([0.5] * 4)
    made.warm_up()
    made.deadline_s = clock.now_s + deadline_ms / 1000.0
    made.run()
    assert made.last is not None
    assert made.last.looks == looks
    assert made.last.reason == (OUT_OF_LOOKS if looks == 4 else OUT_OF_TIME)


def test_a_deadline_holds_for_one_run_only() -> None:
    made, _, clock = runner([0.5] * 4)
    made.warm_up()
    made.deadline_s = clock.now_s
    made.run()
    made.run()
    assert made.last is not None
    assert made.last.looks == 4


def test_a_rare_slow_look_counts_as_possible() -> None:
    clock = LookClock(quantile=0.99)
    for _ in range(98):
        clock.observe(1, 0.010)
    for _ in range(2):
        clock.observe(1, 0.040)
    assert clock.next_look_s(0.01) == 0.040
    for _ in range(128):
        clock.observe(1, 0.010)
    assert clock.next_look_s(0.01) == 0.010  # and is forgotten after a while


def test_a_slow_glance_says_that_the_next_look_will_be_slow() -> None:
    clock = LookClock()
    for _ in range(20):
        clock.observe(0, 0.010)
        clock.observe(1, 0.020)
    assert clock.next_look_s(0.010) == pytest.approx(0.020)
    assert clock.next_look_s(0.030) == pytest.approx(0.060)
    assert LookClock().next_look_s(0.01) == 0.0


def test_a_look_that_fails_leaves_the_answer_before_it() -> None:
    made, parts, _ = runner([0.5, 0.6, 0.7, 0.8])
    parts.fail_at = 2
    assert best(made.run()) == 1
    assert made.last is not None
    assert (made.last.looks, made.last.reason) == (2, FAILED)
    assert made.last.confidence == pytest.approx(0.6, abs=1e-5)
    parts.fail_at = 0
    with pytest.raises(BackendError, match="the engine broke"):
        made.run()


def test_scores_that_are_no_numbers_never_replace_an_answer_nor_keep_the_last_frames() -> None:
    made, parts, _ = runner([0.5, 0.6, 0.7, 0.8])
    parts.confidences = [0.5, float("nan"), 0.7, 0.8]
    assert best(made.run()) == 0
    parts.confidences = [float("nan"), 0.6, 0.95, 0.8]  # a glance that says nothing does not end the run
    assert best(made.run()) == 2
    parts.confidences = [float("nan"), float("nan"), 0.7, 0.8]
    assert np.isnan(made.run()).all()


def test_a_hard_picture_is_not_taken_for_a_slow_machine() -> None:
    setting = ExitSetting("plan", 4, (0.9,) * 3, 2.0, (0.5, 0.0, 0.5, 0.0))
    made, parts, _ = runner([0.5] * 4, [0.010, 0.020, 0.020, 0.020], setting)
    made.warm_up()
    assert made.expected_ms == pytest.approx(30.0)
    made.run()
    assert made.comparable_ms(70.0) == pytest.approx(30.0)  # four looks at their usual time
    parts.confidences = [0.95] * 4
    made.run()
    assert made.comparable_ms(10.0) == pytest.approx(30.0)
    assert made.comparable_ms(25.0) == pytest.approx(75.0)  # a glance that took 2.5 times its time


def test_temperatures_belong_to_looks() -> None:
    clock = FakeTime()
    facts = exits(temperatures=(2.0, 1.0, 1.0, 1.0))
    made = EarlyExitRunner(FakeParts(clock, [0.9, 0.9, 0.9, 0.9]), facts, settings(), (SIDE, SIDE), CLASSES, clock)
    scores = made.run()
    assert made.last is not None
    assert made.last.looks == 2  # softened, the first look is not sure
    assert float(np.exp(scores[0] - scores[0].max()).sum() ** -1) == pytest.approx(0.9, abs=1e-5)


def test_each_run_starts_without_memory_and_passes_it_on_within() -> None:
    made, parts, _ = runner([0.5] * 4)
    made.run()
    made.run()
    assert [float(memory[0, 0]) for memory in parts.memories] == [0.0, 1.0, 2.0] * 2


def test_the_glance_is_the_shrunk_picture_and_a_patch_lies_where_the_policy_says() -> None:
    made, parts, _ = runner([0.5] * 4)
    draw = np.random.default_rng(0)
    made.input[:] = draw.normal(size=made.input.shape)
    parts.places = [np.array([[a, b]], np.float32) for a, b in ((0.0, 1.0), (1.0, 0.49), (np.nan, 7.0), (0, 0))]
    made.run()
    blocks = made.input.reshape(1, 3, PATCH, 2, PATCH, 2).mean((3, 5))
    np.testing.assert_allclose(parts.images[0], blocks, atol=1e-5)
    assert made.last is not None
    assert made.last.boxes == ((0, 8, 8, 8), (8, 3, 8, 8), (4, 8, 8, 8))  # no number: the middle; beyond: the edge
    np.testing.assert_array_equal(parts.images[2], made.input[:, :, 8:16, 3:11])


def test_shrinking_and_cutting_write_into_what_they_are_given() -> None:
    picture, out = np.random.default_rng(0).normal(size=(1, 3, 12, 12)).astype(np.float32), np.zeros((1, 3, 8, 8), "f4")
    shrink(picture, out)
    assert out.mean() == pytest.approx(picture.mean(), abs=1e-3)
    assert cut(picture, np.array([[1.0, 0.0]], np.float32), out) == (4, 0, 8, 8)
    np.testing.assert_array_equal(out, picture[:, :, 4:, :8])


@pytest.mark.parametrize("concatenating", [False, True])
def test_parts_call_the_programs_in_order(concatenating: bool) -> None:
    seen: list[tuple[str, list[tuple[int, ...]]]] = []

    def call(name: str, *outputs: np.ndarray) -> Any:
        def run(*arrays: np.ndarray) -> list[np.ndarray]:
            seen.append((name, [a.shape for a in arrays]))
            return list(outputs)

        return run

    vector, memory, scores = np.zeros((1, 5), "f4"), np.zeros((1, 4), "f4"), np.zeros((1, 3), "f4")
    encoder = (vector, np.zeros((1, 2, 3, 3), "f4"))
    answers = (scores,) if concatenating else (scores, memory)
    parts = ProgramParts(
        call("glance", *encoder), call("policy", np.zeros((1, 2), "f4"), memory), call("focus", *encoder),
        (call("first", *answers), call("second", *answers)), concatenating,
    )  # fmt: skip
    held = np.zeros((1, 0 if concatenating else 4), "f4")
    found, feature_map = parts.encode(0, np.zeros((1, 3, 8, 8), "f4"))
    _, held = parts.answer(0, found, held)
    parts.place(feature_map, memory)
    found, _ = parts.encode(1, np.zeros((1, 3, 8, 8), "f4"))
    _, held = parts.answer(1, found, held)
    assert [name for name, _ in seen] == ["glance", "first", "policy", "focus", "second"]
    assert seen[4][1] == ([(1, 10)] if concatenating else [(1, 5), (1, 4)])
    parts.close()
    with pytest.raises(BackendError, match="closed"):
        parts.encode(0, vector)


def focus_values(**changes: Any) -> dict[str, Any]:
    """A manifest whose only point looks several times."""
    names = ("glance", "policy", "focus", "classifier")
    values = manifest_values(
        programs=[{"name": n, "backend": "null", "precision": "fp32", "file": f"programs/{n}.bin"} for n in names],
        points=[{"name": "x2", "program": "glance", "width": 1.0, "size_hw": [SIDE, SIDE], "madds": 10,
                 "accuracy": {"select": 0.5}, "exit": "plan"}],
        exits={
            "patch": PATCH, "looks": 2, "classifier": "recurrent", "policy_memory": 2, "classifier_memory": 1,
            "temperatures": [1.0, 1.0],
            "parts": [{"glance": "glance", "policy": "policy", "focus": "focus", "classifiers": ["classifier"] * 2}],
            "settings": [{"name": "plan", "max_looks": 2, "thresholds": [0.9], "expected_looks": 1.5,
                          "shares": [0.5, 0.5]}],
        },
    )  # fmt: skip
    del values["weights"]
    return json.loads(json.dumps({**values, **changes}))


def focus_bundle(root: Path, values: dict[str, Any] | None = None) -> Path:
    files = {f"programs/{n}.bin": n.encode() for n in ("glance", "policy", "focus", "classifier")}
    complete = values or focus_values()
    return write_bundle(root, {**complete, "files": file_values(files)}, files)


def test_a_bundle_with_exits_is_read(tmp_path: Path) -> None:
    manifest = Bundle.load(focus_bundle(tmp_path / "a.bundle")).manifest
    assert manifest.exits is not None
    assert manifest.exits.setting("plan").thresholds == (0.9,)
    assert manifest.exits.parts_of("glance").focus == "focus"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("points", 0, "exit"), "haste", "wants exit 'haste'"),
        (("points", 0, "program"), "focus", "the glance of no set of parts"),
        (("points", 0, "size_hw"), [8, 8], "expected above 8"),
        (("exits", "patch"), 4, "patch is 4"),
        (("exits", "looks"), 99, "looks is 99"),
        (("exits", "classifier"), "voting", "classifier is 'voting'"),
        (("exits", "temperatures"), [1.0], "expected 2, one for each look"),
        (("exits", "temperatures"), [1.0, 0.0], "temperatures must be"),
        (("exits", "policy_memory"), -1, "policy_memory is -1"),
        (("exits", "parts", 0, "policy"), "nobody", "part 'nobody' is not among the programs"),
        (("exits", "parts", 0, "classifiers"), ["classifier"], "a classifier for each look"),
        (("exits", "settings", 0, "thresholds"), [], "0 thresholds, expected 1"),
        (("exits", "settings", 0, "thresholds"), [-1.0], "thresholds must be 0 to 2"),
        (("exits", "settings", 0, "shares"), [0.5, 0.2], "add up to 1"),
        (("exits", "settings", 0, "expected_looks"), 9.0, "expected_looks"),
        (("exits", "settings", 0, "max_looks"), 0, "max_looks is 0"),
        (("programs", 1, "precision"), "int8", "different engines or precisions"),
    ],
)
def test_impossible_exits_are_refused(tmp_path: Path, path: tuple[Any, ...], value: Any, message: str) -> None:
    values = focus_values()
    target: Any = values
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(BundleError, match=message):
        Bundle.load(focus_bundle(tmp_path / "a.bundle", values))


@pytest.fixture
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An engine whose programs give arrays of the right shapes; records what is opened."""
    opened: list[str] = []
    memory = np.zeros((1, 2), "f4")
    outputs = {
        "glance": [np.zeros((1, 5), "f4"), np.zeros((1, 1, 2, 2), "f4")],
        "policy": [np.zeros((1, 2), "f4"), memory],
        "focus": [np.zeros((1, 5), "f4"), np.zeros((1, 1, 2, 2), "f4")],
        "classifier": [np.array([[0.0, 2.0, 0.0]], "f4"), np.zeros((1, 1), "f4")],
    }

    def open_program(bundle: Bundle, program: Any, options: BackendOptions) -> Any:
        opened.append(program.name)
        return lambda *arrays: outputs[program.name]

    monkeypatch.setitem(OPENERS, "fake", open_program)
    return opened


class FakeInner:
    """The engine's own backend, which early exits do not use."""

    name = "fake"
    closed = False

    def load(self, point: Any) -> Any:
        raise AssertionError("only points without exits are loaded here")

    def close(self) -> None:
        self.closed = True


def test_points_share_their_programs_and_warm_up_before_the_first_frame(tmp_path: Path, fake_engine: list[str]) -> None:
    values = focus_values()
    values["exits"]["settings"].append({**values["exits"]["settings"][0], "name": "hasty", "thresholds": [0.1]})
    values["points"].append({**values["points"][0], "name": "x1", "exit": "hasty"})
    bundle = Bundle.load(focus_bundle(tmp_path / "a.bundle", values))
    inner = FakeInner()
    backend = EarlyExitBackend(inner, bundle, BackendOptions())
    patient, hasty = (backend.load(point) for point in bundle.manifest.points)
    assert isinstance(patient, EarlyExitRunner)
    assert isinstance(hasty, EarlyExitRunner)
    assert sorted(fake_engine) == ["classifier", "focus", "glance", "policy"]
    assert patient.look_clock.next_look_s(0.0) > 0.0
    hasty.close()
    assert best(patient.run()) == 1
    hasty.run()
    assert (patient.last.looks, hasty.last.looks) == (2, 1)
    backend.close()
    assert inner.closed


def test_programs_that_do_not_fit_together_are_one_sentence(
    tmp_path: Path, fake_engine: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OPENERS, "fake", lambda bundle, program, options: lambda *arrays: [np.zeros((1, 5), "f4")])
    bundle = Bundle.load(focus_bundle(tmp_path / "a.bundle"))
    with pytest.raises(BackendError, match=r"point 'x2': its programs do not fit together.*make the bundle again"):
        EarlyExitBackend(FakeInner(), bundle, BackendOptions()).load(bundle.manifest.points[0])


def test_the_null_backend_runs_such_a_bundle_and_the_pipeline_hands_the_deadline_on(tmp_path: Path) -> None:
    from edge_runtime.budget import Budget
    from edge_runtime.controller import Controller, LadderPoint
    from edge_runtime.pipeline import Pipeline

    bundle = Bundle.load(focus_bundle(tmp_path / "a.bundle"))
    made, _, clock = runner([0.5] * 4)
    made.warm_up()

    class Resident:
        names = frozenset({"x2"})

        def runner(self, point: str) -> EarlyExitRunner:
            return made

    controller = Controller([LadderPoint("x2", 0.5, 10.0)])
    pipeline = Pipeline(bundle, Resident(), controller, clock)  # type: ignore[arg-type]
    frame = Frame(np.zeros((SIDE, SIDE, 3), np.uint8), 0, clock.now_s)
    result = pipeline.process(frame, Budget(deadline_ms=25.0), Readings(0.0))
    assert made.last is not None
    assert made.last.looks == 2  # two looks of 10 ms fit 95 % of 25 ms, three do not
    assert result.on_time
