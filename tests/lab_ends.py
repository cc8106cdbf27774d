"""Sockets at both ends of a scene, and what the kernel says of them."""

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.namespaces import Namespace
from lab.scene import Scene
from lab.wire import Packet

PATIENCE_S = 10.0
UDP_PORT = 4000
_IP_MTU = 14


def until(look: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < end, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.005)


class Log:
    """What the wire logs from now on."""

    def __init__(self, its: Scene) -> None:
        self._its = its
        self._begin = len(its.wire.log())

    def packets(self, direction: str = "", **like: object) -> list[Packet]:
        return [
            packet
            for packet in self._its.wire.log()[self._begin :]
            if packet.direction.startswith(direction)
            and all(getattr(packet, name) == value for name, value in like.items())
        ]


class Shots:
    """Numbered datagrams from one end to the other."""

    def __init__(self, its: Scene, direction: str = "forward") -> None:
        self._log, self._direction = Log(its), direction
        ends = (its.client, its.server)
        source, target = ends if direction == "forward" else reversed(ends)
        with source.entered():
            self._out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with target.entered():
            self._in = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._in.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._in.bind((target.address, UDP_PORT))
        self._out.connect((target.address, UDP_PORT))
        self._in.setblocking(False)

    def fire(self, count: int, size: int = 100) -> list[int]:
        """Send so many of a size in bytes, IP header included; returns the numbers that came."""
        for number in range(count):
            self._out.send(number.to_bytes(4).ljust(size - 28, b"\0"))
        until(lambda: len(set(self._numbers())) >= count, "every datagram has its fate")
        came = []
        with contextlib.suppress(BlockingIOError):
            while True:
                came.append(int.from_bytes(self._in.recv(4)))
        return came

    def packets(self) -> list[Packet]:
        return self._log.packets(self._direction, protocol=17)

    def _numbers(self) -> list[int]:
        return [packet.number for packet in self.packets()]

    def close(self) -> None:
        self._out.close()
        self._in.close()


@contextlib.contextmanager
def shots(its: Scene, direction: str = "forward") -> Iterator[Shots]:
    with contextlib.closing(Shots(its, direction)) as these:
        yield these


@contextlib.contextmanager
def listening(its: Scene, port: int = 0) -> Iterator[socket.socket]:
    with its.server.entered():
        listener = socket.create_server((its.server.address, port))
    with listener:
        yield listener


def dial(
    its: Scene, listener: socket.socket, port: int = 0, wait_s: float = 5, host: str = ""
) -> socket.socket:
    """Connect from the client, to another address of the listener if one is given."""
    with its.client.entered():
        sock = socket.socket()
    sock.settimeout(wait_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if port:
        sock.bind(("", port))
    try:
        at, number = listener.getsockname()
        sock.connect((host or at, number))
    except OSError:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def connected(its: Scene) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield the client's and the server's end of a connection."""
    with listening(its) as listener, dial(its, listener) as near:
        listener.settimeout(PATIENCE_S)
        far, _ = listener.accept()
        far.settimeout(PATIENCE_S)
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with far:
            yield near, far


def carry(source: socket.socket, target: socket.socket, data: bytes) -> bytes:
    """Send, and return what comes of it."""
    source.setblocking(False)
    got, sent = b"", 0
    end = time.monotonic() + PATIENCE_S
    while len(got) < len(data):
        assert time.monotonic() < end, f"only {len(got)} of {len(data)} bytes came"
        if sent < len(data):
            with contextlib.suppress(BlockingIOError):
                sent += source.send(data[sent:])
        if select.select([target], [], [], 0.01)[0]:
            got += target.recv(1 << 16)
    return got


def tcp_info(sock: socket.socket) -> bytes:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)


def options(sock: socket.socket) -> int:
    """tcpi_options: timestamps 1, SACK 2, window scale 4 (linux/tcp.h)."""
    return tcp_info(sock)[5]


def send_mss(sock: socket.socket) -> int:
    (mss,) = struct.unpack_from("=I", tcp_info(sock), 16)
    return int(mss)


def path_mtu(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_IP, _IP_MTU)


def counter(namespace: Namespace, file: str, table: str, name: str) -> int:
    with namespace.entered():
        text = Path("/proc/thread-self/net", file).read_text()
    names, values = (line.split() for line in text.splitlines() if line.startswith(f"{table}:"))
    return int(values[names.index(name)])
