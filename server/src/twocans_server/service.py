"""The server: what its parts are, how connections are served, and in which order it stops."""

import asyncio
import functools
import logging
import os
import select

from twocans_core import __version__
from twocans_core.clock import SYSTEM_CLOCK, Clock
from twocans_core.host import procfs
from twocans_core.host.stalls import StallWatch
from twocans_core.net.channel import Channel
from twocans_core.net.half_open import HalfOpen
from twocans_core.net.listener import Listener
from twocans_core.net.poller import Poller
from twocans_core.net.sockets import Address, Kernel, open_keeper
from twocans_core.process.http import HttpServer
from twocans_core.process.jsonlog import LogPipe, report_bug
from twocans_core.process.telemetry import SelfCollector, make_registry
from twocans_core.protocol.messages import Identity
from twocans_core.protocol.witness import HostSeen
from twocans_server.connections.connection import Connection
from twocans_server.connections.context import Context
from twocans_server.connections.endings import Ending, Report
from twocans_server.connections.witness import Records

from .acceptor import Acceptor
from .admission import Admission
from .config import ServerConfig
from .history import History
from .limits import fitting_connections
from .metrics import ServerCollector
from .roster import Roster
from .tally import ServerTally

__all__ = ["Server"]

log = logging.getLogger(__name__)

_SWEEP_S = 0.25
# A plain client cannot be told that we stop. One that was silent this long is not waiting.
_PLAIN_QUIET_NS = 1_000_000_000


