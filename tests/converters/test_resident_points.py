"""Points of a real bundle in onnxruntime: weights are held once, sizes are stated, released points come back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from built_bundle import Built

from edge_runtime.backends import BackendOptions, MemoryAware, open_backend
from edge_runtime.backends import ort as ort_module
from edge_runtime.bundle import Bundle
from edge_runtime.residency import ResidentSet


def logits(runner: Any) -> np.ndarray:
    runner.input[:] = np.linspace(-1, 1, runner.input.size, dtype=np.float32).reshape(runner.input.shape)
    return runner.run().copy()


def test_a_session_needs_our_weights_no_longer_once_it_is_made(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, np.ndarray]] = []
    build = ort_module.build_tensors

    def kept(*arguments: Any) -> dict[str, np.ndarray]:
        made.append({name: array.copy() for name, array in build(*arguments).items()})
        return made[-1]

    monkeypatch.setattr(ort_module, "build_tensors", kept)
    bundle = Bundle.load(built.path)
    backend = open_backend("onnxruntime", bundle, BackendOptions(threads=1))
    for point in bundle.manifest.points:
        runner = backend.load(point)
        before = logits(runner)
        for array in made[-1].values():
            array[...] = 77  # if the session read it, the logits would be others
        np.testing.assert_array_equal(logits(runner), before)
        assert made[-1]
        runner.close()


def test_the_size_of_a_point_covers_its_weights(built: Built) -> None:
    bundle = Bundle.load(built.path)
    backend = open_backend("onnxruntime", bundle, BackendOptions(threads=1))
    assert isinstance(backend, MemoryAware)
    sizes = {p.name: backend.memory_bytes(p) for p in bundle.manifest.points}
    weights = sum(array.nbytes for array in bundle.weights.values())
    assert max(size for size in sizes.values() if size is not None) > 0.5 * weights
    by_width = {p.width: sizes[p.name] for p in bundle.manifest.points}
    assert by_width[max(by_width)] > by_width[min(by_width)]


@pytest.mark.parametrize("arena", [True, False])
def test_points_that_were_released_say_the_same_when_they_come_back(built: Built, arena: bool) -> None:
    bundle = Bundle.load(built.path)
    backend = open_backend("onnxruntime", bundle, BackendOptions(threads=1, memory_arena=arena))
    resident = ResidentSet(backend, bundle.manifest.points, limit_bytes="all")
    assert resident.wait(60)
    assert "weights" not in vars(bundle)  # they are read again when a point is built
    before = {name: logits(resident.runner(name)) for name in resident.names}
    resident.set_limit(0)
    assert resident.wait(60)
    assert len(resident.names) == 1
    resident.set_limit("all")
    assert resident.wait(60)
    for name, expected in before.items():
        np.testing.assert_array_equal(logits(resident.runner(name)), expected)
    resident.close()
