"""What tests put in the place of clocks, sockets and resolvers. Small, and no mocks."""

import array
import contextlib
import os
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence

import pytest

from twocans_core.clock import Clock
from twocans_core.kernel.stamps import Transmit
from twocans_core.kernel.standing import NO_STANDING, Standing
from twocans_core.kernel.tcpinfo import Counters, Limited
from twocans_core.net.channel import Received
from twocans_core.net.sockets import Address
from twocans_core.net.streams import DeadlineExceeded
from twocans_core.protocol.frames import MAGIC, VERSION

__all__ = [
    "COUNTERS",
    "DROP",
    "Attention",
    "FakeClock",
    "FakeResolver",
    "MemoryStream",
    "Step",
    "attach",
    "connection_refused",
    "full_pipe",
    "header",
    "name_unknown",
    "needs_filters",
]

COUNTERS = Counters(0, 11, 12, 5, 6, 50, 40, 0, 0, 0, 1448, 7)
"""What a fake stream's kernel says when a test does not care."""

DROP = array.array("B", struct.pack("=HBBI", 6, 0, 0, 0))
"""A program in classic BPF: every packet is dropped."""


def attach(sock: socket.socket) -> None:
    """Let a socket receive nothing more."""
    program = struct.pack("HP", 1, DROP.buffer_info()[0])
    sock.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER


def _may_attach() -> bool:
    with socket.socket() as sock:
        try:
            attach(sock)
        except OSError:
            return False
    return True


needs_filters = pytest.mark.skipif(
    not _may_attach(), reason="this kernel lets only CAP_NET_ADMIN put a filter on a socket"
)


def header(
    kind: int,
    length: int,
    *,
    sequence: int = 0,
    magic: bytes = MAGIC,
    version: int = VERSION,
    body: bytes = b"",
) -> bytes:
    """A frame's header as docs/protocol.md has it, whatever it says, its CRCs right.

    ``body``: what of the body the CRC is of.
    """
    head = magic + bytes((version, kind)) + length.to_bytes(4) + sequence.to_bytes(4)
    head += zlib.crc32(body).to_bytes(4)
    return head + zlib.crc32(head).to_bytes(4)


class FakeClock:
    """Three clocks that only ``advance`` moves.

    Attributes:
        mono_ns: CLOCK_MONOTONIC.
        real_ns: CLOCK_REALTIME. A test may set it: that is a step.
        boot_ns: CLOCK_BOOTTIME.
    """

    def __init__(self) -> None:
        self.mono_ns = 1_000_000_000_000
        self.real_ns = 1_700_000_000_000_000_000
        self.boot_ns = 2_000_000_000_000

    def advance(self, ns: int) -> None:
        """Let time pass on all three."""
        self.mono_ns += ns
        self.real_ns += ns
        self.boot_ns += ns

    def suspend(self, ns: int) -> None:
        """Let time pass as a suspended host sees it: CLOCK_MONOTONIC stands still."""
        self.real_ns += ns
        self.boot_ns += ns

    def clock(self) -> Clock:
        """Return it in the form that the code takes."""
        return Clock(lambda: self.mono_ns, lambda: self.real_ns, lambda: self.boot_ns)


class Attention:
    """Stands for ``StallWatch.attention``: counts who waits now, and who came so far."""

    def __init__(self) -> None:
        self.now = self.ever = 0

    def __enter__(self) -> None:
        self.now += 1
        self.ever += 1

    def __exit__(self, *_: object) -> None:
        self.now -= 1


Step = bytes | Received | Exception | Callable[[bytes], bytes | Received]


