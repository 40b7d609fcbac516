"""S3D and S3D-G: parity with recorded facts, each part against a slow reference, training, widths and export."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from onnx_parity import assert_onnx_equals
from parity import assert_parity, counted
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from zoo import s3d
from zoo.calibrate import point_statistics
from zoo.madds import count_madds
from zoo.s3d import BRANCHES, LAYERS, MILNCE, MILNCE_S2D, S3D, VARIANTS, Gate, InceptionBlock, Pool, space_to_depth
from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv, SlimLayer

FACTS = json.loads((Path(__file__).parent / "facts" / "s3d.json").read_text("utf-8"))
CLASSES = 5
CLIP = (8, 32, 32)  # frames and pixels: the least that S3D takes
FLAVOURS = pytest.mark.parametrize("name", VARIANTS)


def small(name: str = "s3d", **options: object) -> S3D:
    """An eighth of the channels, with seeded weights; every parameter is drawn, so that each of them matters."""
    torch.manual_seed(0)
    model = VARIANTS[name](num_classes=CLASSES, width_mult=0.125, **options)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.0)
        elif parameter.dim() == 2:  # linear layers start so small that all clips look alike
            nn.init.uniform_(parameter, -1.0, 1.0)
    return model.eval()


def clips(count: int = 2, size: tuple[int, int, int] = CLIP) -> Tensor:
    """Seeded clips (count, 3, T, H, W)."""
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FACTS["fingerprints"])
def test_a_variant_gives_the_outputs_of_the_reference(name: str) -> None:
    assert_parity(VARIANTS[name](), FACTS["fingerprints"][name])  # the reference's classifier is a 1x1x1 convolution


@pytest.mark.parametrize("name", FACTS["counts"])
def test_parameters_and_multiply_adds_equal_the_reference(name: str) -> None:
    facts = FACTS["counts"][name]
    assert counted(VARIANTS[name], *facts["inputs"]) == (facts["params"], facts["madds"])


def test_the_facts_hold_every_variant() -> None:
    assert list(FACTS["counts"]) == list(VARIANTS)


@pytest.mark.parametrize("layer", FACTS["temporal_from"])
def test_a_top_heavy_network_has_the_cost_of_its_layer_table(layer: str) -> None:
    facts = FACTS["temporal_from"][layer]
    with torch.device("meta"):
        model = S3D(temporal_from=None if layer == "none" else layer).eval()
        madds = count_madds(model, (1, 3, 64, 224, 224))
    assert round(madds / 1e9, 1) == facts["gmadds"]
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == facts["mparams"]


@pytest.mark.parametrize("first", range(len(LAYERS) + 1))
def test_convolutions_look_over_time_from_the_named_layer_on(first: int) -> None:
    with torch.device("meta"):
        model = S3D(temporal_from=LAYERS[first] if first < len(LAYERS) else None)
    blocks = [m for m in model.modules() if isinstance(m, InceptionBlock)]
    deep = [max(k for k, _, _ in kernels(part)) for part in (model.stem, model.stages[0], *blocks)]
    assert [time > 1 for time in deep] == [position >= first for position in range(len(LAYERS))]
    assert all(time == 1 or side == 1 for time, side, _ in kernels(model))


def kernels(part: nn.Module) -> list[tuple[int, ...]]:
    """(T, H, W) of each convolution."""
    return [m.kernel_size for m in part.modules() if isinstance(m, SlimConv)]


@pytest.mark.parametrize(("temporal", "touched"), [(False, [3]), (True, [2, 3, 4])])
@torch.no_grad()
def test_a_separable_convolution_mixes_neighbouring_frames_only_when_it_looks_over_time(
    temporal: bool, touched: list[int]
) -> None:
    part = s3d.separable(3, Channels(8), 3, temporal, 1e-3).eval()
    before, after = clips(1), clips(1)
    after[:, :, 3] += 1.0
    changed = (part(before) != part(after)).any(dim=4).any(dim=3).any(dim=1)[0]
    assert changed.nonzero().flatten().tolist() == touched


def test_gates_cost_one_square_matrix_with_bias_for_2c_and_each_branch() -> None:
    outputs = [192, *(row[i] for row in BRANCHES.values() for i in (0, 2, 4, 5))]
    with torch.device("meta"):
        plain, gated = (sum(p.numel() for p in S3D(gating=g).parameters()) for g in (False, True))
    assert gated - plain == sum(c * c + c for c in outputs)


@torch.no_grad()
def test_a_gate_multiplies_each_channel_by_the_sigmoid_of_its_clip_mean() -> None:
    gate, x = Gate(Channels(8)), torch.randn(2, 8, 3, 4, 5)
    found = gate(x)
    for n, c in itertools.product(range(2), range(8)):
        score = sum(float(gate.linear.weight[c, k]) * float(x[n, k].mean()) for k in range(8)) + gate.linear.bias[c]
        torch.testing.assert_close(found[n, c], x[n, c] * torch.sigmoid(score))


def test_space_to_depth_orders_frame_row_column_then_colour() -> None:
    x = clips(2, (4, 6, 8))
    found = space_to_depth(x)
    assert found.shape == (2, 24, 2, 3, 4)
    for t, h, w, c in itertools.product(range(2), range(2), range(2), range(3)):
        torch.testing.assert_close(found[:, ((t * 2 + h) * 2 + w) * 3 + c], x[:, c, t::2, h::2, w::2])


@torch.no_grad()
def test_the_space_to_depth_stem_is_a_strided_4x8x8_convolution_padded_as_tensorflow_does() -> None:
    stem = s3d.SpaceToDepthStem(Channels(8), True, 1e-5).eval()
    weight = stem.convolution[0].weight.unflatten(1, (2, 2, 2, 3))  # out, dt, dh, dw, colour, kt, kh, kw
    wide = weight.permute(0, 4, 5, 1, 6, 2, 7, 3).reshape(8, 3, 4, 8, 8)
    x = clips(2, (4, 12, 16))
    expected = F.relu(F.conv3d(F.pad(x, (2, 4, 2, 4, 0, 2)), wide, stride=2) / (1.0 + 1e-5) ** 0.5)
    torch.testing.assert_close(stem(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("temporal", "seen"), [(True, range(1, 8)), (False, [4])])
@torch.no_grad()
def test_the_separable_stem_takes_every_other_frame_and_pixel_centred_on_its_window(
    temporal: bool, seen: list[int]
) -> None:
    stem = s3d.separable_stem(Channels(8), temporal, 1e-3).eval()
    for module in stem.modules():
        if isinstance(module, SlimConv):
            nn.init.constant_(module.weight, 0.01)
    x = torch.zeros(1, 3, 9, 16, 16).requires_grad_()
    with torch.enable_grad():
        stem(x + 1.0)[0, 0, 2, 4, 4].backward()
    touched = [sorted(set(axis.tolist())) for axis in x.grad[0, 0].nonzero().T]
    assert touched == [list(seen), list(range(5, 12)), list(range(5, 12))]
    assert stem(x).shape == (1, 8, 5, 8, 8)


@pytest.mark.parametrize("pad_after", [False, True])
@pytest.mark.parametrize(("kernel", "stride"), [row[:2] for row in s3d.STAGES])
@pytest.mark.parametrize("size", [(4, 6, 8), (5, 7, 9)])
def test_pools_equal_a_loop_over_windows(
    pad_after: bool, kernel: tuple[int, int, int], stride: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    x = torch.rand(2, 3, *size)
    found = Pool(kernel, stride, pad_after)(x)
    expected = torch.zeros_like(found)
    before = [0 if pad_after else (k - 1) // 2 for k in kernel]
    for place in itertools.product(*(range(count) for count in found.shape[2:])):
        starts = [p * s - b for p, s, b in zip(place, stride, before, strict=True)]
        window = [slice(max(0, a), a + k) for a, k in zip(starts, kernel, strict=True)]
        expected[(..., *place)] = x[(..., *window)].amax((2, 3, 4))
    torch.testing.assert_close(found, expected)
    down = not pad_after and kernel == (2, 2, 2)
    counts = [n // s if down else -(-n // s) for n, s in zip(size, stride, strict=True)]
    assert list(found.shape[2:]) == counts


@torch.no_grad()
def test_scores_weigh_the_first_and_last_frame_half_in_the_plain_network_only() -> None:
    model, milnce = small(), small("s3dg_milnce_plain_stem")
    x = torch.randn(2, model.feature_info[-1].channels, 4, 2, 3)
    frames = x.mean((3, 4))
    weights = torch.tensor([0.5, 1.0, 1.0, 0.5]) / 3
    torch.testing.assert_close(model.forward_head(x), model.classifier(frames @ weights), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.forward_head(x[:, :, :1]), model.classifier(frames[:, :, 0]))
    torch.testing.assert_close(milnce.forward_head(x), milnce.classifier(frames.mean(2)))


@pytest.mark.parametrize(("flavour", "eps"), [(s3d.TORCHVISION, 1e-3), (MILNCE, 1e-5), (MILNCE_S2D, 1e-5)])
def test_every_norm_has_the_epsilon_of_its_flavour(flavour: s3d.Flavour, eps: float) -> None:
    with torch.device("meta"):
        norms = [m for m in S3D(flavour=flavour).modules() if isinstance(m, SlimBatchNorm)]
    assert {norm.eps for norm in norms} == {eps}


@FLAVOURS
@torch.no_grad()
def test_features_have_the_channels_and_strides_that_the_network_states(name: str) -> None:
    model = small(name)
    features = model.forward_features(clips(1, (16, 64, 32)))
    stated = [(info.channels, 64 // info.stride, 32 // info.stride) for info in model.feature_info]
    assert [(f.shape[1], f.shape[3], f.shape[4]) for f in features] == stated
    assert [f.shape[2] for f in features] == [8, 8, 4, 2]
    assert model.forward_head(model.forward_until(clips(1), 4)).shape == (1, CLASSES)


@pytest.mark.parametrize("size", [(9, 33, 47), (13, 32, 64)])
@torch.no_grad()
def test_a_plain_stem_takes_odd_sizes(size: tuple[int, int, int]) -> None:
    for name in ("s3d", "s3dg_milnce_plain_stem"):
        assert bool(small(name)(clips(1, size)).isfinite().all())


@FLAVOURS
def test_a_small_network_learns_one_batch_and_reaches_every_parameter(name: str) -> None:
    model = small(name, temporal_from="3c").train()
    model.dropout.p = 0.0
    x, labels = clips(4), torch.arange(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for step in range(8):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        if step == 0:
            silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
            assert silent == []
            assert all(bool(p.grad.isfinite().all()) for p in model.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_fresh_convolutions_over_time_pass_their_frame_on() -> None:
    over_time = [m for m in S3D(width_mult=0.125).modules() if isinstance(m, SlimConv) and m.kernel_size[0] > 1]
    assert len(over_time) == 20
    for convolution in over_time:
        channels, time = convolution.outputs.full, convolution.kernel_size[0]
        expected = torch.zeros(channels, channels, time)
        expected[:, :, time // 2] = torch.eye(channels)
        torch.testing.assert_close(convolution.weight[..., 0, 0].detach(), expected)


@FLAVOURS
@torch.no_grad()
def test_a_materialised_subnet_equals_the_supernet_at_its_point(name: str) -> None:
    model = VARIANTS[name](num_classes=CLASSES, width_mult=0.25, gating=True)
    nn.init.normal_(model.classifier.weight)
    batches = [torch.randn(4, 3, *CLIP) for _ in range(2)]
    entries = {model.point_key(width, CLIP): point_statistics(model, width, batches) for width in (1.0, 0.5)}
    model.norm_bank.entries = entries
    outputs = []
    for width in (1.0, 0.5):
        plain = zoo.materialise(model, width=width, resolution=CLIP)
        assert not any(isinstance(module, SlimLayer) for module in plain.modules())
        outputs.append(plain(batches[0]))
        torch.testing.assert_close(outputs[-1], model(batches[0], width), rtol=1e-4, atol=1e-5)
        assert float(outputs[-1].std(0).mean()) > 1e-2
    assert not torch.allclose(*outputs, atol=1e-3)


@torch.no_grad()
def test_a_narrow_block_keeps_a_prefix_of_each_branch() -> None:
    model = S3D(num_classes=CLASSES, gating=True)
    plain = zoo.materialise(model, width=0.5)
    full = [BRANCHES["3b"][i] for i in (0, 2, 4, 5)]
    kept = [count // 2 for count in full]
    wide = model.stages[1][2].branches[0][0].weight  # 3c reads the branches of 3b behind each other
    narrow = plain.stages[1][2].branches[0][0].weight
    parts = [part[:, :count] for part, count in zip(wide.split(full, 1), kept, strict=True)]
    torch.testing.assert_close(narrow, torch.cat(parts, 1)[: narrow.shape[0]])
    assert sum(p.numel() for p in plain.parameters()) < 0.3 * sum(p.numel() for p in model.parameters())


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="temporal_from is '3d', expected None or one of stem, 2c, 3b"):
        S3D(temporal_from="3d")
    model = small("s3dg_milnce_s2d")
    for shape in ((1, 3, 32, 32), (1, 1, 8, 32, 32), (1, 3, 7, 32, 32), (1, 3, 8, 31, 32), (1, 3, 8, 32, 30)):
        with pytest.raises(ValueError, match="expected clips \\(N, 3, T, H, W\\) of at least 8 frames"):
            model(torch.zeros(shape))
    with pytest.raises(ValueError, match="expected even sizes for the space-to-depth stem"):
        model(torch.zeros(1, 3, 8, 33, 32))


@pytest.mark.slow  # a minute of exporting each
@pytest.mark.parametrize("name", ["s3d", "s3dg_milnce_s2d"])  # the third adds no operator
def test_onnxruntime_equals_torch(name: str) -> None:
    assert_onnx_equals(zoo.materialise(small(name), width=1.0), clips(1))
