"""X3D against facts of its reference (facts/x3d.json), and what those facts cannot see."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from onnx_parity import assert_onnx_equals
from parity import assert_parity, counted
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from zoo.calibrate import point_statistics
from zoo.slim_layers import Channels, NotCalibratedError, SlimLayer, make_divisible
from zoo.x3d import DEFAULT_CLIPS, VARIANTS, X3D, Gate, X3DBlock, X3DStem

FACTS = json.loads((Path(__file__).parent / "facts" / "x3d.json").read_text("utf-8"))
CLASSES, FRAMES, SIDE = 5, 4, 48


@pytest.mark.parametrize("name", FACTS["fingerprints"])
def test_a_variant_gives_the_outputs_of_the_reference(name: str) -> None:
    assert_parity(VARIANTS[name](), FACTS["fingerprints"][name])


@pytest.mark.parametrize("name", FACTS["counts"])
def test_parameters_and_multiply_adds_equal_the_reference_at_the_default_clip(name: str) -> None:
    facts, clip = FACTS["counts"][name], DEFAULT_CLIPS[name]
    assert [1, 3, clip.frames, clip.side_px, clip.side_px] == facts["input"]
    assert counted(VARIANTS[name], facts["input"]) == (facts["params"], facts["madds"])


def test_the_facts_and_the_clips_cover_every_variant() -> None:
    assert set(VARIANTS) == set(DEFAULT_CLIPS) == set(FACTS["counts"]) == {"x3d_xs", "x3d_s", "x3d_m", "x3d_l"}
    assert set(FACTS["fingerprints"]) == {"x3d_s"}


def test_the_inner_count_is_floor_of_two_and_a_quarter_times_the_outer_at_every_width() -> None:
    with torch.device("meta"):
        model = X3D()
    stages = list(zip(model.stages, (24, 48, 96, 192), strict=True))
    for width, (stage, full) in itertools.product([step / 100 for step in range(1, 101)], stages):
        outer = make_divisible(full * width, 8)
        for block in stage:
            convolutions = [block.expand[0], block.depthwise[0], block.project[0]]
            counts = [convolution.outputs.at(width) for convolution in convolutions]
            assert counts == [math.floor(2.25 * outer), math.floor(2.25 * outer), outer]
        assert model.last[0].inputs.at(width) == model.stages[3][0].project[0].outputs.at(width)


def test_xs_s_and_m_are_one_network_and_l_is_deeper() -> None:
    with torch.device("meta"):
        shapes = {name: {k: tuple(p.shape) for k, p in make().named_parameters()} for name, make in VARIANTS.items()}
    assert shapes["x3d_xs"] == shapes["x3d_s"] == shapes["x3d_m"]
    assert shapes["x3d_m"].items() < shapes["x3d_l"].items()


@torch.no_grad()
def test_a_block_equals_loops_over_channels_and_positions() -> None:
    torch.manual_seed(0)
    unit = Channels(1, divisor=1)
    for first, gated in ((True, True), (False, True), (False, False)):
        block = X3DBlock(unit.times(8), unit.times(18), unit.times(8), first=first, gated=gated).eval()
        with_drawn_norms(block)
        x = torch.randn(1, 8, 3, 5, 4)
        torch.testing.assert_close(block(x), slow_block(block, x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def slow_block(block: X3DBlock, x: Tensor) -> Tensor:
    """The block in matrix products over channels and a loop over output positions of the depthwise convolution."""
    stride = 1 if isinstance(block.shortcut, nn.Identity) else 2
    y = normalise(torch.einsum("oi,nithw->nothw", block.expand[0].weight.flatten(1), x), block.expand[1]).clamp(min=0)
    padded, kernel = F.pad(y, (1,) * 6), block.depthwise[0].weight[:, 0]
    size = (x.shape[2], math.ceil(x.shape[3] / stride), math.ceil(x.shape[4] / stride))
    y = torch.zeros(1, y.shape[1], *size)
    for t, i, j in itertools.product(*map(range, size)):
        window = padded[0, :, t : t + 3, i * stride : i * stride + 3, j * stride : j * stride + 3]
        y[0, :, t, i, j] = (window * kernel).sum((1, 2, 3))
    y = normalise(y, block.depthwise[1])
    if isinstance(block.gate, Gate):
        hidden = block.gate.squeeze.weight @ y.mean((0, 2, 3, 4)) + block.gate.squeeze.bias
        gate = 1 / (1 + (-(block.gate.excite.weight @ hidden.clamp(min=0) + block.gate.excite.bias)).exp())
        y = y * gate.view(1, -1, 1, 1, 1)
    y = y / (1 + (-y).exp())
    y = normalise(torch.einsum("oi,nithw->nothw", block.project[0].weight.flatten(1), y), block.project[1])
    if stride == 2:
        x = x[..., ::2, ::2]
        x = normalise(torch.einsum("oi,nithw->nothw", block.shortcut[0].weight.flatten(1), x), block.shortcut[1])
    return (x + y).clamp(min=0)


def normalise(x: Tensor, norm: nn.Module) -> Tensor:
    """Batch norm in evaluation, written out."""
    mean, variance, weight, bias = (
        t.view(1, -1, 1, 1, 1) for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


@torch.no_grad()
def with_drawn_norms(module: nn.Module) -> None:
    """Norm scales, shifts and statistics that are not 1 and 0, so that each of them matters."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.dim() == 1:
            nn.init.uniform_(tensor, 0.5, 1.0) if name.endswith(("weight", "var")) else nn.init.normal_(tensor)


