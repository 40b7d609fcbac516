"""ResFormer's position code, local position and scale consistency against references written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.export_form import export_form
from zoo.resformer import HEAD_CHANNELS, Attention, ResFormer, SinePosition, Tokens, scale_consistency
from zoo.slim_layers import ActivePoint, Channels, SlimError, active_point
from zoo.slim_net import materialise

CHANNELS = Channels(2, divisor=1).times(HEAD_CHANNELS)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _drawn(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -0.3, 0.3)
    return module.eval()


@pytest.mark.parametrize("size_hw", [(4, 4), (3, 5)])
def test_the_position_code_equals_its_formula_for_each_row_column_and_channel(size_hw: tuple[int, int]) -> None:
    code = SinePosition(Channels.fixed(16)).code(*size_hw)[0]
    assert code.shape == (16, *size_hw)
    for channel in range(16):
        axis, within = divmod(channel, 8)
        wavelength = 10000.0 ** (within // 2 * 2 / 8)
        function = math.cos if within % 2 else math.sin
        for row in range(size_hw[0]):
            for column in range(size_hw[1]):
                place = ((row, column)[axis] + 1) / size_hw[axis] * 2 * math.pi
                assert float(code[channel, row, column]) == pytest.approx(function(place / wavelength), abs=1e-5)


@torch.no_grad()
def test_attention_equals_a_loop_over_heads_and_tokens() -> None:
    attention = _drawn(Attention(CHANNELS))
    height, width, length = 3, 2, 7
    tokens = torch.randn(1, length, 128)
    q, k, v = (F.linear(tokens[0], attention.qkv.weight, attention.qkv.bias)).chunk(3, 1)
    mixed = torch.zeros(length, 128)
    for head in range(2):
        part = slice(head * 64, head * 64 + 64)
        for i in range(length):
            scores = torch.stack([q[i, part] @ k[j, part] / 8 for j in range(length)])
            mixed[i, part] = sum(w * v[j, part] for j, w in enumerate(scores.softmax(0)))
        for row in range(height):
            for column in range(width):
                near = attention.local.bias.clone()
                for dy in (-1, 0, 1):
                    for dx in (-1, 0, 1):
                        if 0 <= row + dy < height and 0 <= column + dx < width:
                            value = v[1 + (row + dy) * width + column + dx, part]
                            near += attention.local.weight[:, 0, dy + 1, dx + 1] * value
                mixed[1 + row * width + column, part] += near
    expected = F.linear(mixed, attention.output.weight, attention.output.bias)
    torch.testing.assert_close(attention(Tokens(tokens, height, width))[0], expected, rtol=1e-4, atol=1e-5)


def test_a_fresh_network_starts_without_local_positions() -> None:
    model = ResFormer(2, depth=4)
    weights = [m.local.weight for m in model.modules() if isinstance(m, Attention)]
    assert len(weights) == 4
    assert not any(weight.any() for weight in weights)


@torch.no_grad()
def test_the_constant_position_of_an_exported_grid_gives_the_same_scores() -> None:
    plain = materialise(_drawn(ResFormer(3, depth=4, small_input=True)), width=1.0)
    x = torch.randn(2, 3, 40, 24)
    form = export_form(plain, (40, 24))
    torch.testing.assert_close(form(x), plain(x))
    assert "stem.position.code" in form.state_dict()


@torch.no_grad()
def test_a_narrow_network_keeps_whole_heads() -> None:
    model = _drawn(ResFormer(3, depth=4, small_input=True))
    plain = materialise(model, width=0.34)
    assert plain.stem.patches.out_channels == 64
    with active_point(ActivePoint(0.34)):
        torch.testing.assert_close(plain(torch.ones(1, 3, 32, 32)), model(torch.ones(1, 3, 32, 32)))


@torch.no_grad()
def test_scores_depend_on_where_a_patch_is() -> None:
    model = _drawn(ResFormer(3, depth=4, small_input=True))
    x = torch.randn(1, 3, 32, 32)
    assert not torch.allclose(model(x), model(x.roll(8, 3)), atol=1e-4)


def test_scale_consistency_pulls_the_smaller_resolution_to_the_larger_one_only() -> None:
    tokens = [torch.randn(4, 8, requires_grad=True) for _ in range(3)]
    loss = scale_consistency(tokens)
    loss.backward()
    assert tokens[0].grad is None
    expected, values = 0.0, [token.detach() for token in tokens]
    for large, small in ((values[0], values[1]), (values[1], values[2])):
        target = (large - large.mean(1, keepdim=True)) / (large.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        distance = (small - target).abs()
        expected += float(torch.where(distance < 1, 0.5 * distance**2, distance - 0.5).mean())
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_a_network_of_one_resolution_has_nothing_to_be_consistent_with() -> None:
    assert float(scale_consistency([torch.randn(2, 4)])) == 0.0


@torch.no_grad()
def test_the_class_token_of_every_resolution_has_the_same_channels() -> None:
    model = ResFormer(2, depth=4, small_input=True).eval()
    shapes = [model.forward_class_token(torch.zeros(2, 3, side, side)).shape for side in (32, 64)]
    assert shapes == [(2, 192), (2, 192)]


def test_a_depth_that_four_stages_cannot_share_and_a_width_beyond_one_are_refused() -> None:
    with pytest.raises(ValueError, match="depth is 5"):
        ResFormer(2, depth=5)
    with pytest.raises(SlimError, match="expected 0 < width"):
        materialise(ResFormer(2, depth=4), width=1.5)
