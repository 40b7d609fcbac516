"""Every image system in ONNX: onnxruntime gives the numbers of the materialised subnet, also at unseen sizes."""

from __future__ import annotations

import pytest
import torch
from onnx_parity import assert_onnx_equals
from small_systems import SIDE, SYSTEMS, Small, calibrated

import zoo
from zoo.export_form import export_form

pytestmark = pytest.mark.slow  # 10 to 40 seconds of exporting per system: make test-slow


@pytest.mark.parametrize("small", [s for s in SYSTEMS if s.exported], ids=lambda small: small.name)
def test_onnxruntime_equals_torch(small: Small) -> None:
    model = calibrated(small, (small.narrow,))
    plain = zoo.materialise(model, width=small.narrow, resolution=SIDE)
    form, x = export_form(plain, None if small.dynamic else SIDE), torch.randn(1, 3, SIDE, SIDE)
    if small.dynamic:
        sides = {axis: torch.export.Dim(name, min=8, max=512) for axis, name in ((2, "height"), (3, "width"))}
        assert_onnx_equals(plain, x, torch.randn(1, 3, 48, 40), form=form, dynamic=sides)
    else:
        assert_onnx_equals(plain, x, form=form)
