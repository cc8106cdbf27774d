"""The server: listener, connections, deadlines, and the order in which it stops."""

import asyncio
import errno
import gc
import heapq
import ipaddress
import logging
import os
import select
from collections import Counter, deque
from collections.abc import Callable, Iterable

from twocans_core import __version__
from twocans_core.clock import SYSTEM_CLOCK, Clock
from twocans_core.host import procfs
from twocans_core.host.cgroup import MemoryLimit
from twocans_core.host.stalls import StallWatch
from twocans_core.kernel.tcpinfo import AcceptQueue
from twocans_core.net.channel import Channel
from twocans_core.net.listener import Listener
from twocans_core.net.poller import Poller
from twocans_core.net.sockets import Address, Kernel, open_keeper
from twocans_core.process.http import HttpServer
from twocans_core.process.jsonlog import LogPipe, report_bug
from twocans_core.process.lifecycle import run_service
from twocans_core.process.output import complain
from twocans_core.process.telemetry import SelfCollector, make_registry
from twocans_core.protocol.messages import Identity
from twocans_server.connections.connection import Connection
from twocans_server.connections.context import Context, Ending, Report

from .config import ServerConfig
from .deadlines import DeadlineWheel
from .limits import CONNECTION_BYTES, LOBBY_PLACES, RESERVED_DESCRIPTORS, fitting_connections
from .metrics import ServerCollector, ServerTally

__all__ = ["Server", "serve"]

log = logging.getLogger(__name__)

# accept() hands on what happened to a connection that waited; accept(2) has the list.
_GONE_ERRNOS = frozenset({errno.ECONNABORTED, errno.EINTR})
_PEERS_ERRNOS = frozenset(
    {
        *(errno.ENETDOWN, errno.EPROTO, errno.ENOPROTOOPT, errno.EHOSTDOWN, errno.ENONET),
        *(errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH),
    }
)
_SWEEP_S = 0.25
_ACCEPT_PAUSE_S = 0.1
# After so many of those in a row it is no client's doing: our own kernel, or a sandbox, says no.
_MOST_IN_VAIN = 16
# Time for handshakes that had begun when SYNs were refused to end: a few round trips.
_SETTLE_S = 0.1
# Beyond this part of the memory limit connections are shed. The kernel kills at the whole.
_FULL = 7 / 8
# So much may come in before the memory is looked at again: a sender fills 8 MiB in some 10 ms.
_LOOK_BYTES = 1024 * 1024
_SHED_AT_ONCE = 256
# Connections that one turn of the loop looks at where many are due for something together.
_DUE_AT_ONCE = 16
# A plain client cannot be told that we stop. One that was silent this long is not waiting.
_PLAIN_QUIET_NS = 1_000_000_000


