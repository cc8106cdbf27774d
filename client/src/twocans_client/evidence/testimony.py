"""What a server said that it saw: of our connections, and of its own host. No I/O.

Moments are ns of our CLOCK_MONOTONIC. The server says ages, by its CLOCK_BOOTTIME and counted back
from its answer; that was given between our question and when we read it, so the middle is taken,
and each moment may be off by ``error_ns`` either way. Two clocks that nobody corrects drift apart
by some 30 ms in the five minutes that a server looks back. While our own host was suspended,
CLOCK_MONOTONIC stood still: a moment before that is too late by as much.
"""

from typing import NamedTuple

from twocans_core.kernel.tcpinfo import NO_COUNTERS, Counters, TcpCounts
from twocans_core.protocol import witness
from twocans_core.protocol.messages import Identity
from twocans_core.protocol.witness import Fate

from .results import Reason

__all__ = ["Fate", "HostHistory", "Question", "Seen", "Testimony", "Unanswered"]


class Question(NamedTuple):
    """One of our connections.

    Attributes:
        connection: Its number in our HELLO; None if none was sent.
        port: Our own; None if we never had one.
        since_ns: When we began to connect: the server is asked about its host since then.
    """

    connection: int | None
    port: int | None
    since_ns: int


class Seen(NamedTuple):
    """What the server saw of one connection.

    Attributes:
        question: Which one.
        fate: UNKNOWN: it does not know it. That it never came is certain only if it would be
            remembered: ``Testimony.never_came``.
        greeted: Our HELLO came.
        peer: Our address and port as the server's kernel saw them; None if unknown.
        in_vain: How often in a row its kernel had sent the same again, or a probe, and nothing had
            answered, at the end or now.
        accepted_ns: When accept() returned it.
        heard_ns: When the last byte was read of it; None: none came.
        ended_ns: When it ended there; None while it is open.
        received: Bytes that its program read.
        sent: Bytes that its program sent.
        exchanges: Requests that it answered.
        counters: Its kernel's, at the end or now.
        kind: ``new``: no byte came. ``framed``, ``plain``.
        ending: How it ended there, in the server's words; ``""`` while it is open.
        reason: What more there is to say.
    """

    question: Question
    fate: Fate = Fate.UNKNOWN
    greeted: bool = False
    peer: tuple[str, int] | None = None
    in_vain: int | None = None
    accepted_ns: int | None = None
    heard_ns: int | None = None
    ended_ns: int | None = None
    received: int = 0
    sent: int = 0
    exchanges: int = 0
    counters: Counters = NO_COUNTERS
    kind: str = ""
    ending: str = ""
    reason: str = ""


class HostHistory(NamedTuple):
    """What the server's host went through since a moment. None: not known there.

    Attributes:
        since_ns: That moment; at or before what was asked for, if the server looked by then.
        stalled_ns: How long its process did not run.
        worst_ns: The longest of it at a stretch.
        cause: Of that stretch (``stalls.Cause``), or ``""``.
        throttled_ns: How long a CPU limit stopped it; known there a second late.
        run_delay_ns: How long its thread waited for a CPU.
        tcp: By how much the counts of its network namespace grew.
        accept_errors: Times that accept() failed for want of descriptors or memory.
        connections: Open when it answered.
        max_connections: How many may be.
        accept_queue: Connections in its accept queue when it answered.
        accept_queue_limit: How many may be.
        half_open: Connections from our address whose handshake was not finished when it answered.
        limits: Its limits that were reached, and how often.
    """

    since_ns: int | None
    stalled_ns: int | None
    worst_ns: int | None
    cause: str
    throttled_ns: int | None
    run_delay_ns: int | None
    tcp: TcpCounts
    accept_errors: int | None
    connections: int | None
    max_connections: int | None
    accept_queue: int | None
    accept_queue_limit: int | None
    half_open: int | None
    limits: tuple[tuple[str, int], ...]


class Testimony(NamedTuple):
    """All that one server said at once.

    Attributes:
        server: Who says so. Behind a balancer it may be another than the one asked about: then it
            knows nothing of that connection.
        server_began_ns: When its process began; None where it does not say.
        asked_ns: When the question was sent.
        answered_ns: When the answer was read.
        remembers_ns: Since when it remembers each connection that ended otherwise than ``done``.
        remembers_done_ns: Since when those that ended ``done``.
        of: One for each question.
        host: What its host went through.
    """

    server: Identity
    server_began_ns: int | None
    asked_ns: int
    answered_ns: int
    remembers_ns: int
    remembers_done_ns: int
    of: tuple[Seen, ...]
    host: HostHistory

    @classmethod
    def of_answer(
        cls,
        answer: witness.Testimony,
        questions: tuple[Question, ...],
        server: Identity,
        *,
        asked_ns: int,
        answered_ns: int,
        server_began_ns: int | None = None,
    ) -> "Testimony":
        """Turn ages into moments.

        Args:
            answer: What came.
            questions: In the order in which they were asked.
            server: Who said it.
            asked_ns: When the question was sent, CLOCK_MONOTONIC.
            answered_ns: When the answer was read.
            server_began_ns: When its process began.
        """
        now_ns = (asked_ns + answered_ns) // 2
        host = answer.host
        pairs = zip(questions, answer.seen, strict=True)
        return cls(
            server,
            server_began_ns,
            asked_ns,
            answered_ns,
            now_ns - answer.memory_ns,
            now_ns - answer.memory_of_done_ns,
            tuple(_seen(question, seen, now_ns) for question, seen in pairs),
            HostHistory(*host._replace(since_ns=_moment(host.since_ns, now_ns))),
        )

    @property
    def error_ns(self) -> int:
        """By how much each moment may be off, either way."""
        return (self.answered_ns - self.asked_ns) // 2

    def never_came(self, seen: Seen) -> bool:
        """Whether it is certain that the server never accepted this connection.

        Only if this is the process that it would have come to, and nothing has been forgotten
        since we began to connect. What still waits in the accept queue has not come either.
        """
        since_ns = seen.question.since_ns + self.error_ns
        return (
            seen.fate is Fate.UNKNOWN
            and self.remembers_ns < since_ns
            and self.remembers_done_ns < since_ns
        )


class Unanswered(NamedTuple):
    """The server did not say what it saw.

    Attributes:
        reason: Why; None: it is not able to, for it is older than the question.
        detail: More about it, for people.
        asked_ns: When we began to connect to ask, CLOCK_MONOTONIC.
        ended_ns: When we gave up.
    """

    reason: Reason | None
    detail: str
    asked_ns: int
    ended_ns: int


def _moment(age_ns: int | None, now_ns: int) -> int | None:
    return None if age_ns is None else now_ns - age_ns


def _seen(question: Question, seen: witness.Seen, now_ns: int) -> Seen:
    if seen.fate is Fate.UNKNOWN:
        return Seen(question)
    return Seen(
        question,
        *seen._replace(
            accepted_ns=now_ns - seen.accepted_ns,
            heard_ns=_moment(seen.heard_ns, now_ns),
            ended_ns=_moment(seen.ended_ns, now_ns),
        ),
    )
