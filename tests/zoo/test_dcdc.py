"""DCDC by its properties: there is no reference implementation to compare with."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import zoo
from zoo.dcdc import GROUP_CHANNELS, DualComplementaryConv, whole_groups
from zoo.dynamic_conv import SAMPLE_BACKENDS, set_backend
from zoo.export_form import export_form
from zoo.resnet import Site, convolution_core

INSIDE = Site(stage=1, first=False, stride=1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _dual(stride: int = 1, planes: int = 32, **branches: bool) -> DualComplementaryConv:
    dual = DualComplementaryConv(whole_groups(planes), Site(1, False, stride), **branches)
    for parameter in dual.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return dual.eval()


@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_the_global_branch_alone_is_a_depthwise_convolution_with_one_kernel_per_picture(stride: int) -> None:
    dual = _dual(stride, local=False)
    branch, x = dual.branches[0], torch.randn(3, 32, 7, 6)
    for n in range(3):
        mean = x[n].mean((1, 2))
        hidden = (branch.reduce.weight[:, :, 0, 0] @ mean + branch.reduce.bias).clamp(min=0)
        kernel = (branch.span.weight[:, :, 0, 0] @ hidden + branch.span.bias).view(32, 1, 3, 3)
        expected = F.conv2d(x[n : n + 1], kernel, None, stride, 1, 1, 32)
        torch.testing.assert_close(dual.convolve(x)[n : n + 1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_the_local_branch_alone_equals_a_loop_over_positions(stride: int) -> None:
    dual = _dual(stride, shared=False)
    branch, x = dual.branches[0], torch.randn(2, 32, 6, 4)
    convolution, norm = branch.reduce[0], branch.reduce[1]
    found = dual.convolve(x)
    assert found.shape == (2, 32, 6 // stride, 4 // stride)
    padded = F.pad(x, (1, 1, 1, 1))
    for n in range(2):
        for row in range(6 // stride):
            for column in range(4 // stride):
                top, left = row * stride, column * stride
                feature = x[n, :, top : top + stride, left : left + stride].mean((1, 2))
                hidden = convolution.weight[:, :, 0, 0] @ feature / (1 + 1e-5) ** 0.5
                hidden = (hidden * norm.weight + norm.bias).clamp(min=0)
                kernels = (branch.span.weight[:, :, 0, 0] @ hidden + branch.span.bias).view(2, 3, 3)
                for channel in range(32):
                    window = padded[n, channel, top : top + 3, left : left + 3]
                    expected = (window * kernels[channel // GROUP_CHANNELS]).sum()
                    torch.testing.assert_close(found[n, channel, row, column], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_outputs_of_the_branches_are_added() -> None:
    dual, x = _dual(), torch.randn(2, 32, 5, 5)
    local, shared = dual.branches
    torch.testing.assert_close(dual.convolve(x), local(x) + shared(x))


@torch.no_grad()
def test_a_local_branch_that_predicts_the_same_everywhere_is_an_ordinary_depthwise_convolution() -> None:
    dual = _dual(shared=False)
    span = dual.branches[0].span
    nn.init.zeros_(span.weight)
    kernel = span.bias.view(2, 1, 3, 3).repeat_interleave(GROUP_CHANNELS, 0)
    x = torch.randn(2, 32, 6, 5)
    torch.testing.assert_close(dual.convolve(x), F.conv2d(x, kernel, padding=1, groups=32), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_local_branch_moves_with_the_picture_inside_the_border() -> None:
    dual, x = _dual(shared=False), torch.randn(1, 32, 9, 9)
    moved = dual.convolve(x.roll((2, 1), (2, 3)))
    torch.testing.assert_close(moved[:, :, 3:-1, 2:-1], dual.convolve(x).roll((2, 1), (2, 3))[:, :, 3:-1, 2:-1])


@torch.no_grad()
def test_the_global_branch_sees_the_whole_picture_and_the_local_one_does_not() -> None:
    x = torch.randn(1, 32, 9, 9)
    changed = x.clone()
    changed[:, :, 8, 8] += 5.0
    for branches, equal in (({"shared": False}, True), ({"local": False}, False)):
        dual = _dual(**branches)
        assert torch.allclose(dual.convolve(x)[..., 0, 0], dual.convolve(changed)[..., 0, 0]) is equal


@pytest.mark.parametrize("planes", [64, 128, 256, 512])
def test_it_holds_fewer_parameters_than_the_3x3_that_it_replaces(planes: int) -> None:
    with torch.device("meta"):
        cores = DualComplementaryConv(whole_groups(planes), INSIDE), convolution_core(whole_groups(planes), INSIDE)
    ours, replaced = (sum(p.numel() for p in core.parameters()) for core in cores)
    assert ours < 0.3 * replaced


@pytest.mark.parametrize("backend", SAMPLE_BACKENDS)
@torch.no_grad()
def test_every_backend_gives_the_same(backend: str) -> None:
    dual, x = _dual(2), torch.randn(2, 32, 7, 6)
    expected = dual(x)
    set_backend(dual, backend)
    torch.testing.assert_close(dual(x), expected, rtol=1e-4, atol=1e-5)


def test_the_export_form_shifts_per_position_and_leaves_no_batch_in_the_groups() -> None:
    model = zoo.create("dcdc_resnet50", num_classes=3, width_mult=0.25, depths=(1, 1, 1, 1), small_input=True)
    plain = zoo.materialise(model, width=1.0)
    backends = {type(m).__name__: m.backend for m in export_form(plain, None).modules() if hasattr(m, "backend")}
    assert backends == {"LocalSpatialAdaptive": "shift", "GlobalShiftInvariant": "bmm"}
    assert all(m.backend == "grouped" for m in plain.modules() if hasattr(m, "backend"))
