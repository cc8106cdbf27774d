import asyncio
import contextlib
import errno
import os
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from client.far_end import (
    ADDRESS,
    CLIENT,
    LOCAL,
    NOTHING_KNOWN,
    SECOND_NS,
    SERVER,
    TIMEOUT_NS,
    FarEnd,
)
from client.timeless import TimelessLoop, run_timeless
from core.kernel.test_standing import standing
from fakes import COUNTERS, Attention, MemoryStream, connection_refused
from twocans_client.evidence import testimony
from twocans_client.evidence.loss import Fates, Segments
from twocans_client.evidence.results import Exchange, Reason
from twocans_client.evidence.testimony import Question, Unanswered
from twocans_client.probes import held_connection
from twocans_client.probes.endings import Backoff, Ending
from twocans_client.probes.held import Held
from twocans_client.probes.held_connection import Asked, HeldPlan
from twocans_client.probes.schedule import phase_ns
from twocans_client.probes.tools import Tools
from twocans_core.clock import Clock
from twocans_core.host.stalls import NEVER, Cause, Stalled
from twocans_core.kernel.errqueue import Icmp
from twocans_core.kernel.tcpinfo import Limited
from twocans_core.net.channel import Received
from twocans_core.net.sockets import Address
from twocans_core.net.streams import DeadlineExceeded, Unconnected
from twocans_core.protocol.frames import Frame, Kind, encode
from twocans_core.protocol.messages import (
    Busy,
    FollowUp,
    Goodbye,
    Hello,
    Identity,
    Reply,
    Request,
    Welcome,
)

PLAN = HeldPlan(SECOND_NS, 64, TIMEOUT_NS, drain_grace_ns=30 * SECOND_NS)
SINCE_1970_NS = 1_700_000_000 * SECOND_NS
OTHER = Address("192.0.2.3", 5000)
END = b""
RESET = ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
DRAINING = encode(Frame(Kind.GOODBYE, 0, Goodbye("draining").encode()))
IDLE = encode(Frame(Kind.GOODBYE, 0, Goodbye("idle").encode()))


class Wire(MemoryStream):
    """A stream to a ``FarEnd`` that answers a moment after it was spoken to.

    Attributes:
        delay_s: How long that is; None: it is silent.
        asked_ns: When each request was sent.
    """

    def __init__(self, far: FarEnd, loop: TimelessLoop) -> None:
        super().__init__()
        self.far = far
        self.delay_s: float | None = 0.001
        self.asked_ns: list[int] = []
        self._loop = loop
        self._came = asyncio.Event()

    @property
    def heard(self) -> list[str]:
        return [type(message).__name__ for message in self.far.heard]

    def say(self, step: Any) -> None:
        self.script.append(step)
        self._came.set()

    async def send_all(self, data: bytes, deadline_ns: int, *, stamped: bool = False) -> None:
        await super().send_all(data, deadline_ns)
        if stamped:
            self.asked_ns.append(self._loop.now_ns())
        if self.delay_s is not None:
            self._loop.call_later(self.delay_s, self.say, self.far(self.sent))
            if self.heard[-1] == "Goodbye":
                self._loop.call_later(self.delay_s, self.say, END)

    async def receive(self, deadline_ns: int) -> Received:
        while not self.script:
            self._came.clear()
            # Not asyncio.timeout(): in Python 3.11.2 it takes a time-out for a cancellation, in a
            # task cancelled before. And a loop's time is a float: not a rounding too early.
            wait_s = (deadline_ns + 100) / 1e9 - self._loop.time()
            came = self._loop.create_task(self._came.wait())
            try:
                done, _ = await asyncio.wait([came], timeout=wait_s)
            finally:
                came.cancel()
            if not done:
                raise DeadlineExceeded
        return await super().receive(deadline_ns)


class Eager(Random):
    """Never waits longer than it must."""

    def uniform(self, a: float, b: float) -> float:
        return a


class Patient(Random):
    """Waits as long as it may."""

    def uniform(self, a: float, b: float) -> float:
        return b


