"""How many tasks want a core at this moment: Linux keeps the count in /proc/loadavg, before the slash."""

from __future__ import annotations

import contextlib
import os
import weakref
from pathlib import Path

LINE_BYTES = 64
"""proc_pid_loadavg(5): three means, "runnable/existing", and a process number."""


class RunQueue:
    """One small read, to be asked before every frame; benchmarks/sensor_cost.py has what it costs.

    Args:
        root: holds proc/.
        cores: of the machine, since the tasks are all of the machine's; None asks the system.
    """

    def __init__(self, root: Path, cores: int | None = None) -> None:
        self.source = str(root / "proc/loadavg")
        self._cores = max(1, cores or os.cpu_count() or 1)
        self._file: int | None = None
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        with contextlib.suppress(OSError, ValueError):
            self._file = os.open(self.source, flags)
            weakref.finalize(self, os.close, self._file)

    def crowding(self, threads: int) -> float | None:
        """Tasks that want a core, for each core of the machine; None where nobody counts them.

        Up to 1 there is a core for everybody. Other containers' tasks count, and so do this process's while they run.

        Args:
            threads: how many the engine will use; the caller, which is running, is the first of them.
        """
        if self._file is None:
            return None
        try:
            runnable = int(os.pread(self._file, LINE_BYTES, 0).split()[3].split(b"/")[0])
        except (OSError, IndexError, ValueError, AttributeError):  # Windows has no pread
            return None
        return (max(0, runnable - 1) + threads) / self._cores
