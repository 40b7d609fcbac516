"""Glance and Focus: its parts against recorded facts, its multiply-adds against a hand count, its looks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import differences, fill_parameters, fill_statistics, fingerprint, shape_facts
from torch import nn

import zoo
from zoo.focus_patches import CentrePlaces, PolicyPlaces, RandomPlaces
from zoo.gfnet import VARIANTS, Design, GFNet, create_gfnet, step_madds
from zoo.gfnet_parts import ENTRY, ConcatenatingClassifier, Encoder, PatchPolicy, RecurrentClassifier
from zoo.madds import count_madds
from zoo.slim_layers import SlimError, SlimLayer

FACTS = json.loads((Path(__file__).parent / "facts" / "gfnet.json").read_text("utf-8"))
COUNTS: dict[str, dict[str, Any]] = FACTS["counts"]
TINY = Design(
    "mobilenet_v1", 16, 3, 48, classifier="recurrent", policy_hidden=8, classifier_hidden=8,
    backbone_options={"width_mult": 0.25, "small_input": True},
)  # fmt: skip


def part(name: str) -> nn.Module:
    """The component that a fact belongs to."""
    kind, _, rest = name.partition("_")
    if kind == "encoder":
        return Encoder(zoo.create(rest))
    design = VARIANTS[rest]
    model = create_gfnet(rest) if design.classifier == "recurrent" else create_gfnet(rest, steps=5)
    return model.policy if kind == "policy" else model.classifier


def numbers(text: list[str] | str) -> list[tuple[int, ...]]:
    """Shapes of one picture from "960x3x3" or ["1280", "1280"]."""
    return [(1, *map(int, t.split("x"))) for t in ([text] if isinstance(text, str) else text)]


@pytest.mark.parametrize("name", COUNTS)
def test_each_component_has_the_recorded_size(name: str) -> None:
    facts = COUNTS[name]
    inputs = [shape for entry in [facts["input"]] for shape in numbers(entry)]
    with torch.device("meta"):
        module = part(name).eval()
        madds = count_madds(module, *inputs)
    assert (sum(p.numel() for p in module.parameters()), madds) == (facts["params"], facts["madds"])


@pytest.mark.parametrize("name", FACTS["fingerprints"])
def test_each_component_gives_the_recorded_outputs(name: str) -> None:
    facts = FACTS["fingerprints"][name]
    module = part(name)
    if isinstance(module, ConcatenatingClassifier):  # the reference builds five layers and uses two
        module = ConcatenatingClassifier(1280, 1000, 3)
        assert shape_facts(module)["squeezed_sha256"] == facts["used_squeezed_sha256"]
    else:
        assert shape_facts(module)["squeezed_sha256"] == facts["squeezed_sha256"]
    fill_parameters(module)
    fill_statistics(module)
    expected = facts["fingerprint"]
    assert differences(fingerprint(module, expected["inputs"]), expected["outputs"]) == []


def test_the_facts_hold_every_published_variant() -> None:
    assert (len(COUNTS), len(FACTS["fingerprints"])) == (20, 3)


def test_multiply_adds_of_each_step_equal_a_hand_count() -> None:
    # MobileNetV3 1.0 at 96 pixels, by the recorded parts: encoder, policy without its critic, linear layers
    encoder, policy = 41_780_160, 744_192 - 256
    first = encoder + 1280 * 1000
    second = first + policy + encoder + 2 * 1280 * 1000
    assert step_madds(VARIANTS["mobilenetv3_large_100_96"]) == [
        first, second, second + policy + encoder + 3 * 1280 * 1000,
    ]  # fmt: skip
    # ResNet-50 at 96 pixels: a GRU of 2048 inputs and 1024 states answers at every look
    encoder, policy, answer = 750_698_496, 46_140_416 - 1024, 3 * 1024 * (2048 + 1024) + 1024 * 1000
    steps = [encoder + answer + count * (encoder + policy + answer) for count in range(5)]
    assert step_madds(VARIANTS["resnet50_96"]) == steps


def test_a_narrow_glance_costs_less_and_each_look_costs_more() -> None:
    full = step_madds(TINY)
    narrow = step_madds(dataclasses.replace(TINY, widths=(0.5, 1.0), shared=True))
    assert len(full) == TINY.steps
    assert full[0] < full[1] < full[2]
    assert narrow[0] < full[0]
    assert narrow[2] - narrow[1] == full[2] - full[1]


def calibrated(design: Design = TINY, classes: int = 4) -> GFNet:
    """A network in eval mode whose norms have statistics of random pictures and differ by encoder."""
    torch.manual_seed(0)
    model = GFNet(design, classes).eval()
    for encoder in model.encoders:
        recorder: dict[str, Any] = {}
        encoder(2.0 * torch.randn(8, 3, design.patch, design.patch) + 1.0, recorder)
        encoder.norms.entries = {ENTRY: {k: (m.detach(), v.detach()) for k, (m, v) in recorder.items()}}
    return model


@torch.no_grad()
@pytest.mark.parametrize("classifier", ["recurrent", "concatenating"])
def test_a_run_gives_an_answer_after_each_look(classifier: str) -> None:
    model = calibrated(dataclasses.replace(TINY, classifier=classifier))
    glances, pictures = torch.randn(5, 3, 16, 16), torch.randn(5, 3, 48, 48)
    looks = model.looks(glances, pictures, PolicyPlaces(model.policy))
    assert [look.logits.shape for look in looks] == [(5, 4)] * 3
    assert looks[0].place is None
    assert all(bool(((look.place >= 0) & (look.place <= 1)).all()) for look in looks[1:])
    short = model.looks(glances, pictures, PolicyPlaces(model.policy), steps=2)
    assert len(short) == 2
    torch.testing.assert_close(short[1].logits, looks[1].logits)
    elsewhere = model.looks(glances, pictures, RandomPlaces(torch.Generator().manual_seed(1)))
    torch.testing.assert_close(elsewhere[0].logits, looks[0].logits)
    assert not torch.allclose(elsewhere[1].logits, looks[1].logits)
    if classifier == "concatenating":
        torch.testing.assert_close(looks[0].logits, looks[0].own_logits)


@torch.no_grad()
def test_later_looks_remember_the_earlier_ones() -> None:
    model = calibrated()
    pictures = torch.randn(3, 3, 48, 48)
    answers = [model.looks(torch.randn(3, 3, 16, 16), pictures, CentrePlaces())[-1].logits for _ in range(2)]
    assert not torch.allclose(*answers)  # equal patches, another glance


@torch.no_grad()
def test_one_network_at_two_widths_halves_the_weights_and_keeps_statistics_apart() -> None:
    options = {"width_mult": 0.25, "small_input": True}
    shared = dataclasses.replace(TINY, shared=True, widths=(0.5, 1.0), backbone_options=options)
    apart = dataclasses.replace(shared, shared=False)
    backbone = sum(p.numel() for p in zoo.create("mobilenet_v1", num_classes=4, **options).parameters())
    counts = [sum(p.numel() for p in GFNet(d, 4).parameters()) for d in (shared, apart)]
    assert counts[1] - counts[0] == backbone
    model = calibrated(shared)
    assert model.glance.net is model.focus.net
    looks = model.looks(torch.randn(2, 3, 16, 16), torch.randn(2, 3, 48, 48), PolicyPlaces(model.policy))
    assert torch.isfinite(looks[-1].logits).all()
    vector, feature_map = model.glance(torch.randn(2, 3, 16, 16))
    assert vector.shape[1] == model.focus.vector_channels
    assert feature_map.shape[1] == model.focus.map_channels
    assert not vector[:, -1].any()  # a narrow vector is filled up with zeros
    again = GFNet(shared, 4)
    again.load_state_dict(model.state_dict())
    assert again.eval().glance.norms.entries[ENTRY].keys() == model.glance.norms.entries[ENTRY].keys()


@torch.no_grad()
@pytest.mark.parametrize("width", [0.5, 1.0])
@pytest.mark.parametrize("backbone", ["mobilenet_v1", "mobilenet_v2", "mobilenetv3_large_100", "hornet_tiny_7x7"])
def test_a_plain_encoder_equals_the_slimmable_one(backbone: str, width: float) -> None:
    options: dict[str, Any] = {"width_mult": 0.25, "small_input": True}
    design = dataclasses.replace(TINY, backbone=backbone, backbone_options=options, widths=(width, width))
    encoder = calibrated(design).glance
    plain = encoder.materialise(16)
    assert not any(isinstance(module, SlimLayer) for module in plain.modules())
    x = torch.randn(3, 3, 16, 16)
    for found, expected in zip(plain(x), encoder(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("backbone", ["mobilenet_v1", "mobilenetv3_large_100", "resnet50"])
def test_the_policy_may_read_a_finer_map(backbone: str) -> None:
    options: dict[str, Any] = {} if backbone == "resnet50" else {"width_mult": 0.25, "small_input": True}
    design = dataclasses.replace(TINY, backbone=backbone, backbone_options=options)
    coarse, fine = calibrated(design), calibrated(dataclasses.replace(design, map_stride=4))
    x = torch.randn(2, 3, 16, 16)
    feature_map = fine.glance(x)[1]
    stage = max(n for n, info in enumerate(fine.glance.net.feature_info) if info.stride == 4)
    assert feature_map.shape == (2, fine.glance.net.feature_info[stage].channels, 4, 4)
    fine.glance.load_state_dict(coarse.glance.state_dict())  # the rest of the encoder is the same
    torch.testing.assert_close(fine.glance(x)[0], coarse.glance(x)[0])
    torch.testing.assert_close(fine.glance.last_map(x), coarse.glance(x)[1])
    for found, expected in zip(fine.glance.materialise(16)(x), fine.glance(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    looks = fine.looks(x, torch.randn(2, 3, 48, 48), PolicyPlaces(fine.policy))
    assert torch.isfinite(looks[-1].logits).all()


def test_a_stride_that_no_map_has_is_refused() -> None:
    with pytest.raises(SlimError, match="no feature map of stride 5; it has "):
        GFNet(dataclasses.replace(TINY, map_stride=5), 4)


def test_a_backbone_without_a_feature_map_is_refused() -> None:
    model = GFNet(Design("resformer_tiny_patch16", 16, 2, 48, backbone_options={"depth": 4, "small_input": True}), 3)
    with pytest.raises(SlimError, match="keeps no feature map"):
        model.glance(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classifier": "voting"}, "classifier is 'voting'"),
        ({"patch": 224}, "patch is 224"),
        ({"steps": 1}, "steps is 1"),
        ({"policy_encoder": "magic"}, "encoder is 'magic'"),
        ({"colour": 1}, "colour"),
    ],
)
def test_what_cannot_be_built_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_gfnet("mobilenetv3_large_100_96", **changes)


def test_an_unknown_variant_is_named() -> None:
    with pytest.raises(ValueError, match="GFNet 'big' is unknown; the zoo has"):
        create_gfnet("big")


def test_the_policy_remembers_and_the_classifier_too() -> None:
    torch.manual_seed(0)
    policy = PatchPolicy(8, 2, hidden=4)
    state = torch.randn(2, 8, 2, 2)
    place, value, memory = policy.step(state)
    assert (place.shape, value.shape) == ((2, 2), (2, 1))
    assert not torch.allclose(policy.step(state, memory)[0], place)
    classifier = RecurrentClassifier(6, 3, hidden=4)
    first, second = classifier(torch.ones(1, 6), torch.ones(1, 6))
    assert not torch.allclose(first, second)
