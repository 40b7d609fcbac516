"""The tables of models: every recorded variant is there, once, and recipes take pictures' networks alone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import zoo
from zoo.__main__ import main
from zoo.models import CLIP_MODELS, DENSE_MODELS, MODELS, PATH_MODELS, all_models
from zoo.recipe import Recipe, RecipeError

FACTS = Path(__file__).parent / "facts"
BY_PARTS = "gfnet"  # Glance and Focus is compared part by part


def recorded() -> set[str]:
    """Variants of which outputs or counts are recorded; "@" adds a width and a resolution."""
    names: set[str] = set()
    for path in FACTS.glob("*.json"):
        facts = json.loads(path.read_text("utf-8"))
        if path.stem != BY_PARTS:
            names |= {name.partition("@")[0] for kind in ("fingerprints", "counts") for name in facts[kind]}
    return names


def test_every_recorded_variant_can_be_created() -> None:
    assert len(recorded()) >= 80
    assert recorded() - set(all_models()) == set()


def test_a_name_is_in_one_table() -> None:
    counted = Counter(name for table in (MODELS, CLIP_MODELS, DENSE_MODELS, PATH_MODELS) for name in table)
    assert [name for name, count in counted.items() if count > 1] == []
    assert set(counted) == set(all_models())


@pytest.mark.parametrize("name", ["x3d_xs", "tf_efficientdet_d0", "SFNet-Lite-R18", "rsbnet"])
def test_create_knows_all_tables(name: str) -> None:
    with torch.device("meta"):
        model = zoo.create(name, num_classes=3)
    assert isinstance(model, torch.nn.Module)


def test_an_unknown_name_is_answered_with_all_names() -> None:
    with pytest.raises(ValueError, match=r"model 'x3d_tiny' is unknown; the zoo has .*x3d_l, x3d_m"):
        zoo.create("x3d_tiny")


def test_a_recipe_refuses_networks_for_clips() -> None:
    with pytest.raises(RecipeError, match="model is 'x3d_s', expected one of"):
        Recipe(model="x3d_s")


def test_the_list_tells_recipes_models_or_all() -> None:
    short = CliRunner().invoke(main, ["list"]).output.split()
    long = CliRunner().invoke(main, ["list", "--all"]).output.split()
    assert (short, long) == (sorted(MODELS), sorted(all_models()))
