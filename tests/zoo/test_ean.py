"""EAN against the facts of its reference, and its parts against slow loops."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from onnx_parity import assert_onnx_equals
from parity import assert_parity, counted, fill_parameters
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.clips import fold, unfold
from zoo.ean import EAN, VARIANTS, EventBottleneck, EventStem, MotionExcitation, TemporalShift
from zoo.ean_parts import EventAdaptiveBlock, PatchMotion, SparseObjects, ThreeFields, cut_patches, join_patches
from zoo.slim_net import materialise

FACTS = json.loads((Path(__file__).parent / "facts" / "ean.json").read_text("utf-8"))
# the reference holds a norm beside its stem and one in each event adaptive block that no forward pass reaches, and in
# the 8-segment version a projection of the motion code with its norm
UNUSED_NORMS = 2 * (128 + 64 + 256 + 512 + 1024)
UNUSED = {"ean_r50_8f": UNUSED_NORMS + 256 * 512 + 2 * 256, "ean_r50_16f": UNUSED_NORMS}
SEGMENTS, SIDE, CLASSES = 2, 64, 5
EXACT = {"rtol": 1e-5, "atol": 1e-5}


def small(deep_motion: bool = False) -> EAN:
    """A network of a sixteenth of the parameters, with drawn norms so that every part matters."""
    torch.manual_seed(0)
    model = EAN(CLASSES, segments=SEGMENTS, deep_motion=deep_motion, base=16, depths=(1, 1, 1, 1), dropout=0.0)
    return draw_norms(model)


def draw_norms(module: nn.Module) -> nn.Module:
    """Scales, shifts and statistics of every batch norm at random; eval mode."""
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
            nn.init.uniform_(norm.running_mean, -0.2, 0.2)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return module.eval()


def clips(count: int = 2, height: int = SIDE, width: int = SIDE) -> Tensor:
    return torch.randn(count, 3, 5 * SEGMENTS, height, width)


class TwoClips(nn.Module):
    """The reference's interface: the frames of two clips in the batch, (80, 3, H, W)."""

    def __init__(self, model: EAN) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> Tensor:
        return self.model(unfold(frames, len(frames) // 2).transpose(1, 2))


def test_the_8_segment_network_gives_the_outputs_of_the_reference() -> None:
    assert_parity(TwoClips(VARIANTS["ean_r50_8f"]()), FACTS["fingerprints"]["ean_r50_8f"], used=True)


@pytest.mark.parametrize("name", FACTS["counts"])
def test_parameters_and_multiply_adds_equal_the_reference(name: str) -> None:
    facts = FACTS["counts"][name]
    parameters, madds = counted(VARIANTS[name], facts["input"])
    assert (parameters + UNUSED[name], madds) == (facts["params"], facts["madds"])


def test_the_facts_hold_both_published_variants() -> None:
    facts = FACTS["fingerprints"]["ean_r50_8f"]
    assert set(FACTS["counts"]) == set(VARIANTS) == set(UNUSED)
    assert facts["params"] - facts["used_params"] == UNUSED["ean_r50_8f"]


def test_patches_are_cut_as_a_loop_cuts_them_and_joining_puts_them_back() -> None:
    x, size = torch.randn(2, 3, 2, 8, 12), 4
    cut = cut_patches(x, size)
    assert cut.shape == (2, 48, 2, 2, 3)
    for row in range(size):
        for column in range(size):
            for colour in range(3):
                expected = x[:, colour, :, row::size, column::size]
                assert torch.equal(cut[:, (row * size + column) * 3 + colour], expected)
    assert torch.equal(join_patches(cut, size), x)


@torch.no_grad()
def test_the_stem_sees_the_middle_frame_and_four_differences_of_each_segment() -> None:
    stem, seen = EventStem(16, SEGMENTS, deep_motion=True).eval(), {}

    for name in ("appearance", "patch_motion", "stacked_motion"):
        stem.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, name=name: seen.update({name: (inputs[0], output)})
        )
    x = clips(2, 64, 96)
    total = stem(x)
    assert total.shape == (2 * SEGMENTS, 16, 16, 24)
    for index in range(2 * SEGMENTS):
        clip, segment = divmod(index, SEGMENTS)
        frames = [x[clip, :, 5 * segment + i] for i in range(5)]
        halves = [F.interpolate(frame[None], scale_factor=0.5, mode="nearest")[0] for frame in frames]
        changes = torch.stack([halves[i + 1] - halves[i] for i in range(4)], 1)
        assert torch.equal(seen["appearance"][0][index], frames[2])
        assert torch.equal(seen["patch_motion"][0][index], changes)
        assert torch.equal(seen["stacked_motion"][0][index], changes)
    weighted = [w * seen[n][1] for w, n in ((0.6, "appearance"), (0.2, "patch_motion"), (0.2, "stacked_motion"))]
    torch.testing.assert_close(total, sum(weighted), **EXACT)


@torch.no_grad()
def test_a_patch_moves_only_its_own_and_the_neighbouring_features() -> None:
    motion = draw_norms(PatchMotion(16, deep=False))
    still = torch.zeros(1, 3, 4, 112, 112)
    moving = still.clone()
    moving[..., 16:32, 80:96] = 1.0  # patch 1, 5; two 3x3x3 convolutions reach two patches further
    changed = (motion(moving) != motion(still)).any(1)[0]
    rows, columns = (changed.any(axis).nonzero().flatten() for axis in (1, 0))
    assert (int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())) == (0, 31, 24, 55)


