"""STM: the reference's numbers, motion that stays inside its clip, widths, training and export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from onnx_parity import assert_onnx_equals
from parity import assert_parity, counted
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import NotCalibratedError, materialise
from zoo.calibrate import point_statistics
from zoo.clips import fold, unfold
from zoo.resnet import Site
from zoo.slim_layers import ActivePoint, Channels, SlimBatchNorm, SlimLayer, active_point
from zoo.stm import STM, VARIANTS, ChannelMotion, MotionCore, TemporalConvolution

FACTS = json.loads((Path(__file__).parent / "facts" / "stm.json").read_text("utf-8"))
CLASSES, FRAMES, SIDE = 5, 4, 32


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def small(**options: object) -> STM:
    """A quarter as wide, one block a stage, four frames; every norm has numbers that matter."""
    torch.manual_seed(0)
    model = STM(CLASSES, frames=FRAMES, width_mult=0.25, depths=(1, 1, 1, 1), small_input=True, **options)
    for module in model.modules():
        if isinstance(module, SlimBatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return model.eval()


def clips(count: int = 3, side: int = SIDE) -> Tensor:
    """Random clips (count, 3, FRAMES, side, side)."""
    return torch.randn(count, 3, FRAMES, side, side)


class OneClip(nn.Module):
    """The reference's interface: the folded frames of one clip (T, C, H, W) -> logits of each frame (T, classes)."""

    def __init__(self, model: STM) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> Tensor:
        return self.model.forward_frames(frames.transpose(0, 1).unsqueeze(0))[0]


@pytest.mark.parametrize("name", FACTS["fingerprints"])
def test_a_variant_gives_the_frame_logits_of_the_reference(name: str) -> None:
    assert_parity(OneClip(VARIANTS[name]()), FACTS["fingerprints"][name])


@pytest.mark.parametrize("name", FACTS["counts"])
def test_parameters_and_multiply_adds_equal_the_reference(name: str) -> None:
    facts = FACTS["counts"][name]
    assert counted(VARIANTS[name], facts["input"]) == (facts["params"], facts["madds"])


def test_the_facts_hold_every_variant() -> None:
    assert set(FACTS["counts"]) == set(VARIANTS)


@torch.no_grad()
def test_the_temporal_convolution_starts_as_a_shift_of_half_the_channels() -> None:
    x = torch.arange(1.0, 4.0).view(3, 1, 1, 1).expand(3, 8, 2, 2)  # frames 1, 2, 3
    past, present, future = [0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 0.0]
    shifted = TemporalConvolution(Channels(8), per_clip=3)(x)[:, :, 0, 0].T
    assert shifted.tolist() == [past, present, future, present] * 2


@torch.no_grad()
def test_a_narrow_temporal_convolution_keeps_the_shares_of_the_shift() -> None:
    weight = TemporalConvolution(Channels(32), per_clip=3).mix.active_parameters(0.5)[0]
    assert weight.shape == (16, 1, 3, 1)
    assert weight.sum((0, 1, 3)).tolist() == [4.0, 8.0, 4.0]  # past, present, future


