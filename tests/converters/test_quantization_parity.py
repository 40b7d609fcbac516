"""Quantization-aware training must round as the converter does."""

from __future__ import annotations

import numpy as np
import torch

from converters.int8_graph import quantize_weight
from zoo.quantization_aware import round_weight


def test_training_sees_the_integers_that_the_converter_stores() -> None:
    weight = np.random.default_rng(0).standard_normal((5, 3, 3, 3)).astype(np.float32)
    for largest in (127, 63):
        integers, scale = quantize_weight(weight, None, largest)
        stored = integers.astype(np.float32) * scale[:, None, None, None]
        seen = round_weight(torch.from_numpy(weight), largest).numpy()
        np.testing.assert_allclose(seen, stored, rtol=1e-5, atol=1e-7)
