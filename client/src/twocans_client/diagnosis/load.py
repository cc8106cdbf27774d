"""A short load, paced and far below what a server allows one client, and what others feel of it."""

import asyncio

from twocans_client.evidence.bulk import Load, load_of
from twocans_client.evidence.limits import Limits
from twocans_client.evidence.results import ProbeResult
from twocans_client.probes.paced import Pace, paced
from twocans_client.probes.probe import MOST_SIZED_BYTES, Plan, probe
from twocans_client.probes.tools import Tools
from twocans_core.net.sockets import Address

__all__ = ["find_limits", "make_load"]

_MS = 1_000_000
# 64 KiB each way every 25 ms: at most 21 Mbit/s, and 5 MB in all.
_BULK = Pace(MOST_SIZED_BYTES, 25 * _MS, 2_000 * _MS)
_BEFORE = Pace(64, 20 * _MS, 600 * _MS)
_BESIDE = Pace(64, 20 * _MS, 1_900 * _MS)
# As many as ``Limits`` wants in a row.
_LARGE = 3


async def make_load(
    address: Address, tools: Tools, timeout_ns: int, *, is_proxied: bool = False
) -> Load:
    """Exchange large messages for two seconds, and small ones before and beside them.

    Args:
        address: Where to.
        tools: What with.
        timeout_ns: Beyond the time that it lasts.
        is_proxied: As of ``load_of``.
    """
    before = await _exchange(address, _BEFORE, tools, timeout_ns)
    bulk, beside = await asyncio.gather(
        _exchange(address, _BULK, tools, timeout_ns), _exchange(address, _BESIDE, tools, timeout_ns)
    )
    return load_of(before, beside, bulk, is_proxied=is_proxied)


async def find_limits(address: Address, tools: Tools, timeout_ns: int, limits: Limits) -> None:
    """Make large probes, one after the other, which show which window or buffer holds them up."""
    once = Pace(MOST_SIZED_BYTES, 0, 1)
    for _ in range(_LARGE):
        limits.take(await _exchange(address, once, tools, timeout_ns), 0)


async def _exchange(address: Address, pace: Pace, tools: Tools, timeout_ns: int) -> ProbeResult:
    plan = Plan(timeout_ns + pace.lasts_ns, payload_bytes=0, sized=True)
    return await probe(address, plan, tools, attempt_type=paced(pace))
