"""MViT against its reference's facts, and its parts against references written out in loops."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path

import pytest
import torch
from onnx_parity import assert_onnx_equals
from parity import assert_parity, counted
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.clip_taps import two_dimensional
from zoo.mvit import VARIANTS, MViT
from zoo.mvit_parts import (
    DropPath,
    PoolingAttention,
    PoolingBlock,
    PoolPlan,
    SeparablePosition,
    TokenPool,
    Tokens,
    max_pooled,
    resized_table,
)
from zoo.slim_net import materialise

FACTS = json.loads((Path(__file__).parent / "facts" / "mvit.json").read_text("utf-8"))
SMALL = {"num_classes": 5, "resolution": 32, "depths": (1, 2, 2), "channels": 8, "key_stride": 4}
INPUTS = {4: (2, 3, 4, 32, 32), None: (2, 3, 32, 32)}
"""Frames of a small network -> the shape that it was built for."""


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _small(frames: int | None = 4, **options: object) -> MViT:
    """A network whose numbers are all drawn and large enough that no part is silent."""
    model = MViT(**{**SMALL, "frames": frames, **options})
    for name, parameter in model.named_parameters():
        if parameter.squeeze().dim() > 1 and "position" not in name:
            nn.init.normal_(parameter, std=(2.0 / parameter[0].numel()) ** 0.5)
        else:
            parameter.data += torch.empty_like(parameter).uniform_(-0.5, 0.5)
    return model.eval()


@pytest.mark.parametrize("name", FACTS["fingerprints"])
def test_a_variant_gives_the_outputs_of_the_reference(name: str) -> None:
    assert_parity(VARIANTS[name](), FACTS["fingerprints"][name])


@pytest.mark.parametrize("name", FACTS["counts"])
def test_parameters_and_multiply_adds_equal_the_reference(name: str) -> None:
    facts = FACTS["counts"][name]
    assert counted(VARIANTS[name], facts["input"]) == (facts["params"], facts["madds"])


def test_the_facts_hold_every_variant() -> None:
    assert sorted(FACTS["counts"]) == sorted(VARIANTS)


def test_the_sixteen_blocks_change_scale_where_the_paper_says() -> None:
    with torch.device("meta"):
        blocks = [block for stage in MViT().stages for block in stage]
    attentions = [block.attention for block in blocks]
    assert [i for i, block in enumerate(blocks) if block.widening is not None] == [0, 2, 13]
    assert [i for i, block in enumerate(blocks) if block.pools] == [1, 3, 14]
    assert [i for i, a in enumerate(attentions) if isinstance(a.query_pool, TokenPool)] == [1, 3, 14]
    assert [a.heads for a in attentions] == [1] + [2] * 2 + [4] * 11 + [8] * 2
    key_strides = [8] + [4] * 2 + [2] * 11 + [1] * 2
    for pools in ([a.key_pool for a in attentions], [a.value_pool for a in attentions]):
        assert [pool.convolution.stride for pool in pools] == [(1, s, s) for s in key_strides]
        assert {pool.convolution.kernel_size for pool in pools} == {(3, 3, 3)}
    rates = [block.drop_path.rate for block in blocks]
    torch.testing.assert_close(rates, [0.2 * i / 15 for i in range(16)])


def test_pools_inside_the_frame_have_kernels_that_follow_the_strides() -> None:
    with torch.device("meta"):
        blocks = [block for stage in VARIANTS["mvit_b_24_32x3"]().stages for block in stage]
    kernels = [getattr(b.attention.key_pool, "convolution", None) for b in blocks]
    found = [None if kernel is None else kernel.kernel_size[1] for kernel in kernels]
    assert found == [9] * 2 + [5] * 3 + [3] * 16 + [None] * 3
    assert {kernel.kernel_size[0] for kernel in kernels if kernel is not None} == {1}
    assert [i for i, b in enumerate(blocks) if b.pools] == [2, 5, 21]


def _looped_pool(x: Tensor, grid: tuple[int, int, int], pool: TokenPool) -> Tensor:
    """One head (1 + places, channels): the class token is normalised, the places convolved channel by channel."""
    kernel, norm = pool.convolution.weight, pool.norm
    kernel_grid, strides = kernel.shape[2:], pool.convolution.stride
    sizes = [math.ceil(size / stride) for size, stride in zip(grid, strides, strict=True)]
    rows = [x[0]]
    for place in itertools.product(*map(range, sizes)):
        total = torch.zeros(x.shape[1])
        for offset in itertools.product(*map(range, kernel_grid)):
            at = [p * s + o - k // 2 for p, s, o, k in zip(place, strides, offset, kernel_grid, strict=True)]
            if all(0 <= a < size for a, size in zip(at, grid, strict=True)):
                total += kernel[(slice(None), 0, *offset)] * x[1 + (at[0] * grid[1] + at[1]) * grid[2] + at[2]]
        rows.append(total)
    scaled = [(r - r.mean()) / (r.var(correction=0) + 1e-6).sqrt() * norm.weight + norm.bias for r in rows]
    return torch.stack(scaled)


@pytest.mark.parametrize(("query_stride", "in_frame"), [(1, False), (2, False), (2, True)])
@torch.no_grad()
def test_pooling_attention_equals_a_loop_over_heads_and_places(query_stride: int, in_frame: bool) -> None:
    heads, per_head, grid = 2, 3, (2, 3, 4)
    attention = PoolingAttention(heads * per_head, heads, PoolPlan(3, query_stride, 2, in_frame))
    for parameter in attention.parameters():
        nn.init.uniform_(parameter, -1.0, 1.0)
    x = torch.randn(1, 1 + math.prod(grid), heads * per_head)
    mixed = []
    for head in range(heads):
        parts = []
        for kind, pool in enumerate((attention.query_pool, attention.key_pool, attention.value_pool)):
            at = slice((kind * heads + head) * per_head, (kind * heads + head + 1) * per_head)
            projected = x[0] @ attention.qkv.weight[at].T + attention.qkv.bias[at]
            parts.append(_looped_pool(projected, grid, pool) if isinstance(pool, TokenPool) else projected)
        q, k, v = parts
        mixed.append(torch.stack([((row @ k.T) / per_head**0.5).softmax(0) @ v for row in q]))
    expected = torch.cat(mixed, 1) @ attention.output.weight.T + attention.output.bias
    found = attention(Tokens(x, grid))
    torch.testing.assert_close(found.values[0], expected, rtol=1e-4, atol=1e-5)
    assert found.grid == ((2, 2, 2) if query_stride == 2 else grid)


def test_the_skip_takes_maxima_of_a_frame_and_keeps_the_class_token() -> None:
    grid, x = (2, 3, 4), torch.randn(2, 1 + 24, 5)
    cells, rows = x[:, 1:].reshape(2, *grid, 5), []
    for frame, row, column in itertools.product(range(2), range(2), range(2)):
        window = cells[:, frame, max(0, 2 * row - 1) : 2 * row + 2, max(0, 2 * column - 1) : 2 * column + 2]
        rows.append(window.amax((1, 2)))
    torch.testing.assert_close(max_pooled(Tokens(x, grid)), torch.stack([x[:, 0], *rows], 1), rtol=0, atol=0)


@torch.no_grad()
def test_the_widening_skip_is_a_linear_layer_of_the_normalised_tokens() -> None:
    block = PoolingBlock(4, 8, 1, PoolPlan(2, 1, 2, False), 0.0).eval()
    for layer in (block.attention.output, block.mlp[2]):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    x = torch.randn(2, 10, 4)
    normed = F.layer_norm(x, (4,), eps=1e-6)
    expected = normed @ block.widening.weight.T + block.widening.bias
    torch.testing.assert_close(block(Tokens(x, (3, 3))).values, expected)


def test_a_table_at_its_own_grid_is_the_parameter_itself() -> None:
    table = torch.randn(1, 12, 5)
    assert resized_table(table, (3, 4), (3, 4)) is table


@pytest.mark.parametrize(("trained", "grid"), [((3,), (7,)), ((6,), (4,)), ((3, 4), (5, 4)), ((4, 4), (3, 6))])
def test_a_resized_table_lies_linearly_between_the_centres(trained: tuple[int, ...], grid: tuple[int, ...]) -> None:
    table = torch.randn(math.prod(trained), 5)
    rows = []
    for place in itertools.product(*map(range, grid)):
        corners = []
        for i, old, new in zip(place, trained, grid, strict=True):
            at = min(max((i + 0.5) * old / new - 0.5, 0.0), old - 1.0)
            low = min(int(at), old - 1)
            corners.append([(low, 1.0 - at + low), (min(low + 1, old - 1), at - low)])
        total = torch.zeros(5)
        for corner in itertools.product(*corners):
            index = 0
            for (i, _), old in zip(corner, trained, strict=True):
                index = index * old + i
            total += math.prod(share for _, share in corner) * table[index]
        rows.append(total)
    torch.testing.assert_close(resized_table(table[None], trained, grid)[0], torch.stack(rows), rtol=1e-5, atol=1e-5)


def test_the_code_of_a_place_is_the_sum_of_frame_and_place_in_the_frame() -> None:
    position = SeparablePosition((2, 3, 4), 5)
    for parameter in position.parameters():
        nn.init.normal_(parameter)
    code = position((2, 3, 4))[0]
    assert torch.equal(code[0], position.class_token[0, 0])
    for frame, row, column in itertools.product(range(2), range(3), range(4)):
        expected = position.temporal[0, frame] + position.spatial[0, row * 4 + column]
        assert torch.equal(code[1 + (frame * 3 + row) * 4 + column], expected)


@pytest.mark.parametrize("frames", [4, None])
@torch.no_grad()
def test_another_grid_equals_a_network_whose_tables_were_resized_beforehand(frames: int | None) -> None:
    model, longer = _small(frames), _small(frames and 8, resolution=48)
    state, old, new = model.state_dict(), model.stem.position.trained, longer.stem.position.trained
    state["stem.position.spatial"] = resized_table(state["stem.position.spatial"], old[-2:], new[-2:])
    if frames is not None:
        state["stem.position.temporal"] = resized_table(state["stem.position.temporal"], old[:1], new[:1])
    longer.load_state_dict(state)
    x = torch.randn(1, 3, *(8, 48, 48)[-len(old) :])
    torch.testing.assert_close(model(x), longer(x))


@pytest.mark.parametrize("shape", [(1, 3, 1, 32, 32), (1, 3, 7, 40, 24), (2, 3, 4, 33, 50)])
@torch.no_grad()
def test_features_of_any_clip_have_the_channels_and_strides_that_the_network_states(shape: tuple[int, ...]) -> None:
    model = _small()
    features = model.forward_features(torch.randn(shape))
    stated = [
        (shape[0], info.channels, math.ceil(shape[2] / 2), *(math.ceil(side / info.stride) for side in shape[3:]))
        for info in model.feature_info
    ]
    assert [tuple(f.shape) for f in features] == stated
    assert all(f.isfinite().all() for f in features)


@torch.no_grad()
def test_the_order_of_the_frames_matters() -> None:
    model, x = _small(), torch.randn(INPUTS[4])
    difference = model(x) - model(x.flip(2))
    assert difference.abs().max() > 0.02 * model(x).abs().max()


def test_dropped_paths_drop_whole_samples_and_keep_the_mean() -> None:
    drop, x = DropPath(0.25), torch.ones(4000, 2, 3)
    dropped = drop.train()(x)
    assert {round(v, 4) for v in dropped.unique().tolist()} == {0.0, round(1 / 0.75, 4)}
    assert torch.equal(dropped, dropped[:, :1, :1].expand_as(dropped))
    assert abs(float(dropped.mean()) - 1.0) < 0.04  # five standard deviations
    assert drop.eval()(x) is x


@pytest.mark.parametrize("frames", [4, None])
def test_a_small_network_learns_a_batch_and_every_parameter_has_a_gradient(frames: int | None) -> None:
    model = MViT(**{**SMALL, "frames": frames, "drop_path": 0.0, "dropout": 0.0}).train()
    x, labels = torch.randn(4, *INPUTS[frames][1:]), torch.arange(4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not name.endswith("key_pool.norm.bias"):  # the same for all keys: softmax does not see it
            assert parameter.grad.abs().sum() > 0, name


@torch.no_grad()
def test_a_clip_network_works_in_two_dimensions() -> None:
    plain, x = materialise(_small(), width=1.0), torch.randn(INPUTS[4])
    flat = two_dimensional(plain)
    assert not any(isinstance(module, nn.Conv3d) for module in flat.modules())
    torch.testing.assert_close(flat(x), plain(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow  # 10 to 40 seconds of exporting
@pytest.mark.parametrize("frames", [4, None])
def test_onnxruntime_equals_torch(frames: int | None) -> None:
    assert_onnx_equals(materialise(_small(frames, depths=(1, 2)), width=1.0), torch.randn(INPUTS[frames]))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"depths": ()}, "depths is (), expected at least one block in each scale"),
        ({"depths": (1, 0)}, "depths is (1, 0), expected at least one block"),
        ({"frames": 0}, "frames is 0, expected at least 1, or None for pictures"),
        ({"resolution": 0}, "resolution is 0, expected at least 1 pixel"),
        ({"key_stride": 6}, "key_stride is 6, expected a power of two"),
        ({"drop_path": 1.0}, "drop_path is 1.0, expected 0 <= drop_path < 1"),
    ],
)
def test_a_wrong_option_is_refused_with_a_sentence(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        MViT(**{**SMALL, "frames": 4, **options})


@pytest.mark.parametrize(
    ("frames", "shape", "expected"),
    [
        (4, (1, 3, 32, 32), "clips (N, 3, T, H, W)"),
        (4, (1, 4, 4, 32, 32), "clips (N, 3, T, H, W)"),
        (None, (1, 3, 4, 32, 32), "pictures (N, 3, H, W)"),
    ],
)
def test_a_wrong_input_is_refused_with_a_sentence(frames: int | None, shape: tuple[int, ...], expected: str) -> None:
    model = _small(frames)
    with pytest.raises(ValueError, match=re.escape(f"the input is {shape}, expected {expected}")):
        model(torch.zeros(shape))


def test_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"width is 0\.5, but this network has one width only"):
        _small()(torch.zeros(INPUTS[4]), 0.5)
    assert _small()(torch.zeros(INPUTS[4]), 1.0).shape == (2, 5)
