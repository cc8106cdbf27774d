"""Memory of a server for each connection that it holds: plain, and framed after the greeting.

    python bench/held_connections.py [connections]     (15,000 by default; about 15 s)

The server is a process of its own. The connections come from four processes and as many
addresses out of 127.0.0.0/8, so neither ports nor 20,000 descriptors a process run out.
Reports the growth of the server's resident memory divided by the connections; what the kernel
holds for its sockets is not in it.
"""

import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from twocans_core.protocol.messages import Hello, Identity
from twocans_core.protocol.session import ClientSession

_PROCESSES = 4
_HELLO = ClientSession(max_payload=0).hello(Hello(Identity(b"c" * 16, "bench"), 7))
_FIRST_BYTES = {"plain": b"x", "framed": _HELLO}


def main() -> int:
    """Measure both kinds; returns the exit code."""
    connections = int(sys.argv[1]) if len(sys.argv) > 1 else 15_000
    for kind in _FIRST_BYTES:
        before, after, held = _measure(kind, connections)
        each = (after - before) / held
        print(f"{kind}: {held} held, {before / 1e6:.1f} -> {after / 1e6:.1f} MB", end="")
        print(f", {each:.0f} bytes each")
        if held < connections:
            return 1
    return 0


def _measure(kind: str, connections: int) -> tuple[int, int, int]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    command = [sys.executable, "-m", "twocans_server", "--port=0", "--http-port=0"]
    with subprocess.Popen(
        [*command, "--max-connections-per-source=0"], stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        port = json.loads(server.stdout.readline())["server.port"]
        _hold(kind, port, "127.1.0.1", 100)[0].recv()  # the first ones load code and tables
        before = _rss_bytes(server.pid)
        share = connections // _PROCESSES
        pipes = [_hold(kind, port, f"127.1.0.{9 + n}", share)[0] for n in range(_PROCESSES)]
        held = sum(pipe.recv() for pipe in pipes)
        time.sleep(0.5)
        after = _rss_bytes(server.pid)
        server.send_signal(signal.SIGKILL)
    return before, after, held


def _hold(kind: str, port: int, source: str, count: int) -> tuple[Pipe, object]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(
        target=_client, args=(theirs, kind, port, source, count), daemon=True
    )
    process.start()
    return ours, process


def _client(pipe: Pipe, kind: str, port: int, source: str, count: int) -> None:
    socks = []
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port), 10, (source, 0))
        sock.sendall(_FIRST_BYTES[kind])
        socks.append(sock)
    served = sum(bool(sock.recv(4_096)) for sock in socks)
    pipe.send(served)
    time.sleep(60)  # until our parent ends us


def _rss_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    raise SystemExit(main())