class MemoryStream:
    """A ``streams.ByteStream`` that plays a script.

    Args:
        script: What each ``receive`` gives, in order. Bytes (``b""`` is the end of the stream)
            or a ``Received`` are returned, an exception is raised, a function is called with all
            bytes sent so far and its result returned. After the last step there is silence:
            ``DeadlineExceeded``.
        clock: Silence lasts until the deadline on it; None: nobody looks.
        step_ns: How long each step takes on the clock.

    Attributes:
        sent: Every byte sent so far.
        tx_ns: Transmit stamps by the offset where their write ended; each can be taken once.
        queueing_ns: How long before them each was queued.
        send_error: Raised by every ``send_all``, until it is None again.
        kernel: What ``counters`` returns.
        limits: What ``limited`` returns.
        in_vain: What ``sent_in_vain`` returns.
        stands: What ``standing`` returns.
        soft_error: What ``take_soft_error`` returns.
        deadlines: Of every ``receive`` and ``send_all``, in order.
        output_ended: ``end_output`` was called.
        closed: ``close`` was called.
    """

    def __init__(self, *script: Step, clock: FakeClock | None = None, step_ns: int = 0) -> None:
        self.script = list(script)
        self.sent = b""
        self.tx_ns: dict[int, int] = {}
        self.queueing_ns = 0
        self.send_error: Exception | None = None
        self.kernel = COUNTERS
        self.limits = Limited(0, 0, 0)
        self.in_vain: int | None = 0
        self.stands = NO_STANDING
        self.soft_error: int | None = None
        self.deadlines: list[int] = []
        self.output_ended = False
        self.closed = False
        self._clock = clock
        self._step_ns = step_ns

    @property
    def sent_bytes(self) -> int:
        return len(self.sent)

    async def receive(self, deadline_ns: int) -> Received:
        self.deadlines.append(deadline_ns)
        if not self.script:
            if self._clock is not None:
                self._clock.advance(max(0, deadline_ns - self._clock.mono_ns))
            raise DeadlineExceeded
        if self._clock is not None:
            self._clock.advance(self._step_ns)
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        if callable(step):
            step = step(self.sent)
        return step if isinstance(step, Received) else Received(step, None)

    async def send_all(self, data: bytes, deadline_ns: int, *, stamped: bool = False) -> None:
        self.deadlines.append(deadline_ns)
        if self.send_error is not None:
            raise self.send_error
        self.sent += data

    def take_transmit(self, end: int) -> Transmit:
        left_ns = self.tx_ns.pop(end, None)
        return Transmit(left_ns and left_ns - self.queueing_ns, left_ns)

    def counters(self) -> Counters:
        return self.kernel

    def limited(self) -> Limited:
        return self.limits

    def send_buffer(self) -> int | None:
        return 87_040

    def sent_in_vain(self) -> int | None:
        return self.in_vain

    def standing(self) -> Standing:
        return self.stands

    def take_soft_error(self) -> int | None:
        return self.soft_error

    def local_address(self) -> tuple[str, int]:
        return "192.0.2.1", 40_000

    def end_output(self) -> None:
        self.output_ended = True

    def close(self) -> None:
        self.closed = True


def full_pipe(*, blocking: bool) -> tuple[int, int]:
    """A pipe that takes nothing more, and that nobody reads."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write_fd, bytes(4_096))
    os.set_blocking(write_fd, blocking)
    return read_fd, write_fd


class FakeResolver:
    """A ``sockets.resolve`` that knows what it is told.

    Args:
        names: What each name resolves to: addresses, or the error to raise. May be changed
            at any time. A name that is not there is unknown.

    Attributes:
        asked: Names looked up so far, in order.
        gate: While it is cleared, look-ups hang: a resolver that does not answer.
    """

    def __init__(self, names: Mapping[str, Sequence[str] | OSError]) -> None:
        self.names = dict(names)
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        if not self.gate.wait(30):
            raise AssertionError("nobody opened the gate")
        found = self.names.get(host, name_unknown())
        if isinstance(found, OSError):
            raise found
        return [Address(address, port) for address in found]


def connection_refused() -> OSError:
    """Return what connect() raises where nobody listens."""
    return ConnectionRefusedError(111, "Connection refused")


def name_unknown() -> OSError:
    """Return what getaddrinfo() raises for a name that does not exist."""
    return socket.gaierror(socket.EAI_NONAME, "Name or service not known")
