"""EfficientNet: published sizes, the squeeze-excite rule, TensorFlow's padding, export at any size."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import zoo
from zoo.efficientnet import VARIANTS, SamePad, SqueezeExcite
from zoo.madds import count_madds
from zoo.slim_layers import SlimBatchNorm
from zoo.slim_net import SlimNet

# parameters; and multiply-adds at 128 pixels without the classifier. B2 and B3: the glance encoders of GFNet; B0 and
# B1: published 5.29 and 7.79 million; Lite: the published weight files
PARAMETERS = {
    "b0": 5_288_548, "b1": 7_794_184, "b2": 9_109_994, "b3": 12_233_232,
    "lite0": 4_652_008, "lite1": 5_416_680, "lite2": 6_092_072,
}  # fmt: skip
ENCODER_MADDS_128 = {"b2": (215_596_736, 1408), "b3": (315_104_576, 1536)}


def drawn(name: str, **options: object) -> SlimNet:
    """A network whose norms and statistics all matter, in eval mode."""
    torch.manual_seed(0)
    model = zoo.create(f"efficientnet_{name}", num_classes=5, **options)
    for norm in (m for m in model.modules() if isinstance(m, SlimBatchNorm)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
        nn.init.uniform_(norm.running_mean, -0.2, 0.2)
        nn.init.uniform_(norm.running_var, 0.5, 1.0)
    return model.eval()


@pytest.mark.parametrize("name", PARAMETERS)
def test_each_variant_has_the_published_number_of_parameters(name: str) -> None:
    assert sum(p.numel() for p in zoo.create(f"efficientnet_{name}").parameters()) == PARAMETERS[name]


def test_every_variant_is_counted_here() -> None:
    assert set(VARIANTS) == {f"efficientnet_{name}" for name in PARAMETERS}


@pytest.mark.parametrize("name", ENCODER_MADDS_128)
def test_the_encoder_needs_the_recorded_multiply_adds(name: str) -> None:
    madds, features = ENCODER_MADDS_128[name]
    plain = zoo.materialise(zoo.create(f"efficientnet_{name}"), width=1.0)
    assert count_madds(plain, (1, 3, 128, 128)) == madds + features * 1000


def test_features_have_the_stated_channels_and_strides() -> None:
    model = drawn("lite0", padding="same")
    features = model.forward_features(torch.zeros(1, 3, 64, 64))
    assert [(f.shape[1], 64 // f.shape[2]) for f in features] == [(i.channels, i.stride) for i in model.feature_info]
    assert [i.channels for i in model.feature_info] == [16, 24, 40, 80, 112, 192, 320]


@pytest.mark.parametrize("width", [0.25, 0.35, 0.5, 0.7, 1.0])
def test_squeeze_excite_keeps_a_quarter_of_the_input_of_its_block_at_every_width(width: float) -> None:
    model = zoo.create("efficientnet_b3")
    inputs = model.stem[1].outputs
    for block in (block for stage in model.stages for block in stage):
        assert isinstance(block.excite, SqueezeExcite)
        assert block.excite.reduce.outputs.at(width) * 4 == inputs.at(width)
        assert inputs.at(width) % 8 == 0
        inputs = block.project[0].outputs


def test_the_lite_nets_have_no_squeeze_excite_and_relu6() -> None:
    kinds = {type(module) for module in zoo.create("efficientnet_lite1").modules()}
    assert nn.ReLU6 in kinds
    assert not kinds & {SqueezeExcite, nn.SiLU}


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("size_hw", [(16, 16), (15, 16), (7, 9)])
def test_same_padding_puts_the_odd_pixel_below_and_right_as_tensorflow_does(
    kernel_size: int, size_hw: tuple[int, int]
) -> None:
    x = torch.arange(1.0, 1 + size_hw[0] * size_hw[1]).reshape(1, 1, *size_hw)
    pads = []
    for size in size_hw:  # TensorFlow's rule: so much that ceil(size / 2) windows fit, the larger half behind
        total = max(0, (-(-size // 2) - 1) * 2 + kernel_size - size)
        pads.append((total // 2, total - total // 2))
    assert torch.equal(SamePad(kernel_size)(x), F.pad(x, (*pads[1], *pads[0])))


def test_the_two_paddings_share_their_weights_but_not_their_outputs() -> None:
    symmetric, same = drawn("b0", width_mult=0.5), drawn("b0", width_mult=0.5, padding="same")
    same.load_state_dict(symmetric.state_dict())
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(symmetric(x), same(x), rtol=1e-3)


@pytest.mark.parametrize("variant", ["b0", "lite0"])
def test_even_padding_equals_tensorflows_at_multiples_of_32_pixels_and_only_there(variant: str) -> None:
    same, even = (drawn(variant, width_mult=0.25, padding=p) for p in ("same", "even"))
    even.load_state_dict(same.state_dict())
    with torch.no_grad():
        for size_hw in ((64, 64), (96, 64)):
            x = torch.randn(1, 3, *size_hw)
            torch.testing.assert_close(even(x), same(x), rtol=0, atol=0)
        x = torch.randn(1, 3, 65, 65)
        assert not torch.allclose(even(x), same(x), rtol=1e-3)


@pytest.mark.parametrize(("option", "value"), [("variant", "b9"), ("padding", "valid")])
def test_an_unknown_choice_is_named(option: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{option} is '{value}', expected one of"):
        zoo.efficientnet.EfficientNet(**{option: value})


def first_half(padding: str) -> nn.Module:
    """Stem and three stages of a materialised B0, with both kernel sizes of stride 2; exporting all takes long."""
    plain = zoo.materialise(drawn("b0", width_mult=0.25, padding=padding), width=0.5)
    return nn.Sequential(plain.stem, *plain.stages[:3])


OPEN_SIDES = {2: torch.export.Dim("height", min=33, max=512), 3: torch.export.Dim("width", min=33, max=512)}


@pytest.mark.parametrize("padding", ["symmetric", "even", "same"])
def test_torch_export_keeps_height_and_width_open(padding: str) -> None:
    plain = first_half(padding)
    exported = torch.export.export(plain, (torch.zeros(1, 3, 64, 96),), dynamic_shapes=(OPEN_SIDES,)).module()
    for height, width in ((80, 65), (112, 47)):
        x = torch.randn(1, 3, height, width)
        torch.testing.assert_close(exported(x), plain(x), rtol=1e-4, atol=1e-5)


def test_onnxruntime_equals_torch_with_same_padding_at_odd_sizes() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    plain = first_half("same")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter warns of packages that it does not need
        program = torch.onnx.export(
            plain, (torch.zeros(1, 3, 64, 64),), dynamo=True, verbose=False, input_names=["image"],
            dynamic_shapes=(OPEN_SIDES,),
        )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    for height, width in ((64, 64), (80, 65)):
        x = torch.randn(1, 3, height, width)
        expected = plain(x).detach().numpy()
        assert float(expected.std()) > 1e-2
        assert np.abs(session.run(None, {"image": x.numpy()})[0] - expected).max() < 1e-4 * np.abs(expected).max()
