"""Export the step parts of a Glance and Focus network: glance, policy, focus and classifier, one program each.

Cropping stays outside the graphs, and so does the decision to stop: one graph with several answers would always compute
all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from converters.errors import ConversionError
from converters.executorch_export import lower, quiet
from converters.norm_folding import find_norm_pairs, fold_norms
from converters.onnx_export import OPSET
from zoo.gfnet import GFNet
from zoo.gfnet_parts import ConcatenatingClassifier, PatchPolicy, RecurrentClassifier
from zoo.slim_layers import SlimLinear

MIN_DELEGATED = 0.5  # a GRU step is mostly gates, which XNNPACK takes in part; convolutions and products it must take
SUFFIX = {"onnxruntime": "onnx.z", "executorch": "pte"}


@dataclass(frozen=True)
class Part:
    """One program to be."""

    name: str
    module: nn.Module
    examples: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class PolicyStep(nn.Module):
    """The policy without its critic, which is for training alone."""

    def __init__(self, policy: PatchPolicy) -> None:
        super().__init__()
        self.encoder, self.memory, self.actor = policy.encoder, policy.memory, policy.actor

    def forward(self, feature_map: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Place and memory."""
        memory = self.memory(self.encoder(feature_map), memory)
        return torch.sigmoid(self.actor(memory)), memory


class RecurrentStep(nn.Module):
    """One answer of the recurrent classifier."""

    def __init__(self, classifier: RecurrentClassifier) -> None:
        super().__init__()
        self.cell, self.linear = classifier.memory, classifier.linear

    def forward(self, vector: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and memory."""
        memory = self.cell(vector, memory)
        return self.linear(memory), memory


def step_parts(model: GFNet) -> list[Part]:
    """The programs of a network, with folded norms.

    Args:
        model: calibrated, in eval mode.
    Returns:
        glance, policy, focus, and "classifier" (recurrent) or "classifier1", "classifier2", ... (one for each look).
    Raises:
        NotCalibratedError: an encoder has no statistics.
    """
    side = model.design.patch
    image = torch.zeros(1, 3, side, side)
    encoders = []
    for name, encoder in (("glance", model.glance), ("focus", model.focus)):
        plain = _folded(encoder.materialise(side), side)
        encoders.append(Part(name, plain, (image,), ("image",), ("vector", "map")))
    map_side = model.focus.map_side(side)
    feature_map = torch.zeros(1, model.focus.map_channels, map_side, map_side)
    memory = torch.zeros(1, model.policy.hidden)
    policy = Part(
        "policy", PolicyStep(model.policy).eval(), (feature_map, memory), ("map", "memory"), ("place", "next_memory")
    )  # fmt: skip
    return [encoders[0], policy, encoders[1], *_classifiers(model)]


def _classifiers(model: GFNet) -> list[Part]:
    channels, classifier = model.focus.vector_channels, model.classifier
    if isinstance(classifier, RecurrentClassifier):
        examples = (torch.zeros(1, channels), torch.zeros(1, classifier.memory_channels))
        step = RecurrentStep(classifier).eval()
        return [Part("classifier", step, examples, ("vector", "memory"), ("logits", "next_memory"))]
    assert isinstance(classifier, ConcatenatingClassifier)
    linears = [_plain_linear(model.glance.head), *classifier.linears]
    return [
        Part(f"classifier{look}", linear.eval(), (torch.zeros(1, channels * look),), ("vectors",), ("logits",))
        for look, linear in enumerate(linears, start=1)
    ]


def _plain_linear(head: nn.Module) -> nn.Module:
    return head.materialise(1.0) if isinstance(head, SlimLinear) else head


class _Vector(nn.Module):
    """An encoder's vector alone, which norm folding compares."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)[0]


def first_output(encoder: nn.Module) -> nn.Module:
    """An encoder that gives its vector alone; its layers are named "encoder.<layer>"."""
    return _Vector(encoder).eval()


def _folded(encoder: nn.Module, side: int) -> nn.Module:
    """The encoder with each norm inside the convolution before it; norms after anything else stay."""
    torch.manual_seed(0)
    picture = torch.randn(1, 3, side, side)
    whole = first_output(encoder)
    return fold_norms(whole, find_norm_pairs(whole, picture), picture).encoder


def to_onnx(part: Part) -> bytes:
    """The part as an ONNX file with fixed shapes and its weights inside.

    Raises:
        ConversionError: the exporter refuses it.
    """
    import onnx

    try:
        with quiet(), _silent(), torch.no_grad():
            program = torch.onnx.export(
                part.module, part.examples, dynamo=True, optimize=True, opset_version=OPSET, verbose=False,
                input_names=list(part.inputs), output_names=list(part.outputs),
            )  # fmt: skip
        proto = program.model_proto
        onnx.checker.check_model(proto)
    except Exception as error:  # the exporter raises many kinds; the first line says which operator
        raise ConversionError(f"{part.name} cannot be exported to ONNX: {_first_line(error)}") from error
    return proto.SerializeToString()


def to_executorch(part: Part) -> bytes:
    """The part as a .pte whose method is `forward`.

    Raises:
        ConversionError: torch or ExecuTorch refuses it, or XNNPACK leaves a convolution or product to slow kernels.
    """
    try:
        with quiet(), torch.no_grad():
            exported = torch.export.export(part.module, part.examples)
    except Exception as error:
        raise ConversionError(f"{part.name} cannot be exported: {_first_line(error)}") from error
    return lower({"forward": exported}, None, lambda line: None, MIN_DELEGATED).program


CONVERSIONS = {"onnxruntime": to_onnx, "executorch": to_executorch}


def _silent():  # type: ignore[no-untyped-def]
    """The exporter prints its progress."""
    import contextlib
    import io

    return contextlib.redirect_stdout(io.StringIO())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
