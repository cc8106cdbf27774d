"""One connection, from accept to close: plain echo or a framed session.

Theory of operation:

*Nothing here waits.* The server calls when the socket's state has changed (``on_events``), when
this connection's turn has come (``on_turn``) and when a time has passed (``on_deadline``). Each
does what can be done now and returns. Whatever a peer or a network does ends in a ``Report``; an
exception is a bug of ours.

*The first byte decides.* The first byte of our magic begins a framed session, and from then on a
``Conversation`` makes the answers. Any other byte is plain echo.

*Turns.* Events are edge-triggered: what is not used up is not reported again. So a turn goes on
until nothing is left to read or its budget, ``frames_per_turn``, is spent; then the connection
asks for another turn, behind all that wait for theirs. It also stops while its client does not
read. Room to write is then the next event, and it queues, because it may have much to do.

*Bounds.* The ``Outbox`` sends no more than the allowance beyond what came. While
``max_buffered_bytes`` wait in it nothing is read, so the TCP window closes and the client has to
stop sending.

*The lobby.* A client over a cap is accepted all the same: otherwise it could not be told why it is
not served. It has a second to show which kind it is: a framed client reads BUSY, a plain one is
closed.

*Phases.* OPEN, until the last is said; LINGERING, until the client has read it; OVER. To linger is
to send what is due, then FIN, then to read to the end of the stream. A close with unread bytes
makes the kernel send a reset, which can overtake what is due (RFC 1122, 4.2.2.13; RFC 9112, 9.6).

*Deadlines.* There is one at a time: of the greeting, from the first byte on; of a frame, from its
own first byte; or of silence, from the last byte that moved. Bytes that trickle move only the
last of them. A deadline may move later without notice; the server looks for an earlier one after
each of its calls.

This module is long because it is one state machine: its parts would share all of its state.
"""

import errno
import select
from typing import Protocol

from twocans_core.kernel.tcpinfo import Counters
from twocans_core.net.channel import Received
from twocans_core.protocol.fields import encode_counters
from twocans_core.protocol.frames import MAGIC

from .context import Context, Wire
from .conversation import Conversation
from .endings import LINGERING, OPEN, OVER, Account, Ending, Kind, Phase, Report
from .outbox import Outbox

__all__ = ["Connection", "Host"]

_LINGER_NS = 1_000_000_000
_LOBBY_NS = 1_000_000_000
# So much of plain echo is as much work as a frame, about.
_PLAIN_BYTES = 8 * 1024
# A transmit timestamp signals itself by these two. A broken connection signals more than them.
_STAMP_EVENTS = select.EPOLLERR | select.EPOLLOUT


class Host(Protocol):
    """What a connection asks of its surroundings."""

    def again(self, connection: "Connection") -> None:
        """Call its ``on_turn`` when those before it in the queue had theirs."""

    def ended(self, connection: "Connection", report: Report) -> None:
        """It is over: forget it and close its wire."""


