"""CPU load split into our own and everybody else's, and the frequency of each core."""

from __future__ import annotations

import os
from pathlib import Path

from edge_runtime.sensing.small_files import (
    clamp_share,
    parse_int,
    read_int,
    read_text,
    shown_path,
    sorted_glob,
    within,
)

MIN_TICKS = 10  # a tick is 10 ms of one core; fewer than ten say little, so the last answer is kept
MAX_DESCENDANTS = 64  # a process with more living children is counted up to here
MAX_POLICIES_PER_READ = 16  # a server has one frequency file per core; a read refreshes this many, in turn
IDLE_FIELDS = (3, 4)  # of the "cpu" line: idle, iowait
COUNTED_FIELDS = 8  # user nice system idle iowait irq softirq steal; guest time is inside user time


class CpuLoad:
    """Shares of all cores between two calls, from /proc/stat and /proc/self/stat.

    Time of living children is read from their own stat files and time of ended ones from this process's, so that
    a child that ends does not look like a burst of work.
    """

    def __init__(self, root: Path, count_children: bool = True) -> None:
        self._stat = root / "proc/stat"
        self._proc = root / "proc"
        self._count_children = count_children
        self.source = f"{shown_path(self._stat, root)}, {shown_path(self._proc / 'self/stat', root)}"
        self._before = self._sample()
        self._last: tuple[float | None, float | None] = (None, None)

    def read(self) -> tuple[float | None, float | None]:
        """(own share, everybody else's share), each 0-1 or None; None before there is anything to compare with."""
        now = self._sample()
        if now is None:
            self._before, self._last = None, (None, None)
            return self._last
        if self._before is None:
            self._before = now
            return self._last
        total, busy, own = (after - before for after, before in zip(now, self._before, strict=True))
        if total < 0:  # the counters were reset, as after a checkpoint
            self._before, self._last = now, (None, None)
        elif total >= MIN_TICKS:
            own_share = clamp_share(own / total)
            self._before, self._last = now, (own_share, clamp_share(busy / total - own_share))
        return self._last

    def _sample(self) -> tuple[int, int, int] | None:
        """(all ticks, busy ticks, our ticks) since start, summed over all cores."""
        machine = _machine_ticks(read_text(self._stat))
        own = self._process_ticks("self", with_ended=self._count_children)
        if machine is None or own is None:
            return None
        if self._count_children:
            own += sum(self._process_ticks(pid, with_ended=True) or 0 for pid in self._descendants())
        return (*machine, own)

    def _process_ticks(self, pid: str, with_ended: bool) -> int | None:
        text = read_text(self._proc / pid / "stat")
        if text is None:
            return None
        fields = text.rpartition(")")[2].split()  # the command before it may hold spaces and brackets
        wanted = fields[11 : 15 if with_ended else 13]  # utime stime cutime cstime
        values = [parse_int(field) for field in wanted]
        known = [value for value in values if value is not None and value >= 0]
        return sum(known) if len(known) == (4 if with_ended else 2) else None

    def _descendants(self) -> list[str]:
        found: list[str] = []
        waiting = ["self"]
        while waiting and len(found) < MAX_DESCENDANTS:
            for children_file in _children_files(f"{self._proc}/{waiting.pop()}/task"):
                children = [pid for pid in (read_text(children_file) or "").split() if pid.isdecimal()]
                fresh = [pid for pid in children if pid not in found]
                found.extend(fresh)
                waiting.extend(fresh)
        return found[:MAX_DESCENDANTS]


class CoreFrequency:
    """The current frequency of each core, from cpufreq; a policy covers one or several cores."""

    def __init__(self, root: Path) -> None:
        cpus = root / "sys/devices/system/cpu"
        self.source = f"{shown_path(cpus, root)}/cpufreq/policy*/scaling_cur_freq"
        self._files: list[Path] = []
        self._cores: list[list[int]] = []
        for policy in sorted_glob(cpus / "cpufreq", "policy*"):
            cores = [parse_int(core) for core in (read_text(policy / "affected_cpus") or "").split()]
            self._files.append(policy / "scaling_cur_freq")
            self._cores.append([core for core in cores if core is not None])
        self._mhz: list[float | None] = [None] * len(self._files)
        self._next = 0

    def read(self) -> tuple[float, ...]:
        """MHz by core number; empty when a core's frequency is unknown."""
        everything = None in self._mhz
        count = len(self._files) if everything else min(len(self._files), MAX_POLICIES_PER_READ)
        for _ in range(count):
            khz = read_int(self._files[self._next])
            self._mhz[self._next] = within(khz / 1000.0 if khz is not None else None, 1.0, 20_000.0)
            self._next = (self._next + 1) % len(self._files)
        by_core = {core: mhz for cores, mhz in zip(self._cores, self._mhz, strict=True) for core in cores}
        known = [by_core[core] for core in sorted(by_core)]
        return () if None in known else tuple(mhz for mhz in known if mhz is not None)


def _children_files(tasks: str) -> list[str]:
    """One file per thread: a child belongs to the thread that started it. Empty where the kernel has no such files."""
    try:
        return [f"{tasks}/{thread}/children" for thread in os.listdir(tasks)]
    except OSError:
        return []


def _machine_ticks(text: str | None) -> tuple[int, int] | None:
    """(all ticks, busy ticks) of the first line of /proc/stat."""
    fields = (text or "").partition("\n")[0].split()
    if len(fields) < 1 + 5 or fields[0] != "cpu":
        return None
    ticks = [parse_int(field) for field in fields[1 : 1 + COUNTED_FIELDS]]
    known = [tick for tick in ticks if tick is not None and tick >= 0]
    if len(known) != len(ticks):
        return None
    return sum(known), sum(known) - sum(known[index] for index in IDLE_FIELDS)