@torch.no_grad()
def test_a_frame_reaches_two_frames_to_each_side_of_the_stem_and_one_through_a_block_unless_gated() -> None:
    torch.manual_seed(0)
    unit = Channels(1, divisor=1)
    inputs = unit.times(8)
    cases = (
        (X3DStem(8, inputs), [1, 2, 3, 4, 5]),
        (X3DBlock(inputs, unit.times(18), inputs, first=True, gated=False), [2, 3, 4]),
        (X3DBlock(inputs, unit.times(18), inputs, first=True, gated=True), [0, 1, 2, 3, 4, 5, 6]),
    )
    for part, reached in cases:
        with_drawn_norms(part.eval())
        x = torch.randn(1, 8, 7, 6, 6)
        other = x.clone()
        other[:, :, 3] += 1.0
        changed = (part(x) - part(other)).abs().amax((0, 1, 3, 4)) > 0
        assert changed.nonzero().flatten().tolist() == reached


@torch.no_grad()
@pytest.mark.parametrize("size", [(4, 64, 64), (5, 48, 33), (1, 32, 32)])
def test_features_keep_every_frame_and_halve_the_picture_rounded_up(size: tuple[int, int, int]) -> None:
    model, clip = small(), torch.randn(1, 3, *size)
    features = model.forward_features(clip)
    frames, *sides = size
    expected = [(info.channels, frames, *(math.ceil(s / info.stride) for s in sides)) for info in model.feature_info]
    assert [info.stride for info in model.feature_info] == [4, 8, 16, 32]
    assert [tuple(feature.shape[1:]) for feature in features] == expected
    torch.testing.assert_close(model.forward_head(features[-1]), model(clip))


@torch.no_grad()
def test_a_fresh_block_is_its_shortcut() -> None:
    first, second = small().stages[1]
    x = torch.randn(2, 8, 3, 6, 6)
    shortcut = F.relu(first.shortcut(x))
    torch.testing.assert_close(first(x), shortcut)
    torch.testing.assert_close(second(shortcut), shortcut)


def test_a_small_version_learns_one_batch_and_every_parameter_gets_a_finite_gradient() -> None:
    torch.manual_seed(0)
    model = small().train()
    x, labels = torch.randn(4, 3, FRAMES, SIDE, SIDE), torch.arange(4)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(10):
        optimiser.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(math.log(CLASSES), abs=0.3)  # a fresh classifier prefers no class
    assert losses[-1] < 0.3 * losses[0]
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert [n for n, g in gradients.items() if g is None or not g.isfinite().all() or not g.any()] == []


def test_training_a_narrow_width_leaves_the_other_channels_alone() -> None:
    torch.manual_seed(0)
    model = with_weights(X3D(CLASSES, depths=(1, 2, 1, 1))).train()
    model(torch.randn(2, 3, 2, 32, 32), 0.5).square().mean().backward()
    touched = sum(int((p.grad != 0).sum()) for p in model.parameters() if p.grad is not None)
    assert 0 < touched <= sum(p.numel() for p in zoo.materialise(model, width=0.5).parameters())


