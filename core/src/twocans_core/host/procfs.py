"""What this process may read of its own host, unprivileged.

Scope: ``/proc/net`` is that of our own network namespace, so in a pod it is the pod's.
Everything returns None where the kernel, or the container runtime, does not show it.
"""

import contextlib
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from twocans_core.kernel.tcpinfo import HostCounts, TcpCounts

__all__ = [
    "OPTIONS_AGE_NS",
    "Columns",
    "HostReader",
    "HostWatch",
    "LocalPorts",
    "RunDelay",
    "TcpReader",
    "descriptor_limit",
    "listen_counters",
    "local_ports",
    "read_table",
    "stolen_ns",
]

_NETSTAT = Path("/proc/net/netstat")
_SNMP = Path("/proc/net/snmp")
# To read the host's counts costs some 100 us. What made a kernel count cost the connection that
# it befell 200 ms or more (TCP_RTO_MIN), so this is fresh enough to have it in.
_HOST_AGE_NS = 100_000_000
_MODULUS = 1 << 32
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_RESERVED_PORTS = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")
_STAT = Path("/proc/stat")
# The eighth number of a CPU in it, in ticks (proc(5)).
_STEAL = 8
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_SCHEDSTAT = Path("/proc/thread-self/schedstat")
# Three numbers of at most 20 digits.
_SCHEDSTAT_BYTES = 64
# A table of /proc/net has some 4 KiB.
_TABLE_BYTES = 65_536
_HIGHEST_PORT = 65_535
OPTIONS_AGE_NS = 1_000_000_000
"""How old ``tcp_options`` may be: nobody changes them often."""
_IPV4 = Path("/proc/sys/net/ipv4")
# Documentation/networking/ip-sysctl.rst
_TCP_OPTIONS = {1: "tcp_timestamps", 2: "tcp_sack", 4: "tcp_window_scaling"}


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


def stolen_ns(stat: Path = _STAT) -> tuple[int, ...]:
    """Return for how long each CPU of this machine had work and was not run by its hypervisor.

    Empty where nobody says so.
    """
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError, IndexError), stat.open("rb") as lines:
        for line in lines:
            if not line.startswith(b"cpu"):
                break
            if not line.startswith(b"cpu "):  # which is the sum of all
                found.append(int(line.split(None, _STEAL + 1)[_STEAL]) * _TICK_NS)
    return tuple(found)


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
        self._overflows = Columns("TcpExt", ("ListenOverflows",), netstat)
        self._errors = Columns("Tcp", ("InCsumErrors",), snmp)

    def __call__(self) -> HostCounts:
        (overflows,), (errors,) = self._overflows.read(), self._errors.read()
        return HostCounts(_wrapped(overflows), _wrapped(errors))


class TcpReader:
    """Reads all of ``TcpCounts`` of our network namespace: 64 bits, where the kernel has them."""

    def __init__(self, netstat: Path = _NETSTAT, snmp: Path = _SNMP) -> None:
        listening = ("ListenOverflows", "ListenDrops", "TCPSynRetrans")
        self._listening = Columns("TcpExt", listening, netstat)
        segments = ("InSegs", "OutSegs", "RetransSegs", "InCsumErrors", "OutRsts")
        self._segments = Columns("Tcp", segments, snmp)

    def __call__(self) -> TcpCounts:
        return TcpCounts(*self._listening.read(), *self._segments.read())


class Columns:
    """Numbers of a protocol's pair of lines, names above values; None for what is not there.

    Args:
        protocol: As the lines begin.
        names: Of the numbers.
        path: The file.
    """

    def __init__(self, protocol: str, names: tuple[str, ...], path: Path) -> None:
        self._path = path
        self._begin = f"{protocol}: ".encode()
        self._at: list[int | None] = [None] * len(names)
        with contextlib.suppress(OSError, ValueError):
            table = read_table(path)
            start = table.index(self._begin)
            found = table[start : table.index(b"\n", start)].decode().split()
            self._at = [found.index(name) if name in found else None for name in names]
        self._last = max((at for at in self._at if at is not None), default=0)

    def read(self) -> list[int | None]:
        """Return them as they are now."""
        with contextlib.suppress(OSError):
            return self.of(read_table(self._path))
        return [None] * len(self._at)

    def of(self, table: bytes) -> list[int | None]:
        """Return them as a reading of the file has them."""
        with contextlib.suppress(ValueError, IndexError):
            # The values' line begins as the names' line before it does.
            start = table.index(b"\n" + self._begin, table.index(self._begin)) + 1
            # No more of the line is split than is needed.
            values = table[start : table.index(b"\n", start)].split(maxsplit=self._last + 1)
            return [None if at is None else int(values[at]) for at in self._at]
        return [None] * len(self._at)


def _wrapped(count: int | None) -> int | None:
    return None if count is None else count % _MODULUS


def read_table(path: Path) -> bytes:
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
        age_ns: Read again when they are so old, instead.
    """

    def __init__(
        self,
        mono_ns: Callable[[], int],
        read: Callable[[], CountsT],
        age_ns: int = _HOST_AGE_NS,
    ) -> None:
        self._mono_ns = mono_ns
        self._read = read
        self._age_ns = age_ns
        self._read_ns = mono_ns()
        self._counts: CountsT | None = None

    def __call__(self, *, fresh: bool = False) -> CountsT:
        """Return them, at most 100 ms old; ``fresh``: read now."""
        now_ns = self._mono_ns()
        if fresh or self._counts is None or now_ns - self._read_ns >= self._age_ns:
            self._read_ns = now_ns
            self._counts = self._read()
        return self._counts


class LocalPorts(NamedTuple):
    """The ports that connect() chooses from, for IPv4 and IPv6 alike (ip(7)).

    Attributes:
        low: The lowest.
        high: The highest.
        reserved: Those between them that it leaves out.
    """

    low: int
    high: int
    reserved: frozenset[int] = frozenset()


def local_ports(bounds: Path = _PORT_RANGE, reserved: Path = _RESERVED_PORTS) -> LocalPorts | None:
    """Return the ports that connect() chooses from; None where that cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        low, high = map(int, bounds.read_text().split())
        left_out: set[int] = set()
        for text in filter(None, reserved.read_text().strip().split(",")):
            first, _, last = text.partition("-")
            left_out.update(range(int(first), int(last or first) + 1))
        if 0 < low <= high <= _HIGHEST_PORT:
            return LocalPorts(low, high, frozenset(left_out))
    return None


def tcp_options(folder: Path = _IPV4) -> int | None:
    """Return the TCP options that our network namespace offers, over IPv4 and IPv6 alike.

    As bits of TCPI_OPT_TIMESTAMPS, _SACK and _WSCALE; None where that cannot be read.
    """
    offered = 0
    with contextlib.suppress(OSError, ValueError):
        for bit, name in _TCP_OPTIONS.items():
            offered |= bit if int((folder / name).read_text()) else 0
        return offered
    return None


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
