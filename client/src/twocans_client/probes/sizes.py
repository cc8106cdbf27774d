"""Tries which sizes of packets pass: exchanges of one segment each, all at once."""

import asyncio
import itertools
from collections.abc import Iterable

from twocans_client.evidence.results import ProbeResult, Reason
from twocans_client.evidence.sizes import FRAME_BYTES, Tried
from twocans_core.net.sockets import Address

from .probe import Plan, probe
from .tools import Tools

__all__ = ["try_sizes"]

# All in one instant would hold up the probes beside them.
_APART_S = 0.005


async def try_sizes(
    address: Address, sizes: Iterable[int], headers: int, tools: Tools, *, timeout_ns: int
) -> list[Tried]:
    """Exchange once on a fresh connection for each size, with packets of that size either way.

    They begin 5 ms apart.

    Args:
        address: Where to.
        sizes: Of packets with their headers, in bytes; not more than a full segment's.
        headers: Of IP and TCP (``headers_of``).
        tools: What with.
        timeout_ns: For each connection.
    """

    async def attempt(turn: int, size: int) -> Tried:
        await asyncio.sleep(turn * _APART_S)
        payload = max(0, size - headers - FRAME_BYTES)
        result = await probe(address, Plan(timeout_ns, payload_bytes=payload), tools)
        return _tried(size, result)

    return list(await asyncio.gather(*itertools.starmap(attempt, enumerate(sizes))))


def _tried(size: int, result: ProbeResult) -> Tried:
    segments = result.segments_seen
    if result.exchanges:
        return Tried(size, passed_forward=True, passed_reverse=True, segments=segments)
    if result.reason is not Reason.REPLY_TIMEOUT or result.standing is None:
        return Tried(size, None, None, segments)
    if result.standing.unacked:
        return Tried(size, passed_forward=False, passed_reverse=None, segments=segments)
    return Tried(size, passed_forward=True, passed_reverse=False, segments=segments)