class Server:
    """Everything of one server but its process: made, started and stopped on one loop.

    Args:
        config: Its settings.
        logs: For the count of dropped lines; None in tests.
        clock: Its clocks.

    Raises:
        ListenError: An address cannot be had.
    """

    def __init__(
        self, config: ServerConfig, logs: LogPipe | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._config = config
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._draining = False
        self._connections: dict[Connection, Channel] = {}
        # Who is over a cap and is to be told so, in the order in which they came.
        self._lobby: dict[Connection, None] = {}
        self._sources: Counter[bytes] = Counter()
        self._wheel: DeadlineWheel[Connection] = DeadlineWheel()
        # Who has used its share and has more to do, in the order of their turns.
        self._waiting: deque[Connection] = deque()
        self._memory = MemoryLimit()
        memory = self._memory.read()
        fitting = fitting_connections(memory and memory.limit, procfs.descriptor_limit())
        self.max_connections = min(config.max_connections, fitting)
        self._is_full = False
        self._looked_at_bytes = 0
        self.tally = ServerTally(durations=config.metrics)
        about = config.about()
        self.identity = Identity(
            os.urandom(16), about["name"], config.node, config.zone, __version__
        )
        self._context = Context(
            limits=config,
            identity=self.identity,
            begun_ns=clock.boot_ns(),
            tally=self.tally,
            clock=clock,
            host=procfs.HostWatch(clock.mono_ns),
            is_draining=lambda: self._draining,
            again=self._again,
            ended=self._ended,
        )
        self._listener = Listener(
            config.host,
            config.port,
            backlog=config.backlog,
            kernel=Kernel(stamps=config.stamps, tcp_info=config.tcp_info),
        )
        self._stalls = StallWatch(clock)
        registry = None
        if config.metrics:
            registry = make_registry(
                SelfCollector("server", self._stalls, logs, about),
                ServerCollector(self.tally, self._accept_queue, lambda: self._draining),
            )
        try:
            self._http = HttpServer(
                config.http_host,
                config.http_port,
                registry,
                can="server",
                is_healthy=self._stalls.is_turning,
                is_ready=lambda: not self._draining and self._stalls.is_turning(),
            )
        except OSError:
            self._listener.close()
            raise
        self._close_keeper = open_keeper() if config.stamps else None
        self._poller = Poller(self._loop)
        # Set while the rest of the accept queue is to be come back for.
        self._accept_later: asyncio.TimerHandle | None = None
        self._in_vain = 0  # accept() failed so often in a row

    @property
    def address(self) -> Address:
        """Where it listens; the port is the real one."""
        return self._listener.address

    @property
    def http_address(self) -> Address:
        """Where /metrics and health are; the port is the real one."""
        return self._http.address

    @property
    def open_connections(self) -> int:
        """Connections being served now."""
        return len(self._connections) - len(self._lobby)

    def start(self) -> None:
        """Begin to serve."""
        self._poller.register(self._listener.fd, self._on_listener)
        self._stalls.start()
        self._stalls.attention.attend()  # a client waits, as far as we know
        self._http.start()
        self._sweeper = self._loop.create_task(self._sweep())
        self._sweeper.add_done_callback(report_bug)

    async def stop(self) -> int:
        """Stop in five steps, and why in this order; returns how many had to be cut off.

        1. not ready, and GOODBYE to every open session: they leave by themselves;
        2. serve whoever still comes: load balancers need a while to notice;
        3. empty the accept queue, close the listener: nobody else can come;
        4. drain: whoever is here finishes, or is cut off;
        5. close /metrics, last, so that a scrape can see all this.
        """
        self._draining = True
        await self._each(list(self._connections), Connection.announce_drain)
        await asyncio.sleep(self._config.drain_accept_s)
        await self._close_listener()
        cut_off = await self._drain()
        self._sweeper.cancel()
        self._stalls.stop()
        self._poller.close()
        if self._close_keeper is not None:
            self._close_keeper()
        self._http.close()
        return cut_off

    # --- accepting ------------------------------------------------------------------------

    def _on_listener(self, _: int) -> None:
        if self._accept_later is None:
            self._accept()

    def _accept(self) -> None:
        self._accept_later = None
        wait_s = self._accept_some()
        if wait_s is not None:
            # What waits in the queue gives no new event.
            self._accept_later = self._loop.call_later(wait_s, self._accept)

    def _accept_some(self) -> float | None:
        """Accept; returns after how many seconds to go on, None when nobody waits."""
        for _ in range(self._config.accepts_per_turn):
            try:
                channel = self._listener.accept()
            except OSError as error:
                if error.errno in _GONE_ERRNOS:
                    continue
                self._in_vain += 1
                if error.errno in _PEERS_ERRNOS and self._in_vain <= _MOST_IN_VAIN:
                    continue
                self.tally.accept_errors += 1
                fields = {"error.message": os.strerror(error.errno or 0), "limited": True}
                log.error("accept_failed", extra=fields)
                return _ACCEPT_PAUSE_S
            if channel is None:
                return None
            self._in_vain = 0
            self._admit(channel, self._clock.real_ns())
        self._look_at_memory()
        self._hit("accepts_per_turn")
        return 0.0

    def _accept_queue(self) -> AcceptQueue:
        try:
            return self._listener.accept_queue()
        except OSError:  # closed: we are stopping, and a scrape is still answered
            return AcceptQueue(None, None)

    def _admit(self, channel: Channel, accepted_ns: int) -> None:
        self.tally.accepted += 1
        source = _source(channel.peer[0])
        refusal = self._refusal(source)
        if refusal and len(self._lobby) >= LOBBY_PLACES:
            # Who said nothing first, who was told already last; of these the oldest.
            first = min(self._lobby, key=lambda one: one.progress)
            self._guard(first, first.on_deadline)
        connection = Connection(channel, self._context, accepted_ns, refusal)
        self._connections[connection] = channel
        if refusal:
            self._lobby[connection] = None
        else:
            self._sources[source] += 1
        self._wheel.put(connection)
        try:
            self._poller.register(channel.fd, lambda events: self._serve(connection, events))
        except OSError:
            self._guard(connection, connection.cut_off)
            return
        # The first bytes are often here already: saves an event.
        self._serve(connection, select.EPOLLIN)

    def _refusal(self, source: bytes) -> str:
        per_source = self._config.max_connections_per_source
        if self.open_connections >= self.max_connections:
            self._hit("max_connections")
            return "connections"
        if self._is_full:
            self._hit("memory")
            return "connections"
        if per_source and self._sources[source] >= per_source:
            self._hit("max_connections_per_source")
            return "connections_per_source"
        return ""

    def _hit(self, limit: str) -> None:
        self.tally.limit_hits[limit] += 1
        log.warning("limit_reached", extra={"twocans.limit": limit, "limited": True})

    # --- serving --------------------------------------------------------------------------

    def _serve(self, connection: Connection, events: int) -> None:
        self._guard(connection, connection.on_events, events)
        if self.tally.bytes_received - self._looked_at_bytes >= _LOOK_BYTES:
            self._look_at_memory()

    def _again(self, connection: Connection) -> None:
        self._waiting.append(connection)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        """Serve one of those who have more to do, then let the loop look for others.

        So whoever asks for little waits for one share, however many ask for much.
        """
        connection = self._waiting[0]
        # Last of all, should it not be done; and the queue is not empty meanwhile.
        self._guard(connection, connection.on_turn)
        self._waiting.popleft()
        if self._waiting:
            self._loop.call_soon(self._next_turn)

    def _guard(self, connection: Connection, action: Callable[..., None], *args: int) -> None:
        """Let a connection act. A bug in it ends this connection and nothing else."""
        before_ns = connection.deadline_ns
        try:
            action(*args)
        except Exception:
            log.exception("bug", extra={"limited": True})
            connection.fail()
        if connection.deadline_ns < before_ns and connection in self._connections:
            self._wheel.put(connection)

    def _ended(self, connection: Connection, report: Report) -> None:
        channel = self._connections.pop(connection)
        if connection in self._lobby:
            del self._lobby[connection]
        else:
            source = _source(channel.peer[0])
            self._sources[source] -= 1
            if not self._sources[source]:
                del self._sources[source]
        self._wheel.remove(connection)
        self._poller.unregister(channel.fd)
        channel.close()
        self.tally.ended[report.kind, report.ending] += 1
        # Limited as one kind: a client's ERROR may hold any token, so there are many.
        fields = {
            "error.type": report.reason,
            "network.peer.address": channel.peer[0],
            "twocans.client.name": report.client.name if report.client else "",
            "limited": True,
        }
        if report.ending in (Ending.REFUSED, Ending.SLOW):
            log.warning("client_refused", extra=fields)
        elif report.ending is Ending.DAMAGED:  # which is nobody's fault at either end
            log.warning("frame_damaged", extra=fields)

    # --- memory ---------------------------------------------------------------------------

    def _look_at_memory(self) -> None:
        """Shed connections while the kernel is about to kill us for what they hold."""
        self._looked_at_bytes = self.tally.bytes_received
        memory = self._memory.read()
        excess = memory.used - int(memory.limit * _FULL) if memory is not None else 0
        self._is_full = excess > 0
        if self._is_full:
            self._shed(excess)

    def _shed(self, excess: int) -> None:
        """Part with whoever is least loss, until that much is free again."""
        # Strangers first: who was not greeted, then who holds most, then who is longest silent.
        for connection in heapq.nsmallest(
            _SHED_AT_ONCE,
            self._connections,
            key=lambda one: (one.is_open_session, -one.held_bytes, one.idle_since_ns),
        ):
            if excess <= 0:
                break
            excess -= CONNECTION_BYTES + connection.held_bytes
            self._hit("memory")
            self._guard(connection, connection.shed)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            self._look_at_memory()
            now_ns = self._clock.mono_ns()
            for batch in self._wheel.due(now_ns, _DUE_AT_ONCE):
                for connection in batch:
                    self._guard(connection, connection.on_deadline)
                await asyncio.sleep(0)  # the others' turn

    async def _each(
        self, connections: Iterable[Connection], action: Callable[[Connection], None]
    ) -> None:
        """Let each of many connections act, and the others have their turn between."""
        for number, connection in enumerate(connections, 1):
            if connection in self._connections:
                self._guard(connection, lambda one=connection: action(one))
            if number % _DUE_AT_ONCE == 0:
                await asyncio.sleep(0)

    # --- stopping -------------------------------------------------------------------------

    async def _close_listener(self) -> None:
        try:
            self._listener.refuse_syns()
        except OSError as error:  # the stop is a little less gentle
            fields = {"error.message": os.strerror(error.errno or 0)}
            log.warning("syns_not_dropped", extra=fields)
        await asyncio.sleep(_SETTLE_S)
        self._poller.unregister(self._listener.fd)
        if self._accept_later is not None:
            self._accept_later.cancel()
        while self._accept_some() == 0:  # noqa: ASYNC110 - nothing is polled for
            await asyncio.sleep(0)  # the others' turn
        self._listener.close()

    async def _drain(self) -> int:
        deadline_ns = self._clock.mono_ns() + int(self._config.drain_s * 1e9)
        while self._connections and self._clock.mono_ns() < deadline_ns:
            quiet_ns = self._clock.mono_ns() - _PLAIN_QUIET_NS
            quiet = [
                connection
                for connection in self._connections
                if not connection.is_open_session and connection.idle_since_ns < quiet_ns
            ]
            await self._each(quiet, Connection.stop)
            await asyncio.sleep(0.05)
        cut_off = list(self._connections)
        for connection in cut_off:
            self._guard(connection, connection.cut_off)
        return len(cut_off)


def serve(config: ServerConfig, prog: str, level: Callable[[], str]) -> int:
    """Be the server's process; returns its exit code. ``level`` reads the log's level."""
    return run_service(
        lambda stop, logs: _run(config, stop, logs),
        prog=prog,
        level=level,
        port_flags="--port or --http-port",
        leaving=(
            f"stopping: new connections are served for {config.drain_accept_s:g} s, then open "
            f"ones may finish for {config.drain_s:g} s"
        ),
    )


async def _run(config: ServerConfig, stop: asyncio.Event, logs: LogPipe | None = None) -> int:
    """Serve until ``stop`` is set, then drain. Returns the process's exit code.

    Raises:
        ListenError: An address cannot be had.
    """
    server = Server(config, logs)
    server.start()
    # What lives now lives for ever: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    if os.isatty(2):  # elsewhere the log lines tell, and may be mixed with these
        served = "metrics" if config.metrics else "healthz"
        complain(
            f"twocans-server: listening on {server.address}, {served} on "
            f"{server.http_address}/{served}"
        )
    fields = {
        "server.address": server.address.host,
        "server.port": server.address.port,
        "twocans.http.port": server.http_address.port,
        "twocans.max_connections": server.max_connections,
        "service.instance.id": server.identity.name,
        **config.where(),
    }
    log.info("listening", extra=fields)
    # Where memory is what bounds it, the limits' table says so, and the line above how many.
    by_descriptors = fitting_connections(None, procfs.descriptor_limit())
    if server.max_connections == by_descriptors < config.max_connections:
        few = {
            "twocans.descriptors.limit": procfs.descriptor_limit(),
            "twocans.descriptors.wanted": config.max_connections + RESERVED_DESCRIPTORS,
            "twocans.max_connections": server.max_connections,
        }
        log.warning("few_descriptors", extra=few)
    await stop.wait()
    cut_off = await server.stop()
    tally = server.tally
    log.info(
        "stopped",
        extra={
            "twocans.connections.accepted": tally.accepted,
            "twocans.sessions.done": tally.ended["framed", Ending.DONE],
            "twocans.exchanges": tally.exchanges,
            "twocans.connections.cut_off": cut_off,
            "twocans.connections.ended": {
                " ".join(kind): count for kind, count in tally.ended.items() if count
            },
        },
    )
    return 0


def _source(host: str) -> bytes:
    """Return what one client can hold many of: an IPv4 address, or an IPv6 /64."""
    packed = ipaddress.ip_address(host.partition("%")[0]).packed
    return packed if len(packed) == 4 else packed[:8]
