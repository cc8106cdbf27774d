"""Our client in its namespace: probes by its own API, one line of JSON each.

python -m bench.accuracy.probes host port
"""

import asyncio
import functools
import os
import sys
import time
from random import Random
from typing import Any

from twocans_client.probes.probe import Plan, probe
from twocans_client.probes.tools import Tools
from twocans_core.net.poller import Poller
from twocans_core.net.sockets import Address, open_keeper
from twocans_core.net.streams import connect
from twocans_core.protocol.messages import Identity

from .grid import on_grid

_TIMEOUT_NS = 10_000_000_000
STAMPS = ("t1k", "t2k", "t3k", "t4k")
"""Those that a capture can check, in the order of ``capture.Turn``."""


async def main() -> None:
    """Probe until the grid ends, with one to three exchanges in turn."""
    address = Address(sys.argv[1], int(sys.argv[2]))
    poller = Poller(asyncio.get_running_loop())
    close_keeper = open_keeper()
    dial = functools.partial(connect, poller=poller)
    tools = Tools(dial, Identity(os.urandom(16), "bench"), Random())

    async def make(number: int) -> dict[str, Any]:
        plan = Plan(_TIMEOUT_NS, exchanges=1 + number % 3)
        begun_ns = time.time_ns()
        result = await probe(address, plan, tools)
        return {
            "window": [begun_ns, time.time_ns()],
            "outcome": str(result.outcome),
            "reason": str(result.reason),
            "port": result.local and result.local[1],
            "connect": [result.handshake_ns, result.connect_ns],
            "exchanges": [
                {
                    "network": getattr(exchange.split, "network_ns", None),
                    "user": exchange.duration_ns,
                    "stamps": [getattr(exchange.stamps, name) for name in STAMPS],
                }
                for exchange in result.exchanges
            ],
        }

    await on_grid(make)
    poller.close()
    close_keeper()


if __name__ == "__main__":
    asyncio.run(main())
