"""python -m converters family: its arguments, and one sentence for each thing that cannot be used."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from colour_models import LABELS, colour_model, save, write_labels, write_pictures

from converters.__main__ import ERRORS, main
from converters.errors import ConversionError
from converters.family_command import input_sizes, three
from converters.family_net import read_net
from converters.family_pictures import PictureFiles, label_pictures, read_answers, split_pictures
from edge_runtime.bundle import Bundle
from zoo.pictures import DataError, Split

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *models: str, **changes: str) -> Result:
    """The command on models of a folder."""
    options = {
        "--labels": "labels.txt", "--data": "pictures", "--out": "a.bundle", "--precision": "fp32",
        "--resolutions": "16",
    }  # fmt: skip
    options |= {f"--{name}": value for name, value in changes.items()}
    paths = {"--labels", "--data", "--out", "--answers", "--calibration"}
    texts = [t for name, v in options.items() for t in (name, str(folder / v) if name in paths else v)]
    return CliRunner().invoke(main, ["family", *(str(folder / model) for model in models), *texts])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "pictures", each=6)
    write_labels(tmp_path)
    save(tmp_path, "a")
    return tmp_path


def test_the_command_prints_a_table_and_makes_a_bundle(folder: Path) -> None:
    save(folder, "b", blind=True, layers=2)
    done = run(folder, "a.onnx", "b.onnx", precision="fp32,int8", resolutions="16,24")
    assert done.exception is None, done.output
    assert "the one set of pictures was cut by a fixed seed: 3 calib, 8 select, 7 test" in done.output
    assert "a-r24-int8" in done.output
    assert "wrote" in done.output
    manifest = Bundle.load(folder / "a.bundle").manifest
    assert manifest.labels == LABELS
    assert manifest.provenance["models"] == "a.onnx, b.onnx"


def truncated(folder: Path) -> None:
    content = (folder / "a.onnx").read_bytes()
    (folder / "a.onnx").write_bytes(content[: len(content) // 2])


def with_external_data(folder: Path, location: str, keep: bool) -> None:
    model = colour_model()
    onnx.save(model, folder / "a.onnx", save_as_external_data=True, location="a.data", size_threshold=0)
    model = onnx.load(folder / "a.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (folder / "a.onnx").write_bytes(model.SerializeToString())
    if not keep:
        (folder / "a.data").unlink()


def linked_data(folder: Path) -> None:
    with_external_data(folder, "b.data", keep=True)
    (folder.parent / "secret").write_bytes((folder / "a.data").read_bytes())
    (folder / "b.data").symlink_to(folder.parent / "secret")


def broken_picture(folder: Path) -> None:
    (folder / "pictures" / "red" / "00.png").write_bytes(b"no picture")


def calibration(folder: Path, broken: bool) -> None:
    (folder / "calib").mkdir()
    if broken:
        (folder / "calib" / "a.jpg").write_bytes(b"no picture")


MISTAKES: dict[str, tuple[Callable[[Path], object], dict[str, str], str]] = {
    "corrupt ONNX": (truncated, {}, "corrupt or no ONNX file|is not valid ONNX"),
    "text": (lambda f: (f / "a.onnx").write_text("hello"), {}, "corrupt or no ONNX file"),
    "empty": (lambda f: (f / "a.onnx").write_bytes(b""), {}, "corrupt or no ONNX file"),
    "no model": (lambda f: (f / "a.onnx").unlink(), {}, "cannot be read: No such file"),
    "unknown operator": (lambda f: save(f, "a", odd_operator=True), {}, "operator Sparkle of my.own is unknown"),
    "external data missing": (lambda f: with_external_data(f, "a.data", False), {}, "'a.data' is missing; copy it"),
    "external data above": (lambda f: with_external_data(f, "../a.data", True), {}, "outside the model's folder"),
    "external data elsewhere": (lambda f: with_external_data(f, "/etc/hosts", True), {}, "outside the model's folder"),
    "external data by a link": (linked_data, {}, "a link that leaves the model's folder"),
    "four pictures at a time": (lambda f: save(f, "a", batch=4), {}, "takes 4 pictures at a time"),
    "other labels": (lambda f: write_labels(f, (*LABELS, "black")), {}, "has 3 outputs, but there are 4 labels"),
    "a background class": (lambda f: save(f, "a", classes=4), {}, "has 4 outputs.*background class"),
    "unknown folder": (lambda f: write_labels(f, ("red", "green", "bleu")), {}, "'blue' is none of the labels"),
    "one label": (lambda f: write_labels(f, ("red",)), {}, "holds 1 labels"),
    "broken picture": (broken_picture, {}, "red/00.png is not a readable picture"),
    "no pictures": (lambda f: (f / "empty").mkdir(), {"data": "empty"}, "no pictures found"),
    "calibration empty": (lambda f: calibration(f, False), {"calibration": "calib"}, "calib: no pictures found"),
    "calibration broken": (
        lambda f: calibration(f, True), {"calibration": "calib", "precision": "int8"}, "a.jpg is not a readable",
    ),
    "no resolutions": (lambda f: None, {"resolutions": "b=16"}, "--resolutions names 'b', expected one of a"),
    "no size": (lambda f: None, {"resolutions": "big"}, "'big' is no size"),
    "no number": (lambda f: None, {"mean": "grey"}, "--mean is 'grey', expected one number or three"),
    "a profile for ExecuTorch": (lambda f: None, {"profile": "generic-arm64"}, "runs on onnxruntime only"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_used_is_refused_in_one_sentence_and_nothing_is_left(folder: Path, mistake: str) -> None:
    prepare, changes, message = MISTAKES[mistake]
    prepare(folder)
    done = run(folder, "a.onnx", **changes)
    assert isinstance(done.exception, ERRORS), done.output
    with pytest.raises(type(done.exception), match=message):
        raise done.exception
    assert "\n" not in str(done.exception)
    assert not [p for p in folder.iterdir() if ".bundle" in p.name]


def test_a_missing_package_is_one_sentence(folder: Path) -> None:
    (folder / "absent").mkdir()
    (folder / "absent" / "onnx.py").write_text("raise ModuleNotFoundError('No module named onnx', name='onnx')\n")
    done = subprocess.run(
        [sys.executable, "-m", "converters", "family", "a.onnx"], cwd=ROOT, capture_output=True, text=True, timeout=200,
        env={"PYTHONPATH": str(folder / "absent"), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: onnx is not installed; it is needed to convert models: pip install 'edge-runtime[convert]'\n"
    )


def test_pictures_of_a_flat_zip_carry_the_number_of_their_class(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "flat", each=3, flat=True)
    with zipfile.ZipFile(tmp_path / "flat.zip", "w") as archive:
        for path in root.iterdir():
            archive.write(path, path.name)
    source = PictureFiles(tmp_path / "flat.zip")
    assert label_pictures(source, LABELS).labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert source.picture(source.names[4])[..., 1].mean() > 120


def test_answers_name_the_class_of_each_picture(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "flat", each=1, flat=True)
    names = sorted(p.name for p in root.iterdir())
    (tmp_path / "a.csv").write_text(f"file,label\n{names[0]},blue\n{names[1]},0\n{names[2]},Green\n")
    answers = read_answers(tmp_path / "a.csv")
    assert label_pictures(PictureFiles(root), LABELS, answers).labels.tolist() == [2, 0, 1]
    del answers[names[1]]
    with pytest.raises(DataError, match="has no answer"):
        label_pictures(PictureFiles(root), LABELS, answers)


def test_a_label_of_two_outputs_needs_its_number(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "tree", each=1)
    with pytest.raises(DataError, match="'red' is the label of several outputs"):
        label_pictures(PictureFiles(root), ("red", "green", "blue", "red"))


def test_splits_share_no_picture_and_are_the_same_every_time() -> None:
    whole = Split(tuple(f"a/{i}.png" for i in range(1000)), np.zeros(1000, np.int64))
    first, how = split_pictures(whole)
    again, _ = split_pictures(whole)
    assert {n: len(s) for n, s in first.items()} == {"calib": 128, "select": 436, "test": 436}
    assert sum(len(set(s.names)) for s in first.values()) == len({n for s in first.values() for n in s.names}) == 1000
    assert all(first[n].names == again[n].names for n in first)
    assert "cut by a fixed seed" in how


def test_a_test_folder_is_kept_for_test() -> None:
    names = tuple(f"{part}/a/{i}.png" for part in ("test", "train") for i in range(20))
    splits, how = split_pictures(Split(names, np.zeros(40, np.int64)))
    assert set(splits["test"].names) == set(names[:20])
    assert len(splits["calib"]) + len(splits["select"]) == 20
    assert "the test folder is kept" in how


def test_sizes_may_differ_between_models_and_a_fixed_model_has_its_own(tmp_path: Path) -> None:
    nets = [read_net(save(tmp_path, "a")), read_net(save(tmp_path, "b")), read_net(save(tmp_path, "c", size=20))]
    found = input_sizes(nets, ["16,24x32", "b=40"])
    assert found == {"a": ((16, 16), (24, 32)), "b": ((40, 40),), "c": ((20, 20),)}
    with pytest.raises(ConversionError, match="a: takes pictures of any size"):
        input_sizes(nets[:1], [])
    with pytest.raises(ConversionError, match="c: takes only 20x20"):
        input_sizes(nets, ["16", "c=32"])


def test_mean_and_std_are_one_number_or_three() -> None:
    assert three("--mean", "127") == (127.0, 127.0, 127.0)
    assert three("--mean", "1,2,3.5") == (1.0, 2.0, 3.5)
    with pytest.raises(ConversionError, match="--std is '0'"):
        three("--std", "0")
