"""The norm bank and materialised subnets."""

from __future__ import annotations

import io
import threading

import pytest
import torch
from tiny_net import TinyNet
from torch import nn

import zoo
from zoo.calibrate import point_statistics
from zoo.slim_layers import SlimLayer

POINTS = [(1.0, 16), (1.0, 12), (0.5, 16), (0.5, 12)]


def calibrated(points: list[tuple[float, int]] = POINTS, seed: int = 0) -> TinyNet:
    """A network with random weights and statistics of random pictures at each point, in eval mode."""
    torch.manual_seed(seed)
    model = TinyNet()
    for norm in (m for m in model.modules() if hasattr(m, "bank_name")):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    for width, resolution in points:
        stats = point_statistics(model, width, [torch.randn(8, 3, resolution, resolution)])
        model.norm_bank.entries[model.point_key(width, resolution)] = stats
    return model.eval()


def assert_same_outputs(found: nn.Module, expected: zoo.SlimNet, points: list[tuple[float, int]] = POINTS) -> None:
    for width, resolution in points:
        x = torch.randn(2, 3, resolution, resolution)
        torch.testing.assert_close(found(x, width), expected(x, width), rtol=0, atol=0)


@pytest.mark.parametrize(("width", "resolution"), POINTS)
@torch.no_grad()
def test_a_materialised_subnet_equals_the_supernet_at_its_point(width: float, resolution: int) -> None:
    model = calibrated()
    plain = zoo.materialise(model, width=width, resolution=resolution)
    x = torch.randn(4, 3, resolution, resolution)
    torch.testing.assert_close(plain(x), model(x, width))
    assert not [m for m in plain.modules() if isinstance(m, SlimLayer)]
    assert not plain.training


@torch.no_grad()
def test_every_resolution_has_statistics_of_its_own() -> None:
    model = calibrated()
    x = torch.randn(4, 3, 16, 16)
    at_16, at_12 = (zoo.materialise(model, width=0.5, resolution=r)(x) for r in (16, 12))
    assert float((at_16 - at_12).abs().max()) > 1e-3


def test_materialising_does_not_change_the_supernet() -> None:
    model = calibrated()
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items() if isinstance(v, torch.Tensor)}
    plain = zoo.materialise(model, width=0.5, resolution=16)
    with torch.no_grad():
        for tensor in [*plain.parameters(), *plain.buffers()]:
            tensor.zero_()
    after = model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert model.training
    assert len(model.norm_bank) == len(POINTS)
    stats = next(iter(model.norm_bank.entries[model.point_key(0.5, 16)].values()))
    assert float(stats[1].abs().min()) > 0


def test_a_plain_subnet_has_only_the_tensors_that_it_uses() -> None:
    model = calibrated()
    plain = zoo.materialise(model, width=0.5, resolution=16)
    # stem 3*8*9, depthwise 8*9, dense 8*16*9, three norms, linear 16*3+3
    assert sum(p.numel() for p in plain.parameters()) == 216 + 72 + 1152 + 2 * (8 + 8 + 16) + 51
    assert all(isinstance(value, torch.Tensor) for value in plain.state_dict().values())


@torch.no_grad()
def test_two_threads_run_one_supernet_at_two_widths_while_a_third_materialises() -> None:
    model = calibrated()
    x = torch.randn(2, 3, 16, 16)
    expected = {width: model(x, width) for width in (0.5, 1.0)}
    wrong: list[object] = []
    stop = threading.Event()

    def run(width: float) -> None:
        try:
            with torch.no_grad():
                while not stop.is_set():
                    if not torch.equal(model(x, width), expected[width]):
                        wrong.append(width)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(w,)) for w in expected]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            zoo.materialise(model, width=0.5, resolution=16)
    finally:
        stop.set()
    for thread in threads:
        thread.join(120)
    assert not wrong


def test_materialising_never_takes_the_bank_away_from_other_threads() -> None:
    model = calibrated()
    seen = []

    class Spy(nn.Module):
        def __deepcopy__(self, memo: dict) -> nn.Module:
            seen.append(len(model.norm_bank))  # what another thread would find in the middle of a copy
            return nn.Identity()

    model.spy = Spy()
    zoo.materialise(model, width=0.5, resolution=16)
    assert seen == [len(POINTS)]


