"""A runtime without a network, a window without a display, and results out of thin air."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from apps.camera.window import Action
from edge_runtime.budget import Budget
from edge_runtime.frame import Frame
from edge_runtime.readings import UNKNOWN, Readings
from edge_runtime.result import Classification, Decision, Result


@dataclass(frozen=True)
class FakePoint:
    name: str
    width: float
    size_hw: tuple[int, int]
    accuracy: dict[str, float] = field(default_factory=dict)


POINTS = tuple(
    FakePoint(f"w{int(100 * width)}_r{size}", width, (size, size), {"select": 0.4 + 0.2 * width + size / 640})
    for width in (0.25, 0.5, 1.0)
    for size in (32, 64)
)


def make_result(
    index: int = 0,
    point: str = "w100_r64",
    *,
    latency_ms: float = 5.0,
    deadline_ms: float = 10.0,
    feasible: bool = True,
    dropped: int = 0,
    label: str = "dog",
    confidence: float = 0.9,
    reason: str = "best within the deadline",
    frame: Frame | None = None,
) -> Result:
    return Result(
        frame=frame or Frame(np.full((48, 64, 3), 90, np.uint8), index),
        answer=Classification(label, confidence, (("dog", confidence), ("cat", 1 - confidence))),
        outputs=(),
        decision=Decision(point, reason, latency_ms, 1.0, feasible=feasible),
        preprocess_ms=1.0,
        run_ms=latency_ms - 1.0,
        latency_ms=latency_ms,
        deadline_ms=deadline_ms,
        dropped=dropped,
        on_time=latency_ms <= deadline_ms,
    )


class FakeRuntime:
    """Takes the most accurate point, or a small one when the deadline is below 5 ms."""

    points, labels = POINTS, ("dog", "cat")

    def __init__(self, budget: Budget | None = None, sensors: object = None, each: Callable[[int], None] = int) -> None:
        self.budget = budget or Budget()
        self.sensors, self.each = sensors, each
        self.pinned: str | None = None
        self.closed = False
        self.seen: list[tuple[int, float, str | None]] = []

    @property
    def readings(self) -> Readings:
        return UNKNOWN if self.sensors is None else self.sensors.read(0.0)  # type: ignore[attr-defined]

    def pin(self, point: str) -> None:
        self.pinned = point

    def unpin(self) -> None:
        self.pinned = None

    def stream(self, source: object) -> Iterator[Result]:
        for frame in source.frames():  # type: ignore[attr-defined]
            self.each(frame.index)
            self.seen.append((frame.index, self.budget.deadline_ms, self.pinned))
            chosen = "w100_r64" if self.budget.deadline_ms >= 5 else "w25_r32"
            yield make_result(
                point=self.pinned or chosen,
                latency_ms=4.0 if chosen == "w100_r64" else 1.0,
                deadline_ms=self.budget.deadline_ms,
                dropped=source.dropped,  # type: ignore[attr-defined]
                frame=frame,
            )

    def close(self) -> None:
        self.closed = True


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class FakeWindow:
    """Presses keys after given numbers of pictures or waits."""

    def __init__(self, clock: FakeClock, keys: dict[int, list[Action]]) -> None:
        self._clock, self._keys = clock, keys
        self.pictures: list[np.ndarray] = []
        self._calls = 0
        self.closed = False

    def show(self, picture: np.ndarray) -> None:
        self.pictures.append(picture)

    def wait(self, seconds: float) -> None:
        self._clock.sleep(seconds)

    def take_actions(self) -> list[Action]:
        self._calls += 1
        return self._keys.pop(len(self.pictures), [])

    def __enter__(self) -> FakeWindow:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True
