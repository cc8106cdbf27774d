"""Probes per CPU second of the client, beside a bare socket loop that does the same traffic.

The bare loop connects, sends and receives four times and closes, with blocking sockets and no
timestamps, counters, checks or schedule: the limit for Python. CPU time is the process's own.
"""

import asyncio
import functools
import os
import socket
import time
from random import Random

from server_speed import twocans_server

from twocans_client.evidence.results import Outcome
from twocans_client.probes.probe import Plan, probe
from twocans_client.probes.tools import Tools
from twocans_core.net.poller import Poller
from twocans_core.net.sockets import Address, open_keeper
from twocans_core.net.streams import connect
from twocans_core.protocol.messages import Identity

PROBES = 3_000
PAYLOAD = bytes(64)


def main() -> None:
    """Measure and print."""
    with twocans_server() as (_, port):
        bare = bare_loop(port)
        ours, split = asyncio.run(probes(port))
    print("client, 3 exchanges of 64 B, probes per CPU second of the client process")
    print(f"  bare blocking sockets          {bare:>9,.0f}   1.00")
    print(f"  twocans                        {ours:>9,.0f}   {ours / bare:.2f}")
    print(f"  exchanges split by kernel stamps: {split:.2%}")


def bare_loop(port: int) -> float:
    """Return connections of four round trips each, per CPU second."""
    begun = time.process_time()
    for _ in range(PROBES):
        sock = socket.create_connection(("127.0.0.1", port))
        for _ in range(4):
            sock.sendall(PAYLOAD)
            sock.recv(4096)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(4096)
        sock.close()
    return PROBES / (time.process_time() - begun)


async def probes(port: int) -> tuple[float, float]:
    """Return probes per CPU second, and the share of exchanges that were split."""
    poller = Poller(asyncio.get_running_loop())
    close_keeper = open_keeper()
    await asyncio.sleep(0.05)
    tools = Tools(functools.partial(connect, poller=poller), Identity(os.urandom(16)), Random(0))
    plan = Plan(5_000_000_000, exchanges=3, payload_bytes=len(PAYLOAD))
    split = 0
    begun = time.process_time()
    for _ in range(PROBES):
        result = await probe(Address("127.0.0.1", port), plan, tools)
        assert result.outcome is Outcome.OK, result
        split += sum(exchange.split is not None for exchange in result.exchanges)
    speed = PROBES / (time.process_time() - begun)
    poller.close()
    close_keeper()
    return speed, split / (3 * PROBES)


if __name__ == "__main__":
    main()