class World:
    """A held connection, all that it meets, and all that it told.

    Attributes:
        meet: What the next dial finds: a far end, a stream, an error, what the far end says
            whatever it is told, None: silence, or one of these, later.
        unconnected: What the kernel knows of a dial that fails.
        dials: When and where each was, in seconds.
    """

    def __init__(self, loop: TimelessLoop, plan: HeldPlan, rng: Random) -> None:
        self.loop = loop
        self.address: Address | None = ADDRESS
        self.meet: Callable[[], Any] = FarEnd
        self.unconnected = NOTHING_KNOWN
        self.stalled = NEVER
        self.asked_since: list[int] = []
        self.attention = Attention()
        self.identity = CLIENT
        now = loop.now_ns
        self.clock = Clock(now, lambda: now() + SINCE_1970_NS, now)
        self.dials: list[tuple[float, Address]] = []
        self.wires: list[Wire] = []
        self.exchanges: list[tuple[Exchange, str]] = []
        self.servers: set[Identity] = set()
        self.slots_skipped = 0
        self.segments: list[Segments] = []
        self.limits: list[Limited] = []
        self.endings: list[Ending] = []
        self._rng = rng
        self.held = Held("path", lambda: self.address, plan, self._tools, self)
        self.task = loop.create_task(self.held.run())

    def _tools(self) -> Tools:
        return Tools(
            self._dial, self.identity, self._rng, self._stalled_since, self.clock, self.attention
        )

    def _stalled_since(self, since_ns: int) -> Stalled:
        self.asked_since.append(since_ns)
        return self.stalled

    async def _dial(
        self,
        address: Address,
        *,
        deadline_ns: int,
        held: bool = False,
        local_ports: Sequence[int] = (),
        opened: Callable[[tuple[str, int]], None] = lambda _: None,
        failed: Callable[[Unconnected], None] = lambda _: None,
    ) -> Wire:
        assert held
        assert self.attention.now == 1
        opened(LOCAL)
        self.dials.append((self.loop.time(), address))
        met = self.meet()
        if asyncio.iscoroutine(met):
            met = await met
        if isinstance(met, FarEnd):
            met = Wire(met, self.loop)
        if isinstance(met, bytes):
            met, said = Wire(FarEnd(), self.loop), met
            met.delay_s = None
            met.say(said)
        if isinstance(met, Wire):
            self.wires.append(met)
            return met
        failed(self.unconnected)
        if met is None:
            await asyncio.sleep(deadline_ns / 1e9 - self.loop.time())
            raise DeadlineExceeded
        raise met

    def exchanged(self, exchange: Exchange, server: Identity, tainted: str) -> None:
        self.exchanges.append((exchange, tainted))
        self.servers.add(server)

    def skipped(self, count: int) -> None:
        assert count > 0
        self.slots_skipped += count

    counted = property(lambda self: self.segments.append)
    limited = property(lambda self: self.limits.append)
    ended = property(lambda self: self.endings.append)

    @property
    def wire(self) -> Wire:
        return self.wires[-1]

    async def connected(self) -> Wire:
        """Wait until the connection stands."""
        while not self.held.is_connected:  # noqa: ASYNC110 - time flies here
            await asyncio.sleep(0.01)
        return self.wire

    async def asked(self, count: int) -> Wire:
        """Wait until so many requests were sent on this connection."""
        while len((await self.connected()).asked_ns) < count:  # noqa: ASYNC110 - time flies here
            await asyncio.sleep(0.01)
        return self.wire

    async def ending(self, count: int = 1) -> Ending:
        """Wait until so many have ended; returns the newest."""
        while len(self.endings) < count:  # noqa: ASYNC110 - time flies here
            await asyncio.sleep(0.01)
        return self.endings[-1]


def play(
    scene: Callable[[World], Awaitable[Any]], plan: HeldPlan = PLAN, rng: Random | None = None
) -> World:
    """Act it out, stop, and see that nothing was left open."""

    async def main(loop: TimelessLoop) -> World:
        world = World(loop, plan, rng or Eager(1))
        await scene(world)
        world.held.stop()
        with contextlib.suppress(Exception, asyncio.CancelledError):
            await world.task
        assert all(wire.closed for wire in world.wires)
        assert not world.held.is_connected
        return world

    return run_timeless(main)


def seconds(count: float) -> Callable[[World], Awaitable[None]]:
    """A scene in which time passes."""
    return lambda _: asyncio.sleep(count)


# --- while it lasts ------------------------------------------------------------------------


def test_it_has_our_attention_while_an_answer_is_due_and_not_while_it_is_silent():
    async def scene(world):
        await world.connected()
        assert (world.attention.ever, world.attention.now) == (1, 0)
        world.wire.delay_s = None
        wire = await world.asked(1)
        assert (world.attention.ever, world.attention.now) == (2, 1)
        wire.say(wire.far(wire.sent))
        await asyncio.sleep(0.1)
        assert world.attention.now == 0

    world = play(scene)
    assert world.attention.now == 0


def test_it_exchanges_on_a_fixed_grid_at_its_own_phase():
    world = play(seconds(20))
    (wire,) = world.wires
    assert 19 <= len(wire.asked_ns) <= 20
    phase = phase_ns("client", "held path", SECOND_NS)
    # This loop's time is a float.
    assert all(abs((at - phase + 500) % SECOND_NS - 500) < 500 for at in wire.asked_ns)
    assert phase_ns("client", "path", SECOND_NS) != phase, "not in step with the probes"
    assert world.slots_skipped == 0


