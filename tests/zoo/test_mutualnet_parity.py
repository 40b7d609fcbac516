"""The slimmable networks against facts recorded from a reference implementation (facts/mutualnet.json)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from parity import differences, fill_parameters, fill_statistics, fingerprint, hash_tensor, shape_facts
from torch import nn

import zoo
from zoo.madds import count_madds

FACTS = json.loads((Path(__file__).parent / "facts" / "mutualnet.json").read_text(encoding="utf-8"))
POINTS: dict[tuple[str, float], dict[int, dict]] = {}
for key, row in FACTS["counts"].items():
    name, width, resolution = key.split("@")
    POINTS.setdefault((name, float(width[1:])), {})[int(resolution[1:])] = row


@pytest.mark.parametrize("key", FACTS["fingerprints"])
def test_a_network_gives_the_outputs_of_the_reference(key: str) -> None:
    facts = FACTS["fingerprints"][key]
    model = zoo.create(key.split("@")[0])
    assert {k: facts[k] for k in shape_facts(model)} == shape_facts(model)
    fill_parameters(model)
    plain = zoo.materialise(model, width=facts["width"])
    fill_statistics(plain)
    assert sum(p.numel() for p in plain.parameters()) == facts["active_params"]
    expected = facts["fingerprint"]
    assert differences(fingerprint(plain, expected["inputs"]), expected["outputs"]) == []


@pytest.mark.parametrize(("name", "width"), POINTS)
def test_multiply_adds_equal_the_reference_at_every_resolution(name: str, width: float) -> None:
    with torch.device("meta"):  # shapes without numbers: nothing is computed
        model = zoo.create(name)
        plain = zoo.materialise(model, width=width)
        found = {r: count_madds(plain, (1, 3, r, r)) for r in POINTS[name, width]}
    assert found == {r: row["madds"] for r, row in POINTS[name, width].items()}
    assert {sum(p.numel() for p in model.parameters())} == {row["params"] for row in POINTS[name, width].values()}


def test_the_reference_holds_all_fifty_six_points() -> None:
    assert sum(map(len, POINTS.values())) == 56


def test_hashed_numbers_do_not_depend_on_axes_of_size_one() -> None:
    assert torch.equal(hash_tensor((8, 4, 1, 1)).flatten(), hash_tensor((8, 4)).flatten())
    assert not torch.equal(hash_tensor((8, 4)), hash_tensor((4, 8)).reshape(8, 4))
    assert not torch.equal(hash_tensor((8,), "m"), hash_tensor((8,), "v"))


@pytest.mark.parametrize("change", ["scale", "epsilon", "activation"])
def test_the_fingerprint_sees_a_wrong_layer(change: str) -> None:
    key = "mobilenet_v2@w1.0@r224"
    model = zoo.create("mobilenet_v2")
    fill_parameters(model)
    plain = zoo.materialise(model, width=1.0)
    fill_statistics(plain)
    _damage(plain, change)
    expected = FACTS["fingerprints"][key]["fingerprint"]
    assert differences(fingerprint(plain, expected["inputs"]), expected["outputs"])


def _damage(plain: nn.Module, change: str) -> None:
    if change == "epsilon":
        for norm in (m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.eps = 1e-1
    elif change == "activation":
        name = next(n for n, m in plain.named_modules() if isinstance(m, nn.ReLU6))
        plain.set_submodule(name, nn.Identity())
    else:
        plain.stages[1].register_forward_pre_hook(lambda module, inputs: (inputs[0] * 0.9,))
