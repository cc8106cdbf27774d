"""Who may say what, when: the two sides of protocol 1. No I/O.

    client                       server
      HELLO  ─────────────────▶
             ◀───────────────── WELCOME             or BUSY
      REQUEST n ──────────────▶
             ◀───────────────── REPLY n             any number of times
             ◀───────────────── GOODBYE draining    at any time, changes nothing
      GOODBYE done ───────────▶
             ◀───────────────── FOLLOW_UP, GOODBYE done, end of stream

Feed a session what a read returned, then take messages until there is none. It gives bytes
to send and never sends. A peer that breaks the rules raises ``RemoteProtocolError``: answer
with ``error(reason)``, unless the peer's own message was an ERROR, and close.
"""

import enum

from .errors import LocalProtocolError, RemoteProtocolError
from .frames import Decoder, Frame, Kind, encode
from .messages import (
    EXCHANGE_HEAD_SIZE,
    KINDS,
    MAX_CONTROL,
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
)

__all__ = ["ClientSession", "ServerSession", "State"]


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
        self.decoder = Decoder(limits)

    def feed(self, data: bytes) -> None:
        """Add what one read returned; ``b""`` is the end of the stream."""
        self.decoder.feed(data)

    def next_message(self) -> Message | None:
        """Return the next message, or None when more bytes are needed.

        Raises:
            RemoteProtocolError: The peer broke the protocol. The session is closed.
        """
        try:
            frame = self.decoder.next_frame()
            if frame is None:
                return None
            message = TYPES[frame.kind].parse(frame.body)
            self._receive(frame, message)
        except RemoteProtocolError:
            self.state = State.CLOSED
            raise
        return message

    def error(self, reason: str) -> bytes:
        """Give up: return the ERROR frame to send before closing."""
        self.state = State.CLOSED
        return self._encode(Error(reason))

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
        max_greeting: Largest body accepted before the HELLO was, in bytes.
        max_payload: Largest payload of a request, in bytes.
    """

    def __init__(self, *, max_greeting: int = MAX_GREETING, max_payload: int) -> None:
        super().__init__(dict.fromkeys(Kind, max_greeting))
        self._max_payload = max_payload

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
            case Error():
                self.state = State.CLOSED
            case Hello() if self.state is State.GREETING:
                _check_sequence(frame, 0)
                self.state = State.OPEN
                self._limits.update(dict.fromkeys(Kind, MAX_CONTROL))
                self._limits[Kind.REQUEST] = EXCHANGE_HEAD_SIZE + self._max_payload
            case Request() if self.state is State.OPEN:
                _check_sequence(frame, self.sequence + 1)
                self.sequence = frame.sequence
            case Goodbye() if self.state is State.OPEN:
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
        limits = dict.fromkeys(Kind, MAX_CONTROL)
        limits[Kind.WELCOME] = MAX_GREETING
        limits[Kind.REPLY] = EXCHANGE_HEAD_SIZE + max_payload
        super().__init__(limits)
        self.draining = False
        """Whether the server said that it is about to stop."""
        self._replied = 0

    def hello(self, message: Hello) -> bytes:
        """Open the session."""
        self._must_be(State.GREETING)
        return self._encode(message)

    def request(self, message: Request) -> bytes:
        """Ask for one echo."""
        self._must_be(State.OPEN)
        self.sequence += 1
        return self._encode(message, self.sequence)

    def goodbye(self) -> bytes:
        """Ask for the end."""
        self._must_be(State.OPEN)
        self.state = State.LEAVING
        return self._encode(Goodbye("done"))

    def _receive(self, frame: Frame, message: Message) -> None:
        match message:
            case Error() | Busy():
                self.state = State.CLOSED
            case Welcome() if self.state is State.GREETING:
                _check_sequence(frame, 0)
                self.state = State.OPEN
                self.draining = message.draining
            case Reply() if self.state is State.OPEN and self._replied < self.sequence:
                _check_sequence(frame, self._replied + 1)
                self._replied = frame.sequence
            case Goodbye("draining") if self.state in (State.OPEN, State.LEAVING):
                self.draining = True
            case FollowUp() if self.state is State.LEAVING:
                _check_sequence(frame, self._replied)
            case Goodbye("idle") if self.state is State.OPEN:
                self.state = State.CLOSED
            case Goodbye("done") if self.state is State.LEAVING:
                self.state = State.CLOSED
            case _:
                raise _unexpected(frame, self.state)


def _check_sequence(frame: Frame, wanted: int) -> None:
    if frame.sequence != wanted:
        raise RemoteProtocolError("bad_sequence", f"{frame.sequence}, want {wanted}")


def _unexpected(frame: Frame, state: State) -> RemoteProtocolError:
    return RemoteProtocolError("out_of_order", f"{frame.kind.name} while {state.name}")
