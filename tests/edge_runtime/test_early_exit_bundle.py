"""Bundles with early exits: what is read, what is refused, and how an engine and the pipeline run them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import file_values, manifest_values, write_bundle
from exit_fakes import PATCH, SIDE, best, runner

from edge_runtime.backends import BackendOptions
from edge_runtime.bundle import Bundle
from edge_runtime.early_exit import (
    EarlyExitRunner,
)
from edge_runtime.early_exit_backend import OPENERS, EarlyExitBackend
from edge_runtime.errors import BackendError, BundleError
from edge_runtime.frame import Frame
from edge_runtime.readings import Readings


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


def test_small_parts_of_an_int8_set_may_stay_float(tmp_path: Path) -> None:
    values = focus_values()
    values["programs"][0]["precision"] = "int8"
    manifest = Bundle.load(focus_bundle(tmp_path / "a.bundle", values)).manifest
    assert [p.precision for p in manifest.programs] == ["int8", "fp32", "fp32", "fp32"]


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
        (("programs", 1, "backend"), "onnxruntime", "different engines"),
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
    assert patient.look_clock.risk(0.0) == 1.0
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
    assert result.trail is not None
    assert (result.trail.looks, result.trail.max_looks, result.trail.reason) == (2, 4, "out of time")
    assert result.trail.boxes_xyxy == ((8.0, 0.0, 16.0, 8.0),)  # the fake's place: top, far right
