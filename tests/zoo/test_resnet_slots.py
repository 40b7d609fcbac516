"""What the slots of the ResNet builder do: hierarchical scales, depth attention, gates, segments of channels."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.pyconv import PyramidalCore, pyramidal_inner
from zoo.res2net import HierarchicalCore, res2net_inner
from zoo.resnet import Plan, ResNet, Site
from zoo.sda import DepthAttentionStage
from zoo.slim_layers import ActivePoint, Channels, Joined, SlimConv, active_point
from zoo.squeeze_excitation import SqueezeExcitation

INSIDE, FIRST = Site(stage=1, first=False, stride=1), Site(stage=1, first=True, stride=2)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_a_segmented_count_keeps_a_prefix_of_each_segment() -> None:
    count = Channels(4, divisor=1).repeated(3)
    assert [int(v) for v in count.take(torch.arange(12), 0.5)] == [0, 1, 4, 5, 8, 9]
    joined = Joined((Channels(4, divisor=1), count))
    assert [int(v) for v in joined.take(torch.arange(16), 0.5)] == [0, 1, 4, 5, 8, 9, 12, 13]


@pytest.mark.parametrize("width", [0.5, 1.0])
@torch.no_grad()
def test_a_grouped_convolution_over_segments_equals_one_convolution_per_group(width: float) -> None:
    count = Channels(4, divisor=1).repeated(3)
    conv = SlimConv(count, count, 3, groups=3)
    per_group = count.at(width) // 3
    x = torch.randn(2, count.at(width), 5, 5)
    parts = [
        F.conv2d(piece, weight[:per_group, :per_group], padding=1)
        for piece, weight in zip(x.chunk(3, 1), conv.weight.chunk(3, 0), strict=True)
    ]
    with active_point(ActivePoint(width)):
        torch.testing.assert_close(conv(x), torch.cat(parts, 1))


@pytest.mark.parametrize("width", [0.5, 1.0])
@torch.no_grad()
def test_each_scale_of_res2net_sees_the_result_of_the_one_before(width: float) -> None:
    channels = res2net_inner(64, base_width=16, scale=4)
    core = HierarchicalCore(channels, INSIDE, scale=4)
    x = torch.randn(2, channels.at(width), 6, 6)
    count = channels.at(width) // 4
    x1, x2, x3, x4 = (x[:, i * count : (i + 1) * count] for i in range(4))
    k1, k2, k3 = (conv.weight[:count, :count] for conv in core.convolutions)
    y1 = _normed(F.conv2d(x1, k1, padding=1))
    y2 = _normed(F.conv2d(x2 + y1, k2, padding=1))
    y3 = _normed(F.conv2d(x3 + y2, k3, padding=1))
    core.train()
    with active_point(ActivePoint(width)):
        torch.testing.assert_close(core(x), torch.cat([y1, y2, y3, x4], 1), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_first_block_of_a_res2net_stage_pools_its_last_scale_and_feeds_no_other() -> None:
    core = HierarchicalCore(Channels(2, 1).repeated(3), FIRST, scale=3).train()
    x = torch.randn(2, 6, 6, 6)
    y1, y2 = (
        _normed(F.conv2d(part, conv.weight, stride=2, padding=1))
        for part, conv in zip((x[:, :2], x[:, 2:4]), core.convolutions, strict=True)
    )
    pooled = F.pad(x[:, 4:], (1, 1, 1, 1)).unfold(2, 3, 2).unfold(3, 3, 2).mean((4, 5))
    torch.testing.assert_close(core(x), torch.cat([y1, y2, pooled], 1), rtol=1e-4, atol=1e-5)


def _normed(x: torch.Tensor) -> torch.Tensor:
    return F.relu(F.batch_norm(x, None, None, None, None, True))


class _Scaled(nn.Module):
    """A block that multiplies, so that the sums before the activation are known."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def residual_sum(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


@torch.no_grad()
def test_depth_attention_equals_a_loop_over_samples_channels_and_blocks() -> None:
    stage = DepthAttentionStage([_Scaled(f) for f in (1.0, -2.0, 0.5)], Channels.fixed(6)).eval()
    for parameter in stage.parameters():
        nn.init.uniform_(parameter, -1.0, 1.0)
    x = torch.randn(2, 6, 4, 4)
    sums, trunk = [], x
    for factor in (1.0, -2.0, 0.5):
        sums.append(trunk * factor)
        trunk = sums[-1].clamp(min=0)
    attention, expected = stage.attention, torch.zeros_like(x)
    for n in range(2):
        mean = torch.stack([sum(s[n, c] for s in sums).mean() for c in range(6)])
        hidden = attention.reduce.weight[:, :, 0, 0] @ mean / (1 + 1e-5) ** 0.5
        hidden = (hidden * attention.norm.weight + attention.norm.bias).clamp(min=0)
        scores = [select.weight[:, :, 0, 0] @ hidden + select.bias for select in attention.select]
        for c in range(6):
            exponentials = [float(s[c].exp()) for s in scores]
            for s, e in zip(sums, exponentials, strict=True):
                expected[n, c] += s[n, c] * e / sum(exponentials)
    torch.testing.assert_close(stage(x), expected.clamp(min=0), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_stage_output_of_equal_blocks_is_their_common_output_whatever_the_weights() -> None:
    stage = DepthAttentionStage([_Scaled(1.0)] * 4, Channels.fixed(8)).eval()
    x = torch.rand(1, 8, 3, 3)
    torch.testing.assert_close(stage(x), x)


@torch.no_grad()
def test_squeeze_excitation_scales_each_channel_by_one_number_below_one() -> None:
    gate = SqueezeExcitation(Channels(32))
    x = torch.randn(2, 32, 5, 5)
    ratio = gate(x) / x
    assert float(ratio.amax((2, 3)).sub(ratio.amin((2, 3))).max()) < 1e-4
    assert float(ratio.min()) > 0.0
    assert float(ratio.max()) < 1.0


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@torch.no_grad()
def test_a_pyramidal_level_sees_as_far_as_its_kernel(stage: int) -> None:
    channels = pyramidal_inner(64)
    core = PyramidalCore(channels, Site(stage, False, 1))
    x = torch.zeros(1, 64, 11, 11)
    x[:, :, 5, 5] = 1.0
    reach = [int((level(x).abs().sum(1)[0, 5] > 0).sum()) for level in core.levels]
    assert reach == [3, 5, 7, 9][: 4 - stage]


@torch.no_grad()
def test_a_core_in_one_function_is_enough_for_a_new_network() -> None:
    model = ResNet(3, plan=Plan(core=lambda channels, site: nn.AvgPool2d(3, site.stride, 1)), depths=(1, 1, 1, 1))
    assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
