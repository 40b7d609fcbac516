"""Backends: the null one behaves as an engine does, and an absent engine is a sentence that names its extra."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fake_engine import tiny_bundle

from edge_runtime import backends
from edge_runtime.backends import BACKENDS, BackendOptions, open_backend
from edge_runtime.backends.null import LATENCY_PER_MADD_MS, NullBackend
from edge_runtime.errors import BackendError


def test_the_null_backend_runs_every_point_in_its_shape(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    backend = open_backend("null", bundle, BackendOptions())
    for point in bundle.manifest.points:
        runner = backend.load(point)
        assert runner.input.shape == (1, 3, *point.size_hw)
        assert runner.input.dtype == np.float32
        logits = runner.run()
        assert logits.shape == (1, 3)
        assert logits.dtype == np.float32
        assert runner.run() is logits  # a buffer of the runner
        runner.close()
    backend.close()


def test_the_null_backends_answer_depends_on_the_picture(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    runner = NullBackend(bundle, wait=lambda point: None).load(bundle.manifest.points[0])
    answers = set()
    for level in (0.0, 0.001, 0.002):
        runner.input[:] = level
        answers.add(int(runner.run().argmax()))
    assert answers == {0, 1, 2}


def test_the_null_backend_takes_time_in_proportion_to_the_work(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    point = max(bundle.manifest.points, key=lambda p: p.madds)
    runner = NullBackend(bundle).load(point)
    started_s = time.perf_counter()
    runner.run()
    assert (time.perf_counter() - started_s) * 1000.0 >= point.madds * LATENCY_PER_MADD_MS * 0.99


def test_the_scripted_wait_is_told_the_point(tmp_path: Path) -> None:
    bundle, waits = tiny_bundle(tmp_path), []
    NullBackend(bundle, wait=lambda point: waits.append(point.name)).load(bundle.manifest.points[2]).run()
    assert waits == [bundle.manifest.points[2].name]


def test_an_unknown_backend_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="backend 'magic' is unknown; choose one of onnxruntime, executorch, null"):
        open_backend("magic", tiny_bundle(tmp_path), BackendOptions())


def test_an_absent_onnxruntime_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match=r"onnxruntime is not installed; .*pip install 'edge-runtime\[camera\]'"):
        open_backend("onnxruntime", tiny_bundle(tmp_path), BackendOptions())


def test_a_backend_whose_module_is_absent_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(backends.BACKENDS, "later", "edge_runtime.backends.later")
    with pytest.raises(BackendError, match="backend 'later' is not part of this version"):
        open_backend("later", tiny_bundle(tmp_path), BackendOptions())


def test_the_manifest_and_the_table_know_the_same_backends() -> None:
    from edge_runtime.manifest import BACKENDS as IN_MANIFEST

    assert set(IN_MANIFEST) == set(BACKENDS)
