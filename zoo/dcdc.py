"""DCDC: dual complementary dynamic convolution, built after its abstract (Yan et al. 2022, arXiv:2211.06163).

No code and no table of the paper were at hand. What the abstract says is what is here: the outputs of two branches are
added, one with a kernel for each position, predicted from the feature there (local spatial-adaptive, LSA), and one with
a kernel for each picture, the same at all positions (global shift-invariant, GSI); the operator takes the place of the
3x3 convolutions of a ResNet. How the kernels are predicted is our reading: LSA as in involution (arXiv:2103.06255), GSI
as a depthwise kernel from the global mean, as in DDF (arXiv:2104.14107), without its filter normalisation.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.dynamic_conv import DynamicConv, KernelSpec
from zoo.resnet import Plan, ResNet, Site
from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv

GROUP_CHANNELS = 16  # channels that share a kernel in LSA; a width keeps whole groups
LSA_REDUCTION, GSI_REDUCTION = 4, 5


class LocalSpatialAdaptive(DynamicConv):
    """A depthwise kernel for each position, predicted by two 1x1 convolutions from the feature there.

    With a stride the feature is average-pooled to the output's size before.

    Args:
        groups: how many groups of 16 channels; each has a kernel of its own.
    """

    export_backend = "shift"

    def __init__(self, groups: Channels, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        channels = groups.times(GROUP_CHANNELS)
        hidden = groups.times(GROUP_CHANNELS // LSA_REDUCTION)
        self.pool = nn.AvgPool2d(stride, stride, ceil_mode=True) if stride > 1 else nn.Identity()
        self.reduce = nn.Sequential(SlimConv(channels, hidden, 1), SlimBatchNorm(hidden), nn.ReLU(inplace=True))
        self.span = SlimConv(hidden, groups.times(kernel_size**2), 1, bias=True)

    def predict(self, x: Tensor) -> KernelSpec:
        """Kernels (N, groups, k * k, H, W)."""
        kernels = self.span(self.reduce(self.pool(x))).unflatten(1, (-1, self.kernel_size**2))
        return KernelSpec(self.kernel_size, self.stride, positions=kernels)


class GlobalShiftInvariant(DynamicConv):
    """A depthwise kernel for each picture, predicted by two layers from the mean of each channel."""

    def __init__(self, groups: Channels, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        channels = groups.times(GROUP_CHANNELS)
        hidden = max(channels.full // GSI_REDUCTION, 1)
        self.reduce = SlimConv(channels, hidden, 1, bias=True)
        self.span = SlimConv(hidden, channels.times(kernel_size**2), 1, bias=True)

    def predict(self, x: Tensor) -> KernelSpec:
        """Kernels (N, channels, 1, k, k)."""
        hidden = F.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        kernels = self.span(hidden).reshape(x.shape[0], x.shape[1], 1, self.kernel_size, self.kernel_size)
        return KernelSpec(self.kernel_size, self.stride, groups=x.shape[1], samples=kernels)


class DualComplementaryConv(nn.Module):
    """The two branches added; a block core, with norm and activation.

    Args:
        channels: from `whole_groups`.
        kernel_size: of both branches.
        local, shared: build the LSA and the GSI branch; the tests and ablations leave one out.
    Shapes: (N, channels, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self, channels: Channels, site: Site, kernel_size: int = 3, *, local: bool = True, shared: bool = True
    ) -> None:
        super().__init__()
        groups = Channels(channels.base, channels.divisor)
        self.branches = nn.ModuleList()
        if local:
            self.branches.append(LocalSpatialAdaptive(groups, kernel_size, site.stride))
        if shared:
            self.branches.append(GlobalShiftInvariant(groups, kernel_size, site.stride))
        self.norm = SlimBatchNorm(channels)

    def convolve(self, x: Tensor) -> Tensor:
        """The sum of the branches, before norm and activation."""
        return sum(branch(x) for branch in self.branches)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.convolve(x)))


def whole_groups(planes: float) -> Channels:
    """The stage's width as a number of groups of 16 channels."""
    return Channels(max(1, round(planes / GROUP_CHANNELS)), divisor=1).times(GROUP_CHANNELS)


DCDC_PLAN = Plan(inner=whole_groups, core=DualComplementaryConv)

VARIANTS = {
    "dcdc_resnet50": partial(ResNet, plan=DCDC_PLAN),
    "dcdc_resnet101": partial(ResNet, plan=DCDC_PLAN, depths=(3, 4, 23, 3)),
}