def test_a_connection_that_lives_counts_and_shows_itself():
    async def scene(world):
        assert not world.held.is_connected
        await world.connected()
        await asyncio.sleep(10)

    world = play(scene)
    (ending,) = world.endings
    assert (ending.reason, ending.detail, ending.own) == (Reason.SHUTDOWN, "", True)
    assert ending.exchanges == len(world.wire.asked_ns) == 10
    assert world.servers == {SERVER}
    assert ending.lasted_ns is not None
    assert 10 * SECOND_NS < ending.lasted_ns < 11 * SECOND_NS


@pytest.mark.parametrize(("wanted", "size"), [(0, 0), (64, 64), (1024, 1024), (65_536, 1024)])
def test_a_request_is_one_segment_of_fresh_bytes(wanted, size):
    world = play(seconds(3), PLAN._replace(payload_bytes=wanted))
    payloads = [m.payload for m in world.wire.far.heard if isinstance(m, Request)]
    assert {len(payload) for payload in payloads} == {size}
    assert len(set(payloads)) == (len(payloads) if size else 1)


def test_an_exchange_is_told_when_its_transmit_stamp_has_come():
    stamps = iter(range(100, 200))

    def far():
        return FarEnd(
            {
                Reply: lambda m: m._replace(previous_t3k=next(stamps)),
                FollowUp: lambda m: m._replace(t3k=next(stamps)),
            }
        )

    async def scene(world):
        world.meet = far
        await asyncio.sleep(4)
        assert len(world.exchanges) == len(world.wire.asked_ns) - 1

    world = play(scene)
    told = [exchange for exchange, _ in world.exchanges]
    assert [exchange.sequence for exchange in told] == [1, 2, 3, 4]
    assert [exchange.stamps.t3k for exchange in told] == [101, 102, 103, 104]


def test_the_last_exchange_before_a_sudden_end_is_told_without_its_stamp():
    async def scene(world):
        wire = await world.connected()
        await asyncio.sleep(1.5)
        wire.say(RESET)
        await world.ending()

    world = play(scene)
    assert world.exchanges[0][0].stamps.t3k is None
    assert len(world.exchanges) == world.endings[0].exchanges


def test_a_stall_taints_the_exchange_that_it_fell_in_and_no_other():
    async def scene(world):
        wire = await world.connected()
        await asyncio.sleep(1.5)
        world.stalled = Stalled(SECOND_NS, SECOND_NS, Cause.STOPPED)
        await asyncio.sleep(1)
        world.stalled = NEVER
        await asyncio.sleep(2)
        assert world.asked_since == wire.asked_ns
        world.stalled = Stalled(SECOND_NS, SECOND_NS, Cause.STOPPED)
        await world.asked(5)

    world = play(scene)
    tainted = [tainted for _, tainted in world.exchanges]
    assert tainted == ["", "stopped", "", "", "stopped"]


@pytest.mark.parametrize(
    ("interval_s", "idle_ms", "every_s"),
    [(30, 60_000, 30), (30, 20_000, 10), (1, 1_500, 0.75), (30, 0, 0.5), (0.1, 0, 0.1)],
)
def test_it_speaks_twice_in_the_servers_idle_limit_but_not_at_its_beck_and_call(
    interval_s, idle_ms, every_s
):
    async def scene(world):
        world.meet = lambda: FarEnd({Welcome: lambda m: m._replace(idle_ms=idle_ms)})
        await asyncio.sleep(60)

    world = play(scene, PLAN._replace(interval_ns=int(interval_s * SECOND_NS)))
    assert abs(len(world.wire.asked_ns) - 60 / every_s) <= 1


def test_segments_are_accounted_for_by_connection():
    async def scene(world):
        wire = await world.connected()
        await asyncio.sleep(10)
        wire.say(RESET)
        await world.ending()
        assert len(world.segments) == world.endings[0].exchanges - 2, "two are needed to begin"
        await asyncio.sleep(10)

    world = play(scene)
    assert set(world.segments) == {Segments(Fates(dsacks=0), Fates(dsacks=0))}
    # The GOODBYE is a cut as well.
    first, second = world.endings
    assert len(world.segments) == (first.exchanges - 2) + (second.exchanges + 1 - 2)


def test_nothing_is_accounted_for_once_the_server_drains():
    async def scene(world):
        wire = await world.connected()
        await asyncio.sleep(10)
        wire.say(DRAINING)
        await world.ending()

    world = play(scene)
    (ending,) = world.endings
    assert ending.reason == "draining"
    assert len(world.segments) == ending.exchanges - 2, "its GOODBYE may have crossed our request"


def test_what_limits_it_is_told_as_it_grows():
    async def scene(world):
        wire = await world.connected()
        wire.limits = Limited(None, None, None)
        await asyncio.sleep(2)
        wire.limits = Limited(5_000, 0, 0)
        await asyncio.sleep(2)
        wire.limits = Limited(9_000, 1_000, 0)
        await asyncio.sleep(2)
        wire.limits = Limited(9_000, 1_000, 7)
        wire.say(RESET)
        await world.ending()

    assert play(scene).limits == [
        Limited(5_000, 0, 0),
        Limited(4_000, 1_000, 0),
        Limited(0, 0, 7),
    ]


