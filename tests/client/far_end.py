"""A server that a probe talks to without a socket, and what else the client's tests share."""

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from fakes import COUNTERS, Attention, FakeClock, MemoryStream
from twocans_client.discovery.specs import Target, parse_spec
from twocans_client.evidence.blame import judge_probe
from twocans_client.evidence.results import Exchange, ProbeResult, Reason
from twocans_client.evidence.split import Stamps
from twocans_client.probes.probe import Attempt, Plan, probe
from twocans_client.probes.tools import Tools
from twocans_core.clock import SYSTEM_CLOCK
from twocans_core.host.stalls import STALL_NS, Cause, Stalled
from twocans_core.kernel.standing import NO_STANDING
from twocans_core.net.sockets import Address
from twocans_core.net.streams import ByteStream, Unconnected
from twocans_core.protocol import witness
from twocans_core.protocol.messages import (
    Features,
    FollowUp,
    Goodbye,
    Hello,
    Identity,
    Message,
    Reply,
    Welcome,
)
from twocans_core.protocol.messages import Request as Ask
from twocans_core.protocol.session import ServerSession
from twocans_core.protocol.witness import UNKNOWN, HostSeen, Witness

ADDRESS = Address("192.0.2.2", 5000)
LOCAL = ("192.0.2.1", 40_000)
CLIENT = Identity(b"c" * 16, "client", "node-1", "zone-1", "0.1.0")
SERVER = Identity(b"s" * 16, "server", "node-2", "zone-2", "0.1.0")
SECOND_NS = 1_000_000_000
TIMEOUT_NS = 5 * SECOND_NS
UNSTAMPED = Stamps(0, None, None, None, None, None, None, None, 0)
SPLIT = Exchange.of(
    1, 90, Stamps(1_000, 1_004, 1_010, 5_000, 5_003, 5_006, 5_009, 1_079, 1_090, stalled_ns=1)
)
NOTHING_KNOWN = Unconnected(NO_STANDING, None)
PLAN = Plan(TIMEOUT_NS, exchanges=2, payload_bytes=64)

Alter = Callable[[Any], Message | bytes]


class FarEnd:
    """The server's side, as a step of a ``MemoryStream``'s script: it answers all that was sent.

    Args:
        alter: For a type of message, what to make of it before it is sent. Bytes are sent as
            they are, instead.
        draining: What the WELCOME says.
        max_payload: Likewise.
        features: Likewise.
    """

    def __init__(
        self,
        alter: dict[type[Message], Alter] | None = None,
        *,
        draining: bool = False,
        max_payload: int = 65_536,
        features: int = Features.WITNESS,
    ) -> None:
        self._features = features
        self.session = ServerSession(max_payload=max_payload)
        self.heard: list[Message] = []
        self._alter = alter or {}
        self._draining = draining
        self._max_payload = max_payload
        self._fed = 0

    def __call__(self, sent: bytes) -> bytes:
        if len(sent) > self._fed:
            self.session.feed(sent[self._fed :])
            self._fed = len(sent)
        said = b""
        while (message := self.session.next_message()) is not None:
            self.heard.append(message)
            said += self._answer(message)
        assert said, "nothing was asked, and nothing is the end of the stream"
        return said

    def _answer(self, message: Message) -> bytes:
        match message:
            case Hello():
                welcome = Welcome(
                    SERVER,
                    message.connection,
                    self._max_payload,
                    60_000,
                    self._draining,
                    ("192.0.2.1", 40_000),
                    None,
                    None,
                    None,
                    COUNTERS,
                    self._features,
                )
                return self._say(welcome, self.session.welcome)
            case Ask():
                reply = Reply(message.payload, message.crc, None, None, None, None, COUNTERS)
                return self._say(reply, self.session.reply)
            case Witness():
                seen = (UNKNOWN,) * len(message.asked)
                return self._say(witness.Testimony(0, 0, HostSeen(), seen), self.session.testimony)
            case Goodbye():
                return self._say(FollowUp(None, COUNTERS), self.session.farewell)
        raise AssertionError(message)

    def _say(self, message: Message, encode: Callable[[Any], bytes]) -> bytes:
        altered = self._alter.get(type(message), lambda same: same)(message)
        return altered if isinstance(altered, bytes) else encode(altered)


def good_script(far: FarEnd, exchanges: int = PLAN.exchanges) -> list[Callable[[bytes], bytes]]:
    """Return the steps of a probe in which nothing goes wrong."""
    return [far] * (exchanges + 2) + [lambda _: b""]


def make_probe(
    stream: ByteStream | Exception,
    plan: Plan = PLAN,
    *,
    clock: FakeClock | None = None,
    lag_ns: int = 0,
    attempt_type: type[Attempt] | None = None,
    unconnected: Unconnected = NOTHING_KNOWN,
) -> ProbeResult:
    """Probe over a stream, or where connecting fails with an exception, ``unconnected``."""

    attention = Attention()

    async def dial(
        address: Address,
        *,
        deadline_ns: int,
        held: bool = False,
        local_ports: Sequence[int] = (),
        opened: Callable[[tuple[str, int]], None] = lambda _: None,
        failed: Callable[[Unconnected], None] = lambda _: None,
    ) -> ByteStream:
        assert address == ADDRESS
        assert attention.now == 1
        opened(LOCAL)
        if isinstance(stream, Exception):
            failed(unconnected)
            raise stream
        return stream

    def stalled_since(_: int) -> Stalled:
        assert attention.now == 1
        return Stalled(lag_ns, lag_ns, Cause.STOPPED if lag_ns else None)

    clocks = clock.clock() if clock else SYSTEM_CLOCK
    tools = Tools(dial, CLIENT, Random(1), stalled_since, clocks, attention)
    result = asyncio.run(probe(ADDRESS, plan, tools, attempt_type=attempt_type))
    assert attention.now == 0
    judge_probe(result)
    return result


def probe_over(*script: Any, plan: Plan = PLAN, **options: Any) -> ProbeResult:
    """Probe over a ``MemoryStream`` that plays this script, and see that it was closed."""
    stream = MemoryStream(*script)
    result = make_probe(stream, plan, **options)
    assert stream.closed
    return result


def ended(reason: Reason, at_ns: int = 0, *, tainted: str = "", **fields: Any) -> ProbeResult:
    """Return a result that took 1 ms; ``tainted`` by a stall of this cause."""
    if tainted:
        fields["stalled"] = Stalled(STALL_NS, STALL_NS, Cause(tainted))
    return ProbeResult(
        intended_ns=at_ns,
        started_ns=at_ns,
        started_real_ns=at_ns + 1,
        ended_ns=at_ns + 1_000_000,
        reason=reason,
        **fields,
    )


def target(text: str = "server:5000", host: str = "192.0.2.2", **labels: str) -> Target:
    spec = parse_spec(text, tuple(labels.items()))
    return Target(spec, Address(host, spec.port))
