"""Network namespaces joined by a cable, or by a router, for faults that the kernel itself makes.

A socket belongs to the namespace that its thread was in when it was made, and stays there. So
one process can hold both ends.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest

CLIENT_ADDRESS = "10.77.0.1"
SERVER_ADDRESS = "10.77.0.2"

_CLONE_NEWNET = 0x4000_0000
_LIBC = ctypes.CDLL(None, use_errno=True)

# What a rule may match: our frames are 25 bytes or longer, the IPv4 and TCP headers before them
# 52 with timestamps, and an acknowledgement with two SACK blocks has 72.
KINDS = {
    "syn": ("--syn",),
    "syn_ack": ("--tcp-flags", "SYN,ACK", "SYN,ACK"),
    "data": ("-m", "length", "--length", "73:65535"),
    "fin": ("--tcp-flags", "FIN", "FIN"),
    "ack": ("--tcp-flags", "SYN,FIN,RST", "NONE", "-m", "length", "--length", "0:72"),
}


_OPPOSITES = {"-A": "-D", "add": "del"}


class Namespace(NamedTuple):
    """One end of the cable."""

    name: str
    address: str
    device: str

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Make sockets here: this thread is inside until the block ends."""
        with (
            open("/proc/thread-self/ns/net") as home,
            open(f"/var/run/netns/{self.name}") as forward,
        ):
            _set_namespace(forward.fileno())
            try:
                yield
            finally:
                _set_namespace(home.fileno())

    @property
    def wrapper(self) -> list[str]:
        """What to put before a command that is to run inside."""
        return ["ip", "netns", "exec", self.name]

    def run(self, *command: str) -> str:
        """Run a command inside; returns what it printed."""
        return _run(*self.wrapper, *command)

    def drop(self, kind: str, *, first: int = 0, share: float = 0.0) -> None:
        """Lose TCP segments that arrive here, as if on the way: TCP never sees them.

        Args:
            kind: Which; a key of ``KINDS``.
            first: How many, the next that come.
            share: Or which share of all, at random.
        """
        rule = ["iptables", "-A", "INPUT", "-p", "tcp", *KINDS[kind], "-m", "statistic", "--mode"]
        drop = ["-m", "comment", "--comment", kind, "-j", "DROP"]
        if share:
            self.run(*rule, "random", "--probability", str(share), *drop)
        # A rule drops the first packet that it sees; the next goes on to the next rule.
        for _ in range(first):
            self.run(*rule, "nth", "--every", "2147483647", "--packet", "0", *drop)

    def dropped(self) -> Counter[str]:
        """Return how many have been dropped, by kind."""
        counts: Counter[str] = Counter()
        for line in self.run("iptables", "-nvxL", "INPUT").splitlines()[2:]:
            packets, comment = line.split()[0], line.partition("/* ")[2]
            if comment:
                counts[comment.partition(" ")[0]] += int(packets)
        return counts

    @contextlib.contextmanager
    def under(self, *command: str) -> Iterator[None]:
        """Run a command that adds a rule, a route or a queue, and its opposite in the end."""
        self.run(*command)
        try:
            yield
        finally:
            self.run(*(_OPPOSITES.get(word, word) for word in command))

    def heal(self) -> Counter[str]:
        """Drop no more; returns how many have been, by kind."""
        self.run("iptables", "-I", "INPUT", "-j", "ACCEPT")
        return self.dropped()


class Pair(NamedTuple):
    """Both ends."""

    client: Namespace
    server: Namespace


class Routed(NamedTuple):
    """Both ends, and a router between them: its ``device`` is towards the server."""

    client: Namespace
    router: Namespace
    server: Namespace


@contextlib.contextmanager
def namespaces(*, cable: bool = True) -> Iterator[Pair]:
    """Make two namespaces, and a veth cable between them; skip the test where that cannot be.

    Args:
        cable: False leaves them unconnected.
    """
    prefix = _prefix()
    pair = Pair(
        Namespace(f"{prefix}-c", CLIENT_ADDRESS, "can0"),
        Namespace(f"{prefix}-s", SERVER_ADDRESS, "can0"),
    )
    with _made(*pair):
        if cable:
            _lay_cable(*pair)
            for namespace in pair:
                _give(namespace, f"{namespace.address}/30")
        yield pair


@contextlib.contextmanager
def routed() -> Iterator[Routed]:
    """Make three namespaces, of which the middle one forwards, in IPv4 and IPv6; or skip the test.

    Of the client's network 10.77.0.0/24 and of the server's 10.77.1.0/24 no other address is there.
    In IPv6 the addresses are fd77:0::1 to the router's fd77:0::2, and fd77:1::1 to fd77:1::2.
    """
    prefix = _prefix()
    ends = Routed(
        Namespace(f"{prefix}-c", "10.77.0.1", "can0"),
        Namespace(f"{prefix}-r", "10.77.0.2", "can1"),
        Namespace(f"{prefix}-s", "10.77.1.1", "can0"),
    )
    client, router, server = ends
    near = router._replace(device="can0")
    with _made(*ends):
        _lay_cable(client, near)
        _lay_cable(server, router)
        for number, inside, outside in ((0, client, near), (1, server, router)):
            for address, way in ((f"10.77.{number}.%d/24", "-4"), (f"fd77:{number}::%d/64", "-6")):
                _give(inside, address % 1)
                _give(outside, address % 2)
                via = (address % 2).partition("/")[0]
                inside.run("ip", way, "route", "add", "default", "via", via)
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for namespace in ends:  # else it sends no more than some ICMP messages a second
            namespace.run("sysctl", "-qw", "net.ipv4.icmp_ratemask=0", "net.ipv6.icmp.ratelimit=0")
        yield ends


def _prefix() -> str:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    for tool in ("ip", "iptables"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} here")
    return f"twocans-{os.getpid()}-{os.urandom(3).hex()}"


@contextlib.contextmanager
def _made(*wanted: Namespace) -> Iterator[None]:
    with contextlib.ExitStack() as undo:
        for namespace in wanted:
            try:
                _run("ip", "netns", "add", namespace.name)
                undo.callback(_run, "ip", "netns", "del", namespace.name)
                # Inside, ip mounts a /sys of the namespace's own; there may be no /sys.
                _run("ip", "-n", namespace.name, "link", "set", "lo", "up")
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespace can be had: {error.stderr.strip()}")
        yield


def _lay_cable(ours: Namespace, theirs: Namespace) -> None:
    # Both ends are made inside their namespaces: no name of ours is ever in the machine's own.
    link = ["ip", "-n", ours.name, "link", "add", ours.device, "type", "veth"]
    _run(*link, "peer", "name", theirs.device, "netns", theirs.name)
    for namespace in (ours, theirs):
        # Without its own address a router asks for no neighbour, and to check that takes a second.
        with contextlib.suppress(subprocess.CalledProcessError):  # there is no IPv6
            namespace.run("sysctl", "-qw", f"net.ipv6.conf.{namespace.device}.accept_dad=0")
        _run("ip", "-n", namespace.name, "link", "set", namespace.device, "up")


def _give(namespace: Namespace, address: str) -> None:
    nodad = ["nodad"] if ":" in address else []
    namespace.run("ip", "address", "add", address, "dev", namespace.device, *nodad)


def _set_namespace(fd: int) -> None:
    if _LIBC.setns(fd, _CLONE_NEWNET):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _run(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
    return done.stdout