def test_a_session_ends_with_its_last_sequence(monkeypatch):
    monkeypatch.setattr(held_connection, "LAST_SEQUENCE", 3)

    async def scene(world):
        await world.ending(3)

    world = play(scene)
    first, *_ = world.endings
    assert (first.reason, first.exchanges, first.own) == (Reason.OK, 3, True)
    assert world.wires[0].heard[-1] == "Goodbye"
    assert [len(wire.asked_ns) for wire in world.wires] == [3, 3, 3]


# --- an answer that is late, or never comes ------------------------------------------------


@pytest.mark.parametrize(("delay_s", "skipped", "gap_s"), [(5.2, 4, 5), (5.6, 5, 6)])
def test_slots_are_skipped_while_an_answer_is_due(delay_s, skipped, gap_s):
    async def scene(world):
        wire = await world.asked(3)
        wire.delay_s = delay_s
        await world.asked(4)
        wire.delay_s = 0.001
        await world.asked(8)

    world = play(scene)
    assert world.slots_skipped == skipped
    gaps = [after - before for before, after in pairwise(world.wire.asked_ns)]
    assert [round(gap / SECOND_NS) for gap in gaps] == [1, 1, 1, gap_s, 1, 1, 1], (
        "the grid did not move"
    )


@pytest.mark.parametrize(
    ("resent", "detail"), [(0, "nothing sent again"), (7, "7 segments sent again"), (None, "")]
)
def test_an_answer_is_waited_for_as_long_as_the_kernel_would(resent, detail):
    async def scene(world):
        wire = await world.asked(2)
        wire.delay_s = None
        await world.asked(3)
        count = None if resent is None else COUNTERS.total_retrans + resent
        wire.kernel = COUNTERS._replace(total_retrans=count)
        await world.ending()
        assert round((world.loop.now_ns() - wire.asked_ns[-1]) / SECOND_NS) == 30

    world = play(scene)
    assert world.slots_skipped in (29, 30)
    ending = world.endings[0]
    assert (ending.reason, ending.detail, ending.own) == (Reason.REPLY_TIMEOUT, detail, False)
    assert ending.exchanges == 2
    assert world.wires[0].heard[-1] == "Request", "nobody listens, so nothing is said"


# --- how it ends ---------------------------------------------------------------------------


def error_of(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("step", "reason", "detail"),
    [
        (RESET, Reason.RESET, "ECONNRESET"),
        (END, Reason.CLOSED_EARLY, "nothing was due"),
        (IDLE, Reason.CLOSED_EARLY, "the server says idle"),
        (error_of(errno.ETIMEDOUT), Reason.REPLY_TIMEOUT, "ETIMEDOUT, nothing sent again"),
        (error_of(errno.EHOSTUNREACH), Reason.UNREACHABLE, "EHOSTUNREACH"),
        (error_of(errno.EACCES), Reason.UNREACHABLE, "EACCES"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Reason.DAMAGED, "damaged: a magic, 4854"),
        (encode(Frame(Kind.BUSY, 0, Busy("x").encode())), Reason.PROTOCOL_ERROR, None),
    ],
    ids=[
        "reset",
        "end",
        "idle",
        "the kernel gives up",
        "unreachable",
        "prohibited",
        "foreign",
        "other",
    ],
)
def test_every_ending_has_its_reason(step, reason, detail):
    async def scene(world):
        wire = await world.connected()
        await asyncio.sleep(12.5)
        wire.say(step)
        ending = await world.ending()
        assert (ending.reason, ending.own) == (reason, False)
        assert ending.detail == detail or detail is None
        assert ending.detail.isprintable()
        assert ending.exchanges == len(wire.asked_ns) > 10
        assert wire.closed
        assert not world.held.is_connected

    play(scene)


def test_an_end_inside_a_frame_is_one_too_early():
    async def scene(world):
        wire = await world.connected()
        wire.say(DRAINING[:-1])
        wire.say(END)
        assert (await world.ending()).reason is Reason.CLOSED_EARLY

    play(scene)


def test_an_end_that_comes_instead_of_an_answer_says_so():
    async def scene(world):
        wire = await world.connected()
        wire.delay_s = None
        await asyncio.sleep(1.5)
        wire.say(END)
        assert (await world.ending()).detail == "in reply"

    play(scene)


def test_damage_is_found():
    async def scene(world):
        world.meet = lambda: FarEnd({Reply: lambda m: m._replace(crc=m.crc ^ 1)})
        ending = await world.ending()
        assert (ending.reason, ending.own, ending.exchanges) == (Reason.WRONG_BYTES, False, 0)
        assert "damaged in the reverse direction" in ending.detail

    play(scene)


