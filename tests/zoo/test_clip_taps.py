"""3-D layers in two dimensions compute the same, for every stride, padding, dilation and group that networks use."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zoo.clip_taps import TapConv, UnsupportedClipLayerError, two_dimensional
from zoo.clips import change_to_next, fold, unfold

CLIP = (2, 4, 7, 9, 8)
LAYERS = {
    "plain": nn.Conv3d(4, 6, 3, padding=1),
    "temporal only": nn.Conv3d(4, 6, (5, 1, 1), stride=(2, 1, 1), padding=(2, 0, 0), bias=False),
    "spatial only": nn.Conv3d(4, 6, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
    "depthwise": nn.Conv3d(4, 4, (3, 3, 3), stride=(1, 2, 2), padding=1, groups=4, bias=False),
    "dilated": nn.Conv3d(4, 2, 3, padding=(2, 1, 2), dilation=(2, 1, 2), groups=2),
    "unpadded": nn.Conv3d(4, 3, (4, 2, 3), stride=(3, 1, 2)),
    "largest": nn.MaxPool3d(3, stride=2, padding=1),
    "largest of frames": nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
    "largest over time": nn.MaxPool3d((3, 1, 1), stride=1, padding=(1, 0, 0)),
    "mean": nn.AvgPool3d((2, 3, 3), stride=(2, 1, 1)),
    "mean of all": nn.AdaptiveAvgPool3d(1),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_in_two_dimensions_gives_the_same_numbers(name: str) -> None:
    torch.manual_seed(0)
    clip = torch.randn(CLIP) - 3.0  # below zero, so that padding with zeros would win in a maximum
    with torch.no_grad():
        expected, found = LAYERS[name](clip), two_dimensional(LAYERS[name])(clip)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_layers_inside_a_network_are_replaced_and_the_network_stays() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv3d(3, 8, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(8), nn.ReLU(),
        nn.Sequential(nn.Conv3d(8, 4, 3, padding=1), nn.MaxPool3d(2)), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
    ).eval()  # fmt: skip
    flat = two_dimensional(network)
    assert not any(isinstance(m, nn.Conv3d | nn.MaxPool3d | nn.AdaptiveAvgPool3d) for m in flat.modules())
    assert sum(isinstance(m, TapConv) for m in flat.modules()) == 2
    assert isinstance(network[0], nn.Conv3d)
    clip = torch.randn(2, 3, 4, 6, 6)
    with torch.no_grad():
        assert torch.allclose(flat(clip), network(clip), rtol=1e-5, atol=1e-6)
        flat[0].taps[0].weight.zero_()
        assert float(network[0].weight.abs().sum()) > 0  # a copy


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (nn.Conv3d(1, 1, 3, padding="same"), "padding other than zeros in numbers"),
        (nn.Conv3d(1, 1, 3, padding=1, padding_mode="circular"), "padding other than zeros in numbers"),
        (nn.MaxPool3d(3, ceil_mode=True), "ceil mode"),
        (nn.AvgPool3d(3, padding=1), "averages over padding"),
        (nn.AdaptiveAvgPool3d(2), "adaptive averages of more than one cell"),
    ],
)
def test_what_has_no_form_in_two_dimensions_is_named(layer: nn.Module, what: str) -> None:
    with pytest.raises(UnsupportedClipLayerError, match=rf"Sequential\.0: {what} has no form in two dimensions"):
        two_dimensional(nn.Sequential(layer))


def test_frames_of_a_clip_and_back() -> None:
    clip = torch.randn(2, 3, 4, 5, 6)
    frames = fold(clip)
    assert torch.equal(frames[5], clip[1, :, 1])
    assert torch.equal(unfold(frames, 4)[1, 1], clip[1, :, 1])


def test_the_change_to_the_next_frame_ends_with_zeros_in_each_clip() -> None:
    before, after = torch.randn(6, 2, 3, 3), torch.randn(6, 2, 3, 3)
    found = change_to_next(before, after, 3)
    expected: list[Tensor] = []
    for index in range(6):
        last = index % 3 == 2
        expected.append(torch.zeros(2, 3, 3) if last else after[index + 1] - before[index])
    assert torch.equal(found, torch.stack(expected))
