"""A world for one connection: a wire that plays a script, and clocks that stand still.

``World.connect`` gives a ``Peer``: what it is told happens at once, and what the server did
can be read off it. Nothing here waits, and no thread, socket or loop takes part.
"""

import select
from collections import deque

from twocans_core.clock import Clock
from twocans_core.host.procfs import HostWatch
from twocans_core.kernel.tcpinfo import Counters, HostCounts
from twocans_core.net.channel import Received
from twocans_core.protocol.frames import MAGIC, VERSION, Frame, Kind, encode
from twocans_core.protocol.messages import Goodbye, Hello, Identity, Message, Request
from twocans_core.protocol.session import ClientSession
from twocans_core.protocol.witness import HostSeen
from twocans_server.connections.connection import Connection
from twocans_server.connections.context import Context
from twocans_server.connections.endings import Report
from twocans_server.connections.witness import Records
from twocans_server.limits import Limits
from twocans_server.tally import ServerTally

HOST = HostCounts(7, 8)
COUNTERS = Counters(*range(1, 13))
CLIENT = Identity(b"c" * 16, "client", "node-1", "zone-1", "0.1.0")
SERVER = Identity(b"s" * 16, "server", "node-2", "zone-2", "0.1.0")
ADDRESS = ("192.0.2.7", 4567)
READ_SIZE = 64 * 1024
SECOND_NS = 1_000_000_000

HELLO = encode(Frame(Kind.HELLO, 0, Hello(CLIENT, 7).encode()))
GOODBYE = encode(Frame(Kind.GOODBYE, 0, Goodbye("done").encode()))


def request(sequence: int, payload: bytes = b"payload") -> bytes:
    return encode(Frame(Kind.REQUEST, sequence, Request.of(payload).encode()))


class World:
    """What ``Context`` holds, made to be looked at, and the ``Host`` of what is in it.

    Attributes:
        work_ns: For so long our thread runs between a read and the stamp of each answer.
        stall_ns: For so long it does not, there.
    """

    def __init__(self, **limits: float) -> None:
        self.limits = Limits(**limits)  # type: ignore[arg-type]
        self.tally = ServerTally()
        self.mono_ns = 1_000 * SECOND_NS
        self.real_ns = 1_700_000_000 * SECOND_NS
        self.cpu_ns = 5 * SECOND_NS
        self.work_ns = 0
        self.stall_ns = 0
        self.draining = False
        self.host = HOST
        self.options: int | None = None
        self.turns: deque[Connection] = deque()
        self.reports: list[Report] = []
        mono_ns = lambda: self.mono_ns  # noqa: E731
        clock = Clock(mono_ns, lambda: self.real_ns, mono_ns, lambda: self.cpu_ns)
        self.records = Records(self.limits, clock, self.tally, self.tell_host)
        self.context = Context(
            limits=self.limits,
            identity=SERVER,
            begun_ns=0,
            tally=self.tally,
            clock=clock,
            host=HostWatch(mono_ns, lambda: self.host),
            options=HostWatch(mono_ns, lambda: self.options, 0),
            is_draining=lambda: self.draining,
            records=self.records,
        )

    def connect(
        self, refusal: str = "", accepted_ns: int | None = None, address: tuple[str, int] = ADDRESS
    ) -> "Peer":
        """Accept a client; now, unless the caller says when that was."""
        accepted_ns = self.real_ns if accepted_ns is None else accepted_ns
        return Peer(self, refusal, accepted_ns, address)

    def pass_s(self, seconds: float) -> None:
        self.mono_ns += int(seconds * SECOND_NS)
        self.real_ns += int(seconds * SECOND_NS)

    def answer(self) -> None:
        """Let the time pass that an answer takes."""
        self.mono_ns += self.work_ns + self.stall_ns
        self.real_ns += self.work_ns + self.stall_ns
        self.cpu_ns += self.work_ns

    def run_turns(self) -> int:
        """Give every connection that asked for it another turn, until none asks."""
        count = 0
        while self.turns:
            self.turns.popleft().on_turn()
            count += 1
            assert count < 100_000, "a connection asks for turns for ever"
        return count

    def tell_host(self, since_ns: int, host: str) -> HostSeen:
        return HostSeen(since_ns=since_ns, cause=host)

    def again(self, connection: Connection) -> None:
        self.turns.append(connection)

    def ended(self, connection: Connection, report: Report) -> None:
        wire = connection.wire
        assert isinstance(wire, ScriptedWire)
        assert not wire.closed, "a connection ended twice"
        wire.closed = True
        self.records.ended(connection, report)
        self.reports.append(report)


