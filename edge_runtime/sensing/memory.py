"""Memory that this process may still use: the machine's room, and that of each control group it lives in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_runtime.sensing.small_files import parse_int, read_int, read_text, shown_path

NO_LIMIT_BYTES = 1 << 60  # cgroup v1 writes "no limit" as almost 2**63


@dataclass(frozen=True)
class GroupFiles:
    """The files of one level of one control group hierarchy."""

    limits: tuple[Path, ...]
    usage: Path
    statistics: Path
    reclaimable_key: str
    """Line of `statistics`: file cache that the kernel gives back before it refuses memory."""


class Memory:
    """Room and limit in bytes, from /proc/meminfo and the cgroups (v1 and v2) from this process's up to the mount."""

    def __init__(self, root: Path) -> None:
        self._meminfo = root / "proc/meminfo"
        self._groups = memory_groups(root)
        self._meminfo_source = shown_path(self._meminfo, root)
        self._root = root
        self.available_source = self.limit_source = self._meminfo_source

    def read(self) -> tuple[int | None, int | None]:
        """(available bytes, limit bytes); the smallest over the machine and all groups. Sets the two sources."""
        available, limit = _meminfo_bytes(read_text(self._meminfo))
        self.available_source = self.limit_source = self._meminfo_source
        for group in self._groups:
            group_limit = _group_limit_bytes(group)
            if group_limit is None:
                continue
            if limit is None or group_limit < limit:
                limit, self.limit_source = group_limit, shown_path(group.limits[0], self._root)
            room = _group_room_bytes(group, group_limit)
            if room is not None and (available is None or room < available):
                available, self.available_source = room, shown_path(group.usage, self._root)
        return available, limit


def memory_groups(root: Path) -> list[GroupFiles]:
    """The control groups that limit this process's memory, innermost first; those without a limit now included."""
    groups: list[GroupFiles] = []
    for folder, version in cgroup_folders(root, "memory"):
        if version == 2:
            limits = (folder / "memory.max", folder / "memory.high")
            files = GroupFiles(limits, folder / "memory.current", folder / "memory.stat", "inactive_file")
        else:
            limit = folder / "memory.limit_in_bytes"
            files = GroupFiles(
                (limit,), folder / "memory.usage_in_bytes", folder / "memory.stat", "total_inactive_file"
            )
        if any(read_text(path) is not None for path in files.limits):
            groups.append(files)
    return groups


def cgroup_folders(root: Path, controller: str) -> list[tuple[Path, int]]:
    """(folder, version 1 or 2) of each control group of this process, from its own up to the mount, per hierarchy."""
    found: list[tuple[Path, int]] = []
    mounts = _cgroup_mounts(read_text(root / "proc/self/mountinfo") or "", controller)
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        version = 2 if hierarchy == "0" and not controllers else 1
        if version == 1 and controller not in controllers.split(","):
            continue
        if version in mounts:
            mount_root, mount_point = mounts[version]
            found.extend((folder, version) for folder in _levels(root, mount_root, mount_point, group))
    return found


def _cgroup_mounts(mountinfo: str, controller: str) -> dict[int, tuple[str, str]]:
    """Version -> (which group is mounted, where). Format: proc_pid_mountinfo(5)."""
    mounts: dict[int, tuple[str, str]] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            mounts.setdefault(2, (fields[3], fields[4]))
        elif kind[0] == "cgroup" and controller in kind[2].split(","):
            mounts.setdefault(1, (fields[3], fields[4]))
    return mounts


def _levels(root: Path, mount_root: str, mount_point: str, group: str) -> list[Path]:
    """Folders from the process's group up to the mount; a group outside what is mounted is seen at the mount."""
    prefix = mount_root.rstrip("/")
    inside = group[len(prefix) :] if group == prefix or group.startswith(prefix + "/") else ""
    parts = [part for part in inside.split("/") if part and part != ".."]
    top = root / mount_point.lstrip("/")
    return [top.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _meminfo_bytes(text: str | None) -> tuple[int | None, int | None]:
    values: dict[str, int] = {}
    for line in (text or "").splitlines():
        key, _, rest = line.partition(":")
        fields = rest.split()
        number = parse_int(fields[0]) if fields else None
        if number is not None and number >= 0:
            values[key] = number * 1024
    total = values.get("MemTotal") or None
    available = values.get("MemAvailable")
    if available is not None and total is not None and available > total:
        available = None
    return available, total


def _group_limit_bytes(group: GroupFiles) -> int | None:
    """The lowest limit, or None if the group has none ("max", or a number beyond any memory)."""
    limits = [read_int(path) for path in group.limits]
    real = [limit for limit in limits if limit is not None and 0 < limit < NO_LIMIT_BYTES]
    return min(real, default=None)


def _group_room_bytes(group: GroupFiles, limit: int) -> int | None:
    used = read_int(group.usage)
    if used is None or used < 0:
        return None
    reclaimable = 0
    for line in (read_text(group.statistics) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == group.reclaimable_key:
            reclaimable = max(0, parse_int(value) or 0)
    return max(0, limit - max(0, used - reclaimable))