@pytest.mark.parametrize(
    ("met", "reason", "own"),
    [
        (connection_refused(), Reason.REFUSED, False),
        (None, Reason.CONNECT_TIMEOUT, False),
        (error_of(errno.EMFILE), Reason.NO_DESCRIPTORS, True),
        (error_of(errno.EADDRNOTAVAIL), Reason.NO_PORTS, True),
        (error_of(errno.EPERM), Reason.DENIED, True),
        (encode(Frame(Kind.BUSY, 0, Busy("connections").encode())), Reason.BUSY, False),
        (END, Reason.CLOSED_EARLY, False),
    ],
)
def test_a_connection_that_could_not_be_had_did_not_last(met, reason, own):
    async def scene(world):
        world.meet = lambda: met
        ending = await world.ending()
        assert (ending.reason, ending.own) == (reason, own)
        assert (ending.lasted_ns, ending.exchanges) == (None, 0)

    play(scene)


@pytest.mark.parametrize("connect_s", [None, 2])
def test_to_connect_and_be_greeted_may_take_as_long_as_a_probe(connect_s):
    async def silent_after_a_while(world):
        await asyncio.sleep(connect_s)
        wire = Wire(FarEnd(), world.loop)
        wire.delay_s = None
        return wire

    async def scene(world):
        world.meet = lambda: connect_s and silent_after_a_while(world)
        ending = await world.ending()
        assert world.loop.time() - world.dials[0][0] == pytest.approx(5, abs=0.02)
        assert ending.reason is (Reason.GREETING_TIMEOUT if connect_s else Reason.CONNECT_TIMEOUT)

    play(scene)


# --- draining ------------------------------------------------------------------------------


def test_a_server_that_drains_is_left_at_once_and_properly():
    async def scene(world):
        wire = await world.asked(2)
        await asyncio.sleep(0.5)
        said_s = world.loop.time()
        wire.say(DRAINING)
        ending = await world.ending()
        assert (ending.reason, ending.detail, ending.own) == (Reason.DRAINING, "", True)
        assert world.loop.time() - said_s < 0.05
        assert wire.heard[-2:] == ["Request", "Goodbye"]
        await world.connected()
        assert 5 <= world.dials[1][0] - said_s <= 5.1

    world = play(scene)
    assert [exchange.sequence for exchange, _ in world.exchanges[:2]] == [1, 2]


def test_a_server_that_says_so_with_a_reply_or_in_its_greeting_is_left_as_well():
    async def scene(world):
        world.meet = lambda: FarEnd(draining=True)
        assert (await world.ending()).exchanges == 0
        assert world.wire.heard == ["Hello", "Goodbye"]
        far = FarEnd()
        far_of_replies = FarEnd({Reply: lambda m: DRAINING + far.session.reply(m)})
        far_of_replies.session = far.session
        world.meet = lambda: far_of_replies
        ending = await world.ending(2)
        assert (ending.reason, ending.exchanges) == (Reason.DRAINING, 1)
        assert world.wire.heard[-2:] == ["Request", "Goodbye"]

    play(scene)


def test_a_drain_that_goes_wrong_is_still_one():
    async def scene(world):
        wire = await world.asked(1)
        wire.delay_s = None
        await asyncio.sleep(0.5)
        wire.say(DRAINING)
        ending = await world.ending()
        assert (ending.reason, ending.detail) == (Reason.DRAINING, "close_timeout")

    play(scene)


def test_after_a_goodbye_silence_is_excused_for_as_long_as_the_paths_drain():
    async def scene(world):
        wire = await world.connected()
        world.meet = connection_refused
        wire.say(DRAINING)
        drained_s = world.loop.time()
        while world.loop.time() < drained_s + 60:
            seen = len(world.endings)
            ending = await world.ending(seen + 1)
            is_excused = world.loop.time() - drained_s < 30
            assert (ending.reason is Reason.DRAINING) == is_excused
            assert ending.own == is_excused
        assert len(world.endings) > 7

    play(scene)


@pytest.mark.parametrize(
    ("step", "reason"),
    [(RESET, Reason.DRAINING), (END, Reason.DRAINING), (b"HTTP/1.1 ...", Reason.DAMAGED)],
    ids=["reset", "end", "other"],
)
def test_a_server_that_drains_may_go_without_an_answer_but_not_break_the_protocol(step, reason):
    async def scene(world):
        wire = await world.asked(1)
        wire.delay_s = None
        await world.asked(2)
        wire.say(DRAINING)
        wire.say(step)
        ending = await world.ending()
        assert (ending.reason, ending.own) == (reason, reason is Reason.DRAINING)

    play(scene)


def test_the_excuse_ends_with_the_next_servers_greeting():
    async def scene(world):
        (await world.connected()).say(DRAINING)
        await world.ending()
        (await world.connected()).say(RESET)
        assert (await world.ending(2)).reason is Reason.RESET

    play(scene)


# --- coming back ---------------------------------------------------------------------------


