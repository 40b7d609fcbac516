"""Pressure stall information: the share of the last 10 s in which some task waited for a resource."""

from __future__ import annotations

from pathlib import Path

from edge_runtime.sensing.memory import cgroup_folders
from edge_runtime.sensing.small_files import parse_float, read_text, shown_path, within


class Pressure:
    """PSI of the machine, or of this process's control group where a container hides the machine's."""

    def __init__(self, root: Path, resource: str) -> None:
        """Args: resource: "memory" or "cpu"."""
        groups = [folder / f"{resource}.pressure" for folder, version in cgroup_folders(root, resource) if version == 2]
        candidates = [root / "proc/pressure" / resource, *groups]
        self._path = next((path for path in candidates if _some_avg10(read_text(path)) is not None), None)
        self.source = shown_path(self._path, root) if self._path else ""

    def read(self) -> float | None:
        """0-1, or None."""
        return None if self._path is None else _some_avg10(read_text(self._path))


def _some_avg10(text: str | None) -> float | None:
    """`some avg10=1.25 avg60=... total=...` -> 0.0125 (the file is in percent)."""
    for line in (text or "").splitlines():
        kind, *fields = line.split() or [""]
        if kind == "some":
            for field in fields:
                name, _, value = field.partition("=")
                if name == "avg10":
                    percent = within(parse_float(value), 0.0, 100.0)
                    return None if percent is None else percent / 100.0
    return None
