"""Round trips per CPU second of the server, beside a bare asyncio echo under the same load.

Ping-pong of 64 bytes over 32 connections from one other process. CPU time is the server
process's own (user and system), so the speed of the load does not matter.
"""

import os
import select
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from twocans_core.protocol.messages import Hello, Identity, Request
from twocans_core.protocol.session import ClientSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONNECTIONS = 32
ROUND_TRIPS = 40_000
PAYLOAD = bytes(range(64))
TICK_S = 1 / os.sysconf("SC_CLK_TCK")

BARE = """
import asyncio
class Echo(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(data)
async def main():
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def main() -> None:
    """Measure and print."""
    with bare_server() as (pid, port):
        bare = measure(pid, lambda: plain_load(port))
    with twocans_server() as (pid, port):
        plain = measure(pid, lambda: plain_load(port))
        framed = measure(pid, lambda: framed_load(port))
    print(f"server, {len(PAYLOAD)} B, round trips per CPU second of the server process")
    print(f"  bare asyncio.Protocol echo     {bare:>9,.0f}   1.00")
    print(f"  twocans, plain echo            {plain:>9,.0f}   {plain / bare:.2f}")
    print(f"  twocans, measured exchange     {framed:>9,.0f}   {framed / bare:.2f}")


def measure(pid: int, load: "Callable[[], int]") -> float:
    """Return round trips per CPU second of a process while a load runs."""
    before = cpu_s(pid)
    done = load()
    return done / (cpu_s(pid) - before)


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process so far, user and system."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def plain_load(port: int) -> int:
    """Ping-pong raw bytes."""
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    return ping_pong(sockets, lambda _: PAYLOAD, len(PAYLOAD))


def framed_load(port: int) -> int:
    """Ping-pong measured exchanges."""
    sockets = []
    sessions: dict[int, ClientSession] = {}
    for _ in range(CONNECTIONS):
        sock = socket.create_connection(("127.0.0.1", port))
        session = ClientSession(max_payload=len(PAYLOAD))
        sock.sendall(session.hello(Hello(Identity(bytes(16)), 0)))
        while session.next_message() is None:
            session.feed(sock.recv(4096))
        sockets.append(sock)
        sessions[sock.fileno()] = session
    request = Request.of(PAYLOAD)
    # Each header has its own CRC-32, so no template will do. It is the load's CPU time, not ours.
    size = len(sessions[sockets[0].fileno()].request(request))
    for session in sessions.values():
        session.sequence = 0
    return ping_pong(sockets, lambda fd: sessions[fd].request(request), size)


def ping_pong(
    sockets: list[socket.socket], request: "Callable[[int], bytes]", reply_size: int
) -> int:
    """Keep one request under way on each connection until ROUND_TRIPS came back."""
    epoll = select.epoll()
    by_fd = {sock.fileno(): sock for sock in sockets}
    missing = dict.fromkeys(by_fd, reply_size)
    for fd, sock in by_fd.items():
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        epoll.register(fd, select.EPOLLIN)
        sock.sendall(request(fd))
    done = 0
    while done < ROUND_TRIPS:
        for fd, _ in epoll.poll(5):
            data = by_fd[fd].recv(65536)
            if not data:
                raise ConnectionError("the server closed a connection")
            missing[fd] -= len(data)
            if missing[fd] == 0:
                done += 1
                missing[fd] = reply_size
                by_fd[fd].sendall(request(fd))
    epoll.close()
    for sock in sockets:
        sock.close()
    return done


@contextmanager
def bare_server() -> "Iterator[tuple[int, int]]":
    """Run the yardstick; yields its pid and port."""
    process = subprocess.Popen([sys.executable, "-c", BARE], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.pid, int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def twocans_server(*arguments: str) -> "Iterator[tuple[int, int]]":
    """Run our server; yields its pid and port."""
    import json

    command = [sys.executable, "-m", "twocans_server", "--port", "0", "--http-port", "0"]
    process = subprocess.Popen(
        [*command, "--drain-accept-s", "0", "--drain-s", "1", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.pid, json.loads(process.stdout.readline())["server.port"]
    finally:
        process.terminate()
        process.wait(30)
        time.sleep(0.1)


if __name__ == "__main__":
    main()
