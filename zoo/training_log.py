"""The folder and the log of a training run."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class TrainError(ValueError):
    """A run that cannot start or go on; the message says why and what to do."""


def require_finite(loss: float, epoch: int, step: int) -> None:
    """Stop a run whose loss is no longer a number; epoch and step count from 0.

    Raises:
        TrainError: it is not.
    """
    if not math.isfinite(loss):
        raise TrainError(
            f"loss is {loss} in epoch {epoch + 1}, step {step + 1}; lower learning_rate or add warmup_steps in the "
            "recipe and start in another --out"
        )


def make_folder(out: Path) -> None:
    """Make the folder of a run.

    Raises:
        TrainError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainError(f"{out}: cannot be made into a folder: {error.strerror}; choose another --out") from error


class TrainingLog:
    """One JSON object per line; the progress callback sees each of them and each step."""

    def __init__(self, path: Path, enabled: bool, progress: Callable[[dict[str, Any]], None]) -> None:
        self.path, self.enabled, self.progress = path, enabled, progress

    def write(self, event: dict[str, Any]) -> None:
        if not self.enabled:
            return
        line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **event})
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError as error:
            raise TrainError(f"{self.path}: cannot be written: {error.strerror}; make room and run again") from error
        self.progress(event)

    def relay(self, event: dict[str, Any]) -> None:
        """An event of a part of the run: its steps are shown only, the rest is written, too."""
        if event["event"] != "step":
            self.write(event)
        elif self.enabled:
            self.progress(event)

    def step(self, done: int, total: int, loss: float) -> None:
        if self.enabled:
            self.progress({"event": "step", "done": done, "total": total, "loss": loss})
