"""Keep lowered ExecuTorch programs: lowering takes minutes, and most builds repeat an earlier one."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

from converters.delegation import Delegation

FORMAT = 1  # raise it when the way of lowering changes


def default_cache() -> Path:
    """`edge-runtime/executorch` in the user's cache folder."""
    try:
        import platformdirs
    except ImportError:
        base = os.environ.get("XDG_CACHE_HOME")
        return (Path(base) if base else Path.home() / ".cache") / "edge-runtime" / "executorch"
    return Path(platformdirs.user_cache_dir("edge-runtime", appauthor=False)) / "executorch"


class LoweredCache:
    """Programs and their delegation reports by key. A damaged or unreadable entry counts as absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> tuple[bytes, list[Delegation]] | None:
        """The stored program and report, or None."""
        try:
            program = (self.folder / f"{key}.pte").read_bytes()
            facts = json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8"))
            if facts["sha256"] != hashlib.sha256(program).hexdigest():
                return None
            rows = [{**row, "fallbacks": tuple(row["fallbacks"])} for row in facts["delegation"]]
            return program, [Delegation(**row) for row in rows]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, program: bytes, delegation: list[Delegation]) -> str | None:
        """Store a program; returns why it could not be, which is no reason to stop a build."""
        facts = {
            "sha256": hashlib.sha256(program).hexdigest(), "delegation": [asdict(row) for row in delegation],
        }  # fmt: skip
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name, content in ((f"{key}.pte", program), (f"{key}.json", json.dumps(facts).encode())):
                with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as stream:
                    stream.write(content)
                os.replace(stream.name, self.folder / name)
        except OSError as error:
            return f"{self.folder}: the lowered program is not kept: {error.strerror}"
        return None
