"""Prometheus, as far as its targets can tell: GET at fixed intervals, on connections it keeps."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Address", "get", "scrape_all"]

# What Prometheus 2.53 sends. It gets gzip from those who have it.
_REQUEST = (
    "GET {path} HTTP/1.1\r\n"
    "Host: {host}:{port}\r\n"
    "User-Agent: Prometheus/2.53.3\r\n"
    "Accept: application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;"
    "version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2\r\n"
    "Accept-Encoding: gzip\r\n"
    "X-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n"
)


class Address(NamedTuple):
    """Where an exporter is."""

    host: str
    port: int


async def scrape_all(
    exporter: Address, paths: Sequence[str], interval_s: float, until_s: float
) -> int:
    """Get every path once an interval, evenly spread; returns how many answers came.

    Each path has a connection of its own, as Prometheus has it, and skips the slots in which it
    still waits. An answer that is not 200 ends the bench.

    Args:
        exporter: What to ask.
        paths: What to ask for.
        interval_s: Between two requests for the same path.
        until_s: The loop's time at which to stop.
    """
    begun_s = asyncio.get_running_loop().time()
    phases = [begun_s + number * interval_s / len(paths) for number in range(len(paths))]
    each = [
        _scrape(exporter, path, phase_s, interval_s, until_s)
        for path, phase_s in zip(paths, phases, strict=True)
    ]
    return sum(await asyncio.gather(*each))


async def _scrape(
    exporter: Address, path: str, due_s: float, interval_s: float, until_s: float
) -> int:
    loop = asyncio.get_running_loop()
    answers = 0
    async with contextlib.aclosing(_Connection(exporter)) as connection:
        while due_s < until_s:
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            await connection.get(path)
            answers += 1
            while due_s <= loop.time():
                due_s += interval_s
    return answers


async def get(exporter: Address, path: str) -> bytes:
    """Get one page over a connection for it alone; returns the body as it came."""
    async with contextlib.aclosing(_Connection(exporter)) as connection:
        return await connection.get(path)


class _Connection:
    """A connection that is kept, unless the exporter closes it after each answer."""

    def __init__(self, exporter: Address) -> None:
        self._exporter = exporter
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str) -> bytes:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._exporter)
        reader, writer = self._streams
        host, port = self._exporter
        writer.write(_REQUEST.format(path=path, host=host, port=port).encode())
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        if status.split()[1] != "200":
            raise SystemExit(f"cost: {path}: {status}")
        rows = (row.partition(":") for row in lines)
        fields = {name.lower(): value.strip() for name, _, value in rows}
        if fields.get("transfer-encoding") == "chunked":
            body = await _chunks(reader)
        else:
            body = await reader.readexactly(int(fields["content-length"]))
        if fields.get("connection") == "close":
            await self.aclose()
        return body

    async def aclose(self) -> None:
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body
