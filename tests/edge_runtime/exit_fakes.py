"""Early exits of a small made-up network, on a clock that moves by what each look takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_runtime.early_exit import (
    EarlyExitRunner,
)
from edge_runtime.errors import BackendError
from edge_runtime.exit_records import EarlyExits, ExitSetting, LookParts

PATCH, SIDE, CLASSES, LOOKS = 8, 16, 3, 4


def settings(max_looks: int = LOOKS, threshold: float = 0.9) -> ExitSetting:
    shares = (1.0, *(0.0,) * (max_looks - 1))
    return ExitSetting("plan", max_looks, (threshold,) * (max_looks - 1), 1.0, shares)


def exits(classifier: str = "recurrent", **changes: Any) -> EarlyExits:
    facts: dict[str, Any] = {
        "patch": PATCH, "looks": LOOKS, "classifier": classifier, "policy_memory": 2,
        "classifier_memory": 1 if classifier == "recurrent" else 0, "temperatures": (1.0,) * LOOKS,
        "parts": (LookParts("glance", "policy", "focus", ("classifier",) * LOOKS),), "settings": (settings(),),
    }  # fmt: skip
    return EarlyExits(**{**facts, **changes})


class FakeTime:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class FakeParts:
    """Look k takes its own time and gives confidence by script; class k wins look k."""

    def __init__(self, clock: FakeTime, confidences: list[float], seconds: list[float] | None = None) -> None:
        self.clock, self.confidences = clock, confidences
        self.seconds = seconds or [0.010] * len(confidences)
        self.images: list[np.ndarray] = []
        self.memories: list[np.ndarray] = []
        self.places = [np.array([[0.0, 1.0]], np.float32)] * len(confidences)
        self.fail_at: int | None = None

    def encode(self, look: int, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.clock.now_s += self.seconds[look]
        self.images.append(image.copy())
        if look == self.fail_at:
            raise BackendError("the engine broke")
        return np.full((1, 2), look, np.float32), np.full((1, 1, 2, 2), look, np.float32)

    def place(self, feature_map: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.memories.append(memory.copy())
        return self.places[int(feature_map[0, 0, 0, 0])], memory + 1

    def answer(self, look: int, vector: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p = self.confidences[look]
        rest = (1 - p) / (CLASSES - 1)
        scores = np.log(np.full((1, CLASSES), rest, np.float32))
        scores[0, look % CLASSES] = np.log(p)
        return scores, memory + 1

    def close(self) -> None:
        pass


def runner(
    confidences: list[float], seconds: list[float] | None = None, setting: ExitSetting | None = None
) -> tuple[EarlyExitRunner, FakeParts, FakeTime]:
    clock = FakeTime()
    parts = FakeParts(clock, confidences, seconds)
    made = EarlyExitRunner(parts, exits(), setting or settings(), (SIDE, SIDE), CLASSES, clock)
    return made, parts, clock


def best(scores: np.ndarray) -> int:
    return int(scores[0].argmax())
