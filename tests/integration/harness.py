"""A real server, in this process or in one of its own, and small clients that block."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from twocans_core.errors import RemoteProtocolError
from twocans_core.protocol.messages import Hello, Identity, Message, Reply, Request
from twocans_core.protocol.session import ClientSession
from twocans_server.config import ServerConfig
from twocans_server.service import Server

PATIENCE_S = 20.0
"""Longer than anything here may take: what hangs fails, and what is slow does not."""

CLIENT = Identity(b"c" * 16, "test", "", "", "0")


@contextlib.asynccontextmanager
async def running(*, start: bool = True, **config: Any) -> AsyncIterator[Server]:
    """Run a server on this loop, at ports of the kernel's choice on 127.0.0.1.

    Without ``start`` the caller starts it.
    """
    soon: dict[str, Any] = {"drain_accept_s": 0.0, "drain_s": 1.0, "host": "127.0.0.1"}
    server = Server(ServerConfig(**{**soon, "port": 0, "http_port": 0, **config}))
    if start:
        server.start()
    try:
        yield server
    finally:
        await server.stop()


async def eventually(condition: Callable[[], Any]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - anything may be asked
            await asyncio.sleep(0.005)


def until(condition: Callable[[], Any]) -> None:
    """Wait until something is so, without a loop."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.01)


def limited(soft: int, hard: int) -> list[str]:
    """Return a command before another, which then has these limits of descriptors."""
    program = (
        "import os, resource, sys;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}));"
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", program]


class ServerProcess:
    """``python -m twocans_server`` until the block ends.

    Args:
        flags: Of the command.
        wrapper: Put before the command, such as ``ip netns exec``.

    Attributes:
        lines: Its log so far, parsed.
    """

    def __init__(self, *flags: str, port: int = 0, wrapper: Sequence[str] = ()) -> None:
        command = [*wrapper, sys.executable, "-m", "twocans_server"]
        command += ["--http-port=0", f"--port={port}"]
        self.process = subprocess.Popen(
            [*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_log, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        until(lambda: self.events("listening") or self.process.poll() is not None)
        assert self.events("listening"), "".join(self.errors)
        listening = self.events("listening")[0]
        self.port: int = listening["server.port"]
        self.http_port: int = listening["twocans.http.port"]

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event.name"] == name]

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        code = self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join()
        return code

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """Return one sample of /metrics; 0 where there is none (yet)."""
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        return 0.0

    def cpu_s(self) -> float:
        """CPU time used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def _read_log(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors.extend(self.process.stderr)


def dial(
    port: int, host: str = "127.0.0.1", source: str = "", connect_s: float = PATIENCE_S
) -> socket.socket:
    """Connect; once connected, with a time-out that only a hang reaches."""
    source_address = (source, 0) if source else None
    sock = socket.create_connection((host, port), connect_s, source_address)
    sock.settimeout(PATIENCE_S)
    return sock


def echo(sock: socket.socket, data: bytes) -> bytes:
    """Send and read as much back; less only at the end of the stream."""
    sock.sendall(data)
    return read_exactly(sock, len(data))


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


def read_to_end(sock: socket.socket) -> bytes:
    data = b""
    while more := sock.recv(65_536):
        data += more
    return data


class FramedClient:
    """One framed session over a blocking socket.

    Attributes:
        draining: Whether the server said that it is about to stop.
    """

    def __init__(
        self,
        port: int,
        host: str = "127.0.0.1",
        source: str = "",
        connect_s: float = PATIENCE_S,
    ) -> None:
        self.sock = dial(port, host, source, connect_s)
        self.session = ClientSession(max_payload=65_536)

    def __enter__(self) -> "FramedClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    @property
    def draining(self) -> bool:
        return self.session.draining

    def greet(self) -> Message:
        """Say HELLO; returns WELCOME, or BUSY."""
        self.sock.sendall(self.session.hello(Hello(CLIENT, 7)))
        return self.receive()

    def ask(self, payload: bytes = b"payload") -> Reply:
        self.sock.sendall(self.session.request(Request.of(payload)))
        while not isinstance(message := self.receive(), Reply):
            pass  # GOODBYE draining may come at any time
        return message

    def leave(self) -> list[Message]:
        """Say GOODBYE; returns all that the server said then."""
        self.sock.sendall(self.session.goodbye())
        return list(self.rest())

    def receive(self) -> Message:
        """Return the next message. Raises EOFError at the end of the stream."""
        while (message := self.session.next_message()) is None:
            data = self.sock.recv(65_536)
            if not data:
                raise EOFError
            self.session.feed(data)
        return message

    def rest(self) -> Iterator[Message]:
        with contextlib.suppress(EOFError, RemoteProtocolError):
            while True:
                yield self.receive()
