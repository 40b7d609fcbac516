"""Every image system against facts recorded from its reference implementation (facts/<system>.json)."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from parity import assert_parity, counted

import zoo

SYSTEMS = ("res2net", "sda", "odconv", "hornet", "resformer")
FACTS = {name: json.loads((Path(__file__).parent / "facts" / f"{name}.json").read_text("utf-8")) for name in SYSTEMS}
FINGERPRINTS = {key: row for facts in FACTS.values() for key, row in facts["fingerprints"].items()}
COUNTS = {key: row for facts in FACTS.values() for key, row in facts["counts"].items()}


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_a_variant_gives_the_outputs_of_the_reference(name: str) -> None:
    assert_parity(zoo.create(name), FINGERPRINTS[name])


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_multiply_adds_equal_the_reference(name: str) -> None:
    facts = COUNTS[name]
    shape = (1, 3, facts["resolution"], facts["resolution"])
    assert counted(partial(zoo.create, name), shape) == (facts["params"], facts["madds"])


def test_the_facts_hold_every_published_variant() -> None:
    found = {system: (len(facts["counts"]), len(facts["fingerprints"])) for system, facts in FACTS.items()}
    assert found == {"res2net": (9, 1), "sda": (4, 1), "odconv": (12, 2), "hornet": (8, 2), "resformer": (3, 1)}


def test_se_resnet50_has_the_parameters_that_its_paper_structure_gives() -> None:
    # ResNet-50 plus, for each block of C output channels, C*C/16 twice, C and C/16 biases
    squeezed = sum(n * (c * c // 8 + c + c // 16) for c, n in ((256, 3), (512, 4), (1024, 6), (2048, 3)))
    with torch.device("meta"):
        counts = [sum(p.numel() for p in zoo.create(name).parameters()) for name in ("resnet50", "se_resnet50")]
    assert counts[1] - counts[0] == squeezed
