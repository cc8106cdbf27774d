"""What limits this process's cgroup, version 1 or 2: its memory and its CPU time.

Everything returns None where there is no limit, or the container runtime does not show it.
"""

import contextlib
from pathlib import Path
from typing import NamedTuple

__all__ = ["Memory", "MemoryLimit", "Throttling", "throttling"]

_CGROUPS = Path("/proc/self/cgroup")
_CGROUP_ROOT = Path("/sys/fs/cgroup")
# Version 1 says a number of this size where version 2 says "max".
_NO_LIMIT = 1 << 60


class Throttling(NamedTuple):
    """How often a CPU limit stopped us (``cpu.stat`` of our cgroup).

    Attributes:
        periods: Enforcement periods in which we were stopped (``nr_throttled``).
        seconds: Time that we stood still.
    """

    periods: int
    seconds: float


class Memory(NamedTuple):
    """What a cgroup's memory limit leaves.

    Attributes:
        limit: Bytes that all in it may hold, what the kernel holds for them included.
        used: What they hold and the kernel cannot simply drop (Kubernetes' "working set").
    """

    limit: int
    used: int


class MemoryLimit:
    """The memory limit over this process, from cgroup v2 or v1: of all around it the least.

    Args:
        cgroups: Where it says which cgroups we are in.
        root: Where these are mounted.
    """

    def __init__(self, cgroups: Path = _CGROUPS, root: Path = _CGROUP_ROOT) -> None:
        folders = dict.fromkeys(_memory_folders(cgroups, root))
        # Version 2 has no such file at the root of the hierarchy (cgroup-v2.rst).
        self._folders = [each for each in folders if (each[0] / each[1].limit).exists()]

    def read(self) -> Memory | None:
        """Return it as it is now; None where there is none, or it cannot be read."""
        limits = [
            (limit, at)
            for at, (folder, names) in enumerate(self._folders)
            if (limit := _read_int(folder / names.limit)) is not None and limit < _NO_LIMIT
        ]
        if limits:
            # A limit holds for all cgroups below its own: the least of those around us is what
            # kills us.
            limit, at = min(limits)
            folder, names = self._folders[at]
            with contextlib.suppress(OSError, ValueError, KeyError):
                table = dict(map(str.split, (folder / "memory.stat").read_text().splitlines()))
                used = int((folder / names.used).read_text()) - int(table[names.dropped])
                return Memory(limit, max(0, used))
        return None


class _MemoryNames(NamedTuple):
    limit: str
    used: str
    dropped: str


_MEMORY_V2 = _MemoryNames("memory.max", "memory.current", "inactive_file")
_MEMORY_V1 = _MemoryNames("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def throttling(cgroups: Path = _CGROUPS, root: Path = _CGROUP_ROOT) -> Throttling | None:
    """Return how often a CPU limit stopped us, from cgroup v2 or v1."""
    for path in _cpu_stat_files(cgroups, root):
        with contextlib.suppress(OSError, ValueError, KeyError):
            table = dict(line.split() for line in path.read_text().splitlines())
            periods = int(table["nr_throttled"])
            # Microseconds in version 2 (cgroup-v2.rst), nanoseconds in version 1 (sched-bwc.rst).
            if "throttled_usec" in table:
                return Throttling(periods, int(table["throttled_usec"]) / 1e6)
            return Throttling(periods, int(table["throttled_time"]) / 1e9)
    return None


def _memberships(cgroups: Path) -> list[tuple[str, str]]:
    """Return the controllers and the path of each cgroup we are in; version 2 names none."""
    found: list[tuple[str, str]] = []
    with contextlib.suppress(OSError, ValueError):
        for line in cgroups.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            found.append((controllers, path))
    return found


def _memory_folders(cgroups: Path, root: Path) -> list[tuple[Path, _MemoryNames]]:
    """Return our cgroup's folder and those around it, innermost first."""
    found: list[tuple[Path, _MemoryNames]] = []
    for controllers, path in _memberships(cgroups):
        if not controllers:
            found += _upwards(root, path, _MEMORY_V2)
        elif "memory" in controllers.split(","):
            found += _upwards(root / controllers, path, _MEMORY_V1)
    # In a container, as of cpu.stat below.
    return [*found, (root, _MEMORY_V2), (root / "memory", _MEMORY_V1)]


def _upwards(mount: Path, path: str, names: _MemoryNames) -> list[tuple[Path, _MemoryNames]]:
    parts = [part for part in path.split("/") if part]
    return [(mount.joinpath(*parts[:count]), names) for count in range(len(parts), -1, -1)]


def _read_int(path: Path) -> int | None:
    """Return the number in a file; None where there is no file, or no number ("max")."""
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def _cpu_stat_files(cgroups: Path, root: Path) -> list[Path]:
    # In a container the cgroup's own files are usually mounted at the root, whatever
    # /proc/self/cgroup says; on a plain host they lie below it.
    below: list[Path] = []
    for controllers, path in _memberships(cgroups):
        if not controllers:
            below.append(root / path.lstrip("/") / "cpu.stat")
        elif "cpu" in controllers.split(","):
            below.append(root / controllers / path.lstrip("/") / "cpu.stat")
            below.append(root / "cpu" / path.lstrip("/") / "cpu.stat")
    return [*below, root / "cpu.stat", root / "cpu,cpuacct" / "cpu.stat", root / "cpu" / "cpu.stat"]
