"""python -m zoo: what a user sees, and training by two processes."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

import zoo
from zoo.checkpoint import load_checkpoint
from zoo.pictures import PictureSource
from zoo.recipe import Recipe
from zoo.refit import tune_checkpoint
from zoo.train import train

ROOT = Path(zoo.__file__).resolve().parents[1]
RECIPE = """
model_options = { width_mult = 0.25, small_input = true }
widths = [0.25, 1.0]
resolutions = [16, 12]
epochs = 1
batch_size = 12
learning_rate = 0.05
ema_teacher = 0.9
augmentation = "strong"
calib_pictures = 3
select_pictures = 6
norm_pictures = 30
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """python -m zoo in this process: exit code, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["zoo", *map(str, arguments)])
    monkeypatch.delitem(sys.modules, "zoo.__main__", raising=False)
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("zoo", run_name="__main__")
    output = capsys.readouterr()
    return int(caught.value.code or 0), output.out, output.err


def test_training_writes_a_model_whose_points_can_be_shown(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recipe: Path,
    shapes_folder: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    arguments = ("train", "--recipe", recipe, "--data", shapes_folder, "--out", out, "--threads", 1, "--seed", 3)
    code, output, _ = run(monkeypatch, capsys, *arguments)
    assert code == 0
    assert "epoch 1: loss " in output
    assert f"wrote {out / 'model.pt'}" in output
    checkpoint = load_checkpoint(out / "model.pt")
    assert checkpoint.recipe["seed"] == 3

    code, output, _ = run(monkeypatch, capsys, "points", out / "model.pt")
    assert code == 0
    lines = output.splitlines()
    assert len(lines) == 4
    assert lines[-1].startswith("width 0.25   12 px")
    assert all("select 0." in line or "select 1." in line for line in lines)

    ends, mixed = (out / "model.pt", out / "model.pt"), tmp_path / "mixed"
    given = ("--share", 0.5, "--data", shapes_folder, "--threads", 1, "--out", mixed)
    code, output, _ = run(monkeypatch, capsys, "mix", *ends, *given)
    assert code == 0
    assert output == f"wrote {mixed / 'model.pt'}\n"
    assert load_checkpoint(mixed / "model.pt").accuracy == checkpoint.accuracy

    code, _, errors = run(monkeypatch, capsys, "points", out / "last.pt")
    assert code == 2
    assert (
        errors == f"error: {out / 'last.pt'}: has no operating points yet; finish the training, which writes model.pt\n"
    )


def test_the_list_names_every_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = run(monkeypatch, capsys, "list")
    assert code == 0
    assert set(output.split()) == set(zoo.MODELS)


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("no recipe", "nothing.toml: not a readable recipe"),
        ("unknown key", "unknown key 'epoch'"),
        ("no data", "nothing: expected a folder of pictures or a zip"),
        ("empty folder", "no pictures found"),
        ("too few", "cannot give 3 for calib and 6 for select"),
        ("broken picture", "is not a readable picture"),
        ("out is a file", "cannot be made into a folder"),
        ("no such device", "device 'abacus' cannot be used here"),
        ("no checkpoint", "no such checkpoint"),
        ("tune no checkpoint", "nothing.pt: no such checkpoint"),
        ("tune an unfinished one", "last.pt: expected a finished checkpoint"),
        ("mix no checkpoint", "nothing.pt: no such checkpoint"),
    ],
)
def test_trouble_is_one_sentence_and_exit_code_two(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recipe: Path,
    shapes_folder: Path,
    tmp_path: Path,
    trouble: str,
    said: str,
) -> None:
    arguments = troubled_arguments(trouble, recipe, shapes_folder, tmp_path)
    code, output, errors = run(monkeypatch, capsys, *arguments)
    assert code == 2
    assert errors.startswith("error: ")
    assert said in errors
    assert errors.count("\n") == 1
    assert "Traceback" not in output + errors


def troubled_arguments(trouble: str, recipe: Path, data: Path, folder: Path) -> list[object]:
    """A command line in which one thing is wrong."""
    if trouble == "no checkpoint":
        return ["points", folder / "nothing.pt"]
    if trouble == "mix no checkpoint":
        return [
            "mix",
            folder / "nothing.pt",
            folder / "other.pt",
            "--share",
            0.5,
            "--data",
            data,
            "--out",
            folder / "x",
        ]
    if trouble.startswith("tune"):
        path = folder / "nothing.pt"
        if trouble == "tune an unfinished one":
            path = train(Recipe.from_file(recipe), PictureSource(data), folder / "some", stop_after_epochs=1)
        return ["tune-points", path, "--data", data, "--out", folder / "tuned"]
    out, more = folder / "run", ["--device", "abacus"] if trouble == "no such device" else []
    if trouble == "no recipe":
        recipe = folder / "nothing.toml"
    elif trouble == "unknown key":
        recipe.write_text("epoch = 3\n")
    elif trouble == "out is a file":
        out.write_text("")
    else:
        data = troubled_pictures(trouble, data, folder)
    return ["train", "--recipe", recipe, "--data", data, "--out", out, *more]


def troubled_pictures(trouble: str, data: Path, folder: Path) -> Path:
    """The pictures, if nothing is wrong with them, else others."""
    if trouble == "no data":
        data = folder / "nothing"
    elif trouble == "empty folder":
        data = folder / "empty"
        data.mkdir()
    elif trouble == "too few":
        shutil.copytree(data / "test", folder / "few" / "train")
        data = folder / "few"
        for file in list(data.rglob("00[123].png")):
            file.unlink()
    elif trouble == "broken picture":
        data = shutil.copytree(data, folder / "broken")
        for file in (data / "train" / "disc").iterdir():
            file.write_bytes(b"\x89PNG")
    return data


def test_two_processes_train_like_one(recipe: Path, tmp_path: Path) -> None:
    alone, pair = tmp_path / "alone", tmp_path / "pair"
    noise = write_noise(tmp_path / "noise")
    # one step: at random weights, plain grounds leave ReLUs at zero, and rounding of 1e-6 moves the second step by 5 %
    recipe.write_text(RECIPE.replace("batch_size = 12", "batch_size = 36"), encoding="utf-8")
    arguments = ["train", "--recipe", str(recipe), "--data", str(noise), "--out", str(pair), "--threads", "1"]
    processes = start_two(arguments)
    train(Recipe.from_file(recipe), PictureSource(noise), alone)
    for process in processes:
        _, errors = process.communicate(timeout=250)
        assert process.returncode == 0, errors

    ours, theirs = (list(map(json.loads, (out / "log.jsonl").read_text().splitlines())) for out in (alone, pair))
    assert [line["event"] for line in theirs] == ["epoch", "result"]  # one process writes
    assert theirs[0]["loss"] == pytest.approx(ours[0]["loss"], rel=3e-4)  # measured 4e-5
    assert theirs[0]["train_accuracy"] == pytest.approx(ours[0]["train_accuracy"])
    moved, expected = movement(pair), movement(alone)
    assert float(torch.nn.functional.cosine_similarity(moved, expected, dim=0)) > 0.95
    assert float(moved.norm() / expected.norm()) == pytest.approx(1.0, abs=0.1)  # a sum of gradients would give 2


def test_two_processes_share_the_points_out_and_tune_them_as_one_does(shapes_folder: Path, tmp_path: Path) -> None:
    values = {"widths": (0.25, 1.0), "resolutions": (16, 12), "epochs": 1, "batch_size": 12, "point_batch_size": 13}
    small = {"calib_pictures": 3, "select_pictures": 6, "model_options": {"width_mult": 0.25, "small_input": True}}
    source = PictureSource(shapes_folder)
    before = train(Recipe(**values, **small), source, tmp_path / "before")
    given = ["tune-points", str(before), "--data", str(shapes_folder), "--epochs", "2", "--threads", "1", "--out"]
    processes = start_two([*given, str(tmp_path / "pair")])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        tune_checkpoint(before, source, tmp_path / "alone", 2)
    finally:
        torch.set_num_threads(threads)
    for process in processes:
        _, errors = process.communicate(timeout=250)
        assert process.returncode == 0, errors
    pair, alone = (load_checkpoint(tmp_path / name / "model.pt") for name in ("pair", "alone"))
    assert pair.accuracy == alone.accuracy
    banks = [checkpoint.build().norm_bank.entries for checkpoint in (pair, alone)]
    for key, entry in banks[0].items():
        for name, stats in entry.items():
            torch.testing.assert_close(stats, banks[1][key][name], rtol=0, atol=0)
    lines = [json.loads(line) for line in (tmp_path / "pair" / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["points", "points", "tuned", "result"]  # one process writes


def write_noise(root: Path) -> Path:
    """Pictures whose every channel varies: a norm over a plain background divides by almost nothing."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 2)):
        for label in range(3):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                cv2.imwrite(str(folder / f"{index}.png"), draw.integers(0, 256, (16, 16, 3), np.uint8))
    return root


def start_two(arguments: list[str]) -> list[subprocess.Popen[str]]:
    """Two processes of python -m zoo, in the environment that torchrun makes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    job = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [{**job, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    command, pipe = [sys.executable, "-m", "zoo", *arguments], subprocess.PIPE
    return [subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=pipe, stderr=pipe) for env in ranks]


def movement(out: Path) -> Tensor:
    """How training changed the weights, as one vector."""
    checkpoint = load_checkpoint(out / "model.pt")
    torch.manual_seed(checkpoint.recipe["seed"])
    start = zoo.create(checkpoint.recipe["model"], num_classes=3, **checkpoint.recipe["model_options"])
    return torch.cat([(checkpoint.model[k] - p.detach()).flatten() for k, p in start.named_parameters()])
