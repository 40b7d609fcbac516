"""HorNet's gated convolution and global filter against references written as loops and as Fourier transforms."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.export_form import FixedSizeError, export_form, has_fixed_size
from zoo.global_filter import GlobalLocalFilter, SpectralFilter
from zoo.hornet import GatedConvolution, HorNet
from zoo.slim_layers import ActivePoint, Channels, active_point
from zoo.slim_net import materialise

UNIT = Channels(4, divisor=1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _drawn(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return module.eval()


@pytest.mark.parametrize("order", [2, 3, 4, 5])
@torch.no_grad()
def test_gated_convolution_equals_the_recursion_written_out(order: int) -> None:
    gated = _drawn(GatedConvolution(UNIT, order, None)).double()
    channels = 4 * 2**order
    dims = [channels // 2 ** (order - 1 - k) for k in range(order)]
    x = torch.randn(2, channels, 5, 5, dtype=torch.float64)
    projected = F.conv2d(x, gated.project.weight, gated.project.bias)
    product = projected[:, : dims[0]]
    filtered = torch.zeros_like(projected[:, dims[0] :])
    padded = F.pad(projected[:, dims[0] :], (3, 3, 3, 3))
    for row in range(7):
        for column in range(7):
            tap = gated.filter.weight[:, 0, row, column].view(1, -1, 1, 1)
            filtered += tap * padded[:, :, row : row + 5, column : column + 5]
    filtered = (filtered + gated.filter.bias.view(1, -1, 1, 1)) / 3
    start = 0
    for k, width in enumerate(dims):
        if k:
            widen = gated.widen[k - 1]
            product = torch.einsum("nchw,oc->nohw", product, widen.weight[:, :, 0, 0]) + widen.bias.view(1, -1, 1, 1)
        product = product * filtered[:, start : start + width]
        start += width
    assert start == filtered.shape[1]
    expected = F.conv2d(product, gated.output.weight, gated.output.bias)
    torch.testing.assert_close(gated(x), expected)


@torch.no_grad()
def test_order_n_multiplies_n_filtered_factors() -> None:
    """Scaling the input by two scales the output by 2 to the power n + 1 when nothing is biased."""
    for order in (2, 3):
        gated = _drawn(GatedConvolution(UNIT, order, None))
        for name, parameter in gated.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
        x = torch.randn(1, 4 * 2**order, 6, 6)
        torch.testing.assert_close(gated(2 * x), gated(x) * 2.0 ** (order + 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("filter_size", [None, 6])
@pytest.mark.parametrize("order", [2, 4])
@torch.no_grad()
def test_a_narrow_gated_convolution_equals_the_full_one_with_its_other_channels_at_zero(
    order: int, filter_size: int | None
) -> None:
    """Segments keep their place: the subnet is the full operator restricted to the channels that it keeps."""
    gated = _drawn(GatedConvolution(UNIT, order, filter_size))
    if filter_size is not None:  # norms mix all channels, so that no operator with them can be restricted
        gated.filter.before_norm = gated.filter.after_norm = nn.Identity()
    width, channels = 0.5, 4 * 2**order
    x = torch.randn(2, channels // 2, 6, 6)
    with active_point(ActivePoint(width)):
        narrow = gated(x)
    for layer in (gated.project, *gated.widen):
        layer.weight.copy_(_kept_only(layer.weight, layer.outputs, width))
        layer.bias.copy_(_kept_only(layer.bias, layer.outputs, width))
    if filter_size is None:
        gated.filter.bias.copy_(_kept_only(gated.filter.bias, gated.filter.outputs, width))
    wide = gated(F.pad(x, (0, 0, 0, 0, 0, channels - channels // 2)))
    torch.testing.assert_close(wide[:, : channels // 2], narrow, rtol=1e-4, atol=1e-5)


def _kept_only(values: torch.Tensor, count: Channels, width: float) -> torch.Tensor:
    """Zero everywhere but at the channels that the width keeps."""
    kept = count.take(torch.arange(len(values)), width)
    result = torch.zeros_like(values)
    result[kept] = values[kept]
    return result


@pytest.mark.parametrize("size_hw", [(14, 14), (7, 7), (8, 5), (5, 8), (3, 12)])
@torch.no_grad()
def test_the_filter_as_real_products_equals_the_fourier_transform(size_hw: tuple[int, int]) -> None:
    spectral = SpectralFilter(Channels(6, 1), 14)
    nn.init.normal_(spectral.filter.weight)
    x = torch.randn(2, 6, *size_hw)
    products = spectral.to_export_form(size_hw)
    torch.testing.assert_close(products(x), spectral(x), rtol=1e-4, atol=1e-4)
    assert not any(t.is_complex() for t in products.state_dict().values())


@torch.no_grad()
def test_a_filter_of_ones_passes_the_picture_and_its_first_entry_alone_the_mean() -> None:
    spectral = SpectralFilter(Channels(2, 1), 6)
    spectral.filter.weight.zero_()
    spectral.filter.weight[:, 0, 0, 0] = 1.0
    x = torch.randn(1, 2, 6, 6)
    torch.testing.assert_close(spectral(x), x.mean((2, 3), keepdim=True).expand_as(x))
    spectral.filter.weight[..., 0] = 1.0
    torch.testing.assert_close(spectral(x), x)


@torch.no_grad()
def test_local_and_global_halves_alternate_channel_by_channel() -> None:
    both = GlobalLocalFilter(Channels(2, 1), 6, 6).eval()
    both.before_norm = both.after_norm = nn.Identity()
    x = torch.randn(1, 12, 6, 6)
    y = both(x)
    torch.testing.assert_close(y[:, 0::2], both.local(x[:, :6]))
    torch.testing.assert_close(y[:, 1::2], both.spectral(x[:, 6:]))


@pytest.mark.parametrize("width", [1.0, 0.75, 0.5, 0.3])
def test_every_stage_keeps_a_multiple_of_its_power_of_two(width: float) -> None:
    model = HorNet(2, channels=64, depths=(1, 1, 1, 1))
    for stage, blocks in enumerate(model.stages):
        channels = blocks[-1].mix.output.outputs.at(width)
        assert channels % 2 ** (stage + 1) == 0
        assert channels == model.stages[0][-1].mix.output.outputs.at(width) * 2**stage


@torch.no_grad()
def test_a_global_filter_network_is_exported_for_one_size_only() -> None:
    model = HorNet(3, width_mult=0.125, depths=(1, 1, 1, 1), global_filter=True, small_input=True).eval()
    plain = materialise(model, width=1.0)
    assert has_fixed_size(plain)
    with pytest.raises(FixedSizeError, match="one picture size only"):
        export_form(plain, None)
    x = torch.randn(1, 3, 48, 32)
    form = export_form(plain, (48, 32))
    torch.testing.assert_close(form(x), plain(x), rtol=1e-4, atol=1e-5)
    assert not has_fixed_size(form)
    assert has_fixed_size(plain)


@torch.no_grad()
def test_layer_scale_at_zero_leaves_stem_and_downsampling_alone() -> None:
    options = {"num_classes": 5, "width_mult": 0.25, "depths": (1, 1, 1, 1)}
    silent, loud = (HorNet(layer_scale=scale, **options).eval() for scale in (0.0, 0.1))
    loud.load_state_dict({k: v for k, v in silent.state_dict().items() if "_scale" not in k}, strict=False)
    x = torch.randn(2, 3, 32, 32)
    plain = silent.stem(x)
    for stage in silent.stages:
        plain = nn.Sequential(*list(stage)[:-1])(plain)
    assert torch.equal(silent(x), silent.forward_head(plain))
    assert not torch.equal(loud(x), silent(x))
