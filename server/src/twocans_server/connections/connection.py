"""One connection, from accept to close: plain echo or a framed session.

A state machine that never waits. ``on_events`` and ``on_deadline`` do as much as may be done
now; everything that it knows of the world outside comes with ``Context``. What a peer or a network
does ends in a ``Report``, never in an exception.
"""

import errno
import select

from twocans_core.errors import RemoteProtocolError
from twocans_core.net.channel import Received
from twocans_core.protocol.frames import MAGIC
from twocans_core.protocol.session import ALLOWANCE_BYTES

from .context import Context, Ending, Kind, Report, Wire
from .conversation import Conversation

__all__ = ["Connection"]

_LINGER_NS = 1_000_000_000
_LOBBY_NS = 1_000_000_000
# So much of plain echo is as much work as a frame, about.
_PLAIN_BYTES = 8 * 1024
# A transmit stamp signals itself by these two. A broken connection signals more than them.
_STAMP_EVENTS = select.EPOLLERR | select.EPOLLOUT


class Connection:
    """One accepted connection.

    Args:
        wire: The socket. ``Context.ended`` is told when it is to be closed.
        context: What it shares with the others.
        accepted_ns: When accept() returned it, ns of CLOCK_REALTIME.
        refusal: The cap that it came over, or ``""``. It is then told so as soon as it shows
            which kind it is, and is not served.

    Attributes:
        deadline_ns: When ``on_deadline`` is due, ns of CLOCK_MONOTONIC. May move later at any
            time, without notice.
    """

    __slots__ = (
        *("_accepted_ns", "_active_ns", "_context", "_conversation", "_eof", "_has_more", "_out"),
        *(
            "_lingers",
            "_over",
            "_queued",
            "_received",
            "_refusal",
            "_sent",
            "_verdict",
            "deadline_ns",
        ),
        *("kind", "wire"),
    )

    def __init__(self, wire: Wire, context: Context, accepted_ns: int, refusal: str = "") -> None:
        self.wire = wire
        self.kind = Kind.NEW
        self._context = context
        self._accepted_ns = accepted_ns
        self._refusal = refusal
        self._conversation: Conversation | None = None
        self._out: bytearray | None = None
        self._received = 0
        self._sent = 0
        self._eof = False
        # Whether it was left with something to do: it has used its share.
        self._has_more = False
        self._lingers = False
        self._over = False
        self._queued = False
        self._verdict = (Ending.LEFT, "")
        context.tally.open[self.kind] += 1
        self._active_ns = context.clock.mono_ns()
        wait_ns = _LOBBY_NS if refusal else int(context.limits.idle_s * 1e9)
        self.deadline_ns = self._active_ns + wait_ns

    @property
    def idle_since_ns(self) -> int:
        """When the last byte moved, ns of CLOCK_MONOTONIC."""
        return self._active_ns

    @property
    def progress(self) -> int:
        """How far it is: 0 it said nothing, 1 it speaks, 2 it is told the last and parts."""
        return 2 if self._lingers else int(self.kind is not Kind.NEW)

    @property
    def held_bytes(self) -> int:
        """What we hold for this client besides the connection itself."""
        unsent = len(self._out or b"")
        return unsent + (self._conversation.held_bytes if self._conversation is not None else 0)

    @property
    def is_open_session(self) -> bool:
        """Whether a client is being served that a GOODBYE would reach."""
        conversation = self._conversation
        return conversation is not None and conversation.is_open and not self._lingers

    # --- what may happen to it ------------------------------------------------------------

    def on_events(self, events: int) -> None:
        """Use what the socket is ready for, within one turn's budget."""
        if self._queued:
            return  # its turn comes, and uses what this event tells as well
        # A transmit stamp lies there until the next reply needs it.
        if self._out or events & ~_STAMP_EVENTS:
            if self._has_more:
                self._queue()  # behind all who ask for little
            else:
                self.on_turn()

    def on_turn(self) -> None:
        """Send and read what there is, within one turn's budget."""
        self._queued = False
        if self._over:
            return
        try:
            self._flush()
            self._serve()
        except OSError as error:
            self._break(error)

    def on_deadline(self) -> None:
        """Act on ``deadline_ns`` having passed."""
        if self._over:
            return
        if self._lingers:
            self._end(*self._verdict)
        elif self._refusal:
            self._end(Ending.BUSY, self._refusal)
        elif self._conversation is None or self._is_full() or self._conversation.is_between_frames:
            self._hit("idle_s")
            self._part("idle", Ending.IDLE)
        else:
            self._hit("greeting_s" if self._conversation.is_greeting else "frame_s")
            self._refuse("too_slow", Ending.SLOW)

    def announce_drain(self) -> None:
        """Tell an open session that the server is about to stop."""
        if self._conversation is not None and self.is_open_session and not self._over:
            try:
                self._write(self._conversation.goodbye("draining"))
            except OSError as error:
                self._break(error)

    def stop(self) -> None:
        """Say that the server stops, and give the client a moment to see it."""
        if not self._over and not self._lingers:
            self._part("draining", Ending.STOPPED)

    def cut_off(self) -> None:
        """End it now: the server waits no longer."""
        self.stop()
        self._end(*self._verdict)

    def shed(self) -> None:
        """End it now, for the memory that it holds."""
        self._end(*(self._verdict if self._lingers else (Ending.BUSY, "memory")))

    def fail(self) -> None:
        """End it because of a bug of ours."""
        if not self._over:
            self._end(Ending.BUG, "")

    # --- reading --------------------------------------------------------------------------

    def _serve(self) -> None:
        budget = self._context.limits.frames_per_turn
        self._has_more = False
        while not self._over:
            if self._conversation is not None and not self._lingers:
                budget -= self._converse(self._conversation, budget)
            if self._over or self._is_full():
                self._has_more = True
                if self._conversation is not None:
                    self._conversation.pause()
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
        self._context.again(self)

    def _serve_eof(self) -> None:
        """The client sends no more: what is still due is sent, and that is the end."""
        if not self._lingers:
            self._linger(Ending.DONE if self.kind is Kind.PLAIN else Ending.LEFT)
        elif not self._out:
            self._end(*self._verdict)

    def _take(self, received: Received) -> int:
        """Take in one read; returns what it costs of the turn's budget."""
        data = received.data
        self._active_ns = self._context.clock.mono_ns()
        self._received += len(data)
        self._context.tally.bytes_received += len(data)
        if not data:
            self._eof = True
            if self._conversation is not None and not self._lingers:
                self._conversation.feed(received)
            return 0
        if self._lingers:
            return 1  # it is over: whatever still comes is read away
        if self.kind is Kind.NEW and not self._take_first(data):
            return 0
        if self._conversation is not None:
            self._conversation.feed(received)
            return 1
        self._write(data)
        self._set_idle_deadline()
        return 1 + len(data) // _PLAIN_BYTES

    def _take_first(self, data: bytes) -> bool:
        """Let the first byte decide; False when the connection is over already."""
        if data[0] == MAGIC[0]:
            self._become(Kind.FRAMED)
            self._conversation = Conversation(
                self.wire, self._context, self._accepted_ns, self._refusal
            )
            if not self._refusal:
                greeting_ns = int(self._context.limits.greeting_s * 1e9)
                self.deadline_ns = self._active_ns + greeting_ns
            return True
        self._become(Kind.PLAIN)
        if self._refusal:
            self._end(Ending.BUSY, self._refusal)
            return False
        return True

    def _converse(self, conversation: Conversation, budget: int) -> int:
        """Answer up to ``budget`` messages; returns how many."""
        taken = 0
        while taken < budget and not self._is_full():
            try:
                answer = conversation.next_answer()
            except RemoteProtocolError as error:
                if error.reason == "damaged":
                    self._refuse(error.reason, Ending.DAMAGED)
                else:
                    self._refuse(error.reason)
                return taken
            if answer is None:
                break
            taken += 1
            if answer.data:
                self._write(answer.data, stamped=answer.ending is None)
                conversation.answered(self.wire.sent_bytes + len(self._out or b""))
            elif answer.ending is not None:
                self._end(answer.ending, answer.reason)
            if answer.ending is not None:
                self._linger(answer.ending, answer.reason)
            if self._lingers or self._over:
                return taken
        self._set_frame_deadline(conversation, fresh=taken > 0)
        return taken

    # --- parting --------------------------------------------------------------------------

    def _refuse(self, reason: str, ending: Ending = Ending.REFUSED) -> None:
        """Tell the client which rule it broke, or that a frame came damaged, and close."""
        if ending is Ending.DAMAGED:
            self._context.tally.damaged_frames += 1
        else:
            self._context.tally.protocol_errors[reason] += 1
        if reason == "too_big":
            known = self._conversation is not None and self._conversation.client is not None
            self._hit("max_payload_bytes" if known else "max_greeting_bytes")
        try:
            error = self._conversation.error(reason) if self._conversation is not None else b""
            if error:
                self._write(error)
            self._linger(ending, reason)
        except OSError:
            self._end(ending, reason)

    def _part(self, reason: str, ending: Ending) -> None:
        """Say GOODBYE to a session, nothing to a plain client, and close."""
        try:
            if self._conversation is not None and self.is_open_session:
                self._write(self._conversation.goodbye(reason))
            if self._out:  # it does not read: there is nothing to wait for
                self._end(ending, "")
            self._linger(ending)
        except OSError:
            self._end(ending, "")

    # --- writing --------------------------------------------------------------------------

    def _write(self, data: bytes, *, stamped: bool = False) -> None:
        if self._sent + len(data) > self._received + ALLOWANCE_BYTES:
            self._context.tally.limit_hits["allowance"] += 1
            self._end(Ending.REFUSED, "allowance")
            return
        self._sent += len(data)
        self._context.tally.bytes_sent += len(data)
        was_full = self._is_full()
        if self._out:
            self._out += data
        else:
            count = self.wire.send_stamped(data) if stamped else self.wire.send(data)
            if count < len(data):
                self._out = bytearray(memoryview(data)[count:])
        if self._is_full() and not was_full:
            self._hit("max_buffered_bytes")

    def _flush(self) -> None:
        if not self._out:
            return
        framed = self._conversation is not None
        count = self.wire.send_stamped(self._out) if framed else self.wire.send(self._out)
        if count:
            self._active_ns = self._context.clock.mono_ns()
            if self.kind is Kind.PLAIN and not self._lingers:
                self._set_idle_deadline()
        del self._out[:count]
        if not self._out:
            self._out = None
            if self._lingers:
                self._finish_output()

    def _is_full(self) -> bool:
        # While it lingers, reading goes on whatever is unsent: the end must be seen.
        out = self._out
        return (
            out is not None
            and len(out) >= self._context.limits.max_buffered_bytes
            and not self._lingers
        )

    # --- ending ---------------------------------------------------------------------------

    def _linger(self, ending: Ending, reason: str = "") -> None:
        """Send what is due, then FIN, then read to the end of the stream.

        Closing with unread bytes would send a reset, and that can overtake what is due.
        """
        if self._over:
            return
        self._lingers = True
        self._verdict = (ending, reason)
        wait_ns = _LINGER_NS
        if self._out:
            wait_ns = int(self._context.limits.idle_s * 1e9)
        self.deadline_ns = self._context.clock.mono_ns() + wait_ns
        if not self._out:
            self._finish_output()

    def _finish_output(self) -> None:
        self.wire.end_output()
        self.deadline_ns = self._context.clock.mono_ns() + _LINGER_NS
        if self._eof:
            self._end(*self._verdict)

    def _break(self, error: OSError) -> None:
        """The connection broke; a verdict that was there before stands, unless it was good."""
        if self._lingers and self._verdict[0] is not Ending.DONE:
            self._end(*self._verdict)
            return
        name = errno.errorcode.get(error.errno or 0, "unknown").lower()
        self._end(Ending.RESET, name)

    def _end(self, ending: Ending, reason: str) -> None:
        if self._over:
            return
        self._over = True
        if ending is Ending.DONE and self._out:
            ending = Ending.LEFT
        self._context.tally.open[self.kind] -= 1
        conversation = self._conversation
        exchanges, client = 0, None
        if conversation is not None:
            exchanges, client = conversation.exchanges, conversation.client
            self._context.tally.resent_at_close += conversation.resent_since_told()
        self._context.ended(self, Report(self.kind, ending, reason, exchanges, client))

    # --- deadlines ------------------------------------------------------------------------

    def _set_idle_deadline(self) -> None:
        self.deadline_ns = self._active_ns + int(self._context.limits.idle_s * 1e9)

    def _set_frame_deadline(self, conversation: Conversation, *, fresh: bool) -> None:
        if conversation.is_greeting or self._refusal:
            return  # set by the first byte, and nothing but a whole HELLO moves it
        paused = self._is_full()
        deadline_ns = conversation.deadline_ns(self._active_ns, fresh=fresh, paused=paused)
        if deadline_ns is None:
            self._set_idle_deadline()
        else:
            self.deadline_ns = deadline_ns

    def _become(self, kind: Kind) -> None:
        self._context.tally.open[self.kind] -= 1
        self._context.tally.open[kind] += 1
        self.kind = kind

    def _hit(self, limit: str) -> None:
        self._context.tally.limit_hits[limit] += 1