class ScriptedWire:
    """A ``Wire``: ``inbox`` is what the kernel has for us, ``room`` what it takes from us."""

    def __init__(self, world: World, peer: tuple[str, int]) -> None:
        self.peer = peer
        self.probes_silence = self.is_quiet = False
        self.in_vain: int | None = 0
        self.inbox: deque[bytes | OSError] = deque()
        self.room: int | None = None
        self.send_error: OSError | None = None
        self.sent = bytearray()
        self.sends: list[int] = []
        self.stamped: list[int] = []
        self.taken = 0
        self.reads = 0
        self.fin = False
        self.closed = False
        self.stamping = False
        self.lost_stamps = False
        self.came_ns_ago: int | None = 2_000
        self.leaves_in_ns = 3_000
        self.kernel = COUNTERS
        self._world = world
        self._tx: dict[int, int] = {}

    def stamp_transmits(self) -> bool:
        self._check()
        assert not self.sent, "stamps count from here, and bytes went out before"
        self.stamping = True
        return True

    def receive(self) -> Received | None:
        self._check()
        self.reads += 1
        if not self.inbox:
            return None
        step = self.inbox.popleft()
        if isinstance(step, OSError):
            raise step
        if not step:
            self.inbox.append(b"")  # the end of a stream can be read again and again
        if len(step) > READ_SIZE:
            self.inbox.appendleft(step[READ_SIZE:])
            step = step[:READ_SIZE]
        self.taken += len(step)
        ago_ns = self.came_ns_ago
        return Received(step, None if ago_ns is None else self._world.real_ns - ago_ns)

    def send_stamped(self, data: bytes | bytearray | memoryview) -> int:
        count = self.send(data)
        self.stamped.append(len(self.sent))
        if count and self.stamping and not self.lost_stamps:
            self._tx[len(self.sent)] = self._world.real_ns + self.leaves_in_ns
        return count

    def send(self, data: bytes | bytearray | memoryview) -> int:
        self._check()
        assert not self.fin, "bytes after our FIN"
        assert len(data), "an empty send"
        if self.send_error is not None:
            raise self.send_error
        count = len(data) if self.room is None else min(self.room, len(data))
        if self.room is not None:
            self.room -= count
        self.sent += bytes(data[:count])
        if count:
            self.sends.append(count)
        return count

    def take_tx_ns(self, end: int) -> int | None:
        self._check()
        return self._tx.pop(end, None)

    def counters(self) -> Counters:
        self._check()
        self._world.answer()
        return self.kernel

    def counted(self) -> tuple[Counters, int | None]:
        self._check()
        return self.kernel, self.in_vain

    def let_be_silent(self) -> None:
        self._check()
        self.is_quiet = True

    def probe_silence(self) -> None:
        self._check()
        self.probes_silence = True

    def end_output(self) -> None:
        self._check()
        assert not self.fin, "two FINs"
        self.fin = True

    def _check(self) -> None:
        assert not self.closed, "work on a connection that is over"


class Peer:
    """The client's end of one scripted connection."""

    def __init__(
        self, world: World, refusal: str, accepted_ns: int, address: tuple[str, int]
    ) -> None:
        self.world = world
        self.wire = ScriptedWire(world, address)
        self.connection = Connection(self.wire, world.context, world, accepted_ns, refusal)
        world.records.accepted(address, self.connection)
        self.session = ClientSession(max_payload=1 << 20)
        self._parsed = 0

    # --- what it does ---------------------------------------------------------------------

    def arrive(self, *steps: bytes | OSError) -> None:
        """Let each step be what one read returns; ``b""`` is the end of the stream."""
        self.wire.inbox += steps
        self.event(select.EPOLLIN | select.EPOLLOUT)

    def read(self, count: int | None = None) -> None:
        """Make room for so many bytes of what the server sends; None: for all."""
        self.wire.room = count
        self.event(select.EPOLLOUT)

    def event(self, events: int, *, turns: bool = True) -> None:
        self.connection.on_events(events)
        if turns:
            self.world.run_turns()

    def greet(self) -> None:
        self.session.hello(Hello(CLIENT, 7))
        self.arrive(HELLO)
        assert self.messages(), "no WELCOME"

    def ask(self, payload: bytes = b"payload") -> None:
        self.arrive(self.session.request(Request.of(payload)))

    def expire(self) -> None:
        """Let the time of the connection's deadline come."""
        self.world.mono_ns = max(self.world.mono_ns, self.connection.deadline_ns)
        self.connection.on_deadline()
        self.world.run_turns()

    # --- what it sees ---------------------------------------------------------------------

    def messages(self) -> list[Message]:
        """Return what the server said since the last call, by a client's rules."""
        self.session.feed(bytes(self.wire.sent[self._parsed :]))
        self._parsed = len(self.wire.sent)
        found = []
        while (message := self.session.next_message()) is not None:
            found.append(message)
        return found

    @property
    def report(self) -> Report | None:
        assert len(self.world.reports) <= 1
        return self.world.reports[0] if self.world.reports else None

    @property
    def held_bytes(self) -> int:
        """What the server holds for this client in its own memory."""
        conversation = self.connection._conversation
        decoder_bytes = conversation._session.decoder.buffered_bytes if conversation else 0
        return len(self.connection._outbox.unsent or b"") + decoder_bytes


def frames(data: bytes) -> list[tuple[int, int, bytes]]:
    """Cut a stream into (kind, sequence, body), by the specification's table alone."""
    found = []
    while data:
        assert data[:3] == MAGIC + bytes((VERSION,)), data[:20].hex()
        length = int.from_bytes(data[4:8])
        assert len(data) >= 20 + length
        found.append((data[3], int.from_bytes(data[8:12]), data[20 : 20 + length]))
        data = data[20 + length :]
    return found
