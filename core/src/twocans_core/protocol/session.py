"""Who may say what, when: the two sides of protocol 1. No I/O.

    client                       server
      HELLO  ─────────────────▶
             ◀───────────────── WELCOME             or BUSY
      REQUEST n ──────────────▶
             ◀───────────────── REPLY n             any number of times
      WITNESS ────────────────▶
             ◀───────────────── TESTIMONY           likewise
             ◀───────────────── GOODBYE draining    at any time, changes nothing
      GOODBYE done ───────────▶
             ◀───────────────── FOLLOW_UP, GOODBYE done, end of stream

Feed a session what a read returned, then take messages until there is none. It gives bytes
to send and never sends. A peer that breaks the rules raises ``RemoteProtocolError``: answer
with ``error(reason)``, and close. A peer's ERROR is a message as the others, but ends the
session: close, without an answer. Both sides are in one module, to be read against each other.
"""

import enum
from collections import deque

from twocans_core.errors import LocalProtocolError, RemoteProtocolError

from .frames import Decoder, Frame, Kind, encode
from .messages import (
    KINDS,
    MAX_GREETING,
    TYPES,
    Busy,
    Error,
    FollowUp,
    Goodbye,
    Hello,
    Message,
    Reply,
    Request,
    Welcome,
    body_limits,
)
from .witness import Testimony, Witness

__all__ = ["ALLOWANCE_BYTES", "LAST_SEQUENCE", "ClientSession", "ServerSession", "State"]

LAST_SEQUENCE = 0xFFFF_FFFF
"""Exchanges that one connection may have: its owner opens another one then."""
ALLOWANCE_BYTES = 4096
"""Bytes that a server may send on a connection beyond those it received (docs/protocol.md,
"Bound"): without it the server is an amplifier. Both sides count."""


class State(enum.Enum):
    """Where a session stands."""

    GREETING = enum.auto()
    OPEN = enum.auto()
    LEAVING = enum.auto()
    """The client said GOODBYE."""
    CLOSED = enum.auto()


class _Session:
    """What both sides share: the decoder, the sequence, the error."""

    def __init__(self, limits: dict[Kind, int]) -> None:
        self.state = State.GREETING
        self.sequence = 0
        """Of the newest exchange: of the last request received or sent."""
        self._limits = limits
        self._is_answerable = True
        self.decoder = Decoder(limits)

    def feed(self, data: bytes) -> None:
        """Add what one read returned; ``b""`` is the end of the stream.

        After calling this: call ``next_message`` until it returns None, before the next read.
        What is fed is kept until then. ``b""`` raises nothing by itself: that a frame was cut
        short is what ``next_message`` says.
        """
        self.decoder.feed(data)

    def next_message(self) -> Message | None:
        """Return the next message, or None when more bytes are needed.

        After a message: do what it asks for (a server answers a HELLO by ``welcome`` or
        ``busy``, a REQUEST by ``reply``, a WITNESS by ``testimony``, a GOODBYE by ``farewell``),
        then call this again. After None: read, and ``feed``. After an ERROR, or anything that
        leaves ``state`` CLOSED: close.

        Raises:
            RemoteProtocolError: The peer broke the protocol. The session is closed. After this:
                send what ``error`` returns, and close.
        """
        frame = None
        try:
            frame = self.decoder.next_frame()
            if frame is None:
                return None
            message = TYPES[frame.kind].parse(frame.body)
            self._receive(frame, message)
        except RemoteProtocolError:
            self.state = State.CLOSED
            # A bad ERROR is not answered either, or two peers could go on forever.
            self._is_answerable = frame is None or frame.kind is not Kind.ERROR
            raise
        return message

    def error(self, reason: str) -> bytes:
        """Give up: return the ERROR frame to send before closing.

        Nothing, ``b""``, when what was wrong is an ERROR of the peer: it is never answered.
        """
        self.state = State.CLOSED
        return self._encode(Error(reason)) if self._is_answerable else b""

    def _receive(self, frame: Frame, message: Message) -> None:
        raise NotImplementedError

    def _encode(self, message: Message, sequence: int = 0) -> bytes:
        return encode(Frame(KINDS[type(message)], sequence, message.encode()))

    def _must_be(self, *states: State) -> None:
        if self.state not in states:
            raise LocalProtocolError("out_of_order", f"we are {self.state.name}")


