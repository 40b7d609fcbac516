"""Keep the tensors of many graphs once: equal contents get one entry, whichever graph and precision they come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper

from converters.onnx_export import externalise
from edge_runtime.tensor_recipe import GraphTensors, TensorRecipe

SMALLEST_BYTES = 1024  # below, a reference costs as much as the tensor
STORED = ("float32", "int8", "uint8", "int32", "int64")


@dataclass
class SharedTensors:
    """The stored tensors of a bundle, by content."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    _names: dict[bytes, str] = field(default_factory=dict)

    def take_out(self, proto: onnx.ModelProto, owner: str) -> tuple[bytes, GraphTensors]:
        """The graph without its large constants, and where to find them.

        Args:
            proto: a model with its weights inside; it is not changed.
            owner: first part of the names of tensors that are new.
        """
        recipes = []
        for tensor in proto.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.nbytes >= SMALLEST_BYTES and array.dtype.name in STORED:
                recipes.append(TensorRecipe(tensor.name, tuple(array.shape), self._store(array, tensor.name, owner)))
        return externalise(proto, {r.name for r in recipes}), GraphTensors(tuple(recipes))

    def keep_only(self, recipes: list[GraphTensors]) -> None:
        """Forget what none of these uses."""
        used = {t.source for recipe in recipes for t in recipe.tensors}
        self.arrays = {name: array for name, array in self.arrays.items() if name in used}
        self._names = {key: name for key, name in self._names.items() if name in used}

    def _store(self, array: np.ndarray, name: str, owner: str) -> str:
        header = f"{array.dtype.name}{array.shape}".encode()
        key = hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).digest()
        found = self._names.get(key)
        if found is None:
            found, number = f"{owner}/{name}", 2
            while found in self.arrays:
                found, number = f"{owner}/{name}#{number}", number + 1
            self.arrays[found] = np.ascontiguousarray(array)
            self._names[key] = found
        return found
