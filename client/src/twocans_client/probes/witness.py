"""Ask a server what it saw of our connections, over another one.

It is a fresh connection with a port of its own, so it has a chance where the others failed. It
costs the path 1.2 KB and the time of a probe, and each connection asked about 0.4 KB.
"""

import contextlib

from twocans_client.evidence.results import Reason
from twocans_client.evidence.testimony import Question, Testimony, Unanswered
from twocans_core.net.sockets import Address
from twocans_core.protocol.messages import Features, Welcome
from twocans_core.protocol.witness import MOST_ASKED, Asked, Witness

from .conversation import Conversation
from .tools import Tools
from .trouble import TROUBLE, reason_of_trouble

__all__ = ["ask", "ask_on"]


async def ask(
    address: Address,
    questions: tuple[Question, ...],
    tools: Tools,
    *,
    deadline_ns: int,
    local_ports: tuple[int, ...] = (),
) -> Testimony | Unanswered:
    """Ask one server about connections of ours, and about its host since the first of them.

    Args:
        address: Where to. Behind a balancer another server may answer: see ``Testimony.server``.
        questions: The connections. Of more than ``MOST_ASKED``, the last ones.
        tools: What with.
        deadline_ns: When to give up, CLOCK_MONOTONIC.
        local_ports: See ``streams.connect``.

    Returns:
        What it said. Whatever a peer or a network does is an ``Unanswered``; only cancellation and
        a bug of ours leave this function as an exception.
    """
    begun_ns = tools.clock.mono_ns()
    talk: Conversation | None = None
    with tools.attention:
        try:
            stream = await tools.dial(address, deadline_ns=deadline_ns, local_ports=local_ports)
            try:
                talk = Conversation(stream, tools, max_payload=0, deadline_ns=deadline_ns)
                welcome = await talk.greet()
                if not welcome.features & Features.WITNESS:
                    return Unanswered(None, "it is not able to", begun_ns, tools.clock.mono_ns())
                testimony = await ask_on(talk, welcome, questions[-MOST_ASKED:], tools)
                with contextlib.suppress(*TROUBLE):  # it has said what we wanted to know
                    await talk.say_goodbye()
                return testimony
            finally:
                stream.close()
        except TROUBLE as error:
            waiting_for = talk.waiting_for if talk is not None else Reason.CONNECT_TIMEOUT
            reason, detail = reason_of_trouble(error, waiting_for)
            return Unanswered(reason, detail, begun_ns, tools.clock.mono_ns())


async def ask_on(
    talk: Conversation, welcome: Welcome, questions: tuple[Question, ...], tools: Tools
) -> Testimony:
    """Ask on a connection that is there, by its deadline.

    Args:
        talk: It.
        welcome: What its server said.
        questions: At most ``MOST_ASKED``.
        tools: What with.

    Raises:
        Ended, DeadlineExceeded, RemoteProtocolError, OSError: As any step of a conversation.
    """
    asked_ns = tools.clock.mono_ns()
    since_ns = min((question.since_ns for question in questions), default=asked_ns)
    asked = tuple(Asked(each.connection or 0, each.port or 0) for each in questions)
    answer = await talk.testify(Witness(max(0, asked_ns - since_ns), asked))
    return Testimony.of_answer(
        answer,
        questions,
        welcome.identity,
        asked_ns=asked_ns,
        answered_ns=talk.read_ns,
        server_began_ns=None if welcome.age_ns is None else asked_ns - welcome.age_ns,
    )
