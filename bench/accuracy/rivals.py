"""The other tools: blackbox_exporter asked for its probes, sockperf's log read.

    python -m bench.accuracy.rivals module port

asks a blackbox_exporter on this host for probes of one module, each of an address of its own, and
prints a line of JSON for each: the address, and the exporter's own duration in ns.
"""

import asyncio
import contextlib
import re
import sys
from collections.abc import Sequence

from .grid import on_grid

__all__ = ["CONFIG", "EXPORTER_PORT", "align", "read_log", "target"]

EXPORTER_PORT = 9115
CONFIG = """
modules:
  connect:
    prober: tcp
    timeout: 10s
    tcp:
      preferred_ip_protocol: ip4
  exchange:
    prober: tcp
    timeout: 10s
    tcp:
      preferred_ip_protocol: ip4
      query_response:
        - send: "012345678901234567890123456789012345678901234567890123456789012"
        - expect: "^0123"
"""
"""``send`` adds a newline: 64 bytes, as many as the payload of one of our exchanges."""

_NETWORKS = {"connect": 92, "exchange": 93}
_DURATION = re.compile(r"^probe_duration_seconds (\S+)$", re.MULTILINE)
_LOOKUP = re.compile(r"^probe_dns_lookup_time_seconds (\S+)$", re.MULTILINE)


def target(module: str, number: int) -> str:
    """Return the address that a probe goes to; no other connection does."""
    return f"10.{_NETWORKS[module]}.{number // 250}.{number % 250 + 1}"


def measured_ns(page: str) -> int | None:
    """Return a probe's duration less its look-up, from the exporter's answer; None: it failed."""
    if "\nprobe_success 1\n" not in page:
        return None
    duration, lookup = _DURATION.search(page), _LOOKUP.search(page)
    assert duration is not None
    assert lookup is not None
    return round((float(duration[1]) - float(lookup[1])) * 1e9)


async def main() -> None:
    """Ask until the grid ends."""
    module, port = sys.argv[1], int(sys.argv[2])
    await _wait_for_exporter()

    async def make(number: int) -> tuple[str, int | None]:
        host = target(module, number)
        reader, writer = await asyncio.open_connection("127.0.0.1", EXPORTER_PORT)
        path = f"/probe?module={module}&target={host}:{port}"
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        page = (await reader.read()).decode()
        writer.close()
        return host, measured_ns(page)

    await on_grid(make)


async def _wait_for_exporter() -> None:
    for _ in range(200):
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", EXPORTER_PORT)
            writer.close()
            return
        await asyncio.sleep(0.05)
    raise SystemExit("accuracy: blackbox_exporter does not listen")


def read_log(text: str) -> list[tuple[int, int]]:
    """Return (sent, received) of each message in sockperf's --full-log, ns of its own clock.

    The log has the round trips' two moments; the "latency" that sockperf prints is half of the
    time between them.
    """
    rows = []
    for line in text.partition("packet, txTime")[2].splitlines()[1:]:
        fields = line.split(",")
        if len(fields) == 4:
            rows.append((round(float(fields[1]) * 1e9), round(float(fields[2]) * 1e9)))
    return rows


def align(sent: Sequence[int], departures: Sequence[int]) -> int | None:
    """Return which departure in a capture is the first message of sockperf's log.

    The log leaves out messages at both ends and its clock's zero is unknown, so it is the shift
    at which the times between messages agree best.

    Args:
        sent: When sockperf sent, in order.
        departures: When its messages left, in order, at least as many.

    Returns:
        The shift; None when two fit alike, or none can.
    """
    spare = len(departures) - len(sent)
    if spare < 0 or len(sent) < 20:
        return None
    misfits = sorted((_misfit(sent, departures, shift), shift) for shift in range(spare + 1))
    if len(misfits) > 1 and misfits[1][0] <= 2 * misfits[0][0]:
        return None
    return misfits[0][1]


def _misfit(sent: Sequence[int], departures: Sequence[int], shift: int) -> int:
    """Return the median disagreement, in ns, over at most 200 pairs of neighbours."""
    step = max(1, len(sent) // 200)
    gaps = sorted(
        abs((departures[shift + at + 1] - departures[shift + at]) - (sent[at + 1] - sent[at]))
        for at in range(0, len(sent) - 1, step)
    )
    return gaps[len(gaps) // 2]


if __name__ == "__main__":
    asyncio.run(main())
