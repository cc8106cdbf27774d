"""What a probe is said to cost, against what the cable carried."""

import asyncio
import json

import pytest

from integration.harness import running
from integration.netns import SERVER_ADDRESS, Namespace, namespaces
from integration.pair import probing_tools
from twocans_client.evidence.results import Reason
from twocans_client.paths.purse import cost_of, exchange_bytes, probe_bytes
from twocans_client.probes.probe import MOST_SIZED_BYTES, Plan, probe, sized_payload

PROBES = 40
ETHERNET_BYTES = 14


def carried(namespace: Namespace) -> int:
    """Bytes of IP packets that its end of the cable has sent and received so far."""
    (link,) = json.loads(namespace.run("ip", "-s", "-j", "link", "show", namespace.device))
    ways = (link["stats64"]["tx"], link["stats64"]["rx"])
    return sum(way["bytes"] - ETHERNET_BYTES * way["packets"] for way in ways)


@pytest.mark.parametrize("sized", [False, True])
def test_a_probe_costs_what_the_cable_carried_and_about_what_was_estimated(sized):
    async def main() -> None:
        with namespaces() as pair:
            with pair.server.entered():
                served = running(host=SERVER_ADDRESS)
                server = await served.__aenter__()
            plan = Plan(5_000_000_000, sized=sized)
            with pair.client.entered(), probing_tools() as tools:
                await probe(server.address, plan, tools)  # the neighbours find each other
                before = carried(pair.client)
                results = [await probe(server.address, plan, tools) for _ in range(PROBES)]
                await asyncio.sleep(0.1)
                cable = carried(pair.client) - before
            await served.__aexit__(None, None, None)
        assert {result.reason for result in results} == {Reason.OK}
        cost = sum(map(cost_of, results))
        print(f"{cable / PROBES:.0f} carried, {cost / PROBES:.0f} said")
        # The cable carries eight segments in one piece, with one header.
        assert cost == pytest.approx(cable, rel=0.03)
        estimate = probe_bytes(1, 64, "4")
        if sized:
            estimate += exchange_bytes(sized_payload(1_448, MOST_SIZED_BYTES), "4")
        assert cost / PROBES <= estimate <= 1.2 * cost / PROBES

    asyncio.run(main())
