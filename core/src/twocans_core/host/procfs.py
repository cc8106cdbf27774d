"""What this process may read of its own host, unprivileged.

Scope: ``/proc/net`` is that of our own network namespace, so in a pod it is the pod's.
Everything returns None where the kernel, or the container runtime, does not show it.
"""

import contextlib
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from twocans_core.kernel.tcpinfo import HostCounts

__all__ = [
    "NO_OWN_COUNTS",
    "HostReader",
    "HostWatch",
    "OwnCounts",
    "OwnReader",
    "RunDelay",
    "descriptor_limit",
    "listen_counters",
]

_NETSTAT = Path("/proc/net/netstat")
_SNMP = Path("/proc/net/snmp")
# To read the host's counts costs some 100 us. What made a kernel count cost the connection that
# it befell 200 ms or more (TCP_RTO_MIN), so this is fresh enough to have it in.
_HOST_AGE_NS = 100_000_000
_MODULUS = 1 << 32
_SCHEDSTAT = Path("/proc/thread-self/schedstat")
# Three numbers of at most 20 digits.
_SCHEDSTAT_BYTES = 64
# A table of /proc/net has some 4 KiB.
_TABLE_BYTES = 65_536


class RunDelay:
    """How long one thread waited for a CPU: the second number of its ``schedstat``.

    It is ready to run and does not: others run, or a CPU limit stops it. The file stays open,
    so that a reading takes about a microsecond (Documentation/scheduler/sched-stats.rst).

    Args:
        path: The file; that of the thread that makes this.
    """

    def __init__(self, path: Path = _SCHEDSTAT) -> None:
        self._fd = -1
        with contextlib.suppress(OSError):
            # What /proc/thread-self means is settled here (proc(5)): a descriptor stays with the
            # thread that opened it, whoever reads it.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read_ns(self) -> int | None:
        """Return it, in ns since the thread began. May be asked from any thread.

        A kernel that does not keep count shows a thread that never ran (``sched_info_on``).
        """
        with contextlib.suppress(OSError, ValueError):
            # From offset 0 the kernel writes the file anew, so nothing has to be opened again.
            ran, waited, _ = map(int, os.pread(self._fd, _SCHEDSTAT_BYTES, 0).split())
            return waited if ran else None
        return None

    def close(self) -> None:
        """Read no more. Safe to call twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


def listen_counters(netstat: Path = _NETSTAT) -> dict[str, int] | None:
    """Return ListenOverflows and ListenDrops of our network namespace (TcpExt).

    One that the kernel does not show is not in it; None when it shows neither.
    """
    counts = _counts_of("TcpExt", netstat)
    return {key: counts[key] for key in ("ListenOverflows", "ListenDrops") if key in counts} or None


class HostReader:
    """Reads what TCP counted in our network namespace, modulo 2^32, for every few probes.

    So where they are among some 150 numbers is found out once.

    Args:
        netstat: Where overflows are counted.
        snmp: Where wrong checksums are counted.
    """

    def __init__(self, netstat: Path = _NETSTAT, snmp: Path = _SNMP) -> None:
        self._overflows = _Columns("TcpExt", ("ListenOverflows",), netstat)
        self._errors = _Columns("Tcp", ("InCsumErrors",), snmp)

    def __call__(self) -> HostCounts:
        return HostCounts(_first(self._overflows.read()), _first(self._errors.read()))


class OwnCounts:
    """What our own host counted of what came to it, at one moment.

    Worked out when it is asked for, for of a good probe nobody asks. Only differences mean
    something.

    Args:
        reader: Knows where the numbers are.
        table: In this.
    """

    __slots__ = ("_reader", "_table")

    def __init__(self, reader: "OwnReader | None" = None, table: bytes = b"") -> None:
        self._reader = reader
        self._table = table

    @property
    def csum_errors(self) -> int | None:
        """As in ``HostCounts``."""
        return _first(self._reader.errors.of(self._table)) if self._reader else None

    @property
    def undelivered(self) -> int | None:
        """IPv4 packets that reached our network namespace and that went nowhere from there.

        They were neither delivered nor passed on: a firewall of this host, mostly, or its
        reverse-path filter.
        """
        counts = self._reader.packets.of(self._table) if self._reader else []
        if not counts:
            return None
        received, delivered, forwarded, fragments, whole = counts
        # Fragments are received one by one, and what they make is delivered once.
        return received - delivered - forwarded - (fragments - whole)


NO_OWN_COUNTS = OwnCounts()


class OwnReader:
    """Reads ``OwnCounts``, as ``HostReader`` does its own. A client listens nowhere.

    Attributes:
        errors, packets: Where the numbers are.
    """

    def __init__(self, snmp: Path = _SNMP) -> None:
        self._snmp = snmp
        self.errors = _Columns("Tcp", ("InCsumErrors",), snmp)
        names = ("InReceives", "InDelivers", "ForwDatagrams", "ReasmReqds", "ReasmOKs")
        self.packets = _Columns("Ip", names, snmp)

    def __call__(self) -> OwnCounts:
        with contextlib.suppress(OSError):
            return OwnCounts(self, _table(self._snmp))
        return NO_OWN_COUNTS


class _Columns:
    """Some numbers of a protocol's pair of lines, names above values; none if one is missing."""

    def __init__(self, protocol: str, names: tuple[str, ...], path: Path) -> None:
        self._path = path
        self._begin = f"{protocol}: ".encode()
        self._at: list[int] = []
        with contextlib.suppress(OSError, ValueError):
            table = _table(path)
            start = table.index(self._begin)
            words = table[start : table.index(b"\n", start)].split()
            self._at = [words.index(name.encode()) for name in names]

    def read(self) -> list[int]:
        """Return them as they are now."""
        with contextlib.suppress(OSError):
            return self.of(_table(self._path))
        return []

    def of(self, table: bytes) -> list[int]:
        """Return them as a reading of the file has them."""
        if not self._at:
            return []
        with contextlib.suppress(ValueError, IndexError):
            # The values' line begins as the names' line before it does.
            start = table.index(b"\n" + self._begin, table.index(self._begin)) + 1
            # No more of the line is split than is needed.
            values = table[start : table.index(b"\n", start)].split(maxsplit=max(self._at) + 1)
            return [int(values[at]) for at in self._at]
        return []


