"""When the witness is asked: the server is scripted, and minutes pass at once."""

import asyncio
import itertools
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, cast

import pytest

from client.far_end import ADDRESS, CLIENT, FarEnd
from client.timeless import TimelessLoop, run_timeless
from client.verdicts.evidence import MS, S, every, good, silent
from fakes import MemoryStream
from twocans_client.evidence.results import ProbeResult
from twocans_client.evidence.rows import Waiting
from twocans_client.evidence.testimony import Unanswered
from twocans_client.evidence.window import Window
from twocans_client.paths.purse import Purse
from twocans_client.probes.held_connection import FEW_ASKED, Asked
from twocans_client.probes.tools import Tools
from twocans_client.service.questions import Questions
from twocans_core.net.streams import ByteStream, DeadlineExceeded
from twocans_core.protocol.witness import Witness

if TYPE_CHECKING:
    from twocans_client.probes.held import Held


class Holder:
    """Stands for the held connection: says whether it can ask, and keeps what it was to ask."""

    def __init__(self) -> None:
        self.stands = True
        self.asked: list[Asked] = []

    def ask(self, asked: Asked) -> bool:
        if self.stands:
            self.asked.append(asked)
        return self.stands


class World:
    """One path's questions.

    Attributes:
        asked: The WITNESS of each fresh connection, with when it was sent, in seconds.
        is_silent: Whether nobody answers fresh connections.
    """

    def __init__(self, loop: TimelessLoop, *, budget: int = 200_000_000) -> None:
        self.loop = loop
        self.window = Window()
        self.holder = Holder()
        self.asked: list[tuple[float, Witness]] = []
        self.is_silent = False
        self._start_s = loop.time()
        tools = Tools(self._dial, CLIENT, Random(1), clock=loop.clock)
        self.questions = Questions(
            self.window,
            Purse(budget),
            lambda: tools,
            loop.clock,
            address=lambda: ADDRESS,
            held=lambda: cast("Held", self.holder),
        )

    async def _dial(self, *_: Any, **__: Any) -> ByteStream:
        if self.is_silent:
            raise DeadlineExceeded
        far = FarEnd()

        def step(sent: bytes) -> bytes:
            said = far(sent)
            self.asked += [
                (self.loop.time() - self._start_s, message)
                for message in far.heard[-1:]
                if isinstance(message, Witness)
            ]
            return said

        return MemoryStream(step, step, step, lambda _: b"")

    def at(self, at_s: float) -> int:
        return int((self._start_s + at_s) * 1e9)

    def probed(self, make: Callable[[int], ProbeResult], *at_s: float) -> list[int]:
        """Feed probes that began then; returns their numbers."""
        for at in at_s:
            result = make(self.at(at))
            result.ended_ns = min(result.ended_ns, self.at(at) + S)
            self.window.probed(result, result.segments)
        return [row.number for row in self.window.odd]

    async def look(self, seconds: int, explained: frozenset[int] = frozenset()) -> None:
        """Let time pass, and be looked at once a second."""
        for _ in range(seconds):
            now_ns = self.loop.now_ns()
            self.window.forget(now_ns)
            self.questions.look(now_ns, explained)
            await asyncio.sleep(1)


