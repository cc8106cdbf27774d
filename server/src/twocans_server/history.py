"""What the server's host went through in the last minutes, for the witness.

One look a second is kept, five minutes long, so that growth over an interval can be told
afterwards. A look reads two files of ``/proc/net`` and costs 0.1 ms.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from twocans_core.clock import Clock
from twocans_core.host.procfs import TcpReader
from twocans_core.host.stalls import NEVER, Stalled, StallWatch
from twocans_core.kernel.tcpinfo import NO_TCP_COUNTS, TcpCounts
from twocans_core.protocol.witness import HostSeen

from .tally import ServerTally

__all__ = ["History"]

_EVERY_NS = 1_000_000_000
_KEPT = 300
# Questions must not cost files, so TCP's counts may be so old.
_FRESH_NS = 100_000_000


class _Look(NamedTuple):
    boot_ns: int
    mono_ns: int
    tcp: TcpCounts
    throttled_ns: int | None
    run_delay_ns: int | None
    accept_errors: int
    limit_hits: dict[str, int]
    stalled: Stalled
    """Since the look before."""


class History:
    """Looks at the host, and what changed between two of them.

    Args:
        clock: Ages are by its CLOCK_BOOTTIME.
        stalls: Knows how this process stood still. Its loop is ours.
        tally: What the server counts.
        read: Reads what the host's TCP counts.
    """

    def __init__(
        self,
        clock: Clock,
        stalls: StallWatch,
        tally: ServerTally,
        read: Callable[[], TcpCounts] | None = None,
    ) -> None:
        self._clock = clock
        self._stalls = stalls
        self._tally = tally
        self._read = read or TcpReader()
        self._looks: deque[_Look] = deque(maxlen=_KEPT)
        self._tcp = NO_TCP_COUNTS
        self._tcp_due_ns = clock.mono_ns()

    def look(self) -> None:
        """Look, if the last look that is kept is a second old. Call it a few times a second."""
        if not self._looks or self._clock.mono_ns() - self._looks[-1].mono_ns >= _EVERY_NS:
            self._looks.append(self._look())

    def since(self, age_ns: int) -> HostSeen:
        """Return what changed since so long ago, as far as we looked."""
        if not self._looks:
            return HostSeen()
        now = self._look()
        asked_ns = now.boot_ns - age_ns
        begun, stalls = self._looks[0], [now.stalled]
        for look in reversed(self._looks):
            if look.boot_ns <= asked_ns:
                begun = look
                break
            stalls.append(look.stalled)
        else:
            stalls.pop()  # of before the earliest look
        worst = max(stalls, key=lambda one: one.worst_ns, default=NEVER)
        return HostSeen(
            since_ns=now.boot_ns - begun.boot_ns,
            stalled_ns=sum(one.total_ns for one in stalls),
            worst_ns=worst.worst_ns,
            cause=worst.cause or "",
            throttled_ns=_grown(begun.throttled_ns, now.throttled_ns),
            run_delay_ns=_grown(begun.run_delay_ns, now.run_delay_ns),
            tcp=TcpCounts(*map(_grown, begun.tcp, now.tcp)),
            accept_errors=now.accept_errors - begun.accept_errors,
            limits=_hits(begun.limit_hits, now.limit_hits),
        )

    def _look(self) -> _Look:
        tally, last = self._tally, self._looks[-1] if self._looks else None
        mono_ns = self._clock.mono_ns()
        if mono_ns >= self._tcp_due_ns:
            self._tcp, self._tcp_due_ns = self._read(), mono_ns + _FRESH_NS
        hits: dict[str, int] = dict(tally.limit_hits)
        if last is not None and last.limit_hits == hits:
            hits = last.limit_hits  # mostly nothing was reached, and one copy is enough
        return _Look(
            self._clock.boot_ns(),
            mono_ns,
            self._tcp,
            self._stalls.throttled_ns(),
            self._stalls.run_delay_ns(),
            tally.accept_errors,
            hits,
            self._stalls.since(last.mono_ns) if last is not None else NEVER,
        )


def _grown(before: int | None, now: int | None) -> int | None:
    """Return by how much it grew; None where one of them is not known, or it began anew."""
    return None if before is None or now is None or now < before else now - before


def _hits(before: dict[str, int], now: dict[str, int]) -> tuple[tuple[str, int], ...]:
    grown = {name: hits - before.get(name, 0) for name, hits in now.items()}
    most_first = sorted(grown.items(), key=lambda one: one[1], reverse=True)
    return tuple((name, hits) for name, hits in most_first if hits)
