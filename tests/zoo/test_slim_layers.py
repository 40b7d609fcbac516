"""Slimmable layers against plain torch layers that hold the same slices."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional as F

from zoo.slim_layers import (
    ActivePoint,
    Channels,
    NotCalibratedError,
    SlimBatchNorm,
    SlimConv,
    SlimError,
    SlimLinear,
    active_point,
    current_width,
    make_divisible,
)

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@pytest.mark.parametrize(
    ("value", "divisor", "expected"),
    [
        (3, 8, 8),  # never below the divisor
        (8, 8, 8),
        (11.9, 8, 16),  # 8 is the nearest, but below 90 % of 11.9
        (12, 8, 16),  # halves go up
        (17.6, 8, 16),  # 16 is 91 %
        (17.8, 8, 24),  # 16 is 89.9 %
        (35.2, 8, 32),
        (36, 8, 40),
        (100, 4, 100),
        (101, 4, 100),
        (716.8, 8, 720),
    ],
)
def test_channel_counts_round_to_a_multiple_and_never_below_ninety_percent(
    value: float, divisor: int, expected: int
) -> None:
    assert make_divisible(value, divisor) == expected


def test_every_width_keeps_the_rounding_rule() -> None:
    for base in (16, 24, 32, 96, 320, 1024):
        for hundredth in range(5, 101):
            wanted = base * hundredth / 100
            count = make_divisible(wanted)
            assert count % 8 == 0
            assert count >= max(8, 0.9 * wanted)
            assert count - wanted <= 8


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [
        (Channels(64), 0.5, 32),
        (Channels(24).times(6), 0.7, 16 * 6),  # round the base, then expand: 24 * 6 * 0.7 would give 104
        (Channels(24).times(2).times(3), 1.0, 144),
        (Channels.fixed(3), 0.25, 3),
        (Channels.fixed(5).times(2), 0.25, 5),
    ],
)
def test_expansion_multiplies_after_rounding_and_fixed_counts_ignore_the_width(
    channels: Channels, width: float, expected: int
) -> None:
    assert channels.at(width) == expected


@pytest.mark.parametrize("width", [0.0, -0.5, 1.01, float("nan")])
def test_an_impossible_width_is_refused_by_its_value(width: float) -> None:
    with pytest.raises(SlimError, match=str(width)):
        Channels(64).at(width)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("width", [0.25, 0.6, 1.0])
@pytest.mark.parametrize("kind", ["dense", "strided", "depthwise", "grouped", "picture"])
def test_a_convolution_equals_a_plain_one_with_the_sliced_weight(dims: int, width: float, kind: str) -> None:
    inputs, outputs, options = Channels(32), Channels(64), {}
    if kind == "strided":
        options = {"stride": 2, "dilation": 2}
    elif kind == "depthwise":
        outputs, options = inputs, {"groups": inputs}
    elif kind == "grouped":
        options = {"groups": 4}
    elif kind == "picture":
        inputs = 3
    conv = SlimConv(inputs, outputs, 3, bias=True, dims=dims, **options)
    ins = 3 if kind == "picture" else Channels(32).at(width)
    outs = outputs.at(width)
    x = torch.randn(2, ins, *(7,) * dims)
    with active_point(ActivePoint(width)):
        found = conv(x)

    groups = {"depthwise": ins, "grouped": 4}.get(kind, 1)
    rows = _kept_rows(outputs.full, outs, 4 if kind == "grouped" else 1)
    weight, bias = conv.weight[rows][:, : ins // groups], conv.bias[rows]
    step = 2 if kind == "strided" else 1
    expected = CONVOLVE[dims](x, weight, bias, step, step, step, groups)
    assert found.shape[1] == outs
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(conv.materialise(width)(x), expected, rtol=0, atol=0)


def _kept_rows(full: int, active: int, groups: int) -> list[int]:
    """Output channels that stay: a prefix of each group."""
    return [group * (full // groups) + i for group in range(groups) for i in range(active // groups)]


def test_a_group_count_that_a_width_cannot_keep_is_refused() -> None:
    conv = SlimConv(Channels(96), Channels(96), 3, groups=16)
    with pytest.raises(SlimError, match="16 groups"), active_point(ActivePoint(0.25)):
        conv(torch.zeros(1, 24, 4, 4))


@pytest.mark.parametrize("width", [0.25, 1.0])
def test_a_linear_layer_equals_a_plain_one_with_the_sliced_weight(width: float) -> None:
    layer = SlimLinear(Channels(32), 5)
    x = torch.randn(3, 7, Channels(32).at(width))
    expected = F.linear(x, layer.weight[:, : x.shape[-1]], layer.bias)
    with active_point(ActivePoint(width)):
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)
    torch.testing.assert_close(layer.materialise(width)(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dims", [0, 1, 2, 3])
def test_batch_norm_in_training_equals_a_plain_one_and_tracks_nothing(dims: int) -> None:
    norm, width = SlimBatchNorm(Channels(32), dims=dims), 0.5
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(8, 16, *(3,) * dims)
    expected = F.batch_norm(x, None, None, norm.weight[:16], norm.bias[:16], training=True)
    with active_point(ActivePoint(width)):
        torch.testing.assert_close(norm(x), expected)
    assert torch.equal(norm.running_mean, torch.zeros(32))
    assert torch.equal(norm.running_var, torch.ones(32))


@pytest.mark.parametrize("dims", [0, 1, 2, 3])
def test_batch_norm_in_evaluation_uses_the_statistics_of_its_point(dims: int) -> None:
    norm = SlimBatchNorm(Channels(32), dims=dims).eval()
    norm.bank_name = "stem.1"
    mean, variance = torch.randn(16), torch.rand(16) + 0.5
    x = torch.randn(8, 16, *(3,) * dims)
    shape = [1, -1] + [1] * dims
    expected = (x - mean.view(shape)) / (variance.view(shape) + 1e-5).sqrt()
    with active_point(ActivePoint(0.5, {"stem.1": (mean, variance)})):
        torch.testing.assert_close(norm(x), expected)
    torch.testing.assert_close(norm.materialise(0.5, (mean, variance)).eval()(x), expected)


def test_batch_norm_without_statistics_serves_full_width_only() -> None:
    norm = SlimBatchNorm(Channels(32)).eval()
    norm.running_mean.fill_(2.0)
    x = torch.full((1, 32, 2, 2), 2.0)
    assert float(norm(x).detach().abs().max()) == 0.0
    with pytest.raises(NotCalibratedError, match=r"width 0\.5"), active_point(ActivePoint(0.5)):
        norm(x[:, :16])


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_synchronised_batch_norm_equals_a_plain_one_also_far_from_zero(lone_process: None, offset: float) -> None:
    norm = SlimBatchNorm(Channels(16))
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = (offset + 0.1 * torch.randn(4, 8, 5, 5)).requires_grad_()
    direction = torch.randn(4, 8, 5, 5)
    with active_point(ActivePoint(0.5, synchronised=True)):
        found = norm(x)
    expected = F.batch_norm(x, None, None, norm.weight[:8], norm.bias[:8], training=True)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    gradients = [torch.autograd.grad((y * direction).sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-2)


@pytest.fixture
def lone_process() -> Iterator[None]:
    """A process group of one, so that reductions run without a second process."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_a_materialised_layer_keeps_the_number_type() -> None:
    layers = (SlimConv(3, Channels(8), 3), SlimLinear(Channels(8), 2), SlimBatchNorm(Channels(8)))
    for layer in layers:
        assert layer.double().materialise(1.0).weight.dtype == torch.float64


def test_materialised_weights_are_copies() -> None:
    conv = SlimConv(Channels(16), Channels(16), 1)
    plain = conv.materialise(0.5)
    before = conv.weight.clone()
    nn.init.zeros_(plain.weight)
    assert torch.equal(conv.weight, before)


def test_the_width_belongs_to_the_thread_that_set_it() -> None:
    conv, gate, found = SlimConv(3, Channels(64), 1), threading.Barrier(2), {}

    def run(width: float) -> None:
        with active_point(ActivePoint(width)):
            for _ in range(20):
                gate.wait(120)  # both threads are inside their contexts
                found.setdefault(width, set()).add(conv(torch.zeros(1, 3, 2, 2)).shape[1])

    threads = [threading.Thread(target=run, args=(w,)) for w in (0.25, 0.75)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found == {0.25: {16}, 0.75: {48}}
    assert current_width() == 1.0


def test_the_width_is_restored_after_an_error_and_after_nesting() -> None:
    with active_point(ActivePoint(0.5)):
        with pytest.raises(ZeroDivisionError), active_point(ActivePoint(0.25)):
            _ = 1 // 0
        assert current_width() == 0.5
    assert current_width() == 1.0