@torch.no_grad()
def test_motion_excitation_weighs_by_the_next_frame_and_has_none_for_the_last() -> None:
    count, per_clip = 2, 3
    module = draw_norms(MotionExcitation(32, per_clip))
    x = torch.randn(count * per_clip, 32, 6, 5)
    few = module.reduce(x)
    moved = module.look(few)
    for index in range(count * per_clip):
        last = index % per_clip == per_clip - 1
        change = torch.zeros(1, 2, 6, 5) if last else moved[index + 1 : index + 2] - few[index : index + 1]
        gate = module.expand(change.mean((2, 3), keepdim=True)).sigmoid() - 0.5
        torch.testing.assert_close(module(x)[index], x[index] + x[index] * gate[0], **EXACT)


@torch.no_grad()
def test_the_temporal_taps_start_as_a_shift_with_zeros_beyond_the_clip() -> None:
    shift = EventBottleneck(64, 16, 1, 4).body[4]
    assert isinstance(shift, TemporalShift)
    shift.reset()
    x = torch.randn(2 * 4, 16, 3, 5)
    before, after = unfold(x, 4), unfold(shift(x), 4)
    zeros = torch.zeros(2, 1, 2, 3, 5)
    torch.testing.assert_close(after[:, :, :2], torch.cat([before[:, 1:, :2], zeros], 1))
    torch.testing.assert_close(after[:, :, 2:4], torch.cat([zeros, before[:, :-1, 2:4]], 1))
    torch.testing.assert_close(after[:, :, 4:], before[:, :, 4:])


@pytest.mark.parametrize(("kernel", "axis"), [((3, 1, 1), 2), ((1, 3, 3), 3)])
@torch.no_grad()
def test_three_fields_keep_convolve_and_dilate_a_third_each(kernel: tuple[int, int, int], axis: int) -> None:
    fields, x = ThreeFields(4, kernel), torch.zeros(1, 4, 7, 7, 7)
    x[:, :, 3, 3, 3] = 1.0
    reached = [[int(i) for i in channel.nonzero()[:, axis - 2].unique()] for channel in fields(x)[0]]
    assert reached == [[3], [2, 3, 4], [1, 3, 5], [1, 3, 5]]


