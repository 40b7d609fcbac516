"""How much memory this process has now, and at most had: PSS where the kernel divides shared pages, else RSS."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edge_runtime.sensing.small_files import parse_int, read_text

PROC_SELF = Path("/proc/self")


def memory_now(proc: Path = PROC_SELF) -> tuple[str, int | None]:
    """("pss" | "rss" | "", bytes); empty and None where the system does not tell."""
    pss = _kilobytes(read_text(proc / "smaps_rollup"), "Pss")
    if pss is not None:
        return "pss", pss
    rss = _kilobytes(read_text(proc / "status"), "VmRSS")
    if rss is None and proc == PROC_SELF:
        rss = _psutil_rss()
    return ("", None) if rss is None else ("rss", rss)


def reset_peak(proc: Path = PROC_SELF) -> bool:
    """Forget the peak so far; False where the system does not let us (proc(5), clear_refs)."""
    try:
        (proc / "clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_since_reset(proc: Path = PROC_SELF) -> int | None:
    """Highest resident set size since `reset_peak`, or since the process began."""
    peak = _kilobytes(read_text(proc / "status"), "VmHWM")
    return _getrusage_peak() if peak is None and proc == PROC_SELF else peak


def _kilobytes(text: str | None, key: str) -> int | None:
    for line in (text or "").splitlines():
        name, _, rest = line.partition(":")
        if name == key:
            fields = rest.split()
            value = parse_int(fields[0]) if fields else None
            return None if value is None or value < 0 else value * 1024
    return None


def _psutil_rss() -> int | None:
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.Process(os.getpid()).memory_info().rss)


def _getrusage_peak() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
