"""Compare a network with facts recorded from another implementation, without sharing names, order or weights.

Every parameter gets numbers that depend on its shape alone, so two implementations of one architecture give the same
output, to rounding, whatever they call their layers. A missing residual, a wrong pool or another epsilon shows; two
swapped tensors of equal shape do not.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.madds import count_madds

RELATIVE_TOLERANCE = 2e-3  # sums of a few thousand float32 products in another order; one wrong layer gives > 1e-1


def squeezed(shape: Iterable[int]) -> tuple[int, ...]:
    """The shape without axes of size 1, so that a 1x1 convolution equals a linear layer."""
    return tuple(size for size in shape if size != 1)


def shape_name(shape: tuple[int, ...]) -> str:
    """64x3x7x7."""
    return "x".join(map(str, shape)) or "scalar"


def multiset_sha256(names: Iterable[str]) -> str:
    """The digest of a bag of shapes: one "shape*count" line each, sorted."""
    lines = (f"{name}*{count}" for name, count in sorted(Counter(names).items()))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def shape_facts(module: nn.Module) -> dict[str, Any]:
    """Counts and digests of the parameters; a shared parameter counts once."""
    shapes = [tuple(p.shape) for p in module.parameters()]
    return {
        "params": sum(p.numel() for p in module.parameters()),
        "n_tensors": len(shapes),
        "shapes_multiset_sha256": multiset_sha256(map(shape_name, shapes)),
        "squeezed_sha256": multiset_sha256(shape_name(squeezed(s)) for s in shapes),
    }


def hash_tensor(shape: Iterable[int], salt: str = "") -> Tensor:
    """Numbers in [-1, 1) mixed from position, squeezed shape and salt in 32-bit integers: the same on any machine."""
    shape = tuple(shape)
    start = np.uint32(zlib.crc32((shape_name(squeezed(shape)) + salt).encode()))
    with np.errstate(over="ignore"):
        mixed = (np.arange(int(np.prod(shape)), dtype=np.uint32) + start) * np.uint32(2654435761)
        for shift, factor in ((15, 2246822519), (13, 3266489917)):
            mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
        mixed ^= mixed >> np.uint32(16)
    return torch.from_numpy((mixed.astype(np.float64) / 2.0**31 - 1.0).astype(np.float32)).reshape(shape)


@torch.no_grad()
def fill_parameters(module: nn.Module) -> None:
    """Weights with variance 1 / fan-in, biases 0.1 u, norm scales 1 + 0.1 u, where u is the hash of the shape."""
    owners = dict(module.named_modules())
    for name, parameter in module.named_parameters():
        u, core = hash_tensor(parameter.shape), squeezed(parameter.shape)
        owner, _, last = name.rpartition(".")
        if len(core) >= 2:
            u *= (3.0 / np.prod(core[1:])) ** 0.5
        elif last.endswith("bias"):
            u *= 0.1
        elif "norm" in type(owners[owner]).__name__.lower():
            u = 1.0 + 0.1 * u
        else:
            u *= (3.0 / max(1, parameter.numel())) ** 0.5
        parameter.copy_(u)


@torch.no_grad()
def fill_statistics(module: nn.Module) -> None:
    """Running means 0.1 u("m") and variances 1 + 0.25 |u("v")|, from the shape that each buffer has here."""
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.1 * hash_tensor(buffer.shape, "m"))
        elif name.endswith("running_var"):
            buffer.copy_(1.0 + 0.25 * hash_tensor(buffer.shape, "v").abs())


@torch.no_grad()
def output_facts(output: Tensor) -> dict[str, Any]:
    """Shape, first four values, mean, mean magnitude and standard deviation."""
    flat = output.double().flatten()
    facts = {"mean": flat.mean(), "abs_mean": flat.abs().mean(), "std": flat.std()}
    return {
        "shape": list(output.shape),
        "first4": flat[:4].tolist(),
        **{name: float(value) for name, value in facts.items()},
    }


@torch.no_grad()
def fingerprint(module: nn.Module, input_shapes: Iterable[Iterable[int]]) -> list[dict[str, Any]]:
    """Facts of each output of a module that is filled already, run in eval mode on hashed inputs."""
    outputs = module.eval()(*(hash_tensor(shape, "in") for shape in input_shapes))
    return [output_facts(o) for o in ([outputs] if isinstance(outputs, Tensor) else outputs)]


def differences(found: list[dict[str, Any]], expected: list[Mapping[str, Any]]) -> list[str]:
    """One line for each output that is not the recorded one; empty means parity."""
    lines = [] if len(found) == len(expected) else [f"{len(found)} outputs, expected {len(expected)}"]
    for index, (got, want) in enumerate(zip(found, expected, strict=False)):
        tolerance = RELATIVE_TOLERANCE * max(want["std"], want["abs_mean"], 1e-6)
        pairs = zip(_values(got), _values(want), strict=True)
        if got["shape"] != want["shape"] or any(abs(a - b) > tolerance for a, b in pairs):
            lines.append(f"output {index}: {got}, expected {want}")
    return lines


def _values(facts: Mapping[str, Any]) -> list[float]:
    return [*facts["first4"], facts["mean"], facts["abs_mean"], facts["std"]]


def assert_parity(module: nn.Module, facts: Mapping[str, Any], *, used: bool = False, exact: bool = False) -> None:
    """The module has the recorded parameters and gives the recorded outputs; its numbers are overwritten.

    Args:
        facts: of one variant: counts, digests, and its fingerprint.
        used: the reference holds tensors that no pass reads, and the module does not.
        exact: shapes agree with their axes of size 1, too.
    """
    keys = ["params", "n_tensors", "squeezed_sha256", *(["shapes_multiset_sha256"] if exact else [])]
    found = shape_facts(module)
    assert {key: found[key] for key in keys} == {key: facts[f"used_{key}" if used else key] for key in keys}
    fill_parameters(module)
    fill_statistics(module)
    expected = facts["fingerprint"]
    assert differences(fingerprint(module, expected["inputs"]), expected["outputs"]) == []


def counted(make: Callable[[], nn.Module], *input_shapes: Iterable[int]) -> tuple[int, int]:
    """Parameters and multiply-adds of a variant; on the meta device nothing is computed."""
    with torch.device("meta"):
        model = make().eval()
        madds = count_madds(model, *map(tuple, input_shapes))
    return sum(p.numel() for p in model.parameters()), madds
