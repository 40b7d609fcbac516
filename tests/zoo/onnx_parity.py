"""Export a network and hold onnxruntime's outputs against torch's."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

TOLERANCE = 1e-4  # of the largest value of an output: float32 sums in another order
Dynamic = Mapping[int, Any]
"""Axis of the input -> its torch.export.Dim."""


def onnx_session(model: nn.Module, example: Tensor, dynamic: Dynamic | None = None) -> Any:
    """The exported network in onnxruntime, on one thread; skips the test where onnxruntime is absent."""
    onnxruntime = pytest.importorskip("onnxruntime")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter warns of packages that it does not need
        program = torch.onnx.export(
            model, (torch.zeros_like(example),), dynamo=True, optimize=True, opset_version=20, verbose=False,
            dynamic_shapes=None if dynamic is None else (dict(dynamic),),
        )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = program.model_proto.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def assert_onnx_equals(
    model: nn.Module, *inputs: Tensor, form: nn.Module | None = None, dynamic: Dynamic | None = None
) -> None:
    """Every output of onnxruntime, for every input, is torch's.

    Args:
        model: plain, in eval mode; gives a tensor or a list of tensors.
        inputs: the first one gives the shape of the export.
        form: what is exported in the model's place.
        dynamic: axes of the input that stay open.
    """
    session = onnx_session(model if form is None else form, inputs[0], dynamic)
    for x in inputs:
        output = model(x)
        expected = [output] if isinstance(output, Tensor) else list(output)
        found = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert np.abs(ours - theirs.numpy()).max() <= TOLERANCE * float(theirs.abs().max())
