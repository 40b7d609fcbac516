"""Folding norms: which norm belongs to which convolution, the same function afterwards, refusal where it is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from converters.errors import ConversionError
from converters.norm_folding import NormPair, find_norm_pairs, fold_norms, scale_and_shift

PICTURE = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))


def norm(channels: int) -> nn.BatchNorm2d:
    """A norm with statistics and parameters of its own, some gammas negative."""
    made = nn.BatchNorm2d(channels)
    draw = torch.Generator().manual_seed(channels)
    with torch.no_grad():
        for tensor in (made.weight, made.bias, made.running_mean):
            tensor.copy_(torch.randn(channels, generator=draw))
        made.running_var.copy_(torch.rand(channels, generator=draw) + 0.1)
    return made.eval()


class Twisted(nn.Module):
    """Norms are declared before, and in another order than, their convolutions; one norm stands alone."""

    def __init__(self) -> None:
        super().__init__()
        self.alone, self.second_norm, self.first_norm = norm(3), norm(8), norm(4)
        self.second = nn.Conv2d(4, 8, 3, bias=False)
        self.first = nn.Conv2d(3, 4, 3, bias=True)
        self.depthwise, self.depthwise_norm = nn.Conv2d(8, 8, 3, groups=8, bias=False), norm(8)
        self.plain = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first_norm(self.first(self.alone(x))).relu()
        x = self.second_norm(self.second(x)).relu()
        return self.plain(self.depthwise_norm(self.depthwise(x))).mean((2, 3))


class TwoReaders(nn.Module):
    """A convolution whose output goes through its norm and around it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), norm(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        return (x + self.norm(x)).mean((2, 3))


def test_each_norm_is_paired_with_the_convolution_that_feeds_it() -> None:
    pairs = find_norm_pairs(Twisted().eval(), PICTURE)
    assert pairs == [
        NormPair("first", "first_norm"), NormPair("second", "second_norm"), NormPair("depthwise", "depthwise_norm")
    ]  # fmt: skip


def test_finding_pairs_leaves_no_hooks() -> None:
    model = Twisted().eval()
    find_norm_pairs(model, PICTURE)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@torch.no_grad()
def test_the_folded_network_computes_the_same_and_the_original_is_kept() -> None:
    model = Twisted().eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    pairs = find_norm_pairs(model, PICTURE)
    folded = fold_norms(model, pairs, PICTURE)
    torch.testing.assert_close(folded(PICTURE), model(PICTURE), rtol=1e-5, atol=1e-5)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules()) == 1  # the one that stands alone
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@torch.no_grad()
def test_scale_and_shift_are_the_norm_after_the_convolution() -> None:
    convolution, behind = nn.Conv2d(3, 4, 3, bias=True), norm(4)
    scale, shift = scale_and_shift(convolution, behind)
    bare = nn.functional.conv2d(PICTURE, convolution.weight).double()
    expected = behind(convolution(PICTURE)).double()
    torch.testing.assert_close(bare * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1), expected, rtol=1e-5, atol=1e-5)


def test_a_convolution_with_a_second_reader_is_refused() -> None:
    model = TwoReaders().eval()
    with pytest.raises(ConversionError, match="a convolution's output is read twice"):
        fold_norms(model, find_norm_pairs(model, PICTURE), PICTURE)
