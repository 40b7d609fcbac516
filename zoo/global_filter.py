"""Global and local filter: half the channels see their neighbours, half the whole picture.

Rao et al. 2022, arXiv:2207.14284, with the learned spectral filter of GFNet (arXiv:2107.00645). The spectral half is a
product in the two-dimensional Fourier domain. Engines have no complex numbers, so the export form for one picture size
writes the transforms as real matrix products; it computes the same function.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.export_form import ExportForm
from zoo.slim_layers import Channels, SlimConv
from zoo.slim_parameters import SlimLayerNorm, SlimParameter


class SpectralFilter(ExportForm):
    """Multiplies the real Fourier transform of each channel by a learned complex filter.

    The filter is stored for one size and resized bilinearly for others.

    Args:
        channels: in and out.
        size: height and width that the filter is learned for.
    Shapes: (N, channels, H, W) -> the same.
    """

    needs_size = True

    def __init__(self, channels: Channels, size: int) -> None:
        super().__init__()
        height, width = size, size // 2 + 1
        self.filter = SlimParameter(torch.randn(channels.full, height, width, 2) * 0.02, channels, height, width, 2)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        spectrum = torch.fft.rfft2(x, norm="ortho")
        factor = torch.view_as_complex(self.filter_at(height, width).contiguous())
        return torch.fft.irfft2(spectrum * factor, s=(height, width), norm="ortho")

    def filter_at(self, height: int, width: int) -> Tensor:
        """The filter (channels, height, width // 2 + 1, 2) for feature maps of this size."""
        values, size_hw = self.filter(), (height, width // 2 + 1)
        if values.shape[1:3] == size_hw:
            return values
        resized = F.interpolate(values.permute(3, 0, 1, 2), size_hw, mode="bilinear", align_corners=True)
        return resized.permute(1, 2, 3, 0)

    def to_export_form(self, size_hw: tuple[int, int] | None) -> nn.Module:
        """The filter as matrix products for one size."""
        if size_hw is None:
            raise ValueError("SpectralFilter: the export form needs the size of the feature map")
        return SpectralFilterProducts(self.filter_at(*size_hw).detach(), size_hw[1])


class SpectralFilterProducts(nn.Module):
    """The spectral filter for one size, in real matrix products.

    The row transform is real to complex, the column transform complex to complex, then the product with the filter and
    both inverses. Real and imaginary parts lie behind each other, so that each transform is one product. The inverse
    of the halved axis counts each column twice but the first and, for even widths, the last.

    Args:
        values: (C, H, W // 2 + 1, 2), the filter's real and imaginary part.
        width: W of the feature map.
    Shapes: (N, C, H, W) -> the same.
    """

    def __init__(self, values: Tensor, width: int) -> None:
        super().__init__()
        height = values.shape[1]
        rows, columns = _transform(width)[:, : width // 2 + 1], _transform(height)
        double = torch.full((width // 2 + 1, 1), 2.0, dtype=torch.float64)
        double[0] = 1.0
        if width % 2 == 0:
            double[-1] = 1.0
        forward_rows = torch.cat([rows.real, rows.imag], 1)  # (W, 2 K): x @ it = real | imaginary part
        forward_columns = _real_block(columns)  # (2 H, 2 H)
        inverse_columns = _real_block(columns.conj())
        inverse_rows = torch.cat([double * rows.real.T, double * rows.imag.T], 0)  # real part of the inverse
        for name, value in (
            ("forward_rows", forward_rows), ("forward_columns", forward_columns),
            ("inverse_columns", inverse_columns), ("inverse_rows", inverse_rows),
        ):  # fmt: skip
            self.register_buffer(name, value.float())
        self.register_buffer("real", values[..., 0].clone())
        self.register_buffer("imaginary", values[..., 1].clone())

    def forward(self, x: Tensor) -> Tensor:
        real, imaginary = (x @ self.forward_rows).chunk(2, 3)
        real, imaginary = (self.forward_columns @ torch.cat([real, imaginary], 2)).chunk(2, 2)
        filtered = [
            real * self.real - imaginary * self.imaginary,
            real * self.imaginary + imaginary * self.real,
        ]  # fmt: skip
        real, imaginary = (self.inverse_columns @ torch.cat(filtered, 2)).chunk(2, 2)
        return torch.cat([real, imaginary], 3) @ self.inverse_rows


def _transform(size: int) -> Tensor:
    """The orthonormal discrete Fourier transform, (size, size) complex128."""
    index = torch.arange(size, dtype=torch.float64, device="cpu")
    angle = -2.0 * math.pi * torch.outer(index, index) / size
    return torch.polar(torch.full_like(angle, 1.0 / math.sqrt(size)), angle)


def _real_block(matrix: Tensor) -> Tensor:
    """A complex matrix acting from the left on stacked real and imaginary parts."""
    return torch.cat([torch.cat([matrix.real, -matrix.imag], 1), torch.cat([matrix.imag, matrix.real], 1)], 0)


class GlobalLocalFilter(nn.Module):
    """A depthwise 3x3 and a spectral filter on one half of the channels each; results alternate channel by channel.

    Args:
        unit: half of the smallest recursive dimension; every boundary between channel roles is a multiple of it.
        units: how many units wide it is (even).
        size: height and width of the feature map that the filter is learned for.
    Shapes: (N, unit * units, H, W) -> the same.
    """

    def __init__(self, unit: Channels, units: int, size: int) -> None:
        super().__init__()
        before, half, after = unit.repeated(units), unit.repeated(units // 2), unit.times(2).repeated(units // 2)
        self.before_norm = SlimLayerNorm(before, channels_first=True)
        self.local = SlimConv(half, half, 3, groups=half)
        self.spectral = SpectralFilter(half, size)
        self.after_norm = SlimLayerNorm(after, channels_first=True)

    def forward(self, x: Tensor) -> Tensor:
        near, far = self.before_norm(x).chunk(2, 1)
        alternating = torch.stack([self.local(near), self.spectral(far)], 2).flatten(1, 2)
        return self.after_norm(alternating)