class Connection:
    """One accepted connection.

    Args:
        wire: The socket. ``Host.ended`` is told when it is to be closed.
        context: What it shares with the others.
        host: Who gives it its turns.
        accepted_ns: When accept() returned it, ns of CLOCK_REALTIME.
        refusal: The cap that it came over, or ``""``.

    Attributes:
        deadline_ns: When ``on_deadline`` is due, ns of CLOCK_MONOTONIC. May move later at any
            time, without notice.
        idle_since_ns: When the last byte moved, ns of CLOCK_MONOTONIC.
        kind: What it turned out to be.
    """

    __slots__ = (
        "_accepted_ns", "_begun_ns", "_context", "_conversation", "_ending", "_eof", "_has_more",
        "_heard_ns", "_host", "_outbox", "_phase", "_queued", "_refusal", "deadline_ns",
        "idle_since_ns", "kind", "wire",
    )  # fmt: skip

    def __init__(
        self, wire: Wire, context: Context, host: Host, accepted_ns: int, refusal: str = ""
    ) -> None:
        self.wire = wire
        self.kind = Kind.NEW
        self._context = context
        self._host = host
        self._outbox = Outbox(wire)
        # For the witness, ns of CLOCK_BOOTTIME: when it came, and when its last byte did.
        self._begun_ns = context.clock.boot_ns()
        self._heard_ns = 0
        # For the conversation, should there be one.
        self._accepted_ns = accepted_ns
        self._refusal = refusal
        self._conversation: Conversation | None = None
        # How far it is, and how it ends once that is decided.
        self._phase = OPEN
        self._ending = (Ending.LEFT, "")
        self._eof = False
        # Its turn: whether it stopped with something to do, and whether it waits for the next.
        self._has_more = False
        self._queued = False
        context.tally.open[self.kind] += 1
        self.idle_since_ns = context.clock.mono_ns()
        wait_ns = _LOBBY_NS if refusal else int(context.limits.idle_s * 1e9)
        self.deadline_ns = self.idle_since_ns + wait_ns

    @property
    def progress(self) -> int:
        """How far it is: 0 it said nothing, 1 it speaks, 2 it is told the last and parts."""
        return 2 if self._phase is LINGERING else int(self.kind is not Kind.NEW)

    @property
    def held_bytes(self) -> int:
        """What we hold for this client besides the connection itself."""
        unsent_bytes = len(self._outbox.unsent or b"")
        return unsent_bytes + (self._conversation.held_bytes if self._conversation else 0)

    @property
    def is_open_session(self) -> bool:
        """Whether a client is being served that a GOODBYE would reach."""
        conversation = self._conversation
        return conversation is not None and conversation.is_open and self._phase is OPEN

    def account(self) -> Account:
        """Return what is known of it now; asks the kernel."""
        return self._account(*self.wire.counted())

    # --- what may happen to it ------------------------------------------------------------

    def on_events(self, events: int) -> None:
        """Use what the socket is ready for, within one turn's budget."""
        if self._queued:
            return  # its turn comes, and uses what this event tells as well
        # A transmit timestamp lies there until the next reply needs it.
        if self._outbox.unsent or events & ~_STAMP_EVENTS:
            if self._has_more:
                self._queue()  # behind all who ask for little
            else:
                self.on_turn()

    def on_turn(self) -> None:
        """Send and read what there is, within one turn's budget."""
        self._queued = False
        if self._phase is OVER:
            return
        try:
            # What waits goes out first: only then is there room to answer more.
            self._flush()
            self._serve()
        except OSError as error:
            self._break(error)

    def on_deadline(self) -> None:
        """Act, because ``deadline_ns`` has passed."""
        conversation = self._conversation
        match self._phase:
            case Phase.OVER:
                pass
            case Phase.LINGERING:
                self._end(*self._ending)
            case Phase.OPEN if self._refusal:
                self._end(Ending.BUSY, self._refusal)
            case Phase.OPEN if conversation and not (
                self._is_full() or conversation.is_between_frames
            ):
                self._hit("greeting_s" if conversation.is_greeting else "frame_s")
                self._part(conversation.refuse("too_slow"), Ending.SLOW, "too_slow")
            case Phase.OPEN:
                self._hit("idle_s")
                self._say_goodbye("idle", Ending.IDLE)

    def announce_drain(self) -> None:
        """Tell an open session that the server is about to stop."""
        if self._conversation is not None and self.is_open_session:
            self._write(self._conversation.goodbye("draining"))

    def stop(self) -> None:
        """Say that the server stops, and give the client a moment to see it."""
        if self._phase is OPEN:
            self._say_goodbye("draining", Ending.STOPPED)

    def cut_off(self) -> None:
        """End it now: the server waits no longer."""
        self.stop()
        self._end(*self._ending)

    def shed(self) -> None:
        """End it now, for the memory that it holds."""
        is_decided = self._phase is LINGERING
        self._end(*(self._ending if is_decided else (Ending.BUSY, "memory")))

    def fail(self) -> None:
        """End it because of a bug of ours."""
        self._end(Ending.BUG)

    # --- reading --------------------------------------------------------------------------

    def _serve(self) -> None:
        budget = self._context.limits.frames_per_turn
        self._has_more = False
        while True:
            conversation = self._conversation
            # Before the next read: what was read last turn must be answered with its own timestamp.
            if conversation is not None and self._phase is OPEN:
                budget -= self._converse(conversation, budget)
            if self._phase is OVER:
                return
            if self._is_full():
                self._has_more = True
                if conversation is not None:
                    conversation.pause()
                return  # when there is room again, that is an event
            if budget <= 0:
                self._hit("frames_per_turn")
                self._queue()
                return
            if self._eof:
                self._serve_eof()
                return
            received = self.wire.receive()
            if received is None:
                return
            budget -= self._take(received)

    def _queue(self) -> None:
        self._queued = True
        self._host.again(self)

    def _serve_eof(self) -> None:
        """The client sends no more: what is still due is sent, and that is the end."""
        if self._phase is OPEN:
            self._part(b"", Ending.DONE if self.kind is Kind.PLAIN else Ending.LEFT)
        elif not self._outbox.unsent:
            self._end(*self._ending)

    def _take(self, received: Received) -> int:
        """Take in one read; returns what it costs of the turn's budget."""
        data = received.data
        self.idle_since_ns = self._context.clock.mono_ns()
        self._outbox.received += len(data)
        self._context.tally.bytes_received += len(data)
        if not data:
            self._eof = True
            if self._conversation is not None and self._phase is OPEN:
                self._conversation.feed(received)
            return 0
        self._heard_ns = self._context.clock.boot_ns()
        if self._phase is LINGERING:
            return 1  # whatever still comes is read away
        if self.kind is Kind.NEW:
            self._take_first(data)
        if self._conversation is not None:
            self._conversation.feed(received)
            return 1
        if self._phase is OPEN:
            self._write(data)
            self._set_idle_deadline()
        return 1 + len(data) // _PLAIN_BYTES

    def _take_first(self, data: bytes) -> None:
        """Let the first byte decide which kind it is."""
        # No text begins so, in ASCII or UTF-8 (RFC 3629 has no FC), so people may type at the echo.
        if data[0] == MAGIC[0]:
            self._become(Kind.FRAMED)
            self._conversation = Conversation(
                self.wire, self._context, self._accepted_ns, self._refusal
            )
            if not self._refusal:
                greeting_ns = int(self._context.limits.greeting_s * 1e9)
                self.deadline_ns = self.idle_since_ns + greeting_ns
        else:
            self._become(Kind.PLAIN)
            if self._refusal:
                self._end(Ending.BUSY, self._refusal)

    def _become(self, kind: Kind) -> None:
        self._context.tally.open[self.kind] -= 1
        self._context.tally.open[kind] += 1
        self.kind = kind

    def _converse(self, conversation: Conversation, budget: int) -> int:
        """Answer up to ``budget`` messages; returns how many."""
        taken = 0
        while taken < budget and not self._is_full():
            answer = conversation.next_answer()
            if answer is None:
                break
            taken += 1
            if answer.ending is None and answer.stamped:
                conversation.answered(self._write(answer.data, stamped=True))
            elif answer.ending is None:
                self._write(answer.data)
            elif answer.data:
                self._part(answer.data, answer.ending, answer.reason)
            else:  # the client gave up: nothing is due to it
                self._end(answer.ending, answer.reason)
            if self._phase is not OPEN:
                return taken
        self._set_frame_deadline(conversation, fresh=taken > 0)
        return taken

    # --- writing --------------------------------------------------------------------------

    def _write(self, data: bytes, *, stamped: bool = False) -> int:
        """Send; returns where in the stream it ends. May be the end of the connection."""
        was_full = self._is_full()
        try:
            end = self._outbox.take(data, stamped=stamped)
        except OSError as error:
            self._break(error)
            return 0
        if end is None:
            self._hit("allowance")
            self._end(Ending.REFUSED, "allowance")
            return 0
        self._context.tally.bytes_sent += len(data)
        if self._is_full() and not was_full:
            self._hit("max_buffered_bytes")
        return end

    def _flush(self) -> None:
        if not self._outbox.unsent:
            return
        if self._outbox.flush(stamped=self.kind is Kind.FRAMED):
            self.idle_since_ns = self._context.clock.mono_ns()
            if self.kind is Kind.PLAIN and self._phase is OPEN:
                self._set_idle_deadline()
        if not self._outbox.unsent and self._phase is LINGERING:
            self._end_output()

    def _is_full(self) -> bool:
        # While it lingers, reading goes on whatever is unsent: the end must be seen.
        unsent = self._outbox.unsent
        return (
            unsent is not None
            and len(unsent) >= self._context.limits.max_buffered_bytes
            and self._phase is OPEN
        )

    # --- ending ---------------------------------------------------------------------------

    def _say_goodbye(self, reason: str, ending: Ending) -> None:
        """Part: say GOODBYE to a session, and nothing to a plain client."""
        conversation = self._conversation if self.is_open_session else None
        self._part(conversation.goodbye(reason) if conversation else b"", ending)
        if self._outbox.unsent:  # it does not read: there is nothing to wait for
            self._end(*self._ending)

    def _part(self, last: bytes, ending: Ending, reason: str = "") -> None:
        """Say the last and linger."""
        # Before the write: the ending stands even if the write finds the client gone.
        self._phase, self._ending = LINGERING, (ending, reason)
        if last:
            self._write(last)
        if self._phase is OVER:
            return
        if self._outbox.unsent:
            idle_ns = int(self._context.limits.idle_s * 1e9)
            self.deadline_ns = self._context.clock.mono_ns() + idle_ns
        else:
            self._end_output()

    def _end_output(self) -> None:
        self.wire.end_output()
        self.deadline_ns = self._context.clock.mono_ns() + _LINGER_NS
        if self._eof:
            self._end(*self._ending)

    def _break(self, error: OSError) -> None:
        """The connection broke; an ending that was decided stands, unless it was good."""
        # DONE says that the client had every byte. A reset shows that it may not have.
        if self._phase is LINGERING and self._ending[0] is not Ending.DONE:
            self._end(*self._ending)
        else:
            self._end(Ending.RESET, errno.errorcode.get(error.errno or 0, "unknown").lower())

    def _end(self, ending: Ending, reason: str = "") -> None:
        if self._phase is OVER:
            return
        self._phase = OVER
        if ending is Ending.DONE and self._outbox.unsent:
            ending = Ending.LEFT
        self._context.tally.open[self.kind] -= 1
        client, connection = None, 0
        # Before the wire is closed: it is the kernel that counts.
        counters, in_vain = self.wire.counted()
        account = self._account(counters, in_vain)
        if (conversation := self._conversation) is not None:
            client, connection = conversation.client, conversation.connection
            self._context.tally.resent_at_close += conversation.resent_since_told(counters)
        # It may still stand in a queue for its turn, and must not keep what it held until then.
        self._outbox.unsent, self._conversation = None, None
        self._host.ended(self, Report(self.kind, ending, reason, client, connection, account))

    def _account(self, counters: Counters, in_vain: int | None) -> Account:
        outbox, conversation = self._outbox, self._conversation
        return Account(
            self.wire.peer,
            self._begun_ns,
            self._heard_ns,
            outbox.received,
            outbox.sent,
            conversation.exchanges if conversation is not None else 0,
            encode_counters(counters),
            in_vain,
            self.kind,
            conversation is not None and conversation.client is not None,
        )

    # --- deadlines ------------------------------------------------------------------------

    def _set_idle_deadline(self) -> None:
        self.deadline_ns = self.idle_since_ns + int(self._context.limits.idle_s * 1e9)

    def _set_frame_deadline(self, conversation: Conversation, *, fresh: bool) -> None:
        if conversation.is_greeting or self._refusal:
            return  # set by the first byte, and nothing but a whole HELLO moves it
        self._set_idle_deadline()
        due_ns = conversation.deadline_ns(self.idle_since_ns, fresh=fresh, paused=self._is_full())
        if due_ns is not None:
            self.deadline_ns = due_ns

    def _hit(self, limit: str) -> None:
        self._context.tally.limit_hits[limit] += 1
