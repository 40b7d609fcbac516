"""Dynamic convolution: all backends compute the same sums; ODConv's attention against a loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.dynamic_conv import SAMPLE_BACKENDS, DynamicConv, KernelSpec, apply_kernels, set_backend
from zoo.odconv import ODAttention, ODConv, aggregate, set_temperature, temperature_at
from zoo.slim_layers import ActivePoint, Channels, active_point

FAST = [name for name in SAMPLE_BACKENDS if name != "loop"]
INPUTS, COUNT = 8, 3


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel_size", "groups"), [(1, 1), (3, 1), (5, 1), (3, 2), (3, INPUTS)])
@torch.no_grad()
def test_kernels_per_sample_give_the_same_in_every_backend(
    backend: str, stride: int, kernel_size: int, groups: int
) -> None:
    x = torch.randn(COUNT, INPUTS, 7, 6)
    samples = torch.randn(COUNT, INPUTS, INPUTS // groups, kernel_size, kernel_size)
    factors = torch.rand(2, COUNT, INPUTS, 1, 1)
    spec = KernelSpec(
        kernel_size, stride, groups, samples=samples, input_factor=factors[0], output_factor=factors[1]
    )  # fmt: skip
    expected = torch.cat([  # each sample on its own, factors on the picture
        F.conv2d(x[n : n + 1] * factors[0, n], samples[n], None, stride, kernel_size // 2, 1, groups) * factors[1, n]
        for n in range(COUNT)
    ])  # fmt: skip
    for name in (backend, "loop"):
        torch.testing.assert_close(apply_kernels(x, spec, name), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel_size", "groups"), [(3, 1), (3, 4), (5, INPUTS)])
@torch.no_grad()
def test_kernels_per_position_give_the_same_in_every_backend(
    backend: str, stride: int, kernel_size: int, groups: int
) -> None:
    x = torch.randn(2, INPUTS, 7, 6)
    size_hw = (math.ceil(7 / stride), math.ceil(6 / stride))
    spec = KernelSpec(kernel_size, stride, positions=torch.randn(2, groups, kernel_size**2, *size_hw))
    loop = apply_kernels(x, spec, "loop")
    torch.testing.assert_close(apply_kernels(x, spec, backend), loop, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", SAMPLE_BACKENDS)
@torch.no_grad()
def test_equal_kernels_at_every_position_are_an_ordinary_depthwise_convolution(backend: str) -> None:
    x, kernel = torch.randn(2, INPUTS, 6, 5), torch.randn(INPUTS, 9)
    positions = kernel.view(1, INPUTS, 9, 1, 1).expand(2, -1, -1, 6, 5)
    expected = F.conv2d(x, kernel.view(INPUTS, 1, 3, 3), padding=1, groups=INPUTS)
    found = apply_kernels(x, KernelSpec(3, positions=positions), backend)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", FAST)
def test_every_backend_gives_the_same_gradients(backend: str) -> None:
    x, samples = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 4, 3, 3)
    gradients = []
    for name in (backend, "loop"):
        leaves = [t.clone().requires_grad_() for t in (x, samples)]
        apply_kernels(leaves[0], KernelSpec(3, samples=leaves[1]), name).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, INPUTS])
@torch.no_grad()
def test_a_single_sample_is_exported_without_a_convolution_that_has_a_predicted_weight(groups: int) -> None:
    """Engines prepare weights ahead; a weight that the graph computes takes their slowest path."""
    conv = _drawn_odconv(3, 2, Channels(INPUTS, divisor=1) if groups > 1 else 1).to_export_form(None)
    program = torch.export.export(conv, (torch.randn(1, INPUTS, 6, 6),))
    constants = {node.name for node in program.graph.nodes if node.op == "placeholder"}
    weights = [node.args[1].name for node in program.graph.nodes if "conv2d" in str(node.target)]
    assert weights
    assert set(weights) <= constants


def test_a_wrong_backend_and_a_wrong_specification_are_refused() -> None:
    x, kernel = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 2, 1, 1)
    with pytest.raises(ValueError, match="'fast' is unknown"):
        apply_kernels(x, KernelSpec(1, samples=kernel), "fast")
    with pytest.raises(ValueError, match="one kind of kernels"):
        apply_kernels(x, KernelSpec(1), "loop")
    with pytest.raises(ValueError, match="'fast' is unknown"):
        set_backend(nn.Sequential(), "fast")


def _drawn_odconv(kernel_size: int, kernels: int, groups: Channels | int = 1, stride: int = 1) -> ODConv:
    inputs = Channels(INPUTS, divisor=1)
    conv = ODConv(inputs, inputs if groups != 1 else Channels(6, 1), kernel_size, stride=stride, groups=groups,
                  kernels=kernels)  # fmt: skip
    for parameter in conv.parameters():
        nn.init.uniform_(parameter, -1.0, 1.0)
    return conv.eval()


@pytest.mark.parametrize("backend", SAMPLE_BACKENDS)
@pytest.mark.parametrize(("kernel_size", "kernels", "depthwise"), [(3, 4, False), (3, 1, True), (1, 4, False)])
@torch.no_grad()
def test_odconv_equals_a_loop_over_the_four_attentions(
    backend: str, kernel_size: int, kernels: int, depthwise: bool
) -> None:
    conv = _drawn_odconv(kernel_size, kernels, Channels(INPUTS, divisor=1) if depthwise else 1)
    set_backend(conv, backend)
    set_temperature(conv, 2.0)
    x = torch.randn(2, INPUTS, 5, 5)
    torch.testing.assert_close(conv(x), _odconv_by_loops(conv, x, 2.0), rtol=1e-4, atol=1e-5)


def _odconv_by_loops(conv: ODConv, x: torch.Tensor, temperature: float) -> torch.Tensor:
    """The paper's equation, one factor at a time."""
    attention, weight, outputs = conv.attention, conv.weight(), []

    def logits(head: nn.Module, hidden: torch.Tensor) -> list[float]:
        return [float(v) / temperature for v in head.weight[:, :, 0, 0] @ hidden + head.bias]

    for one in x:
        hidden = attention.reduce.weight[:, :, 0, 0] @ one.mean((1, 2)) / math.sqrt(1 + 1e-5)
        hidden = (hidden * attention.norm.weight + attention.norm.bias).clamp(min=0)
        channel = [1 / (1 + math.exp(-v)) for v in logits(attention.channel, hidden)]
        filters, spatial, shares = [1.0] * weight.shape[1], [1.0] * conv.kernel_size**2, [1.0]
        if attention.filter is not None:
            filters = [1 / (1 + math.exp(-v)) for v in logits(attention.filter, hidden)]
        if attention.spatial is not None:
            spatial = [1 / (1 + math.exp(-v)) for v in logits(attention.spatial, hidden)]
        if attention.kernel is not None:
            exponentials = [math.exp(v) for v in logits(attention.kernel, hidden)]
            shares = [e / sum(exponentials) for e in exponentials]
        kernel = torch.zeros_like(weight[0])
        for w, share in zip(weight, shares, strict=True):
            for o in range(w.shape[0]):
                for i in range(w.shape[1]):
                    factor = channel[o if conv.depthwise else i]
                    for s, value in enumerate(spatial):
                        row, column = divmod(s, conv.kernel_size)
                        kernel[o, i, row, column] += w[o, i, row, column] * share * factor * filters[o] * value
        groups = INPUTS if conv.depthwise else 1
        outputs.append(F.conv2d(one[None], kernel, None, conv.stride, conv.kernel_size // 2, 1, groups))
    return torch.cat(outputs)


@torch.no_grad()
def test_attention_over_kernels_sums_to_one_and_the_others_lie_between_zero_and_one() -> None:
    attention = ODAttention(Channels(INPUTS, 1), Channels(6, 1), 3, False, Channels(4, 1)).eval()
    for parameter in attention.parameters():
        nn.init.uniform_(parameter, -0.3, 0.3)
    channel, filters, spatial, kernel = attention(torch.randn(2, INPUTS, 5, 5))
    torch.testing.assert_close(kernel.sum(1), torch.ones(2, 1, 1))
    assert [t.shape[1] for t in (channel, filters, spatial, kernel)] == [INPUTS, 6, 9, 4]
    for factor in (channel, filters, spatial, kernel):
        assert float(factor.min()) > 0.0
        assert float(factor.max()) < 1.0


@torch.no_grad()
def test_a_high_temperature_makes_the_kernels_equal() -> None:
    conv = _drawn_odconv(3, 4)
    set_temperature(conv, 1e6)
    mixed = conv.predict(torch.randn(1, INPUTS, 5, 5)).samples[0]
    torch.testing.assert_close(mixed, conv.weight().mean(0) * 0.5, rtol=1e-3, atol=1e-4)


def test_temperature_falls_from_thirty_to_one_in_ten_epochs() -> None:
    assert [temperature_at(epoch) for epoch in (0, 5, 10, 40)] == [30.0, 15.5, 1.0, 1.0]


@torch.no_grad()
def test_a_single_1x1_kernel_leaves_no_kernel_that_depends_on_the_sample() -> None:
    spec = _drawn_odconv(1, 1).predict(torch.randn(3, INPUTS, 4, 4))
    assert spec.samples is None
    assert spec.shared.shape == (6, INPUTS, 1, 1)
    assert spec.input_factor.shape == (3, INPUTS, 1, 1)


@torch.no_grad()
def test_a_narrow_odconv_uses_a_prefix_of_channels_and_of_kernels() -> None:
    conv = _drawn_odconv(3, 4)
    with active_point(ActivePoint(0.5)):
        assert conv.weight().shape == (2, 3, 4, 3, 3)
        torch.testing.assert_close(conv.weight(), conv.weight.weight[:2, :3, :4])
        spec = conv.predict(torch.randn(2, 4, 5, 5))
    assert spec.samples.shape == (2, 3, 4, 3, 3)


@torch.no_grad()
def test_aggregation_without_attention_is_the_kernel_itself() -> None:
    weight = torch.randn(1, 2, 3, 3, 3)
    assert torch.equal(aggregate(weight, None, None), weight)


def test_an_odconv_with_groups_that_are_not_depthwise_is_refused() -> None:
    with pytest.raises(ValueError, match="groups is 2"):
        ODConv(8, 8, 3, groups=2)


def test_a_dynamic_convolution_must_say_what_it_predicts() -> None:
    with pytest.raises(NotImplementedError):
        DynamicConv()(torch.zeros(1, 1, 2, 2))
