"""Omni-dimensional dynamic convolution (Li et al. 2022, arXiv:2209.07947) in ResNet and MobileNetV2.

Four attentions, predicted from the mean of the picture, act on a set of kernels: one factor for each input channel,
output channel, kernel position, and a softmax over the kernels of the set.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.dynamic_conv import DynamicConv, KernelSpec
from zoo.mobilenet_v2 import MobileNetV2
from zoo.resnet import BasicBlock, Plan, ResNet, convolution_core
from zoo.slim_layers import Channels, Joined, SlimBatchNorm, SlimConv, as_channels
from zoo.slim_parameters import SlimParameter

FIRST_TEMPERATURE, TEMPERATURE_EPOCHS = 30.0, 10  # the paper's schedule: near-uniform attention, sharpened linearly


class ODAttention(nn.Module):
    """Predicts the four attentions from the mean of each channel.

    A depthwise convolution has no output attention (it is the input one), a 1x1 kernel no spatial one, a single kernel
    none over kernels; those come back as None. `temperature` divides all logits.

    Args:
        kernels: how many in the set; a count, since a narrow subnet may keep fewer.
        reduction: hidden channels are one in so many inputs, but not fewer than `smallest`.
    """

    def __init__(
        self,
        inputs: Channels,
        outputs: Channels,
        kernel_size: int,
        depthwise: bool,
        kernels: Channels,
        reduction: int = 16,
        smallest: int = 16,
    ) -> None:
        super().__init__()
        hidden = max(inputs.full // reduction, smallest)
        self.temperature = 1.0
        self.reduce, self.norm = SlimConv(inputs, hidden, 1), SlimBatchNorm(hidden)
        self.channel = SlimConv(hidden, inputs, 1, bias=True)
        self.filter = None if depthwise else SlimConv(hidden, outputs, 1, bias=True)
        self.spatial = None if kernel_size == 1 else SlimConv(hidden, kernel_size**2, 1, bias=True)
        self.kernel = None if kernels.full == 1 else SlimConv(hidden, kernels, 1, bias=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """Factors (N, I, 1, 1), (N, O, 1, 1), (N, k * k, 1, 1) in 0-1 and (N, kernels, 1, 1) that sum to one."""
        hidden = F.relu(self.norm(self.reduce(x.mean((2, 3), keepdim=True))))
        channel, filters, spatial = (
            None if head is None else torch.sigmoid(head(hidden) / self.temperature)
            for head in (self.channel, self.filter, self.spatial)
        )
        kernel = None if self.kernel is None else (self.kernel(hidden) / self.temperature).softmax(1)
        return channel, filters, spatial, kernel


class ODConv(DynamicConv):
    """Omni-dimensional dynamic convolution; takes the place of a SlimConv.

    Narrow subnets keep a prefix of the channels and as many of the kernels as the width asks for (at least one).

    Args:
        inputs, outputs, kernel_size, stride, groups: as SlimConv.
        kernels: in the set (the paper's 1x, 2x, 4x).
    """

    def __init__(
        self,
        inputs: Channels | int,
        outputs: Channels | int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: Channels | int = 1,
        kernels: int = 1,
    ) -> None:
        super().__init__()
        inputs, outputs = as_channels(inputs), as_channels(outputs)
        depthwise = groups == inputs == outputs
        if not depthwise and groups != 1:
            raise ValueError(f"ODConv: groups is {groups}, expected 1, or the channel count of a depthwise convolution")
        self.kernel_size, self.stride, self.depthwise = kernel_size, stride, depthwise
        count = Channels(kernels, divisor=1)
        self.attention = ODAttention(inputs, outputs, kernel_size, depthwise, count)
        inside: Channels | Joined = Channels.fixed(1) if depthwise else inputs
        weight = torch.empty(kernels, outputs.full, inside.full, kernel_size, kernel_size)
        for one in weight:
            nn.init.kaiming_normal_(one, mode="fan_out", nonlinearity="relu")
        self.weight = SlimParameter(weight, count, outputs, inside, kernel_size, kernel_size)

    def predict(self, x: Tensor) -> KernelSpec:
        """Attention, and the kernels that it gives."""
        channel, filters, spatial, kernel = self.attention(x)
        weight = self.weight()
        dynamic = spatial is not None or kernel is not None
        return KernelSpec(
            self.kernel_size, self.stride, x.shape[1] if self.depthwise else 1,
            shared=None if dynamic else weight[0],
            samples=aggregate(weight, spatial, kernel) if dynamic else None,
            input_factor=channel, output_factor=filters,
        )  # fmt: skip


def aggregate(weight: Tensor, spatial: Tensor | None, kernel: Tensor | None) -> Tensor:
    """Kernels per sample: the set weighted by kernel, then each position by its factor.

    Args:
        weight: (K, O, I, k, k).
        spatial: (N, k * k, 1, 1) or None; kernel: (N, K, 1, 1) or None (K is 1).
    Returns:
        (N, O, I, k, k); (1, O, I, k, k) when both are None.
    """
    size = weight.shape[-1]
    if kernel is None:
        total = weight[:1]
    else:
        total = kernel[:, 0, :, :, None].unsqueeze(1) * weight[0]
        for index in range(1, weight.shape[0]):
            total = total + kernel[:, index, :, :, None].unsqueeze(1) * weight[index]
    return total if spatial is None else total * spatial.reshape(-1, 1, 1, size, size)


def temperature_at(epoch: float) -> float:
    """The attention's temperature after `epoch` epochs: 30 to 1 over the first ten, then 1."""
    return max(1.0, FIRST_TEMPERATURE - (FIRST_TEMPERATURE - 1.0) * epoch / TEMPERATURE_EPOCHS)


def set_temperature(model: nn.Module, temperature: float) -> None:
    """Set the temperature of every attention in a network."""
    for module in model.modules():
        if isinstance(module, ODAttention):
            module.temperature = temperature


def od_plan(kernels: int, **slots: object) -> Plan:
    """Every convolution of the blocks is dynamic, also the 1x1; stem and shortcuts are not."""
    convolution = partial(ODConv, kernels=kernels)
    return Plan(convolution=convolution, core=partial(convolution_core, convolution=convolution), **slots)


def _resnet18(kernels: int) -> partial[ResNet]:
    return partial(ResNet, plan=od_plan(kernels, block=BasicBlock), depths=(2, 2, 2, 2))


def _mobilenet(width_mult: float, kernels: int) -> partial[MobileNetV2]:
    return partial(MobileNetV2, convolution=partial(ODConv, kernels=kernels), width_mult=width_mult)


VARIANTS = {
    "od_resnet18_1x": _resnet18(1),
    "od_resnet18_4x": _resnet18(4),
    "od_resnet50_1x": partial(ResNet, plan=od_plan(1)),
    "od_resnet50_4x": partial(ResNet, plan=od_plan(4)),
    "od_resnet101_1x": partial(ResNet, plan=od_plan(1), depths=(3, 4, 23, 3)),
    "od_resnet101_2x": partial(ResNet, plan=od_plan(2), depths=(3, 4, 23, 3)),
    "od_mobilenetv2_050_1x": _mobilenet(0.5, 1),
    "od_mobilenetv2_050_4x": _mobilenet(0.5, 4),
    "od_mobilenetv2_075_1x": _mobilenet(0.75, 1),
    "od_mobilenetv2_075_4x": _mobilenet(0.75, 4),
    "od_mobilenetv2_100_1x": _mobilenet(1.0, 1),
    "od_mobilenetv2_100_4x": _mobilenet(1.0, 4),
}
