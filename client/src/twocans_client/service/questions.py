"""When the witness of one path is asked, and about what.

Only while something is odd that no verdict explains for certain; about the newest such connections
and the oldest, so that the server tells what its host went through meanwhile. Once a second at
most, and in the long run every tenth second: an answer costs the path up to 8 KB.

It is asked over a fresh connection, which has a chance where others failed. Where they wait, the
held connection is asked, if it stands: its answer shows as well that the path is not dead. While
nothing gets through at all nobody can be asked; as soon as it does, both ends' memory is what
explains the outage.
"""

import asyncio
from collections.abc import Callable, Set
from itertools import islice

from twocans_client.evidence.lots import ports_like
from twocans_client.evidence.results import Outcome, Reason
from twocans_client.evidence.rows import Probed
from twocans_client.evidence.testimony import Question, Testimony, Unanswered
from twocans_client.evidence.window import Window
from twocans_client.paths.purse import Cost, Purse
from twocans_client.probes.held import Held
from twocans_client.probes.held_connection import FEW_ASKED, Asked
from twocans_client.probes.tools import Tools
from twocans_client.probes.witness import ask
from twocans_core.clock import Clock
from twocans_core.net.sockets import Address
from twocans_core.process.jsonlog import report_bug

__all__ = ["Questions"]

_EVERY_NS = 1_000_000_000
_PATIENCE_NS = 2_000_000_000
# Connections of one question; as many as it may have in all, less the held one.
_MOST = 12
# So many answers in a row, then one in ten seconds.
_AT_ONCE = 10
_REFILL_NS = 10_000_000_000
# A server knows nothing of what it has nothing to do with.
_NOT_ASKED = frozenset({Reason.DNS_FAILURE, Reason.DNS_TIMEOUT})
_LATELY_NS = 30_000_000_000
# A held connection that did not answer so often is not asked any more before it does: others are.
_HELD_TRIES = 3
# Both directions of a fresh connection with names of usual length and IPv6; of each entry.
_BYTES, _ENTRY_BYTES = 2_600, 390
# Among the newest probes: if one of these was greeted, a question can be as well.
_NEWEST = 5


class Questions:
    """The questions of one path.

    Args:
        window: Its evidence, which the answers become part of.
        purse: What they may cost.
        tools: Gives what to ask with.
        clock: The clocks.
        address: Gives where to.
        held: Gives the held connection, if there is one.
    """

    def __init__(
        self,
        window: Window,
        purse: Purse,
        tools: Callable[[], Tools],
        clock: Clock,
        *,
        address: Callable[[], Address | None],
        held: Callable[[], Held | None],
    ) -> None:
        self._window = window
        self._purse = purse
        self._tools = tools
        self._clock = clock
        self._address = address
        self._held = held
        self._task: asyncio.Task[None] | None = None
        self._due_ns = 0
        self._held_tries = 0
        self._left, self._refilled_ns = _AT_ONCE, 0
        self._is_stopped = False

    def look(self, now_ns: int, explained: Set[int]) -> None:
        """Ask, if there is anything to ask, anybody to be asked, and it is time.

        Args:
            now_ns: CLOCK_MONOTONIC.
            explained: Numbers of the probes that nobody need be asked about.
        """
        if not self._window.is_puzzling or now_ns < self._due_ns or self._is_stopped:
            return
        self._refill(now_ns)
        if self._left <= 0 or (self._task is not None and not self._task.done()):
            return
        questions = self._questions(now_ns, explained)
        if not questions:
            return
        address, held = self._address(), self._held()
        # The oldest tells since when; the others are the newest.
        few = questions[:1] + questions[1:][-(FEW_ASKED - 1) :]
        is_stuck = bool(self._window.waiting) or not self._answers()
        if not is_stuck:
            self._held_tries = 0
        asked = Asked(few, now_ns + _PATIENCE_NS, self._answered_held)
        may_hold = is_stuck and held is not None and self._held_tries < _HELD_TRIES
        if may_hold and held is not None and held.ask(asked):
            self._held_tries += 1
            self._due_ns = now_ns + _EVERY_NS
        elif address is not None and self._answers() and self._pays(len(questions), now_ns):
            self._due_ns = now_ns + _EVERY_NS
            self._task = asyncio.get_running_loop().create_task(self._ask(address, questions))
            self._task.add_done_callback(report_bug)

    def stop(self) -> None:
        """Ask nothing any more."""
        self._is_stopped = True
        if self._task is not None:
            self._task.cancel()

    async def _ask(self, address: Address, questions: tuple[Question, ...]) -> None:
        deadline_ns = self._clock.mono_ns() + _PATIENCE_NS
        # Where only the connections of some ports get through, that of the last good probe did.
        good = self._window.last_good
        ports = ports_like(good.local_port if good is not None else None)
        self._answered(
            await ask(address, questions, self._tools(), deadline_ns=deadline_ns, local_ports=ports)
        )

    def _answered_held(self, answer: Testimony | Unanswered) -> None:
        if isinstance(answer, Testimony):
            self._held_tries = 0
            self._pays(FEW_ASKED, self._clock.mono_ns())
        self._answered(answer)

    def _pays(self, count: int, now_ns: int) -> bool:
        """Whether the path can afford a question about so many connections."""
        return self._purse.takes(Cost.WITNESS, _BYTES + count * _ENTRY_BYTES, now_ns)

    def _answered(self, answer: Testimony | Unanswered) -> None:
        # What is not answered costs next to nothing.
        self._left -= isinstance(answer, Testimony)
        self._window.testified(answer)

    def _refill(self, now_ns: int) -> None:
        more = (now_ns - self._refilled_ns) // _REFILL_NS
        if more:
            self._left = min(_AT_ONCE, self._left + more)
            self._refilled_ns += more * _REFILL_NS

    def _answers(self) -> bool:
        """Whether the server greets fresh connections, as far as the newest show."""
        newest = self._window.newest(_NEWEST)
        return any(probe.outcome is Outcome.OK for probe in newest)

    def _questions(self, now_ns: int, explained: Set[int]) -> tuple[Question, ...]:
        """Return what there is to ask, oldest first."""
        window = self._window
        wanted = [
            Question(probe.connection, probe.local_port, probe.began_ns)
            for probe in window.odd
            if probe.ended_ns > now_ns - _LATELY_NS
            and probe.number not in explained
            and _is_for_the_server(probe)
            and window.seen(probe) is None
        ]
        wanted += [Question(None, each.local_port, each.began_ns) for each in window.waiting]
        if not wanted:
            return ()
        wanted.sort(key=lambda each: each.since_ns)
        most = _MOST // 2
        chosen = wanted if len(wanted) <= _MOST else wanted[:most] + wanted[-most:]
        ended = islice(reversed(window.held_endings), 2)
        held = [
            Question(each.connection, each.port, each.began_ns)
            for each in ended
            if each.began_ns is not None and each.lasted_ns is not None
        ]
        # The held one has lived for long: the server must not tell of all that time.
        return tuple(chosen) + tuple(
            each._replace(since_ns=max(each.since_ns, chosen[0].since_ns)) for each in held
        )


def _is_for_the_server(probe: Probed) -> bool:
    """Whether the server may know more of it than both ends' counts have told already."""
    if probe.outcome is Outcome.VOID or probe.reason in _NOT_ASKED:
        return False
    is_lost = probe.syns_resent or probe.synacks_resent
    return probe.is_failure or bool(is_lost) or not probe.retrans