def lost(at_ns: int) -> ProbeResult:
    """A good probe that lost its first SYN."""
    return good(at_ns, syns_lost=1, local=("192.0.2.1", 40_000 + at_ns // MS % 10_000))


@pytest.fixture
def world() -> Callable[..., None]:
    def play(scene: Callable[[World], Any], **options: Any) -> None:
        async def main(loop: TimelessLoop) -> None:
            made = World(loop, **options)
            await scene(made)
            made.questions.stop()

        run_timeless(main)

    return play


def test_on_a_good_path_nobody_is_asked(world):
    async def scene(world):
        world.probed(good, *range(10))
        await world.look(10)
        assert (world.asked, world.holder.asked) == ([], [])

    world(scene)


def test_what_is_odd_is_asked_once_over_a_fresh_connection_and_becomes_evidence(world):
    async def scene(world):
        world.probed(good, -3, -2)
        world.probed(lost, -1)
        world.probed(good, -0.5)
        await world.look(5)
        ((_, question),) = world.asked
        assert [each.port for each in question.asked] == [world.window.odd[0].local_port]
        assert question.since_ns >= S
        assert len(world.window.testimonies) == 1
        assert world.window.seen(world.window.odd[0]) is not None

    world(scene)


def test_what_is_explained_for_certain_is_not_asked(world):
    async def scene(world):
        world.probed(good, -3)
        numbers = world.probed(lost, -2, -1)
        await world.look(5, frozenset(numbers))
        assert world.asked == []
        await world.look(1, frozenset(numbers[:1]))
        assert len(world.asked) == 1

    world(scene)


def test_no_more_than_once_a_second_and_in_the_long_run_every_tenth(world):
    async def scene(world):
        for second in range(60):
            world.probed(good, second - 0.9, second - 0.8)
            world.probed(lost, second - 0.7)
            await world.look(1)
        times = [at for at, _ in world.asked]
        assert all(b - a >= 0.99 for a, b in itertools.pairwise(times))
        assert 14 <= len(times) <= 17

    world(scene)


def test_the_oldest_and_the_newest_are_asked_about_and_never_more_than_fit(world):
    async def scene(world):
        for at in every(100 * MS, 0, 6 * S):
            world.probed(lost, at / S - 7)
        world.probed(good, -0.5)
        await world.look(1)
        ((_, question),) = world.asked
        ports = [each.port for each in question.asked]
        rows = list(world.window.odd)
        assert ports[:6] == [row.local_port for row in rows[:6]]
        assert ports[6:] == [row.local_port for row in rows[-6:]]

    world(scene)


def test_while_probes_wait_the_held_connection_is_asked_three_times_in_vain(world):
    async def scene(world):
        world.probed(good, -3)
        world.window.waiting = (Waiting(world.at(-2), None, 41_000, False),)
        world.is_silent = True
        await world.look(8)
        assert len(world.holder.asked) == 3
        assert all(len(asked.questions) <= FEW_ASKED for asked in world.holder.asked)
        assert world.holder.asked[0].questions[0].port == 41_000

    world(scene)


def test_it_is_asked_again_once_the_path_is_well(world):
    async def scene(world):
        world.window.waiting = (Waiting(world.at(-2), None, 41_000, False),)
        await world.look(5)
        world.window.waiting = ()
        world.probed(good, 4, 4.5)
        world.probed(lost, 4.6)
        await world.look(2)
        assert len(world.asked) == 1, "over a fresh connection, as soon as one gets through"
        world.window.waiting = (Waiting(world.at(7), None, 41_000, False),)
        await world.look(5)
        assert len(world.holder.asked) == 6

    world(scene)


def test_where_nothing_gets_through_and_nothing_is_held_nobody_can_be_asked(world):
    async def scene(world):
        world.holder.stands = False
        world.probed(silent, *range(-5, 0))
        await world.look(5)
        assert world.asked == []

    world(scene)


def test_no_answer_is_known_as_such_and_costs_no_turn(world):
    async def scene(world):
        world.is_silent = True
        for second in range(30):
            world.probed(good, second - 0.9)
            world.probed(lost, second - 0.7)
            await world.look(1)
        assert isinstance(world.window.unanswered, Unanswered)
        world.is_silent = False
        world.probed(good, 29.5)
        world.probed(lost, 29.6)
        await world.look(2)
        assert world.asked

    world(scene)


def test_a_path_that_cannot_afford_it_asks_nothing(world):
    async def scene(world):
        world.probed(good, -3)
        world.probed(lost, -1)
        world.probed(good, -0.5)
        await world.look(5)
        assert world.asked == []

    world(scene, budget=10_000)
