"""Every image system in ONNX: onnxruntime gives the numbers of the materialised subnet, also at unseen sizes."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import numpy as np
import pytest
import torch
from small_systems import SIDE, SYSTEMS, Small, calibrated
from torch import nn

import zoo
from zoo.export_form import export_form

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow  # 10 to 40 seconds of exporting per system: make test-slow
TOLERANCE = 1e-4  # of the largest logit: float32 sums in another order


@pytest.mark.parametrize("small", [s for s in SYSTEMS if s.exported], ids=lambda small: small.name)
def test_onnxruntime_equals_torch(small: Small) -> None:
    model = calibrated(small, (small.narrow,))
    plain = zoo.materialise(model, width=small.narrow, resolution=SIDE)
    form = export_form(plain, None if small.dynamic else SIDE)
    session = onnx_session(form, SIDE, small.dynamic)
    for height, width in ((SIDE, SIDE), (48, 40)) if small.dynamic else ((SIDE, SIDE),):
        x = torch.randn(1, 3, height, width)
        with torch.no_grad():
            expected = plain(x).numpy()
        found = session.run(None, {"image": x.numpy()})[0]
        assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def onnx_session(model: nn.Module, side: int, dynamic: bool) -> onnxruntime.InferenceSession:
    """The exported network in onnxruntime, on one thread."""
    sides = {2: torch.export.Dim("height", min=8, max=512), 3: torch.export.Dim("width", min=8, max=512)}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter warns of packages that it does not need
        program = torch.onnx.export(
            model, (torch.zeros(1, 3, side, side),), dynamo=True, optimize=True, opset_version=20, verbose=False,
            input_names=["image"], output_names=["logits"], dynamic_shapes=(sides,) if dynamic else None,
        )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = program.model_proto.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
