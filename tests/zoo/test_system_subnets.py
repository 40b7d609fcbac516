"""Every image system as a supernet: widths, resolutions, norm bank, materialising, gradients."""

from __future__ import annotations

import pytest
import torch
from small_systems import CLASSES, SIDE, SYSTEMS, Small, build, calibrated

import zoo
from zoo.models import MODELS
from zoo.slim_layers import SlimLayer

TESTED_ELSEWHERE = {"MobileNetV1"}  # test_slim_net.py
PARAMETRISED = pytest.mark.parametrize("small", SYSTEMS, ids=lambda small: small.name)


@PARAMETRISED
@torch.no_grad()
def test_a_materialised_subnet_equals_the_supernet_at_its_point(small: Small) -> None:
    model = calibrated(small, (1.0, small.narrow), (SIDE, 48))
    outputs = []
    for side in (SIDE, 48):
        x = torch.randn(3, 3, side, side)
        for width in (1.0, small.narrow):
            plain = zoo.materialise(model, width=width, resolution=side)
            assert not any(isinstance(module, SlimLayer) for module in plain.modules())
            outputs.append(plain(x))
            torch.testing.assert_close(outputs[-1], model(x, width), rtol=1e-4, atol=1e-5)
            assert float(outputs[-1].std(0).mean()) > 1e-2
    assert not torch.allclose(outputs[0], outputs[1], atol=1e-3)


@PARAMETRISED
def test_a_narrow_subnet_holds_fewer_parameters(small: Small) -> None:
    model = build(small)
    full, narrow = (zoo.materialise(model, width=width) for width in (1.0, small.narrow))
    counts = [sum(p.numel() for p in plain.parameters()) for plain in (full, narrow)]
    assert counts[0] == sum(p.numel() for p in model.parameters())
    assert counts[1] < 0.7 * counts[0]


@PARAMETRISED
def test_training_reaches_every_parameter_at_full_width_and_only_the_active_ones_below(small: Small) -> None:
    model = build(small).train()
    x = torch.randn(4, 3, SIDE, SIDE)
    model(x, 1.0).square().mean().backward()
    untouched = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert untouched == list(small.unreached)
    model.zero_grad()
    model(x, small.narrow).square().mean().backward()
    touched = sum(int((p.grad != 0).sum()) for p in model.parameters() if p.grad is not None)
    assert 0 < touched <= sum(p.numel() for p in zoo.materialise(model, width=small.narrow).parameters())


@PARAMETRISED
@torch.no_grad()
def test_features_have_the_channels_and_strides_that_the_network_states(small: Small) -> None:
    model = build(small)
    features = model.forward_features(torch.randn(1, 3, SIDE, SIDE))
    stated = [(info.channels, SIDE // info.stride) for info in model.feature_info]
    assert [(f.shape[1], f.shape[2]) for f in features] == stated
    assert model.forward_head(model.forward_until(torch.randn(1, 3, SIDE, SIDE), len(model.stages))).shape[1] == CLASSES


def test_every_family_of_the_table_has_a_small_version_here() -> None:
    ours = [name for name, made in MODELS.items() if getattr(made, "func", made).__module__.startswith("zoo.")]
    families = {constructor_family(name) for name in ours}  # other tests add a network of their own to the table
    assert families - TESTED_ELSEWHERE == {constructor_family(small.name) for small in SYSTEMS}


def constructor_family(name: str) -> str:
    """The paper a variant belongs to: the class, and for a ResNet the file of its core or stage."""
    constructor = MODELS[name]
    base = getattr(constructor, "func", constructor)
    plan = getattr(constructor, "keywords", {}).get("plan")
    if plan is None:
        return base.__name__
    slots = (plan.core, plan.stage, plan.gate, plan.convolution)
    return "+".join(sorted({getattr(slot, "func", slot).__module__ for slot in slots if slot is not None}))
