"""SlowFast and Slow: the reference's numbers, which frame meets which, widths, training, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx_parity import assert_onnx_equals
from parity import assert_parity, counted
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.calibrate import point_statistics
from zoo.clips import fold, unfold
from zoo.slim_layers import Channels, NotCalibratedError, SlimLayer
from zoo.slim_net import materialise
from zoo.slowfast import VARIANTS, Bottleneck3d, Lateral, PathwayNet, Slow, SlowFast

FACTS = json.loads((Path(__file__).parent / "facts" / "slowfast.json").read_text("utf-8"))
CLASSES, FRAMES, SIDE = 5, 8, 32
SMALL: dict[str, Any] = {"width_mult": 0.25, "depths": (1, 1, 2, 1)}
NETWORKS = pytest.mark.parametrize("network", [Slow, SlowFast])


class TwoInputs(nn.Module):
    """`forward_pathways` as a module's forward; at 256 pixels the reference's head may look at windows."""

    def __init__(self, model: SlowFast, window: int | None = None) -> None:
        super().__init__()
        self.model, self.window = model, window

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        if self.window is not None:
            return self.model.dense_probabilities(fast, self.window)
        return self.model.forward_pathways(slow, fast)


def small(network: type[PathwayNet], **options: Any) -> PathwayNet:
    """A small seeded network in eval mode whose norms all matter."""
    torch.manual_seed(0)
    model = network(CLASSES, **SMALL, **options)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.0)
    nn.init.normal_(model.classifier.weight, std=0.3)
    return model.eval()


def clips(count: int = 2, frames: int = FRAMES, side: int = SIDE) -> Tensor:
    return torch.randn(count, 3, frames, side, side)


@pytest.mark.parametrize("name", FACTS["fingerprints"])
def test_a_variant_gives_the_outputs_of_the_reference(name: str) -> None:
    assert_parity(TwoInputs(VARIANTS[name]()), FACTS["fingerprints"][name], exact=True)


@pytest.mark.parametrize("name", FACTS["counts"])
def test_parameters_and_multiply_adds_equal_the_reference(name: str) -> None:
    facts = FACTS["counts"][name]

    def make() -> nn.Module:
        model = VARIANTS[name]()
        return model if len(facts["inputs"]) == 1 else TwoInputs(model, facts.get("window"))

    assert counted(make, *facts["inputs"]) == (facts["params"], facts["madds"])


def test_every_variant_has_facts() -> None:
    assert set(VARIANTS) == set(FACTS["counts"])
    assert set(FACTS["fingerprints"]) == {"slowfast_r50_4x16"}


@torch.no_grad()
def test_a_lateral_output_is_centred_on_its_slow_frame() -> None:
    lateral = Lateral(Channels(4, 2), alpha=4, kernel=5).eval()
    fast, slow = torch.randn(1, 4, 10, 2, 2), torch.randn(1, 6, 3, 2, 2)
    joined, kept = lateral((slow, fast))
    weight, norm = lateral.bring[0].weight[:, :, :, 0, 0], (1.0 + 1e-5) ** -0.5
    expected = torch.zeros(1, 8, 3, 2, 2)
    for i in range(3):
        for tap in range(5):
            frame = 4 * i + tap - 2
            if 0 <= frame < 10:
                expected[:, :, i] += torch.einsum("oc,nchw->nohw", weight[:, :, tap], fast[:, :, frame])
    torch.testing.assert_close(joined, torch.cat([slow, (expected * norm).relu()], 1), rtol=1e-4, atol=1e-5)
    assert torch.equal(kept, fast)


@torch.no_grad()
def test_a_clip_gives_what_its_every_alpha_th_frame_gives_as_slow_pathway() -> None:
    model = small(SlowFast, alpha=4)
    for frames, slow_frames in ((8, [0, 4]), (10, [0, 4, 8]), (1, [0])):
        clip = clips(1, frames)
        assert torch.equal(model(clip), model.forward_pathways(clip[:, :, slow_frames], clip))


@torch.no_grad()
def test_no_layer_strides_in_time_and_the_features_are_as_stated() -> None:
    model = small(SlowFast, alpha=2)
    clip = clips()
    features = model.forward_features(clip)
    assert [tuple(f.shape[1:]) for f in features] == [
        (info.channels, FRAMES // 2, SIDE // info.stride, SIDE // info.stride) for info in model.feature_info
    ]
    for stage in range(5):
        slow, fast = model.forward_until(clip, stage)
        assert (slow.shape[2], fast.shape[2]) == (FRAMES // 2, FRAMES)
        assert stage == 0 or torch.equal(slow, features[stage - 1])
    assert torch.equal(model.forward_head((slow, fast)), model(clip))


@torch.no_grad()
def test_laterals_go_from_fast_to_slow_only() -> None:
    model = small(SlowFast)
    clip, other = clips(), clips()
    steps = nn.Sequential(model.stem, *model.stages)
    slow, fast = steps((clip[:, :, ::4], clip))
    slow_other, fast_same = steps((other[:, :, ::4], clip))
    assert torch.equal(fast, fast_same)
    assert not torch.allclose(slow, slow_other)


@torch.no_grad()
def test_the_slow_pathway_mixes_frames_from_the_fourth_stage_on() -> None:
    model = small(Slow)
    clip = clips(1)
    changed = clip.clone()
    changed[:, :, 3] += 1.0
    moved = [
        [t for t in range(FRAMES) if not torch.allclose(a[:, :, t], b[:, :, t])]
        for a, b in zip(model.forward_features(clip), model.forward_features(changed), strict=True)
    ]
    # one frame of reach in res5's only block, two blocks in res4
    assert moved == [[3], [3], [1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6]]


@torch.no_grad()
def test_slow_without_time_is_a_picture_network_on_each_frame() -> None:
    model = small(Slow)
    clip = clips()
    frames = fold(clip)  # (16, 3, H, W)
    together, (alone,) = model.forward_until(clip, 2)[0], model.forward_until(frames.unsqueeze(2), 2)
    torch.testing.assert_close(unfold(alone.squeeze(2), FRAMES).transpose(1, 2), together, rtol=1e-4, atol=1e-5)


def test_only_the_first_blocks_of_a_stage_have_the_temporal_kernel() -> None:
    model = SlowFast(CLASSES, width_mult=0.25, depths=(2, 2, 3, 1), temporal_blocks=(1, 2, 2, 0))

    def kernels(pathway: int) -> list[list[int]]:
        blocks = [[m for m in step.parts[pathway] if isinstance(m, Bottleneck3d)] for step in model.stages]
        return [[block.body[0].kernel_size[0] for block in stage] for stage in blocks]

    assert kernels(0) == [[1, 1], [1, 1], [3, 3, 1], [1]]
    assert kernels(1) == [[3, 1], [3, 3], [3, 3, 1], [1]]


@torch.no_grad()
def test_dense_probabilities_are_the_mean_over_windows_of_the_last_feature_map() -> None:
    model = small(SlowFast)
    clip = clips(2, side=96)  # a map of 3x3
    ends = model.forward_until(clip, 4)
    windows = [[x[..., i : i + 2, j : j + 2] for x in ends] for i in range(2) for j in range(2)]
    expected = torch.stack([model.forward_head(tuple(w)).softmax(-1) for w in windows]).mean(0)
    torch.testing.assert_close(model.dense_probabilities(clip, 2), expected)
    torch.testing.assert_close(model.dense_probabilities(clip, 3), model(clip).softmax(-1))


@NETWORKS
def test_a_block_starts_as_its_shortcut(network: type[PathwayNet]) -> None:
    torch.manual_seed(0)
    model = network(CLASSES, **SMALL)
    blocks = [m for m in model.modules() if isinstance(m, Bottleneck3d)]
    x = torch.randn(2, blocks[-1].body[0].inputs.full, 2, 4, 4)
    assert torch.equal(blocks[-1](x), F.relu(blocks[-1].shortcut(x)))
    # features of a fresh network neither vanish nor explode
    assert 0.1 < float(model.train().forward_features(clips())[-1].detach().std()) < 10.0


@NETWORKS
def test_a_small_network_learns_a_batch_and_every_parameter_gets_a_gradient(network: type[PathwayNet]) -> None:
    torch.manual_seed(0)
    model = network(CLASSES, **SMALL, dropout=0.0).train()
    x, labels = clips(4), torch.tensor([0, 1, 2, 3])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert [n for n, g in gradients.items() if g is None or not g.isfinite().all() or not g.any()] == []


def test_dropout_acts_in_training_only() -> None:
    model = small(Slow, dropout=0.5)
    x = clips()
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


@NETWORKS
@torch.no_grad()
def test_a_materialised_subnet_equals_the_supernet_at_its_point(network: type[PathwayNet]) -> None:
    model = small(network)
    x, batches = clips(3), [clips(4) for _ in range(2)]
    points = {width: point_statistics(model, width, batches) for width in (0.5, 1.0)}
    model.norm_bank.entries = {model.point_key(width, (FRAMES, SIDE, SIDE)): stats for width, stats in points.items()}
    outputs = []
    for width in points:
        plain = materialise(model, width=width, resolution=(FRAMES, SIDE, SIDE))
        assert not any(isinstance(module, SlimLayer) for module in plain.modules())
        outputs.append(plain(x))
        torch.testing.assert_close(outputs[-1], model(x, width), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(plain.dense_probabilities(x, 1), model.dense_probabilities(x, 1, width))
        assert float(outputs[-1].std(0).mean()) > 1e-2
    assert not torch.allclose(*outputs, atol=1e-3)
    torch.testing.assert_close(model(x), outputs[1], rtol=1e-4, atol=1e-5)  # the full-width point, not the buffers
    with pytest.raises(NotCalibratedError):
        model(x, 0.75)


@NETWORKS
def test_a_narrow_subnet_holds_and_trains_fewer_parameters(network: type[PathwayNet]) -> None:
    model = small(network).train()
    active = sum(p.numel() for p in materialise(model, width=0.5).parameters())
    assert active < 0.4 * sum(p.numel() for p in model.parameters())
    model(clips(), 0.5).square().mean().backward()
    assert 0 < sum(int((p.grad != 0).sum()) for p in model.parameters()) <= active


@torch.no_grad()
def test_a_narrow_stage_joins_the_first_channels_of_each_pathway() -> None:
    model = SlowFast(CLASSES, width_mult=0.5, depths=(1, 1, 1, 1))
    plain = materialise(model, width=0.5)
    full = model.stages[1].parts[0][0].body[0].weight  # 128 own channels, then 32 of the lateral
    narrow = plain.stages[1].parts[0][0].body[0].weight
    own, brought = full[: narrow.shape[0], :64], full[: narrow.shape[0], 128:144]
    assert (full.shape[1], narrow.shape[1]) == (160, 80)
    assert torch.equal(narrow, torch.cat([own, brought], 1))


@pytest.mark.parametrize(
    ("network", "options", "sentence"),
    [
        (Slow, {"depths": (1, 1, 1)}, "Slow: depths are"),
        (SlowFast, {"depths": (1, 0, 1, 1)}, "SlowFast: depths are"),
        (SlowFast, {"temporal_blocks": (3, 4, 7, 3)}, "SlowFast: temporal_blocks are"),
        (SlowFast, {"alpha": 0}, "alpha is 0; give at least 1"),
        (SlowFast, {"lateral_kernel": 4}, "lateral_kernel is 4; give an odd"),
        (SlowFast, {"width_mult": 0.1}, "gives a stem of 1 channels"),
        (Slow, {"num_classes": 0}, "num_classes is 0"),
    ],
)
def test_wrong_arguments_are_refused(network: type[PathwayNet], options: dict[str, Any], sentence: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=sentence):
        network(**options)


def test_wrong_clips_are_refused() -> None:
    model = small(SlowFast)
    for shape in ((3, 8, 32, 32), (1, 8, 3, 32, 32)):
        with pytest.raises(ValueError, match=r"the clip has shape .*give \(N, 3, T, H, W\)"):
            model(torch.zeros(shape))
    with pytest.raises(ValueError, match="give one slow frame for 4 fast ones"):
        model.forward_pathways(clips(frames=4), clips())
    with pytest.raises(ValueError, match="window is 2, expected 1 to 1"):
        model.dense_probabilities(clips(), 2)


@pytest.mark.slow
@NETWORKS
def test_onnxruntime_equals_torch(network: type[PathwayNet]) -> None:
    assert_onnx_equals(materialise(small(network), width=0.5), clips(1))