def pauses_of(world: World) -> list[float]:
    times = [time_s for time_s, _ in world.dials]
    return [after - before for before, after in pairwise(times)]


def test_it_comes_back_soon_after_a_good_life_but_not_all_at_once():
    pauses = []

    async def scene(world):
        wire = await world.connected()
        await asyncio.sleep(11)
        ended_s = world.loop.time()
        wire.say(RESET)
        await world.ending()
        await world.connected()
        pauses.append(world.dials[1][0] - ended_s)

    for seed in range(40):
        play(scene, rng=Random(seed))
    assert 0.1 <= min(pauses) < 0.4
    assert 1.7 < max(pauses) <= 2.05


def test_the_first_connections_are_not_made_all_at_once():
    starts = []
    for seed in range(40):
        world = play(seconds(3), rng=Random(seed))
        starts.append(world.dials[0][0] - 1_000)
    assert 0.1 <= min(starts) < 0.4
    assert 1.7 < max(starts) <= 2


@pytest.mark.parametrize(
    "met", [connection_refused(), END, RESET, "closes after the greeting"], ids=str
)
def test_failures_in_a_row_make_it_come_back_less_and_less(met):
    async def scene(world):
        world.meet = lambda: met
        if isinstance(met, str):

            def far():
                world.loop.call_later(0.01, lambda: world.wire.say(END))
                return FarEnd()

            world.meet = far
        await asyncio.sleep(200)

    for rng, most in ((Patient(1), 2), (Random(1), None), (Eager(1), None)):
        world = play(scene, rng=rng)
        pauses = pauses_of(world)
        assert min(pauses) > 0.099, "it never spins"
        if most:
            assert [round(pause) for pause in pauses[:6]] == [4, 8, 16, 30, 30, 30]
        assert max(pauses) < 30.1


def test_failures_without_end_are_no_more_than_the_most():
    pauses = Backoff()
    for _ in range(2_000):
        latest = pauses.after_s(Ending(Reason.RESET, "", None, 0))
    assert latest == (0.1, 30.0)


def test_a_good_life_makes_failures_forgotten():
    async def scene(world):
        world.meet = connection_refused
        await world.ending(5)
        world.meet = FarEnd
        wire = await world.connected()
        await asyncio.sleep(11)
        ended_s = world.loop.time()
        wire.say(RESET)
        await world.connected()
        await world.ending(6)
        await world.connected()
        assert world.dials[-1][0] - ended_s < 2.1

    play(scene, rng=Patient(1))


# --- another address -----------------------------------------------------------------------


def test_when_its_address_changes_it_ends_properly_and_goes_on_there():
    async def scene(world):
        wire = await world.asked(2)
        world.address = OTHER
        ending = await world.ending()
        ended_s = world.loop.time()
        assert (ending.reason, ending.own) == (Reason.OK, True)
        assert wire.heard[-1] == "Goodbye"
        await world.connected()
        assert [address for _, address in world.dials] == [ADDRESS, OTHER]
        assert world.dials[1][0] - ended_s <= 2, "that was no failure"

    play(scene, rng=Patient(1))


def test_without_an_address_it_waits_for_one():
    async def scene(world):
        world.address = None
        await asyncio.sleep(100)
        assert world.dials == []
        world.address = ADDRESS
        await world.asked(1)
        world.address = None
        await world.ending()
        await asyncio.sleep(100)
        assert len(world.dials) == 1

    play(scene)


def test_every_connection_is_made_with_the_tools_of_its_time():
    async def scene(world):
        wire = await world.asked(1)
        world.identity = CLIENT._replace(zone="learned")
        wire.say(RESET)
        await world.ending()
        await world.connected()

    world = play(scene)
    hellos = [wire.far.heard[0] for wire in world.wires]
    assert [hello.identity.zone for hello in hellos if isinstance(hello, Hello)] == [
        "zone-1",
        "learned",
    ]


# --- our own doing -------------------------------------------------------------------------


def stalled_for(ns: int) -> Stalled:
    return Stalled(ns, ns, Cause.STOPPED)


@pytest.mark.parametrize(
    ("idle_ms", "stalled_ns", "step", "reason"),
    [
        (6_000, 3 * SECOND_NS, IDLE, Reason.SELF_STALL),
        (6_000, 3 * SECOND_NS, RESET, Reason.SELF_STALL),
        (6_000, 3 * SECOND_NS - 1, IDLE, Reason.CLOSED_EARLY),
        (0, 0, IDLE, Reason.CLOSED_EARLY),
        (300_000, 7 * SECOND_NS, RESET, Reason.RESET),
        (300_000, 8 * SECOND_NS, RESET, Reason.SELF_STALL),
    ],
)
def test_a_stall_long_enough_for_the_server_to_give_us_up_is_ours(
    idle_ms, stalled_ns, step, reason
):
    async def scene(world):
        world.meet = lambda: FarEnd({Welcome: lambda m: m._replace(idle_ms=idle_ms)})
        wire = await world.asked(2)
        await asyncio.sleep(0.5)
        well_ns = wire.asked_ns[-1]
        world.stalled = stalled_for(stalled_ns)
        wire.say(step)
        ending = await world.ending()
        assert (ending.reason, ending.own) == (reason, reason is Reason.SELF_STALL)
        assert 0 < world.asked_since[-1] - well_ns < SECOND_NS // 10, "since all was well"

    play(scene)


