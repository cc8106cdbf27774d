"""A path that is dead, seen by a client that hardly runs: our kernel knows better."""

import asyncio
import ctypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from integration.harness import eventually, running
from integration.netns import SERVER_ADDRESS, Pair, namespaces
from integration.pair import probing_tools
from integration.test_held import PLAN as HELD_PLAN
from integration.test_held import holding
from twocans_client.evidence.blame import judge_probe
from twocans_client.evidence.results import ProbeResult, Reason
from twocans_client.probes.conversation import Conversation
from twocans_client.probes.probe import Attempt, Plan, probe
from twocans_core.host.stalls import Cause, Stalled
from twocans_server.service import Server

SECOND_NS = 1_000_000_000
STALLED = Stalled(60 * SECOND_NS, 60 * SECOND_NS, Cause.STOPPED)
STEPS = {
    Reason.GREETING_TIMEOUT: "greet",
    Reason.REPLY_TIMEOUT: "exchange",
    Reason.CLOSE_TIMEOUT: "say_goodbye",
}
_LIBC = ctypes.CDLL(None, use_errno=True)


def reset(server: Server) -> None:
    """Have the server's kernel reset its connections: connect() to no family is tcp_disconnect."""
    for channel in list(server._roster.channels.values()):
        _LIBC.connect(channel.fd, b"\0" * 16, 16)


@asynccontextmanager
async def far_server(pair: Pair) -> AsyncIterator[Server]:
    with pair.server.entered():
        served = running(host=SERVER_ADDRESS)
        server = await served.__aenter__()
    yield server
    await asyncio.to_thread(pair.server.heal)
    await served.__aexit__(None, None, None)


def probed(
    pair: Pair, when: Reason, timeout_s: float, reset_after_s: float | None = None
) -> ProbeResult:
    """Probe over a path that is cut there in a phase, by a client that stood still meanwhile."""

    async def main() -> ProbeResult:
        async with far_server(pair) as server:

            async def cut(kind: str) -> None:
                await asyncio.to_thread(pair.server.drop, kind, share=1.0)
                if reset_after_s is not None:
                    asyncio.get_running_loop().call_later(reset_after_s, reset, server)

            class Cutting(Attempt):
                async def converse(self, talk: Conversation) -> None:
                    whole = getattr(talk, STEPS[when])

                    async def cut_first(*args: object) -> object:
                        await cut("data")
                        return await whole(*args)

                    setattr(talk, STEPS[when], cut_first)
                    await super().converse(talk)

            attempt = Cutting if when in STEPS else Attempt
            if when not in STEPS:
                await cut("syn")
            with pair.client.entered(), probing_tools(stalled_since=lambda _: STALLED) as tools:
                plan = Plan(int(timeout_s * SECOND_NS))
                result = await probe(server.address, plan, tools, attempt_type=attempt)
            judge_probe(result)
            return result

    return asyncio.run(main())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "timeout_s"), [(Reason.CONNECT_TIMEOUT, 3.5), *((when, 1.5) for when in STEPS)]
)
def test_a_dead_path_fails_however_long_we_stood_still(when, timeout_s):
    with namespaces() as pair:
        result = probed(pair, when, timeout_s)
    assert (result.reason, result.tainted) == (when, "stopped")
    assert result.sent_in_vain >= 2


@pytest.mark.slow
def test_a_reset_after_a_long_silence_is_the_silence():
    with namespaces() as pair:
        result = probed(pair, Reason.REPLY_TIMEOUT, 10, reset_after_s=1.5)
    assert result.reason is Reason.REPLY_TIMEOUT
    assert result.detail.startswith("reset after ")
    assert result.detail.endswith(" s of silence")


@pytest.mark.slow
def test_a_held_connection_that_is_reset_after_a_long_silence_ends_by_the_silence():
    async def main(pair):
        async with far_server(pair) as server:
            with pair.client.entered():
                async with holding(server.address, HELD_PLAN) as holder:
                    await holder.exchanged_more(5)
                    await asyncio.to_thread(pair.server.drop, "data", share=1.0)
                    await asyncio.sleep(2)
                    reset(server)
                    await eventually(lambda: holder.endings)
                    await asyncio.to_thread(pair.server.heal)
        return holder.endings[0]

    with namespaces() as pair:
        ending = asyncio.run(main(pair))
    assert (ending.reason, ending.own) == (Reason.REPLY_TIMEOUT, False)
    assert ending.detail.startswith("reset after ")
