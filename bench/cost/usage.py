"""What the kernel has charged to a process, and what it has in memory.

CPU time is the process's own clock (``clock_getcpuclockid(3)``): ns, of all its threads, also of
those that have ended too. ``schedstat`` has the same ns, but of living threads only, and each
scrape has a thread of its own. ``stat`` has ticks of 10 ms, which are only used for the kernel's
share. A child process would have a clock of its own, so there must be none.

On a loopback what the receiving end's TCP does happens within the sender's system call, and is
charged to the sender; so it is for every prober alike.
"""

import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["Used", "children", "memory_bytes", "used"]

_SCHED = 2  # CPUCLOCK_SCHED (linux/posix-timers_types.h): what the scheduler measured, exactly


class Used(NamedTuple):
    """CPU time of one process since it began, or between two moments.

    Attributes:
        cpu_ns: All of it.
        user_ticks: Share of our program, in ticks.
        system_ticks: Share of the kernel, in ticks.
    """

    cpu_ns: int
    user_ticks: int
    system_ticks: int

    def since(self, before: "Used") -> "Used":
        """Return what was used since an earlier moment."""
        return Used(*(now - then for now, then in zip(self, before, strict=True)))


def used(pid: int) -> Used:
    """Read a process's CPU time."""
    user, system = ticks(Path(f"/proc/{pid}/stat").read_text())
    return Used(time.clock_gettime_ns(~pid << 3 | _SCHED), user, system)


def ticks(stat: str) -> tuple[int, int]:
    """Return ``utime`` and ``stime`` out of /proc/<pid>/stat (proc_pid_stat(5))."""
    # The name is in brackets and may hold anything, brackets and blanks included.
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]), int(fields[12])


def parent(stat: str) -> int:
    """Return ``ppid`` out of /proc/<pid>/stat."""
    return int(stat.rpartition(")")[2].split()[1])


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that still are."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if parent((folder / "stat").read_text()) == pid:
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
    return found


def memory_bytes(status: str) -> int:
    """Return the resident memory out of /proc/<pid>/status, shared libraries included."""
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no VmRSS")
