"""How much of a lowered ExecuTorch program the XNNPACK delegate runs, and what falls back to portable kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from converters.errors import ConversionError

MIN_DELEGATED = 0.9
HEAVY = ("convolution", "linear", "addmm", "bmm", "mm")
"""Operators that must never fall back: portable kernels take tens of times as long as XNNPACK's."""


@dataclass(frozen=True)
class Delegation:
    """What became of one method's operators. Quantize, dequantize and tuple access are not counted: they move data."""

    method: str
    delegated: int
    total: int
    fallbacks: tuple[str, ...]
    """Operators left to portable kernels, one name for each occurrence."""

    @property
    def share(self) -> float:
        """Delegated share of the operators, 0-1."""
        return self.delegated / max(self.total, 1)


def delegation_of(method: str, graph_module: Any) -> Delegation:
    """Count the operators of a method after partitioning."""
    delegated = sum(
        _computes(inner)
        for node in graph_module.graph.nodes
        if node.op == "get_attr" and "lowered_module" in str(node.target)
        for inner in getattr(graph_module, node.target).original_module.graph.nodes
    )
    left = tuple(_name(node) for node in graph_module.graph.nodes if _computes(node))
    return Delegation(method, delegated, delegated + len(left), left)


def require_delegated(found: Delegation, minimum: float = MIN_DELEGATED) -> None:
    """Refuse a method that would be slow on the device; a minimum of 0 takes it as it is.

    Raises:
        ConversionError: too few operators are delegated, or a heavy one is not.
    """
    heavy = sorted({name for name in found.fallbacks if name in HEAVY}) if minimum > 0.0 else []
    if found.share >= minimum and not heavy:
        return
    raise ConversionError(
        f"method {found.method}: XNNPACK takes {found.delegated} of {found.total} operators ({found.share:.1%}, "
        f"expected at least {minimum:.0%} and every convolution); {', '.join(sorted(set(found.fallbacks)))} would run "
        "on slow portable kernels: change the network, or lower --min-delegated"
    )


def _computes(node: Any) -> bool:
    if node.op != "call_function":
        return False
    name = _name(node)
    return "quantize_per" not in name and name not in ("getitem", "executorch_call_delegate")


def _name(node: Any) -> str:
    """Name of the operator without its namespace and overload: aten.mean.dim is mean."""
    target = node.target
    schema = getattr(target, "_schema", None)
    if schema is None:
        return str(getattr(target, "__name__", target))
    return str(schema.name).rpartition("::")[2]
