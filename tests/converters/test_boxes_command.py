"""python -m converters boxes: what it asks the converter for, and one sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_box_training import RECIPE, write_plain_colours

import converters.boxes_command as command
from converters.__main__ import ERRORS, main
from converters.box_task import Detection
from converters.build import BuildRequest
from converters.build_options import OPTIONS
from converters.verification import PointCheck
from zoo.checkpoint import Checkpoint, save_checkpoint
from zoo.recipe import Recipe

MODEL, CLASSES = "detector.pt", ["blue", "green", "red"]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A detector with fresh weights and its pictures, as options."""
    held = Checkpoint(RECIPE.build_model(3).state_dict(), RECIPE.to_dict(), CLASSES)
    save_checkpoint(tmp_path / MODEL, held)
    data = write_plain_colours(tmp_path / "colours")
    return {"--checkpoint": str(tmp_path / MODEL), "--data": str(data), "--out": str(tmp_path / "mine.bundle")}


def run(name: str, options: dict[str, str], *more: str) -> Result:
    return CliRunner().invoke(main, [name, *(text for pair in options.items() for text in pair), *more])


def test_every_option_reaches_the_request(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[BuildRequest] = []

    def note(request: BuildRequest, report: object) -> tuple[Path, list[PointCheck]]:
        requests.append(request)
        return request.target, []

    monkeypatch.setattr(command, "build", note)
    more = ["--precision", "fp32,int8", "--reduce-range", "--max-drop", "0.03", "--threads", "1", "--max-points", "4",
            "--drop-dominated", "--table-step", "0.125", "--force"]  # fmt: skip
    done = run("boxes", files, *more)
    assert done.exit_code == 0, done.output
    assert done.output == f"wrote {files['--out']}: 0 points, 0.00 MB\n"
    [request] = requests
    assert request.kind is Detection
    assert (request.name, request.precisions, request.backends) == ("mine", ("fp32", "int8"), ("onnxruntime",))
    assert (request.quant.reduce_range, request.quant.max_drop, request.threads) == (True, 0.03, 1)
    assert (request.max_points, request.drop_dominated, request.table_step, request.overwrite) == (4, True, 0.125, True)
    assert request.provenance["command"] == (
        f"converters boxes --checkpoint {MODEL} --data colours --out mine.bundle"
    )  # fmt: skip
    assert len(OPTIONS) == 3 + len({"profile", "backend"}) + sum(word.startswith("--") for word in more)


@pytest.mark.parametrize("backend", ["executorch", "onnxruntime,executorch"])
def test_executorch_is_refused_in_a_sentence(files: dict[str, str], backend: str) -> None:
    done = run("boxes", files, "--backend", backend)
    assert isinstance(done.exception, ERRORS)
    assert str(done.exception) == (
        f"--backend is {backend!r}, and detectors are converted for ONNX Runtime alone; give --backend onnxruntime"
    )


def test_a_profile_that_asks_for_executorch_is_refused_unless_the_backend_is_given(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converters.build_choices.importlib.util.find_spec", lambda name: object())
    done = run("boxes", files, "--profile", "generic-arm64")
    assert isinstance(done.exception, ERRORS)
    assert str(done.exception) == (
        "device profile 'generic-arm64' asks for executorch, and detectors are converted for ONNX Runtime alone; "
        "give --backend onnxruntime"
    )
    done = run("boxes", files, "--profile", "generic-arm64", "--backend", "onnxruntime")
    assert "the checkpoint is not calibrated" in str(done.exception)  # it went on


def test_detectors_and_classifiers_are_not_taken_for_each_other(files: dict[str, str], tmp_path: Path) -> None:
    done = run("build", files)
    assert isinstance(done.exception, ERRORS)
    assert str(done.exception) == f"{files['--checkpoint']}: holds a detector; give it to python -m converters boxes"
    save_checkpoint(tmp_path / MODEL, Checkpoint({}, Recipe().to_dict(), CLASSES))
    done = run("boxes", files)
    assert isinstance(done.exception, ERRORS)
    assert str(done.exception) == "checkpoint: holds no detector of boxes; train one with python -m zoo boxes"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--checkpoint": "{tmp}/absent.pt"}, "no such checkpoint"),
        ({"--data": "{tmp}/absent"}, "expected a folder of pictures or a zip of one"),
        ({"--precision": "bf16"}, "--precision is 'bf16', expected fp32 or int8, or fp32,int8"),
        ({"--profile": "absent"}, "absent"),
        ({}, "the checkpoint is not calibrated; finish its training"),
    ],
)
def test_what_cannot_be_used_is_refused(
    files: dict[str, str], tmp_path: Path, change: dict[str, str], message: str
) -> None:
    done = run("boxes", {**files, **{k: v.format(tmp=tmp_path) for k, v in change.items()}})
    assert isinstance(done.exception, ERRORS)
    assert message in str(done.exception)
    assert not (tmp_path / "mine.bundle").exists()
