"""What ONNX Runtime makes of a quantized graph: how a change is counted, and the table."""

from __future__ import annotations

import numpy as np

from benchmarks.int8_engine import WAYS, compared, render


def test_a_change_is_a_best_class_that_differs_from_exact_arithmetic() -> None:
    pictures = [np.full((1, 3, 2, 2), value, np.float32) for value in (0.0, 1.0, 2.0, 3.0)]
    exact = np.eye(4, dtype=np.float32)

    def right(picture: np.ndarray) -> np.ndarray:
        return exact[int(picture[0, 0, 0, 0])][None]

    def stubborn(picture: np.ndarray) -> np.ndarray:
        return exact[:1]

    found = compared(exact, {WAYS[0]: stubborn, WAYS[1]: right}, pictures)
    assert [found[way]["changed"] for way in WAYS] == [0.75, 0.0]
    assert all(found[way]["ms"] >= 0.0 for way in WAYS)


def test_the_table_has_both_ways_beside_each_other() -> None:
    ways = {WAYS[0]: {"changed": 0.25, "ms": 1.0}, WAYS[1]: {"changed": 0.01, "ms": 1.256}}
    assert render({"w1.00-r128": {"8 bits": ways}})[2] == "| w1.00-r128 | 8 bits | 25.0 % | 1.0 % | 1.00 | 1.26 |"
