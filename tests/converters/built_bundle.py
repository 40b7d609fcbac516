"""What one run of the converter gave; shared by the tests that look at it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from converters.verification import PointCheck


@dataclass(frozen=True)
class Built:
    """What one run of the converter gave."""

    path: Path
    checks: list[PointCheck]
    lines: list[str]