def _first(counts: list[int]) -> int | None:
    return counts[0] % _MODULUS if counts else None


def _table(path: Path) -> bytes:
    """Read a small file in the fewest calls: Python's own layers take longer than the kernel."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # One read has all of it: a seq_file of one record (proc_create_net_single,
        # net/ipv4/proc.c).
        return os.read(fd, _TABLE_BYTES)
    finally:
        os.close(fd)


CountsT = TypeVar("CountsT")


class HostWatch(Generic[CountsT]):
    """The host's counts, read again when the last reading is 100 ms old.

    Args:
        mono_ns: CLOCK_MONOTONIC.
        read: Reads them.
    """

    def __init__(self, mono_ns: Callable[[], int], read: Callable[[], CountsT]) -> None:
        self._mono_ns = mono_ns
        self._read = read
        self._read_ns = mono_ns()
        self._counts: CountsT | None = None

    def __call__(self, *, fresh: bool = False) -> CountsT:
        """Return them, at most 100 ms old; ``fresh``: read now."""
        now_ns = self._mono_ns()
        if fresh or self._counts is None or now_ns - self._read_ns >= _HOST_AGE_NS:
            self._read_ns = now_ns
            self._counts = self._read()
        return self._counts


def raise_descriptor_limit() -> None:
    """Let this process have as many descriptors open as its hard limit allows."""
    # The soft limit is mostly 1,024, for programs that call select(2), whose sets end there. We do
    # not.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def descriptor_limit() -> int:
    """Return how many descriptors this process may have open (the soft RLIMIT_NOFILE)."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _counts_of(protocol: str, path: Path) -> dict[str, int]:
    """Read one protocol's pair of lines, names above values; empty where there is none."""
    with contextlib.suppress(OSError, ValueError):
        lines = path.read_text().splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=False):
            if names.startswith(f"{protocol}:"):
                return dict(zip(names.split()[1:], map(int, values.split()[1:]), strict=True))
    return {}
