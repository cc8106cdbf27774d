"""Sized exchanges over a cable that drops what is large, in one direction."""

import asyncio

import pytest

from integration.harness import eventually, running
from integration.netns import SERVER_ADDRESS, Namespace, Pair, namespaces
from integration.pair import probing_tools
from twocans_client.evidence.results import ProbeResult, Reason
from twocans_client.evidence.window import Window
from twocans_client.paths.purse import Purse
from twocans_client.probes.probe import Plan, probe
from twocans_client.service.sizing import Sizing
from twocans_client.verdicts.case import Case
from twocans_client.verdicts.sizes import judge

PLAN = Plan(1_500_000_000)
SIZED = PLAN._replace(sized=True)


def drop_large(namespace: Namespace, most: int = 1_000) -> None:
    """Lose packets of more than so many bytes that arrive here."""
    rule = ("iptables", "-A", "INPUT", "-p", "tcp", "-m", "length", "--length", f"{most + 1}:65535")
    namespace.run(*rule, "-j", "DROP")


def probed(pair: Pair, *plans: Plan) -> list[ProbeResult]:
    async def main() -> list[ProbeResult]:
        with pair.server.entered():
            served = running(host=SERVER_ADDRESS)
            server = await served.__aenter__()
        with pair.client.entered(), probing_tools() as tools:
            results = [await probe(server.address, plan, tools) for plan in plans]
        await served.__aexit__(None, None, None)
        return results

    return asyncio.run(main())


@pytest.mark.parametrize("is_forward", [True, False])
def test_what_drops_large_packets_fails_sized_exchanges_alone(is_forward):
    with namespaces() as pair:
        drop_large(pair.server if is_forward else pair.client)
        results = probed(pair, PLAN, SIZED, PLAN)
    assert [result.reason for result in results] == [Reason.OK, Reason.REPLY_TIMEOUT, Reason.OK]
    sized = results[1]
    assert sized.unfinished is not None
    assert sized.unfinished.phase == "sized"
    assert len(sized.exchanges) == 1
    assert not sized.exchanges[0].resent
    # If it is our request that does not arrive, our kernel sends it again.
    assert bool(sized.retrans) is is_forward


def test_a_sized_exchange_on_a_good_cable_is_eight_segments_and_a_tail_each_way():
    with namespaces() as pair:
        ordinary, sized = probed(pair, PLAN, SIZED)
    assert ordinary.reason is sized.reason is Reason.OK
    assert sized.sized is not None
    assert sized.sized.split is not None
    assert sized.payload_bytes == 8 * 1_448 + 200 - 108
    before, after = ordinary.segments, sized.segments
    assert before is not None
    assert after is not None
    for direction in ("forward", "reverse"):
        was, now = getattr(before, direction), getattr(after, direction)
        assert now.sent - was.sent == 9
        assert now.lost == now.duplicated == 0


@pytest.mark.parametrize("is_forward", [True, False])
def test_the_largest_packet_that_passes_is_found_to_the_byte(is_forward):
    window = Window()
    gate = window.sizes.forward if is_forward else window.sizes.reverse

    async def main(pair: Pair) -> None:
        with pair.server.entered():
            served = running(host=SERVER_ADDRESS)
            server = await served.__aenter__()
        with pair.client.entered(), probing_tools() as tools:
            for plan in (SIZED, PLAN):
                window.probed(await probe(server.address, plan, tools), None)
            purse = Purse(200_000_000)
            sizing = Sizing(window, lambda: tools, purse, address=lambda: server.address)
            sizing.look(tools.clock.mono_ns())
            await eventually(lambda: gate.mtu)
            sizing.look(tools.clock.mono_ns())
            sizing.stop()
        await served.__aexit__(None, None, None)

    with namespaces() as pair:
        drop_large(pair.server if is_forward else pair.client, most=1_231)
        asyncio.run(main(pair))
    assert gate.mtu == 1_231
    (finding,) = judge(Case(window))
    assert (finding.kind.name, finding.culprit) == (
        "mtu_blackhole",
        "path_forward" if is_forward else "path_reverse",
    )
