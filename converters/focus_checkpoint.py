"""A Glance and Focus checkpoint from a bundle of it: to build it for another device or range of integers.

The programs hold the weights under their names in the network, norms folded into the convolutions before them. They
come back as weights beside norms that do nothing but add the folded shift; of int8 programs as the values that the
integers stand for. What a bundle does not hold is what only training needs: the critic, and the encoders' own heads
where the classifier is recurrent. These are fresh. Statistics taken anew would change every answer, since such norms do
not go with them: the checkpoint says where it comes from, and no training starts from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from converters.errors import ConversionError
from converters.glance_focus import first_output
from converters.norm_folding import find_norm_pairs
from edge_runtime.bundle import Bundle
from edge_runtime.exit_records import LookParts
from zoo.checkpoint import Checkpoint
from zoo.gfnet import GFNet
from zoo.gfnet_checkpoint import FROM_BUNDLE
from zoo.gfnet_parts import ENTRY, Encoder
from zoo.gfnet_recipe import GlanceRecipe
from zoo.slim_layers import SlimBatchNorm

FLOAT = re.compile(r"\.(weight|bias)(_[ih]h)?$")
QUANTIZED = re.compile(r"\.(weight|bias)_quantized$")


def focus_checkpoint_from_bundle(bundle: Bundle, recipe: GlanceRecipe) -> Checkpoint:
    """The network of a bundle that `converters focus` made, calibrated.

    Args:
        bundle: with early exits and programs of ONNX Runtime.
        recipe: names the design; its data is what exits are solved on again.
    Raises:
        ConversionError: the bundle holds no such programs, or they are of another design.
    """
    exits, design = bundle.manifest.exits, recipe.build_design()
    files = {p.name: p.file for p in bundle.manifest.programs if p.backend == "onnxruntime"}
    parts = next((p for p in exits.parts if p.glance in files), None) if exits is not None else None
    if parts is None:
        raise ConversionError(f"{bundle.root}: it holds no Glance and Focus network for onnxruntime to take back")
    if design.shared or design.widths != (1.0, 1.0) or design.classifier != "recurrent":
        raise ConversionError(
            "only networks of two whole encoders with a recurrent classifier can be taken back from a bundle"
        )
    torch.manual_seed(0)
    model = GFNet(design, len(bundle.manifest.labels)).eval()
    weights = {role: stored_weights(bundle.content(files[name])) for role, name in _roles(parts).items()}
    _take_encoder(model.glance, weights["glance"], design.patch)
    _take_encoder(model.focus, weights["focus"], design.patch)
    _take(model.policy, weights["policy"], "the policy")
    renamed = {re.sub(r"^cell\.", "memory.", name): value for name, value in weights["classifier"].items()}
    _take(model.classifier, renamed, "the classifier")
    return Checkpoint(model.state_dict(), recipe.to_dict(), list(bundle.manifest.labels), {FROM_BUNDLE: True})


def stored_weights(content: bytes) -> dict[str, Tensor]:
    """The float weights of an ONNX program, integers times their scale, by their names in the network.

    Raises:
        ConversionError: it is no ONNX program, or integers have no scale.
    """
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import numpy_helper

    try:
        graph = onnx.load_from_string(content).graph
    except DecodeError as error:
        raise ConversionError("a program of the bundle is no ONNX file; make the bundle anew") from error
    arrays = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    found = {}
    for name, array in arrays.items():
        if FLOAT.search(name):
            found[name] = array
        elif QUANTIZED.search(name):
            plain = name.removesuffix("_quantized")
            scale = arrays.get(f"{plain}_scale" if plain.endswith("weight") else f"{name}_scale")
            if scale is None:
                raise ConversionError(f"the integers {name!r} of a program have no scale; make the bundle anew")
            found[plain] = array.astype(np.float32) * scale.reshape(-1, *(1,) * (array.ndim - 1))
    return {name: torch.from_numpy(np.array(array, np.float32)) for name, array in found.items()}


def _roles(parts: LookParts) -> dict[str, str]:
    return {
        "glance": parts.glance, "policy": parts.policy, "focus": parts.focus, "classifier": parts.classifiers[0]
    }  # fmt: skip


@torch.no_grad()
def _take_encoder(encoder: Encoder, weights: Mapping[str, Tensor], side: int) -> None:
    """Convolutions as they are stored; the norm after each becomes its shift."""
    norms = {n: m for n, m in encoder.net.named_modules() if isinstance(m, SlimBatchNorm)}
    encoder.norms.entries = {
        ENTRY: {n: (torch.zeros_like(m.weight), torch.full_like(m.weight, 1.0 - m.eps)) for n, m in norms.items()}
    }
    for norm in norms.values():
        norm.weight.fill_(1.0)
        norm.bias.zero_()
    picture = torch.randn(1, 3, side, side)
    pairs = find_norm_pairs(first_output(encoder.materialise(side)), picture)
    shifts = {f"{pair.convolution}.bias": f"{pair.norm}.bias" for pair in pairs}  # "encoder.net.<layer>" both
    shifts = {k.removeprefix("encoder."): v.removeprefix("encoder.") for k, v in shifts.items()}
    _take(encoder, {shifts.get(name, name): value for name, value in weights.items()}, "an encoder")


@torch.no_grad()
def _take(module: torch.nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Copy weights by name; whatever the program has must be in the module."""
    parameters = dict(module.named_parameters())
    wrong = [n for n, v in weights.items() if n not in parameters or parameters[n].shape != v.shape]
    if wrong or not weights:
        raise ConversionError(
            f"the bundle's program of {what} does not fit the recipe's design (first: {(wrong or ['no weights'])[0]}); "
            "give the recipe that it was trained by"
        )
    for name, value in weights.items():
        parameters[name].copy_(value)
