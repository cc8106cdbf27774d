"""A real client, in this process or in one of its own, and the servers that it may meet."""

import asyncio
import contextlib
import functools
import gc
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from random import Random
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from integration.harness import PATIENCE_S, until
from twocans_client.config import ClientConfig
from twocans_client.discovery.resolver import Resolver
from twocans_client.evidence.results import Outcome, ProbeResult
from twocans_client.probes.tools import Tools
from twocans_client.service.client import Client
from twocans_core.clock import SYSTEM_CLOCK, Clock
from twocans_core.net.poller import Poller
from twocans_core.net.streams import connect
from twocans_core.protocol.messages import Identity

Samples = dict[tuple[str, ...], float]


def parse_samples(text: str) -> Samples:
    """Return a page's samples by name and labels, each label written as ``key=value``."""
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def sum_of(samples: Samples, name: str, *labels: str) -> float:
    """Add up every sample of this name that has these labels."""
    return sum(
        value for key, value in samples.items() if key[0] == name and set(labels) <= set(key)
    )


def books_on_the_page(samples: Samples) -> tuple[float, float]:
    """Return both sides of: scheduled = ok + fail + void + missed + in flight."""
    prefix = "twocans_client_probes"
    settled = (f"{prefix}_total", f"{prefix}_missed_total", f"{prefix}_in_flight")
    return sum_of(samples, f"{prefix}_scheduled_total"), sum(
        sum_of(samples, name) for name in settled
    )


class Running:
    """A client on this loop.

    Attributes:
        client: It.
        results: Of every probe so far.
    """

    def __init__(self, client: Client, results: list[ProbeResult]) -> None:
        self.client = client
        self.results = results
        self._stopped = False

    @property
    def reasons(self) -> set[str]:
        return {str(result.reason) for result in self.results}

    async def stop(self) -> dict[str, int]:
        """Stop it, see that the books add up and agree with the results; returns the totals."""
        if not self._stopped:
            self._stopped = True
            await self.client.stop()
        totals = {str(key): value for key, value in self.client.totals.items()}
        ended = {str(outcome): 0 for outcome in Outcome}
        for result in self.results:
            ended[str(result.outcome)] += 1
        assert {key: totals[key] for key in ended} == ended
        assert totals["scheduled"] == sum(ended.values()) + totals["missed"]
        return totals

    async def get(self, path: str) -> tuple[int, str]:
        """Ask its HTTP server, from a thread."""
        return await asyncio.to_thread(get, self.client.http_address.port, path)


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()


@contextlib.asynccontextmanager
async def probing(
    *targets: str,
    clock: Clock = SYSTEM_CLOCK,
    resolver: Resolver | None = None,
    **config: Any,
) -> AsyncIterator[Running]:
    """Run a client on this loop, twenty probes a second and no more unless said otherwise."""
    results: list[ProbeResult] = []
    settings: dict[str, Any] = {
        "interval_s": 0.05,
        "held": False,
        "idle_connections": 0,
        "http_host": "127.0.0.1",
        "http_port": 0,
    }
    client = Client(
        ClientConfig(**{**settings, "targets": targets, **config}),
        clock=clock,
        resolver=resolver,
        observer=results.append,
    )
    client.start()
    running = Running(client, results)
    try:
        yield running
    finally:
        await running.stop()
        gc.unfreeze()


@contextlib.contextmanager
def probing_tools(**more: Any) -> Iterator[Tools]:
    """Give what a single probe on this loop works with."""
    poller = Poller(asyncio.get_running_loop())
    dial = functools.partial(connect, poller=poller)
    try:
        yield Tools(dial, Identity(os.urandom(16), "x"), Random(1), **more)
    finally:
        poller.close()


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    """Run any server on this loop; gives its HOST:PORT."""

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await serve(reader, writer)
        with contextlib.suppress(OSError):
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        server.close()
        await server.wait_closed()


async def echo_rfc_862(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The ten lines that make an echo server."""
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


def closed_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class ClientProcess:
    """``python -m twocans_client run`` until the block ends.

    Args:
        flags: After ``run``.
        wrapper: Put before the command, such as ``ip netns exec``.
        reads: Whether anybody reads its stdout; see ``read_log``.

    Attributes:
        lines: Its log so far, parsed.
    """

    def __init__(self, *flags: str, wrapper: Sequence[str] = (), reads: bool = True) -> None:
        command = [*wrapper, sys.executable, "-m", "twocans_client", "run"]
        command += ["--http-port=0", "--http-host=127.0.0.1", "--output=json", *flags]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        while not self.events("started"):
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            self.lines.append(json.loads(line))
        self.http_port: int = self.events("started")[0]["twocans.http.port"]
        if reads:
            self.read_log()

    def __enter__(self) -> "ClientProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self._reader.is_alive():
            self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def read_log(self) -> None:
        """Begin to read its stdout."""
        self._reader.start()

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event.name"] == name]

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def stop(self) -> dict[str, Any]:
        """Send SIGTERM, see that it ends well; returns its last line, ``stopped``."""
        self.signal()
        return self.wait()

    def wait(self) -> dict[str, Any]:
        code = self.process.wait(PATIENCE_S)
        self._reader.join()
        assert code == 0, self.lines[-5:]
        assert self.events("bug") == self.events("crashed") == []
        stopped = self.lines[-1]
        assert stopped["event.name"] == "stopped"
        ends = ("ok", "fail", "void", "missed")
        assert stopped["twocans.probes.scheduled"] == sum(
            stopped[f"twocans.probes.{name}"] for name in ends
        )
        return stopped

    def samples(self) -> Samples:
        return parse_samples(get(self.http_port, "/metrics")[1])

    def probed(self, count: int) -> None:
        """Wait until this many probes have ended."""
        until(lambda: sum_of(self.samples(), "twocans_client_probes_total") >= count)

    def _read_log(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))