@pytest.mark.parametrize(("width", "resolution"), [(0.75, 16), (1.0, 14), (1.0, (16, 12))])
def test_a_point_outside_the_calibration_is_refused(width: float, resolution: int | tuple[int, int]) -> None:
    model = calibrated()
    with pytest.raises(zoo.NotCalibratedError, match=r"calibrate"):
        zoo.materialise(model, width=width, resolution=resolution)
    size = (resolution, resolution) if isinstance(resolution, int) else resolution
    with pytest.raises(zoo.NotCalibratedError, match=r"not calibrated"):
        model(torch.zeros(1, 3, *size), width)


def test_a_calibrated_network_needs_the_resolution() -> None:
    with pytest.raises(zoo.SlimError, match="resolution is missing"):
        zoo.materialise(calibrated(), width=0.5)


def test_an_uncalibrated_narrow_subnet_is_refused_when_a_resolution_is_promised() -> None:
    model = TinyNet()
    with pytest.raises(zoo.NotCalibratedError, match=r"width 0\.5"):
        zoo.materialise(model, width=0.5, resolution=16)
    with pytest.raises(zoo.NotCalibratedError, match=r"width 0\.5"):
        model.eval()(torch.zeros(1, 3, 16, 16), 0.5)


@torch.no_grad()
def test_an_ordinary_network_without_a_bank_keeps_its_own_statistics_at_full_width() -> None:
    model = TinyNet().eval()
    for buffer in model.buffers():
        nn.init.uniform_(buffer, 0.5, 2.0)
    x = torch.randn(2, 3, 16, 16)
    for plain in (zoo.materialise(model, width=1.0, resolution=16), zoo.materialise(model, width=1.0)):
        torch.testing.assert_close(plain(x), model(x))


@torch.no_grad()
def test_a_forward_pass_without_a_width_uses_the_statistics_of_full_width() -> None:
    model = calibrated()
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(x), model(x, 1.0))
    with model.at(0.5, 16):
        assert torch.equal(model(x), model(x, 0.5))


@pytest.mark.parametrize("width", [0.7, 0.7000001, 0.6999])
def test_widths_with_equal_channels_are_one_point(width: float) -> None:
    model = zoo.create("mobilenet_v1", num_classes=2)
    assert model.point_key(width, 64) == model.point_key(0.7, (64, 64))


def test_points_with_other_channels_or_pixels_have_other_keys() -> None:
    model = zoo.create("mobilenet_v1", num_classes=2)
    keys = {model.point_key(w, r) for w in (0.25, 0.5, 0.75, 1.0) for r in (64, 56, (64, 56), (56, 64))}
    assert len(keys) == 16


def test_the_norm_bank_survives_a_file_that_is_read_without_pickle() -> None:
    model, file = calibrated(), io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    restored = TinyNet().eval()
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert_same_outputs(restored, model)


def test_the_norm_bank_follows_the_network_to_another_number_type() -> None:
    model = calibrated()
    double = calibrated().double()
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(double(x.double(), 0.5).float(), model(x, 0.5), rtol=1e-4, atol=1e-5)
    moved = next(iter(double.norm_bank.entries.values()))
    assert {t.dtype for stats in moved.values() for t in stats} == {torch.float64}


def test_features_have_the_sizes_that_the_network_announces() -> None:
    for name in ("mobilenet_v1", "mobilenet_v2", "resnet50"):
        with torch.device("meta"):
            model = zoo.create(name, num_classes=4)
            features = model.train().forward_features(torch.zeros(2, 3, 64, 64))
        shapes = [(2, info.channels, 64 // info.stride, 64 // info.stride) for info in model.feature_info]
        assert [tuple(f.shape) for f in features] == shapes


def test_a_small_picture_keeps_twice_the_detail_with_the_small_stem() -> None:
    for name in ("mobilenet_v1", "mobilenet_v2", "resnet50"):
        with torch.device("meta"):
            large, small = (zoo.create(name, num_classes=4, small_input=s) for s in (False, True))
        assert small.feature_info[-1].stride < large.feature_info[-1].stride


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mobilenet_v9", {}, "mobilenet_v9.*mobilenet_v1"),
        ("mobilenet_v1", {"colour": "red"}, "mobilenet_v1.*colour"),
    ],
)
def test_an_unknown_model_or_option_is_named(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        zoo.create(name, **options)
