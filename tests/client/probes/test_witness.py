import asyncio
from random import Random
from typing import Any

import pytest

from client.far_end import ADDRESS, CLIENT, LOCAL, SERVER, FarEnd
from fakes import COUNTERS, FakeClock, MemoryStream
from twocans_client.evidence import testimony
from twocans_client.evidence.results import Reason
from twocans_client.evidence.testimony import Question, Unanswered
from twocans_client.probes.tools import Tools
from twocans_client.probes.witness import ask
from twocans_core.kernel.tcpinfo import TcpCounts
from twocans_core.net.sockets import Address
from twocans_core.net.streams import ByteStream, DeadlineExceeded
from twocans_core.protocol import witness
from twocans_core.protocol.witness import UNKNOWN, Asked, Fate, HostSeen, Seen, Witness

SECOND_NS = 1_000_000_000
STEP_NS = 20_000_000
SEEN = Seen(
    *(Fate.ENDED, True, LOCAL, 3, 60 * SECOND_NS, 50 * SECOND_NS, 40 * SECOND_NS, 250, 240, 2),
    *(COUNTERS, "framed", "reset", "etimedout"),
)
HOST = HostSeen(
    *(70 * SECOND_NS, 2, 1, "stopped", 3, 4, TcpCounts(*range(8)), 5, 6, 7, 8, 9, 10),
    (("idle_s", 1),),
)


class Asking:
    """One question over a script, and what is known afterwards."""

    def __init__(
        self, *script: Any, asked: tuple[Question, ...] = (), error: Exception | None = None
    ) -> None:
        self.clock = FakeClock()
        self.begun_ns = self.clock.mono_ns
        self.stream = MemoryStream(*script, clock=self.clock, step_ns=STEP_NS)

        async def dial(
            address: Address, *, deadline_ns: int, held: bool = False, **_: object
        ) -> ByteStream:
            assert address == ADDRESS
            if error is not None:
                raise error
            return self.stream

        tools = Tools(dial, CLIENT, Random(1), clock=self.clock.clock())
        deadline_ns = self.begun_ns + SECOND_NS
        self.answer = asyncio.run(ask(ADDRESS, asked, tools, deadline_ns=deadline_ns))
        assert self.stream.closed == (error is None)

    @property
    def testimony(self) -> testimony.Testimony:
        assert isinstance(self.answer, testimony.Testimony)
        return self.answer


def past(clock_ns: int, ago_s: float) -> int:
    return clock_ns - int(ago_s * SECOND_NS)


def answering(*seen: Seen) -> FarEnd:
    """A far end that says this of what it is asked."""
    said = witness.Testimony(300 * SECOND_NS, 10 * SECOND_NS, HOST, seen)
    return FarEnd({witness.Testimony: lambda _: said})


def test_ages_become_moments_of_our_clock_within_half_the_time_that_the_answer_took():
    now_ns = FakeClock().mono_ns
    far = answering(SEEN, UNKNOWN)
    questions = (
        Question(7, 40_000, past(now_ns, 65)),
        Question(None, 40_001, past(now_ns, 20)),
    )
    said = Asking(far, far, far, lambda _: b"", asked=questions).testimony
    asked_ns, answered_ns = now_ns + STEP_NS, now_ns + 2 * STEP_NS
    middle_ns = (asked_ns + answered_ns) // 2
    assert (said.server, said.asked_ns, said.answered_ns) == (SERVER, asked_ns, answered_ns)
    assert said.error_ns == STEP_NS // 2
    assert said.remembers_ns == middle_ns - 300 * SECOND_NS
    assert said.remembers_done_ns == middle_ns - 10 * SECOND_NS
    first, second = said.of
    assert (first.accepted_ns, first.heard_ns, first.ended_ns) == (
        middle_ns - 60 * SECOND_NS,
        middle_ns - 50 * SECOND_NS,
        middle_ns - 40 * SECOND_NS,
    )
    assert first.question == questions[0]
    assert (first.fate, first.greeted, first.peer, first.in_vain) == (Fate.ENDED, True, LOCAL, 3)
    assert (first.received, first.sent, first.exchanges, first.counters) == (250, 240, 2, COUNTERS)
    assert (first.kind, first.ending, first.reason) == ("framed", "reset", "etimedout")
    assert second == testimony.Seen(questions[1])
    assert said.host == testimony.HostHistory(*HOST._replace(since_ns=middle_ns - 70 * SECOND_NS))
    # What the server was asked: by number and port, and since the first of them began.
    (question,) = [each for each in far.heard if isinstance(each, Witness)]
    asked = (Asked(7, 40_000), Asked(0, 40_001))
    assert question == Witness(65 * SECOND_NS + STEP_NS, asked)


def test_never_came_is_certain_only_for_what_would_be_remembered():
    now_ns = FakeClock().mono_ns
    questions = (
        Question(7, 1, past(now_ns, 5)),
        Question(None, 2, past(now_ns, 5)),
        Question(None, 3, past(now_ns, 20)),  # those that ended done may be forgotten
        Question(None, 4, past(now_ns, 301)),  # and all others
    )
    far = answering(SEEN, UNKNOWN, UNKNOWN, UNKNOWN)
    said = Asking(far, far, far, lambda _: b"", asked=questions).testimony
    assert [said.never_came(seen) for seen in said.of] == [False, True, False, False]


def test_a_question_about_the_host_alone_names_no_connection():
    far = FarEnd()
    assert Asking(far, far, far, lambda _: b"").testimony.of == ()


def test_of_too_many_connections_the_last_are_asked_about():
    questions = tuple(Question(None, port, 0) for port in range(1, 30))
    far = FarEnd()
    said = Asking(far, far, far, lambda _: b"", asked=questions).testimony
    assert [seen.question.port for seen in said.of] == list(range(14, 30))


def test_an_old_server_is_not_asked():
    far = FarEnd(features=0)
    answer = Asking(far).answer
    assert isinstance(answer, Unanswered)
    assert answer.reason is None
    assert not any(isinstance(each, Witness) for each in far.heard)


def test_what_it_said_counts_though_it_says_no_goodbye():
    far = FarEnd()
    assert Asking(far, far, ConnectionResetError()).testimony.of == ()


def silent() -> list[FarEnd]:
    return []


def greets() -> list[FarEnd]:
    return [FarEnd()]


def says_other_than_asked() -> list[FarEnd]:
    return [answering()] * 2


@pytest.mark.parametrize(
    ("script", "error", "reason"),
    [
        (silent, DeadlineExceeded(), Reason.CONNECT_TIMEOUT),
        (silent, ConnectionRefusedError(111, "refused"), Reason.REFUSED),
        (silent, None, Reason.GREETING_TIMEOUT),
        (greets, None, Reason.REPLY_TIMEOUT),
        (lambda: [*greets(), b""], None, Reason.CLOSED_EARLY),
        (says_other_than_asked, None, Reason.PROTOCOL_ERROR),
    ],
    ids=["no answer", "refused", "no greeting", "no testimony", "closed", "other than asked"],
)
def test_whatever_happens_is_an_answer(script, error, reason):
    answer = Asking(*script(), error=error, asked=(Question(7, 1, 0),)).answer
    assert isinstance(answer, Unanswered)
    assert answer.reason is reason
    assert answer.ended_ns >= answer.asked_ns