@torch.no_grad()
def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    model, x = with_weights(X3D(CLASSES, depths=(1, 1, 1, 1))), torch.randn(2, 3, 2, 32, 32)
    assert model.dropout.p == 0.5
    assert torch.equal(model.eval()(x), model(x))
    model.train()
    assert not torch.allclose(model(x), model(x))


@torch.no_grad()
def test_a_materialised_subnet_equals_the_network_at_its_point() -> None:
    torch.manual_seed(0)
    model = with_weights(X3D(CLASSES, depths=(1, 2, 1, 1)))
    x = torch.randn(3, 3, FRAMES, SIDE, SIDE)
    outputs = []
    for width in (1.0, 0.5):
        model.norm_bank.entries[model.point_key(width, (FRAMES, SIDE, SIDE))] = point_statistics(
            model, width, [x, x.flip(2)]
        )
    for width in (1.0, 0.5):
        plain = zoo.materialise(model, width=width, resolution=(FRAMES, SIDE, SIDE))
        assert not any(isinstance(module, SlimLayer) for module in plain.modules())
        outputs.append(plain(x))
        torch.testing.assert_close(outputs[-1], model(x, width), rtol=1e-4, atol=1e-5)
        assert float(outputs[-1].std(0).mean()) > 1e-2
    assert not torch.allclose(outputs[0], outputs[1], atol=1e-3)
    assert plain.stages[0][0].depthwise[0].weight.shape == (36, 1, 3, 3, 3)  # 24 at 0.5: 16 by eights, times 2.25


def test_statistics_of_one_clip_length_are_not_used_for_another() -> None:
    model, x = with_weights(small()), torch.randn(2, 3, FRAMES, SIDE, SIDE)
    model.norm_bank.entries[model.point_key(1.0, (FRAMES, SIDE, SIDE))] = point_statistics(model, 1.0, [x])
    assert model(x, 1.0).shape == (2, CLASSES)
    with pytest.raises(NotCalibratedError, match=rf"\({FRAMES + 1}, {SIDE}, {SIDE}\) pixels is not calibrated"):
        model(torch.randn(2, 3, FRAMES + 1, SIDE, SIDE), 1.0)


@pytest.mark.slow  # 20 s of exporting
@torch.no_grad()
def test_onnxruntime_equals_torch() -> None:
    torch.manual_seed(0)
    model, x = with_weights(small()), torch.randn(1, 3, FRAMES, SIDE, SIDE)
    model.norm_bank.entries[model.point_key(1.0, (FRAMES, SIDE, SIDE))] = point_statistics(model, 1.0, [x])
    assert_onnx_equals(zoo.materialise(model, width=1.0, resolution=(FRAMES, SIDE, SIDE)), x)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"depths": (1, 2, 3)}, r"X3D: depths is \(1, 2, 3\), expected 4 counts of at least one block"),
        ({"depths": (1, 2, 0, 1)}, r"X3D: depths is \(1, 2, 0, 1\), expected 4 counts"),
        ({"width_mult": 0.0}, "X3D: width_mult is 0.0, expected a finite number above 0"),
        ({"width_mult": math.inf}, "X3D: width_mult is inf, expected a finite number above 0"),
        ({"dropout": 1.0}, "X3D: dropout is 1.0, expected 0 <= dropout < 1"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        X3D(**options)


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 4, 3, 32, 32)])
def test_an_input_that_is_no_clip_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected clips \(N, 3, T, H, W\); stack the frames of a clip along axis 2"):
        small()(torch.zeros(shape))


def small() -> X3D:
    """A third of the channels, two blocks where it matters, no dropout."""
    return X3D(CLASSES, depths=(1, 2, 1, 1), width_mult=1 / 3, dropout=0.0).eval()


@torch.no_grad()
def with_weights(model: X3D) -> X3D:
    """One-dimensional parameters drawn and a classifier that tells clips apart, so that each part matters."""
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.0)
    nn.init.normal_(model.classifier.weight, std=0.1)
    return model.eval()