def test_what_was_before_the_greeting_excuses_nothing_after_it():
    async def scene(world):
        wire = Wire(FarEnd(), world.loop)
        wire.delay_s = 2
        world.meet = lambda: wire
        await world.connected()
        wire.say(RESET)
        await world.ending()
        assert world.asked_since[-1] >= (world.dials[0][0] + 1.9) * 1e9

    play(scene)


@pytest.mark.parametrize(
    ("stalled_ns", "reason"),
    [(TIMEOUT_NS // 4 - 1, Reason.CONNECT_TIMEOUT), (TIMEOUT_NS // 4, Reason.SELF_STALL)],
)
def test_until_it_is_greeted_a_stall_excuses_as_that_of_a_probe(stalled_ns, reason):
    async def scene(world):
        world.stalled = stalled_for(stalled_ns)
        world.meet = lambda: None
        assert (await world.ending()).reason is reason

    play(scene)


# --- stopping ------------------------------------------------------------------------------


def test_asked_to_stop_it_says_goodbye_and_hears_the_rest():
    async def scene(world):
        wire = await world.asked(3)
        await asyncio.sleep(0.5)
        asked_s = world.loop.time()
        world.held.stop()
        await asyncio.sleep(0.0005)
        world.held.stop()
        await world.task
        assert world.loop.time() - asked_s > 0.0009, "it heard the answer"
        assert world.task.cancelling() == 0
        assert wire.heard[-1] == "Goodbye"

    world = play(scene)
    assert [exchange.sequence for exchange, _ in world.exchanges] == [1, 2, 3]
    assert [ending.reason for ending in world.endings] == [Reason.SHUTDOWN]


def test_asked_to_stop_it_waits_a_second_and_no_longer():
    async def scene(world):
        wire = await world.asked(3)
        wire.delay_s = None
        await world.asked(4)
        asked_s = world.loop.time()
        world.held.stop()
        await world.task
        assert world.loop.time() - asked_s < 1.01

    (ending,) = play(scene).endings
    assert (ending.reason, ending.detail) == (Reason.SHUTDOWN, "close_timeout")


def test_a_stop_amid_an_exchange_spoils_no_figure():
    stamps = iter(range(100, 200))

    def far():
        return FarEnd(
            {
                Reply: lambda m: m._replace(previous_t3k=next(stamps)),
                FollowUp: lambda m: m._replace(
                    t3k=next(stamps),
                    counters=COUNTERS._replace(data_segs_out=6),
                ),
            }
        )

    async def scene(world):
        world.meet = far
        wire = await world.asked(3)
        wire.delay_s = 0.5
        await world.asked(4)
        world.held.stop()
        await world.task

    world = play(scene)
    told = [(exchange.sequence, exchange.stamps.t3k) for exchange, _ in world.exchanges]
    assert told == [(1, 101), (2, 102), (3, None)]
    assert sum(segments.reverse.lost for segments in world.segments) == 0
    assert world.endings[0].detail == ""


async def while_it_pauses(world: World) -> None:
    assert not world.dials


async def while_it_connects(world: World) -> None:
    world.meet = lambda: None
    await asyncio.sleep(1)
    assert world.dials


async def while_it_greets(world: World) -> None:
    far = Wire(FarEnd(), world.loop)
    far.delay_s = None
    world.meet = lambda: far
    await asyncio.sleep(1)
    assert world.wires


async def while_it_rests(world: World) -> None:
    await world.asked(1)
    await asyncio.sleep(0.5)


async def while_it_asks(world: World) -> None:
    (await world.asked(1)).delay_s = None
    await world.asked(2)


async def while_it_parts(world: World) -> None:
    await while_it_asks(world)
    world.wire.say(DRAINING)
    world.wire.say(world.wire.far(world.wire.sent))
    await asyncio.sleep(0.1)
    assert world.wire.sent.endswith(Goodbye("done").encode())


async def before_it_runs(world: World) -> None:
    pass


EVERY_STATE = [while_it_pauses, while_it_connects, while_it_greets, while_it_rests, while_it_asks]
EVERY_STATE += [while_it_parts]


@pytest.mark.parametrize("state", [before_it_runs, *EVERY_STATE])
def test_it_stops_from_every_state(state):
    async def scene(world):
        await state(world)
        asked_s = world.loop.time()
        world.held.stop()
        await world.task
        assert world.loop.time() - asked_s <= 1.01

    play(scene)


@pytest.mark.parametrize("state", EVERY_STATE)
def test_cancelled_it_closes_at_once_and_says_nothing(state):
    async def scene(world):
        await asyncio.sleep(0)
        await state(world)
        sent = [wire.sent for wire in world.wires]
        cancelled_s = world.loop.time()
        world.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await world.task
        assert world.loop.time() == cancelled_s
        assert [wire.sent for wire in world.wires] == sent
        assert all(wire.closed for wire in world.wires)
        assert [ending.reason for ending in world.endings] == [Reason.SHUTDOWN] * len(world.dials)

    play(scene)


def test_cancelled_while_it_stops_it_closes_at_once():
    async def scene(world):
        await while_it_asks(world)
        world.held.stop()
        await asyncio.sleep(0.1)
        stopped_s = world.loop.time()
        world.task.cancel()
        await world.task
        assert world.loop.time() == stopped_s

    play(scene)


def test_a_bug_leaves_it_but_no_socket():
    async def scene(world):
        wire = await world.asked(2)
        wire.say(ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            await world.task
        assert wire.closed
        (ending,) = world.endings
        assert (ending.reason, ending.own) == (Reason.INTERNAL_ERROR, True)

    play(scene)


def test_an_ending_says_from_where_to_where_and_how_it_stood():
    stood = standing(retransmits=3, unacked=2)

    async def scene(world):
        wire = await world.connected()
        wire.stands, wire.soft_error = stood, errno.EHOSTUNREACH
        wire.say(RESET)
        await world.ending()

    ending = play(scene).endings[0]
    assert (ending.address, ending.local) == (ADDRESS, LOCAL)
    assert (ending.errno, ending.soft_error) == (errno.ECONNRESET, errno.EHOSTUNREACH)
    assert (ending.standing, ending.icmp) == (stood, None)


@pytest.mark.parametrize("met", [connection_refused(), None], ids=["refused", "silence"])
def test_one_that_could_not_be_had_says_the_same_and_who_said_no(met):
    known = Unconnected(standing(retransmits=3), Icmp(3, 3, "192.0.2.9"))

    async def scene(world):
        world.meet, world.unconnected = (lambda: met), known
        await world.ending()

    ending = play(scene).endings[0]
    assert (ending.address, ending.local, ending.lasted_ns) == (ADDRESS, LOCAL, None)
    assert (ending.standing, ending.icmp) == known
    assert ending.errno == (errno.ECONNREFUSED if met else None)
    assert ending.detail.endswith("192.0.2.9 says port unreachable")


def test_one_that_is_silent_is_the_paths_if_its_syns_were_sent_in_vain():
    async def scene(world):
        world.meet = lambda: None
        world.unconnected = Unconnected(standing(retransmits=3), None)
        world.stalled = Stalled(60 * SECOND_NS, 60 * SECOND_NS, Cause.STOPPED)
        await world.ending()

    assert play(scene).endings[0].reason is Reason.CONNECT_TIMEOUT


# --- questions ----------------------------------------------------------------------------------


Answers = list[testimony.Testimony | Unanswered]


def question(world: World, answers: Answers, count: int = 1) -> Asked:
    now_ns = world.clock.mono_ns()
    questions = tuple(Question(None, 40_000 + number, now_ns) for number in range(count))
    return Asked(questions, now_ns + SECOND_NS, answers.append)


def test_the_witness_is_asked_at_once_between_two_exchanges_which_go_on():
    async def scene(world):
        answers: Answers = []
        await world.connected()
        assert world.held.ask(question(world, answers, 3))
        await asyncio.sleep(0.1)
        (answer,) = answers
        assert isinstance(answer, testimony.Testimony)
        assert (answer.server, len(answer.of)) == (SERVER, 3)
        await asyncio.sleep(5)
        assert world.wires[0].heard.count("Request") >= 5
        assert world.endings == []

    play(scene)


def test_an_answer_that_is_late_is_not_taken_for_that_to_the_next_question():
    async def scene(world):
        answers: Answers = []
        await world.connected()
        (wire,) = world.wires
        wire.delay_s = None
        assert world.held.ask(question(world, answers, 1))
        await asyncio.sleep(1.1)
        assert [type(answer) for answer in answers] == [Unanswered]
        wire.delay_s = 0.001
        assert world.held.ask(question(world, answers, 3))
        await asyncio.sleep(1)
        assert isinstance(answers[1], testimony.Testimony)
        assert len(answers[1].of) == 3
        assert world.endings == []

    play(scene, HeldPlan(60 * SECOND_NS, 64, TIMEOUT_NS, drain_grace_ns=30 * SECOND_NS))


def test_nobody_is_asked_where_no_connection_stands():
    async def scene(world):
        world.meet = lambda: None
        await asyncio.sleep(1.3)
        assert not world.held.ask(question(world, []))

    play(scene)
