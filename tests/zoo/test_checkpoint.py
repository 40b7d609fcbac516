"""Checkpoints: a file of plain values that is whole or absent."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from zoo.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from zoo.models import create
from zoo.recipe import Recipe

RECIPE = Recipe(model_options={"width_mult": 0.25, "small_input": True}, widths=(0.5, 1.0), resolutions=(16,))


def checkpoint() -> Checkpoint:
    model = create(RECIPE.model, num_classes=2, **RECIPE.model_options)
    model.norm_bank.entries = {"key": {"stem.1": (torch.ones(8), torch.full((8,), 2.0))}}
    rows = [{"width": 1.0, "resolution": 16, "select_accuracy": 0.5}]
    return Checkpoint(model.state_dict(), RECIPE.to_dict(), ["cat", "dog"], accuracy=rows)


def test_a_checkpoint_survives_its_file(tmp_path: Path) -> None:
    saved = checkpoint()
    save_checkpoint(tmp_path / "m.pt", saved)
    loaded = load_checkpoint(tmp_path / "m.pt")
    assert (loaded.recipe, loaded.classes, loaded.accuracy) == (saved.recipe, saved.classes, saved.accuracy)
    model = loaded.build()
    assert not model.training
    assert torch.equal(model.stem[0].weight, saved.model["stem.0.weight"])
    assert model.norm_bank.entries["key"]["stem.1"][1].tolist() == [2.0] * 8
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt"]


class Intruder:
    """Would run when unpickled."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("intruder-was-here"),))


def _missing(path: Path) -> None:
    pass


def _folder(path: Path) -> None:
    path.mkdir()


def _cut_off(path: Path) -> None:
    save_checkpoint(path, checkpoint())
    path.write_bytes(path.read_bytes()[:2000])


def _text(path: Path) -> None:
    path.write_text("not a checkpoint")


def _code(path: Path) -> None:
    path.write_bytes(pickle.dumps(Intruder()))


def _code_in_torch_file(path: Path) -> None:
    torch.save({"format": 1, "model": Intruder()}, path)


def _other_values(path: Path) -> None:
    torch.save([1, 2, 3], path)


def _other_format(path: Path) -> None:
    torch.save({"format": 99, "model": {}}, path)


def _fields_missing(path: Path) -> None:
    torch.save({"format": 1, "model": {}}, path)


def _fields_unknown(path: Path) -> None:
    torch.save({"format": 1, "model": {}, "recipe": {}, "classes": [], "colour": "red"}, path)


@pytest.mark.parametrize(
    "damage",
    [_missing, _folder, _cut_off, _text, _code, _code_in_torch_file, _other_values, _other_format]
    + [_fields_missing, _fields_unknown],
)
def test_what_is_not_a_checkpoint_is_refused_in_a_sentence(tmp_path: Path, damage, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "m.pt"
    damage(path)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert len(message) < 300
    assert not (tmp_path / "intruder-was-here").exists()


def test_a_full_disk_leaves_the_old_checkpoint_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    save_checkpoint(path, checkpoint())
    before = path.read_bytes()
    (tmp_path / "m.pt.part").symlink_to("/dev/full")  # a device that has no space left
    with pytest.raises(CheckpointError, match=r"m\.pt: cannot be written.*No space left"):
        save_checkpoint(path, checkpoint())
    assert path.read_bytes() == before


def test_weights_of_another_model_are_refused_in_a_sentence(tmp_path: Path) -> None:
    wrong = checkpoint()
    wrong.classes = ["cat", "dog", "horse"]
    with pytest.raises(CheckpointError, match="do not fit"):
        wrong.build()
