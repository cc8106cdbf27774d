"""How much longer an honest client waits beside a greedy one: its p99, as a ratio.

    python bench/fairness.py [pairs]     (5 by default; about 40 s)

One framed client asks 64 bytes at a time, one request after the other. In pairs, next to each
other in time: alone, then beside
  bulk      one plain echo at line rate,
  flood     120 framed clients that send empty requests as fast as they are read,
  idle      5,000 connections whose idle time ends at once.
Reported are the medians over the pairs of the p99 alone and beside it, and of their ratio: of the
round trip as the client sees it (with its fight for a CPU), and of the server's part of it, from
the kernel's receive timestamp to right before the reply (t3u - t2k), which is what a turn decides.
"""

import contextlib
import multiprocessing
import resource
import select
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection as Pipe

from server_speed import twocans_server

from twocans_core.protocol.frames import Frame, Kind, encode
from twocans_core.protocol.messages import Hello, Identity, Reply, Request
from twocans_core.protocol.session import ClientSession

_HELLO = encode(Frame(Kind.HELLO, 0, Hello(Identity(b"c" * 16, "bench"), 7).encode()))
_MEASURED_S = 1.5
_FLOODERS = 120
_IDLE = 5_000
_IDLE_S = 4
_Load = Callable[[int, Pipe], None]


def main() -> None:
    """Measure and print."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"p99 of one client, ms, medians of {pairs} pairs: round trip | server's part")
    with twocans_server("--max-connections-per-source=0") as (_, port):
        for name, load in (("bulk", _bulk), ("flood", _flood)):
            found = []
            for _ in range(pairs):
                alone = _p99(port, _MEASURED_S)
                with _beside(load, port):
                    found.append((alone, _p99(port, _MEASURED_S)))
                time.sleep(0.3)
            _report(name, found)
    found = []
    flags = ("--max-connections-per-source=0", f"--idle-s={_IDLE_S}")
    for _ in range(pairs):
        with twocans_server(*flags) as (_, port), contextlib.ExitStack() as stack:
            alone = _p99(port, _MEASURED_S)
            for number in range(_IDLE):
                sock = socket.create_connection(
                    ("127.0.0.1", port), 10, (f"127.1.0.{1 + number % 9}", 0)
                )
                stack.enter_context(sock).sendall(_HELLO)
            found.append((alone, _p99(port, _IDLE_S + 1.0)))
    _report("idle", found)


def _report(name: str, found: list[tuple[tuple[float, float], tuple[float, float]]]) -> None:
    columns = []
    for at in (0, 1):
        alone = statistics.median(pair[0][at] for pair in found)
        beside = statistics.median(pair[1][at] for pair in found)
        ratio = statistics.median(pair[1][at] / pair[0][at] for pair in found)
        columns.append(f"{alone:7.2f} ->{beside:8.2f}  x{ratio:6.1f}")
    print(f"  {name:8} {'  |'.join(columns)}", flush=True)


def _p99(port: int, seconds: float) -> tuple[float, float]:
    """Ask one request after the other; returns the two p99, in ms."""
    session = ClientSession(max_payload=64)
    request = Request.of(bytes(64))
    round_trips, parts = [], []
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(session.hello(Hello(Identity(b"c" * 16, "bench"), 7)))
        while session.next_message() is None:
            session.feed(sock.recv(65_536))
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            data = session.request(request)
            started_ns = time.perf_counter_ns()
            sock.sendall(data)
            while (message := session.next_message()) is None:
                session.feed(sock.recv(65_536))
            round_trips.append(time.perf_counter_ns() - started_ns)
            if isinstance(message, Reply) and message.t2k is not None:
                parts.append(message.t3u - message.t2k)
            time.sleep(0.001)
    return _at_99(round_trips) / 1e6, _at_99(parts) / 1e6


def _at_99(values: list[int]) -> float:
    return sorted(values)[len(values) * 99 // 100]


@contextlib.contextmanager
def _beside(load: _Load, port: int) -> Iterator[None]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=load, args=[port, theirs], daemon=True)
    process.start()
    ours.recv()
    time.sleep(0.5)
    try:
        yield
    finally:
        process.kill()
        process.join()


def _bulk(port: int, pipe: Pipe) -> None:
    sock = socket.create_connection(("127.0.0.1", port))
    pipe.send("ready")
    _blast([sock], [bytes(1 << 18)])


def _flood(port: int, pipe: Pipe) -> None:
    requests = (Frame(Kind.REQUEST, n, Request.of(b"").encode()) for n in range(1, 100_000))
    stream = b"".join(map(encode, requests))
    socks = []
    for _ in range(_FLOODERS):
        socks.append(socket.create_connection(("127.0.0.1", port)))
        socks[-1].sendall(_HELLO)
    pipe.send("ready")
    _blast(socks, [stream] * _FLOODERS)


def _blast(socks: list[socket.socket], streams: list[bytes]) -> None:
    """Send as much as goes, from the stream's start again at its end, and read all that comes."""
    sent = dict.fromkeys(range(len(socks)), 0)
    by_fd = {sock.fileno(): at for at, sock in enumerate(socks)}
    poll = select.poll()
    for sock in socks:
        sock.setblocking(False)
        poll.register(sock, select.POLLIN | select.POLLOUT)
    while True:
        for fd, events in poll.poll():
            at = by_fd[fd]
            if events & select.POLLIN:
                socks[at].recv(1 << 18)
            if events & select.POLLOUT:
                stream = memoryview(streams[at])
                sent[at] += socks[at].send(stream[sent[at] : sent[at] + (1 << 16)])
                sent[at] %= len(stream)


if __name__ == "__main__":
    main()