@torch.no_grad()
def test_an_event_adaptive_block_mixes_each_clip_with_its_own_matrix() -> None:
    count, per_clip = 3, 4
    torch.manual_seed(0)
    block = draw_norms(EventAdaptiveBlock(256, per_clip))
    fill_parameters(block)
    block.predict_mix.to_matrix.weight.mul_(100.0)  # otherwise the matrices of random clips are nearly alike
    x = torch.randn(count * per_clip, 256, 8, 8)
    matrices = block.predict_mix(block.reduce(unfold(x, per_clip).transpose(1, 2)))
    assert float((matrices[0] - matrices[2]).abs().max()) > 1e-2
    for clip in range(count):
        own = unfold(x, per_clip)[clip : clip + 1].transpose(1, 2)
        reduced = block.reduce(own)
        # row of the matrix: what comes out; column: what goes in
        mixed = F.conv3d(block.temporal(reduced), matrices[clip][:, :, None, None, None])
        expected = own + block.expand(block.spatial(mixed) + block.strongest(reduced))
        torch.testing.assert_close(unfold(block(x), per_clip)[clip], fold(expected), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_token_is_a_weighted_sum_of_the_positions_of_one_segment() -> None:
    torch.manual_seed(0)
    objects = draw_norms(SparseObjects(64, SEGMENTS))
    x = torch.randn(2, 16, SEGMENTS, 7, 7)
    scores, tokens = objects.score(x), objects.tokens(x)
    assert tokens.shape == (2, 4 * SEGMENTS, 16)
    code = objects.position.reshape(16, SEGMENTS, 49)
    for clip in range(2):
        for map_index in range(4):
            for segment in range(SEGMENTS):
                weights = scores[clip, map_index, segment].flatten().softmax(0)
                values = x[clip, :, segment].flatten(1) + code[:, segment]
                expected = sum(weights[i] * values[:, i] for i in range(49))
                torch.testing.assert_close(tokens[clip, map_index * SEGMENTS + segment], expected, **EXACT)


@torch.no_grad()
def test_the_position_code_is_exact_on_its_own_grid_and_in_between_on_others() -> None:
    objects = SparseObjects(64, SEGMENTS)
    assert torch.equal(objects.position_code(7, 7).flatten(1), objects.position)
    code = objects.position.reshape(16, SEGMENTS, 7, 7)
    finer = objects.position_code(14, 7)
    assert finer.shape == (16, SEGMENTS, 14, 7)
    torch.testing.assert_close(finer[:, :, 1], 0.75 * code[:, :, 0] + 0.25 * code[:, :, 1], **EXACT)


@torch.no_grad()
def test_a_fresh_network_starts_as_a_resnet_with_a_shift() -> None:
    torch.manual_seed(0)
    model = EAN(CLASSES, segments=SEGMENTS, base=16, depths=(1, 1, 1, 1)).eval()
    features = torch.randn(2, 512, SEGMENTS, 2, 2)
    torch.testing.assert_close(model.objects(features), features.mean((2, 3, 4)), **EXACT)
    frames = torch.randn(2 * SEGMENTS, 16, 8, 8)
    adapted = model.stages[0][0](frames)
    assert 0.0 < float((adapted - frames).abs().mean()) < 0.1 * float(frames.abs().mean())


@pytest.mark.parametrize("deep_motion", [False, True])
@torch.no_grad()
def test_a_clip_is_scored_alike_alone_and_in_a_batch(deep_motion: bool) -> None:
    model, x = small(deep_motion), clips(3)
    together = model(x)
    assert together.shape == (3, CLASSES)
    torch.testing.assert_close(together, torch.cat([model(clip[None]) for clip in x]), rtol=1e-3, atol=1e-6)
    assert float(together.std(0).mean()) > 1e-3 * float(together.abs().mean())


@torch.no_grad()
def test_features_have_the_channels_and_strides_that_the_network_states_at_any_multiple_of_32() -> None:
    model = small()
    for height, width in ((64, 64), (96, 64)):
        x = clips(1, height, width)
        features = model.forward_features(x)
        stated = [(SEGMENTS, i.channels, height // i.stride, width // i.stride) for i in model.feature_info]
        assert [tuple(f.shape) for f in features] == stated
        assert torch.equal(model.forward_head(features[-1]), model(x, 1.0))


@torch.no_grad()
def test_a_materialised_network_is_the_same_network() -> None:
    model, x = small(), clips(1)
    assert torch.equal(materialise(model, width=1.0, resolution=SIDE)(x), model(x))


@pytest.mark.parametrize("deep_motion", [False, True])
def test_training_lowers_the_loss_and_reaches_every_parameter(deep_motion: bool) -> None:
    model = small(deep_motion).train()
    x, labels = clips(4), torch.tensor([0, 1, 2, 3])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for step in range(6):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        if step == 1:  # the classifier starts near zero
            missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
            unreached = [n for n, p in model.named_parameters() if p.dim() > 1 and not p.grad.any()]
            assert (missing, unreached) == ([], [])
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.slow  # exporting takes about half a minute
def test_onnxruntime_equals_torch() -> None:
    assert_onnx_equals(small(deep_motion=True), clips(1))  # the other version has no operator that this one lacks


def test_wrong_arguments_are_named_in_one_sentence() -> None:
    for options, sentence in (
        ({"segments": 1}, "EAN: segments is 1, expected at least 2"),
        ({"base": 24}, "EAN: base is 24, expected a multiple of 16"),
        ({"depths": (3, 4, 6)}, r"EAN: depths is \(3, 4, 6\), expected four numbers"),
    ):
        with pytest.raises(ValueError, match=sentence):
            EAN(**options)
    model = small()
    for shape in ((1, 3, 9, 64, 64), (1, 3, 10, 60, 64), (10, 3, 64, 64), (1, 1, 10, 64, 64)):
        with pytest.raises(ValueError, match=r"expected \(N, 3, 10, H, W\) with H and W multiples of 32"):
            model(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"EAN: width is 0\.5, expected 1\.0"):
        model(clips(1), 0.5)
