"""Sessions of ONNX Runtime that compute what a quantized graph says: every session that runs a bundle's program."""

from __future__ import annotations

import logging
from typing import Any

ALL_SUMS_WIDE = "session.x64quantprecision"
SILENT = 4
_log = logging.getLogger(__name__)


def open_session(engine: Any, graph: bytes, options: Any, *, wide_sums: bool = True) -> Any:
    """A session on the CPU that keeps ONNX Runtime (seen in 1.32) from two changes of a quantized graph's numbers.

    - Layers that were left float on purpose: the weights of a float convolution between a DequantizeLinear and a
      QuantizeLinear are rounded to 8 bits, with one scale for all channels, while the graph is optimised
      (WeightBiasQuantization, its pull request 22969). These layers are the ones that bear it least: with four float
      layers of the default model's narrowest width nearly half of the answers changed (benchmarks/int8_engine.py).
    - 8-bit weights on x86 without VNNI: sums of two products saturate at 16 bits. With `ALL_SUMS_WIDE` the tensors that
      could overflow (a weight beyond -64 to 63) use other kernels there; no other tensor and no other processor does.
      The engine cannot do this to a weight that several layers share: then it is opened without, and a warning says so.

    Args:
        engine: the module onnxruntime.
        graph: an ONNX file's content.
        options: its SessionOptions; changed.
        wide_sums: false where the optimised graph is kept, since it may run on another processor.
    Returns:
        onnxruntime.InferenceSession.
    Raises:
        Exception: the engine's own, when it refuses the graph.
    """
    options.add_session_config_entry("optimization.disable_specified_optimizers", "WeightBiasQuantization")
    options.add_session_config_entry(ALL_SUMS_WIDE, str(int(wide_sums)))
    severity, options.log_severity_level = options.log_severity_level, SILENT  # what it refuses may be tried again
    try:
        return engine.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime raises its own kinds, all plain
        if not wide_sums:
            raise
        options.log_severity_level = severity
        options.add_session_config_entry(ALL_SUMS_WIDE, "0")
        session = engine.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    _log.warning(
        "8-bit weights that several layers share may be added up wrongly on this processor, x86 without VNNI; "
        "edge-runtime verify tells, and converters --reduce-range avoids it"
    )
    return session
