"""Progress of a training as lines of text."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

EVERY_S = 60.0


class PlainReport:
    """A line for each epoch, and one a minute in between.

    Args:
        epoch_line: an event of an epoch -> what is said of it.
    """

    def __init__(self, epoch_line: Callable[[dict[str, Any]], str]) -> None:
        self._epoch_line, self._last_s = epoch_line, time.monotonic()

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            click.echo(self._epoch_line(event))
        elif event["event"] == "step" and time.monotonic() - self._last_s > EVERY_S:
            self._last_s = time.monotonic()
            click.echo(f"step {event['done']} of {event['total']}: loss {event['loss']:.3f}")
