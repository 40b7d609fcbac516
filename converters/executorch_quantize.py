"""int8 for ExecuTorch: PT2E with XNNPACK's quantizer, and integers that all resolutions of a width share.

PT2E alone would quantize each point's folded weight, so that every resolution had integers of its own. Here the
integers are those of the weight before its norm is folded in, and the norm goes into the scale: equal integers are
stored once in the .pte. It also avoids the quantizer's smallest weight scale of 2**-12, which small folded weights
fall below. The weights use the full range: XNNPACK widens int8 before it multiplies, and nothing saturates.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from converters.errors import ConversionError
from converters.int8_graph import quantize_weight
from converters.norm_folding import NormPair, scale_and_shift

LARGEST = 127


def quantize_point(
    folded: Any,
    plain: nn.Module,
    pairs: list[NormPair],
    inputs: list[torch.Tensor],
    float_layers: tuple[str, ...] = (),
) -> Any:
    """Quantize one point.

    Args:
        folded: torch.export.ExportedProgram of the folded subnet.
        plain: the same subnet unfolded.
        pairs: its convolutions with their norms.
        inputs: calibration pictures (1, 3, H, W) float32 each.
        float_layers: convolutions that stay float; linear layers always do, as in the ONNX graphs.
    Returns:
        a module with quantize and dequantize nodes that computes what XNNPACK will.
    Raises:
        ConversionError: there is nothing to calibrate on.
    """
    if not inputs:
        raise ConversionError("calibration: no pictures; int8 needs a calibration split")
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    def may_quantize(node: Any) -> bool:
        return node.target is not torch.ops.aten.linear.default and not set(_modules(node)) & set(float_layers)

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    quantizer.set_filter_function(may_quantize)
    prepared = prepare_pt2e(folded.module(), quantizer)
    with torch.no_grad():
        for picture in inputs:
            prepared(picture)
        converted = convert_pt2e(prepared)
        _share_integers(converted, plain, pairs)
    return converted


def _share_integers(converted: Any, plain: nn.Module, pairs: list[NormPair]) -> None:
    """Replace each convolution's integers and scales by the shared ones."""
    norm_of = {pair.convolution: pair.norm for pair in pairs}
    state = {**dict(converted.named_parameters()), **dict(converted.named_buffers())}
    for node in converted.graph.nodes:
        if "dequantize_per_channel" not in str(node.target) or node.args[0].op != "get_attr":
            continue
        module = next(name for user in node.users for name in _modules(user)[::-1] if name)
        if module not in norm_of:
            continue
        convolution, norm = plain.get_submodule(module), plain.get_submodule(norm_of[module])
        folding, _ = scale_and_shift(convolution, norm)
        integers, scale = quantize_weight(convolution.weight.detach().numpy(), norm.weight.detach().numpy(), LARGEST)
        point_scale = torch.from_numpy(scale).double() * folding.abs().clamp(min=1e-12)
        state[str(node.args[0].target)].copy_(torch.from_numpy(integers))
        scales = state[str(node.args[1].target)]
        scales.copy_(point_scale.to(scales.dtype))


def _modules(node: Any) -> list[str]:
    """Names of the modules that a node belongs to, outermost first."""
    return [name for name, _ in (node.meta.get("nn_module_stack") or {}).values()]
