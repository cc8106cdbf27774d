"""Idle connections through a firewall that forgets them: the kernel's own connection tracking."""

import asyncio
import subprocess

import pytest

from integration.harness import running
from integration.netns import SERVER_ADDRESS, Namespace, namespaces
from integration.pair import probing_tools
from twocans_client.evidence.idle import IdleResult, Way
from twocans_client.evidence.results import Reason
from twocans_client.probes.idle import Idle, IdlePlan

SECOND_NS = 1_000_000_000
TIMEOUT_S = 3
PLAN = IdlePlan(2, 64, 1_500_000_000, 2_000_000_000)
FORGET = {
    "nf_conntrack_tcp_timeout_established": str(TIMEOUT_S),
    "nf_conntrack_tcp_loose": "0",  # what it does not know does not become known by a request
}
TO_FIREWALL = {
    Reason.REPLY_TIMEOUT: ("DROP",),
    Reason.RESET: ("REJECT", "--reject-with", "tcp-reset"),
}


def put_up(namespace: Namespace, target: tuple[str, ...]) -> None:
    """Put up a firewall that forgets, or skip the test where there is none to be had."""
    rule = ("iptables", "-A", "INPUT", "-p", "tcp", "-m", "conntrack", "--ctstate", "INVALID")
    try:
        namespace.run(*rule, "-j", *target)
        for name, value in FORGET.items():
            namespace.run("sysctl", "-qw", f"net.netfilter.{name}={value}")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no connection tracking here: {error.stderr.strip()}")


class Observer:
    def __init__(self) -> None:
        self.results: list[IdleResult] = []

    def affords_idle(self) -> bool:
        return True

    def control_since(self, at_ns: int, way: Way, silent_ns: int) -> bool | None:
        return True

    def idled(self, result: IdleResult) -> None:
        self.results.append(result)


@pytest.mark.slow
@pytest.mark.parametrize("reason", TO_FIREWALL)
def test_a_firewall_that_forgets_after_three_seconds_is_found_to_a_second(reason):
    async def main() -> None:
        with namespaces() as pair:
            put_up(pair.server, TO_FIREWALL[reason])
            with pair.server.entered():
                served = running(host=SERVER_ADDRESS, idle_s=8.0)
                server = await served.__aenter__()
            with pair.client.entered(), probing_tools() as tools:
                observer = Observer()
                idle = Idle(lambda: server.address, PLAN, lambda: tools, observer)
                task = asyncio.create_task(idle.run())

                async def search() -> None:
                    # For longer than ``eventually`` has patience.
                    while True:
                        found = idle.ladder.bracket()
                        if found is not None and found.confirmed:
                            return
                        await asyncio.sleep(0.05)

                try:
                    await asyncio.wait_for(search(), 100)
                finally:
                    idle.stop()
                    await task
                    await served.__aexit__(None, None, None)
            found = idle.ladder.bracket()
            assert found is not None
            assert found.reason is reason
            assert found.good_ns <= TIMEOUT_S * SECOND_NS <= found.bad_ns + SECOND_NS // 2
            assert found.bad_ns - found.good_ns <= SECOND_NS
            # A silent one sends again and again, a reset ends it at once.
            failed = [each for each in observer.results if each.is_bad]
            assert {bool(each.retrans) for each in failed} == {reason is Reason.REPLY_TIMEOUT}

    asyncio.run(main())