class ServerSession(_Session):
    """The server's side.

    Args:
        max_greeting: Largest body accepted until the HELLO is, in bytes; over 1,024 is 1,024.
        max_payload: Largest payload of a request, in bytes.
    """

    def __init__(self, *, max_greeting: int = MAX_GREETING, max_payload: int) -> None:
        self._limits_later = body_limits(max_payload)
        most = min(max_greeting, MAX_GREETING)
        super().__init__({kind: min(limit, most) for kind, limit in self._limits_later.items()})

    def welcome(self, message: Welcome) -> bytes:
        """Answer the HELLO."""
        self._must_be(State.OPEN)
        return self._encode(message)

    def busy(self, reason: str) -> bytes:
        """Refuse the HELLO: the server has no place."""
        self.state = State.CLOSED
        return self._encode(Busy(reason))

    def reply(self, message: Reply) -> bytes:
        """Answer the request that ``next_message`` returned last."""
        self._must_be(State.OPEN)
        return self._encode(message, self.sequence)

    def testimony(self, message: Testimony) -> bytes:
        """Answer the WITNESS that ``next_message`` returned last."""
        self._must_be(State.OPEN)
        return self._encode(message)

    def goodbye(self, reason: str) -> bytes:
        """Announce the end. After ``draining`` the session goes on; else it is closed."""
        if reason != "draining":
            self.state = State.CLOSED
        return self._encode(Goodbye(reason))

    def farewell(self, message: FollowUp) -> bytes:
        """Answer the client's GOODBYE: the follow-up and our own GOODBYE. Then close first."""
        self._must_be(State.LEAVING)
        return self._encode(message, self.sequence) + self.goodbye("done")

    def _receive(self, frame: Frame, message: Message) -> None:
        match message:
            case Error():  # docs/protocol.md, "Refusals": at any time, and never answered
                self.state = State.CLOSED
            case Hello() if self.state is State.GREETING:  # "Greeting"
                _check_sequence(frame, 0)
                self.state = State.OPEN
                self._limits.update(self._limits_later)  # of the frames from here on
            case Request() if self.state is State.OPEN:  # "Exchange"
                _check_sequence(frame, self.sequence + 1)
                self.sequence = frame.sequence
            case Witness() if self.state is State.OPEN:  # "Witness"
                _check_sequence(frame, 0)
            case Goodbye("done") if self.state is State.OPEN:  # "Ending", 1
                _check_sequence(frame, 0)
                self.state = State.LEAVING
            case _:
                raise _unexpected(frame, self.state)


class ClientSession(_Session):
    """The client's side. A server is not trusted either: all that it sends is bounded.

    Args:
        max_payload: Largest payload that we shall send, in bytes.
    """

    def __init__(self, *, max_payload: int) -> None:
        super().__init__(body_limits(max_payload))
        self.draining = False
        """Whether the server said that it is about to stop."""
        self._connection: int | None = None
        self._replied = 0
        self._asked: deque[int] = deque()  # of each WITNESS that is not answered, how many
        self._is_followed_up = False

    def hello(self, message: Hello) -> bytes:
        """Open the session."""
        self._must_be(State.GREETING)
        if self._connection is not None:
            raise LocalProtocolError("out_of_order", "a second HELLO")
        self._connection = message.connection
        return self._encode(message)

    def request(self, message: Request) -> bytes:
        """Ask for one echo. May be called again before the reply is there.

        Raises:
            LocalProtocolError: The last sequence is used up: a new connection is needed.
        """
        self._must_be(State.OPEN)
        if self.sequence == LAST_SEQUENCE:
            raise LocalProtocolError("bad_sequence", "no sequence is left")
        self.sequence += 1
        return self._encode(message, self.sequence)

    def witness(self, message: Witness) -> bytes:
        """Ask what the server saw. May be called whenever ``request`` may."""
        self._must_be(State.OPEN)
        data = self._encode(message)
        self._asked.append(len(message.asked))
        return data

    def goodbye(self) -> bytes:
        """Ask for the end. Replies that are due still come."""
        self._must_be(State.OPEN)
        self.state = State.LEAVING
        return self._encode(Goodbye("done"))

    @property
    def _is_greeted(self) -> bool:
        return self.state is State.GREETING and self._connection is not None

    @property
    def _is_open(self) -> bool:
        return self.state in (State.OPEN, State.LEAVING)

    @property
    def _is_due_to_end(self) -> bool:
        is_answered = self._replied == self.sequence and not self._asked
        return self.state is State.LEAVING and is_answered

    def _receive(self, frame: Frame, message: Message) -> None:
        match message:
            # docs/protocol.md, "Frame": replies come in the order of their requests.
            case Reply() if self._is_open and self._replied < self.sequence:
                _check_sequence(frame, self._replied + 1)
                self._replied = frame.sequence
            case Testimony() if self._is_open and self._asked:  # "Witness"
                _check_sequence(frame, 0)
                if len(message.seen) != self._asked.popleft():
                    raise RemoteProtocolError("bad_value", "a TESTIMONY of other length")
            case Error():  # "Refusals"
                self.state = State.CLOSED
            case Busy() if self._is_greeted:
                _check_sequence(frame, 0)
                self.state = State.CLOSED
            case Welcome() if self._is_greeted:  # "Greeting"
                _check_sequence(frame, 0)
                if message.connection != self._connection:
                    raise RemoteProtocolError("bad_value", "the WELCOME is for another HELLO")
                self.state = State.OPEN
                self.draining = message.draining
            case Goodbye("draining") if self._is_open:  # "Ending"; it may come at any time
                _check_sequence(frame, 0)
                self.draining = True
            case Goodbye("idle") if self._is_open:
                # "Ending". Even after our own GOODBYE: the two may have crossed.
                _check_sequence(frame, 0)
                self.state = State.CLOSED
            case FollowUp() if self._is_due_to_end and not self._is_followed_up:  # "Ending", 2
                _check_sequence(frame, self._replied)
                self._is_followed_up = True
            case Goodbye("done") if self._is_due_to_end and self._is_followed_up:
                _check_sequence(frame, 0)
                self.state = State.CLOSED
            case Hello():  # our own: the far end is no twocans server, it echoes
                raise _unexpected(frame, self.state, hint="echoed_hello")
            case _:
                raise _unexpected(frame, self.state)


def _check_sequence(frame: Frame, wanted: int) -> None:
    if frame.sequence != wanted:
        raise RemoteProtocolError("bad_sequence", f"{frame.sequence}, want {wanted}")


def _unexpected(frame: Frame, state: State, hint: str = "") -> RemoteProtocolError:
    return RemoteProtocolError("out_of_order", f"{frame.kind.name} while {state.name}", hint)
