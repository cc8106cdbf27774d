"""The evidence of one path as it comes in: it is judged once a second, and asked more of."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from twocans_client.evidence.lots import ports_to_try
from twocans_client.evidence.results import Exchange, ProbeResult
from twocans_client.evidence.rows import Exchanged, HeldEnded, HeldLook, Kept, Waiting
from twocans_client.evidence.window import Window
from twocans_client.paths.path import Learnt, Path
from twocans_client.paths.purse import Purse
from twocans_client.probes.endings import Ending
from twocans_client.probes.tools import Tools
from twocans_client.verdicts.engine import Began, Confirmed, Ended, Engine
from twocans_core.clock import Clock
from twocans_core.host.stalls import Stalled
from twocans_core.kernel.tcpinfo import TcpCounts

from .questions import Questions
from .sizing import Sizing

if TYPE_CHECKING:
    from twocans_client.probes.held import Held

__all__ = ["Inquiry"]

_LOOK_NS = 1_000_000_000
# A probe that is under way for so long waits for something: longer than any path takes, and a SYN
# has been sent again.
_LONG_NS = 1_000_000_000
# Local ports of connections that failed so lately are tried again.
_TRIED_NS = 10_000_000_000


class Inquiry:
    """What a monitor tells of one path, what follows from it, and what is to be asked next.

    Args:
        path: Whose verdicts they are.
        purse: What pays for questions.
        tools: Gives what to ask with.
        clock: The clocks.
        held: Gives the held connection, if there is one.
        load: Gives what our host has to send and to receive.

    Attributes:
        window: The evidence.
    """

    def __init__(
        self,
        path: Path,
        purse: Purse,
        tools: Callable[[], Tools],
        clock: Clock,
        *,
        held: "Callable[[], Held | None]",
        load: Callable[[], TcpCounts],
    ) -> None:
        self._load = load
        self.window = Window()
        self._path = path
        self._held = held
        self._clock = clock
        self._engine = Engine(self.window)
        path.verdicts = self._engine.standing
        self._questions = Questions(
            self.window, purse, tools, clock, address=lambda: path.target.address, held=held
        )
        self._sizing = Sizing(self.window, tools, purse, address=lambda: path.target.address)
        self._under_way: dict[int, ProbeResult] = {}  # by identity, oldest first
        self._looked_ns = 0
        self._ports: tuple[int, ...] = ()

    def stop(self) -> None:
        """Ask nothing any more."""
        self._questions.stop()
        self._sizing.stop()

    # --- what comes in ------------------------------------------------------------------------

    def begun(self, result: ProbeResult) -> None:
        """A probe is under way; it fills this result in."""
        self._under_way[id(result)] = result

    def over(self, result: ProbeResult) -> None:
        """It is not any more."""
        del self._under_way[id(result)]

    def probed(self, result: ProbeResult, learnt: Learnt) -> None:
        """A probe has ended, was judged, and this is what its path learnt of it."""
        window, path = self.window, self._path
        window.growth = path.growth
        window.probed(result, learnt.segments)
        window.proxy_sign, window.boxes = path.proxy.sign, path.proxy.boxes
        if learnt.clock_steps:
            window.server_steps.append(result.ended_ns)

    def exchanged(self, exchange: Exchange, *, is_stale: bool, stepped: bool) -> None:
        """The held connection had an exchange.

        Args:
            exchange: It.
            is_stale: It began before our clock was stepped.
            stepped: The offset of the server's clock jumped with it.
        """
        now_ns = self._clock.mono_ns()
        if stepped:
            self.window.server_steps.append(now_ns)
        split = None if exchange.resent or is_stale else exchange.split
        self.window.growth = self._path.growth
        self.window.exchanged(Exchanged(now_ns, split, exchange.resent, exchange.duration_ns))

    def held_ended(self, ending: Ending) -> None:
        """The held connection ended, or could not be had."""
        life = ending.life
        self.window.held_ended(
            HeldEnded(
                self._clock.mono_ns(),
                ending.reason,
                ending.detail,
                ending.lasted_ns,
                life.began_ns if life is not None else None,
                life.connection if life is not None else None,
                ending.local[1] if ending.local else None,
                ending.damaged_in,
            )
        )

    def kept(self, since_ns: int, until_ns: int, stalled: Stalled) -> None:
        """A probe was due, and could not begin until then."""
        self.window.kept.append(Kept(since_ns, until_ns, stalled))

    def stepped(self) -> None:
        """Our own clock was stepped."""
        self.window.own_steps.append(self._clock.mono_ns())

    # --- what follows -------------------------------------------------------------------------

    def look(self, now_ns: int) -> Sequence[Began | Confirmed | Ended]:
        """Judge the evidence, once a second, and ask what is still to be known.

        Args:
            now_ns: CLOCK_MONOTONIC.

        Returns:
            The verdicts that began, were confirmed or ended.
        """
        if now_ns - self._looked_ns < _LOOK_NS:
            return ()
        self._looked_ns = now_ns
        self.window.loads.look(now_ns, self._load())
        window, held = self.window, self._held()
        window.waiting = tuple(self._waiting(now_ns))
        for result in self._under_way.values():
            if result.is_sized and result.standing is not None:
                window.sizes.look(result)
        window.is_held = held is not None and held.is_connected
        if window.is_puzzling and held is not None:
            self._look_at(held)
        changes = self._engine.look(now_ns)
        self._questions.look(now_ns, self._engine.explained)
        self._sizing.look(now_ns)
        if window.is_puzzling:
            self._ports = tuple(ports_to_try(window, now_ns - _TRIED_NS))
        return changes

    def conclude(self, now_ns: int) -> Sequence[Began | Confirmed | Ended]:
        """Judge the evidence a last time, and ask nothing any more; returns as ``look``."""
        self.stop()
        return self._engine.look(now_ns)

    def take_ports(self) -> tuple[int, ...]:
        """Return local ports that the next probes are to use, if any are; each time others."""
        ports, self._ports = self._ports, ()
        return ports

    def _look_at(self, held: "Held") -> None:
        """See how the held connection stands, which costs two calls to the system."""
        life = held.look()
        if life is not None and life.opened_ns is not None:
            self.window.held_looked(
                HeldLook(
                    life.at_ns,
                    life.opened_ns,
                    life.heard_ns,
                    life.counters.segs_in,
                    life.in_vain,
                    life.probes_silence,
                    life.connection,
                    life.local[1] if life.local else None,
                )
            )

    def _waiting(self, now_ns: int) -> Iterator[Waiting]:
        """Yield the probes that are under way for long, which tell of an outage before they end."""
        for result in self._under_way.values():
            if now_ns - result.started_ns < _LONG_NS:
                return
            connected_ns = result.connect_ns and result.started_ns + result.connect_ns
            port = result.local[1] if result.local else None
            yield Waiting(result.started_ns, connected_ns, port, result.server is not None)