class Server:
    """Everything of one server but its process: made, started and stopped on one loop.

    It is the ``Host`` of its connections.

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
        self._draining = False
        about = config.about()
        self.identity = Identity(
            os.urandom(16), about["name"], config.node, config.zone, __version__
        )
        self.tally = ServerTally(durations=config.metrics)
        self._stalls = StallWatch(clock)
        self._history = History(clock, self._stalls, self.tally)
        self._records = Records(config, clock, self.tally, self._host_seen)
        self._context = Context(
            limits=config,
            identity=self.identity,
            begun_ns=clock.boot_ns(),
            tally=self.tally,
            clock=clock,
            host=procfs.HostWatch(clock.mono_ns, procfs.HostReader()),
            options=procfs.HostWatch(clock.mono_ns, procfs.tcp_options, procfs.OPTIONS_AGE_NS),
            is_draining=lambda: self._draining,
            records=self._records,
        )
        # Who is here, who may be, and when each has its turn.
        self._loop = asyncio.get_running_loop()
        self._roster = Roster(self._loop, self.tally, self._hit)
        # Lowered at the start, not refused later: a client that is told BUSY knows more than one
        # whose connection waits in the kernel's queue because accept() has no descriptor left.
        fitting = fitting_connections(
            self._roster.memory.limit_bytes, procfs.descriptor_limit(), config.witness_connections
        )
        self.max_connections = min(config.max_connections, fitting)
        self._admission: Admission[Connection] = Admission(
            self.max_connections, config.max_connections_per_source, self._hit
        )
        # What the world is seen and served through.
        self._listener = Listener(
            config.host,
            config.port,
            backlog=config.backlog,
            kernel=Kernel(stamps=config.stamps, tcp_info=config.tcp_info),
        )
        self._half_open = HalfOpen(*self._listener.address, clock.mono_ns)
        self._acceptor = Acceptor(
            self._listener,
            config.accepts_per_turn,
            self.tally,
            self._admit,
            self._accepted_many,
            self._loop.call_later,
        )
        registry = None
        if config.metrics:
            registry = make_registry(
                SelfCollector("server", self._stalls, logs, about),
                ServerCollector(self.tally, self._acceptor.queue, lambda: self._draining),
            )
        try:
            self._http = HttpServer(
                config.http_host,
                config.http_port,
                registry,
                role="server",
                is_healthy=self._stalls.is_turning,
                is_ready=lambda: not self._draining and self._stalls.is_turning(),
            )
        except OSError:
            self._listener.close()
            raise
        self._close_keeper = open_keeper() if config.stamps else None
        self._poller = Poller(self._loop)

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
        return self._admission.served

    def start(self) -> None:
        """Begin to serve."""
        self._poller.register(self._listener.fd, self._acceptor.on_event)
        self._stalls.start()
        self._history.look()
        self._stalls.attention.attend()  # a client waits, as far as we know
        self._http.start()
        self._sweeper = self._loop.create_task(self._sweep())
        self._sweeper.add_done_callback(report_bug)

    async def stop(self) -> int:
        """Stop in five steps, and why in this order; returns how many had to be cut off.

        1. not ready, and GOODBYE to every open session: they leave by themselves;
        2. serve those who still come: load balancers need a while to notice;
        3. empty the accept queue, close the listener: nobody else can come;
        4. drain: those who are here finish, or are cut off;
        5. close /metrics, last, so that a scrape can see all this.
        """
        self._draining = True
        # A copy: while this takes its turns, others come and go.
        await self._roster.each(list(self._roster.channels), Connection.announce_drain)
        await asyncio.sleep(self._config.drain_accept_s)
        await self._acceptor.close(lambda: self._poller.unregister(self._listener.fd))
        cut_off = await self._drain()
        self._sweeper.cancel()
        self._stalls.stop()
        self._poller.close()
        if self._close_keeper is not None:
            self._close_keeper()
        self._http.close()
        return cut_off

    # --- coming and going -----------------------------------------------------------------

    def _admit(self, channel: Channel) -> None:
        accepted_ns = self._clock.real_ns()
        self.tally.accepted += 1
        host = channel.peer[0]
        refusal = self._admission.refusal(host, is_memory_full=self._roster.memory.is_full)
        if refusal and (first := self._admission.in_the_way()) is not None:
            self._roster.guard(first, first.on_deadline)
        connection = Connection(channel, self._context, self, accepted_ns, refusal)
        # Counted before it can end, so that nothing is taken off that was not counted.
        self._admission.enter(connection, host, refusal)
        self._roster.add(connection, channel)
        self._records.accepted(channel.peer, connection)
        try:
            # ENOSPC beyond fs.epoll.max_user_watches, ENOMEM without memory (epoll_ctl(2)).
            self._poller.register(channel.fd, functools.partial(self._roster.serve, connection))
        except OSError:
            self._roster.guard(connection, connection.cut_off)
            return
        # The first bytes are often here already: saves an event.
        self._roster.serve(connection, select.EPOLLIN)

    def _accepted_many(self) -> None:
        self._roster.look_at_memory()
        self._hit("accepts_per_turn")

    def again(self, connection: Connection) -> None:
        """Give a connection another turn, as ``Host`` says."""
        self._roster.again(connection)

    def ended(self, connection: Connection, report: Report) -> None:
        """Forget a connection and close its channel, as ``Host`` says."""
        channel = self._roster.remove(connection)
        self._admission.leave(connection, channel.peer[0])
        # Before the descriptor is closed: its number is given to the next connection.
        self._poller.unregister(channel.fd)
        channel.close()
        self._records.ended(connection, report)
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

    def _host_seen(self, since_ns: int, host: str) -> HostSeen:
        """Return what our host went through, for a client at that address."""
        queue = self._acceptor.queue()
        return self._history.since(since_ns)._replace(
            connections=self._admission.served,
            max_connections=self.max_connections,
            accept_queue=queue.length,
            accept_queue_limit=queue.limit,
            half_open=self._half_open.of(host),
        )

    def _hit(self, limit: str) -> None:
        self.tally.limit_hits[limit] += 1
        log.warning("limit_reached", extra={"twocans.limit": limit, "limited": True})

    # --- sweeping and draining ------------------------------------------------------------

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            self._roster.look_at_memory()
            self._history.look()
            await self._roster.act_on_deadlines(self._clock.mono_ns())

    async def _drain(self) -> int:
        connections = self._roster.channels
        deadline_ns = self._clock.mono_ns() + int(self._config.drain_s * 1e9)
        while connections and self._clock.mono_ns() < deadline_ns:
            quiet_ns = self._clock.mono_ns() - _PLAIN_QUIET_NS
            quiet = [
                connection
                for connection in connections
                if not connection.is_open_session and connection.idle_since_ns < quiet_ns
            ]
            await self._roster.each(quiet, Connection.stop)
            await asyncio.sleep(0.05)
        cut_off = list(connections)
        for connection in cut_off:
            self._roster.guard(connection, connection.cut_off)
        return len(cut_off)