@pytest.mark.parametrize("width", [0.5, 1.0])
@pytest.mark.parametrize(("stride", "size"), [(1, 6), (2, 6), (2, 7)])
@torch.no_grad()
def test_the_core_equals_a_loop_over_clips_and_frames(width: float, stride: int, size: int) -> None:
    channels = Channels(32)
    core = MotionCore(channels, Site(1, True, stride), per_clip=3).train()  # normalised by the batch
    nn.init.normal_(core.spatiotemporal[0].mix.weight)
    x = torch.randn(2, 3, channels.at(width), size, size)
    with active_point(ActivePoint(width)):
        found = core(x.flatten(0, 1))
    spatiotemporal, motion = slow_spatiotemporal(core, x, width), slow_motion(core.motion, x, width)
    torch.testing.assert_close(found, spatiotemporal + motion, rtol=1e-4, atol=1e-5)
    assert found.shape[2:] == (-(-size // stride),) * 2


def slow_spatiotemporal(core: MotionCore, x: Tensor, width: float) -> Tensor:
    """The first branch for clips (N, T, C, H, W), one frame after the other."""
    mix, (spatial, _, _) = core.spatiotemporal[0].mix.active_parameters(width)[0][:, 0, :, 0], core.spatiotemporal[1]
    mixed = torch.zeros_like(x)
    for clip in range(x.shape[0]):
        for t in range(x.shape[1]):
            for tap, source in enumerate((t - 1, t, t + 1)):
                if 0 <= source < x.shape[1]:
                    mixed[clip, t] += mix[:, tap, None, None] * x[clip, source]
    weight = spatial.active_parameters(width)[0]
    return F.relu(normed(F.conv2d(mixed.flatten(0, 1), weight, None, spatial.stride, 1)))


def slow_motion(motion: ChannelMotion, x: Tensor, width: float) -> Tensor:
    """The second branch for clips (N, T, C, H, W), one frame after the other."""
    few = normed(F.conv2d(x.flatten(0, 1), motion.reduce[0].active_parameters(width)[0])).unflatten(0, x.shape[:2])
    local = motion.local.active_parameters(width)[0]
    change = torch.zeros_like(few)
    for clip in range(x.shape[0]):
        for t in range(x.shape[1] - 1):
            change[clip, t] = F.conv2d(few[clip, t + 1], local, None, 1, 1, 1, local.shape[0]) - few[clip, t]
    expanded = F.conv2d(change.flatten(0, 1), motion.expand.active_parameters(width)[0])
    stride = motion.pool.stride if isinstance(motion.pool, nn.MaxPool2d) else 1
    return F.max_pool2d(expanded, stride, ceil_mode=True)


def normed(x: Tensor) -> Tensor:
    """Batch norm by the statistics of the batch, without scale."""
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


@torch.no_grad()
def test_the_motion_of_the_last_frame_is_zero() -> None:
    motion = ChannelMotion(Channels(32), per_clip=3, stride=1).eval()
    frames = unfold(motion(torch.randn(6, 32, 5, 5)), 3).abs().amax((2, 3, 4))
    assert (frames > 0).tolist() == [[True, True, False]] * 2


@torch.no_grad()
def test_clips_of_one_batch_do_not_see_each_other() -> None:
    model, batch = calibrated(small()), clips()
    together = model(batch)
    torch.testing.assert_close(together, torch.cat([model(clip) for clip in batch.split(1)]), rtol=1e-4, atol=1e-5)
    assert float(together.std(0).min()) > 1e-3


@torch.no_grad()
def test_the_order_of_the_frames_matters() -> None:
    model, batch = calibrated(small()), clips()
    assert float((model(batch) - model(batch.flip(2))).abs().max()) > 1e-2


@torch.no_grad()
def test_the_logits_of_a_clip_are_the_mean_of_those_of_its_frames() -> None:
    model, batch = calibrated(small()), clips(2)
    with model.at(1.0, SIDE):
        frames = model.forward_frames(batch)
    assert frames.shape == (2, FRAMES, CLASSES)
    torch.testing.assert_close(model(batch), frames.mean(1))
    assert float(frames.std(1).min()) > 1e-2


@torch.no_grad()
def test_features_are_folded_frames_of_the_stated_size() -> None:
    model, batch = small(), clips(2)
    features = model.forward_features(batch)
    stated = [(2 * FRAMES, info.channels, SIDE // info.stride, SIDE // info.stride) for info in model.feature_info]
    assert [tuple(feature.shape) for feature in features] == stated
    torch.testing.assert_close(model.forward_until(batch, 2), features[1])
    torch.testing.assert_close(model.forward_head(features[-1]), model(batch))
    torch.testing.assert_close(model.forward_until(batch, 0), model.stem(fold(batch)))


@torch.no_grad()
def test_the_same_network_takes_clips_of_other_lengths() -> None:
    model, longer = small(), STM(CLASSES, frames=7, width_mult=0.25, depths=(1, 1, 1, 1), small_input=True).eval()
    longer.load_state_dict(model.state_dict())
    for frames in (2, 7):
        clip = torch.randn(2, 3, frames, SIDE, SIDE)
        torch.testing.assert_close(model(clip), longer(clip))
        assert model.forward_frames(clip).shape == (2, frames, CLASSES)


@torch.no_grad()
def test_calibration_for_other_frames_is_not_used() -> None:
    model = calibrated(small())
    with pytest.raises(NotCalibratedError, match="not calibrated"):
        model(torch.randn(1, 3, 2 * FRAMES, SIDE, SIDE), 0.5)
    model.norm_bank.entries |= {
        model.point_key(0.5, (7, SIDE, SIDE)): point_statistics(model, 0.5, [torch.randn(2, 3, 7, SIDE, SIDE)])
    }
    assert model(torch.randn(1, 3, 7, SIDE, SIDE), 0.5).shape == (1, CLASSES)
    assert model.point_key(0.5, SIDE) == model.point_key(0.5, (FRAMES, SIDE, SIDE))


def calibrated(model: STM, side: int = SIDE) -> STM:
    """The network with statistics of random clips at full and half width."""
    batches = [clips(4, side) for _ in range(2)]
    model.norm_bank.entries = {
        model.point_key(width, side): point_statistics(model, width, batches) for width in (1.0, 0.5)
    }
    return model


@torch.no_grad()
def test_a_materialised_subnet_equals_the_supernet_at_its_point() -> None:
    model, batch, counts = calibrated(small()), clips(), []
    outputs = []
    for width in (1.0, 0.5):
        plain = materialise(model, width=width, resolution=SIDE)
        assert not any(isinstance(module, SlimLayer) for module in plain.modules())
        outputs.append(plain(batch))
        counts.append(sum(p.numel() for p in plain.parameters()))
        torch.testing.assert_close(outputs[-1], model(batch, width), rtol=1e-4, atol=1e-5)
        with model.at(width, SIDE):
            torch.testing.assert_close(plain.forward_frames(batch), model.forward_frames(batch), rtol=1e-4, atol=1e-5)
    assert counts[1] < 0.5 * counts[0]
    assert not torch.allclose(*outputs, atol=1e-2)


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_a_small_network_learns_which_way_a_spot_moves(width: float) -> None:
    there = torch.zeros(2, 3, FRAMES, 16, 16)
    for t in range(FRAMES):
        there[:, :, t, 4:8, 3 * t : 3 * t + 4] = 1.0
    batch, labels = torch.cat([there, there.flip(2)]), torch.tensor([0, 0, 1, 1])  # the same pictures in two orders
    batch = batch + 0.1 * torch.randn_like(batch)
    model = small().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch, width), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_training_reaches_every_parameter() -> None:
    model = small().train()
    model(clips(4), 1.0).square().mean().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert [n for n, g in gradients.items() if g is None or not g.isfinite().all() or not g.abs().sum() > 0] == []


def test_what_is_no_clip_is_refused() -> None:
    model = small()
    with pytest.raises(ValueError, match=r"input is \(1, 3, 1, 32, 32\), expected clips .* at least two frames"):
        model(torch.zeros(1, 3, 1, SIDE, SIDE))
    with pytest.raises(ValueError, match="input is"):
        model.forward_features(torch.zeros(FRAMES, 3, SIDE, SIDE))


def test_a_single_frame_has_no_motion_and_is_refused() -> None:
    with pytest.raises(ValueError, match="frames is 1, expected at least 2"):
        STM(frames=1)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_onnxruntime_equals_torch(dynamic: bool) -> None:
    plain = materialise(calibrated(small()), width=0.5, resolution=SIDE)
    names = {0: "batch", 3: "height", 4: "width"}
    sizes = {axis: torch.export.Dim(name, min=1 if axis == 0 else 8, max=512) for axis, name in names.items()}
    if dynamic:
        assert_onnx_equals(plain, clips(2), torch.randn(1, 3, FRAMES, 48, 40), dynamic=sizes)
    else:
        assert_onnx_equals(plain, clips(2))
