"""What the server remembers of connections, and tells those whose connections they were. No I/O.

A client whose connection failed asks over another one (docs/protocol.md, "Witness"). Those that
are open are found among the living; those that ended are remembered, bounded in count and age
(``witness_connections``, ``witness_s``). Those that ended ``done`` are forgotten first: a client
seldom has to ask about them, and they are nearly all. So in a flood of good connections the few
that failed are remembered for as long as ``witness_s`` says.

A limit counts as reached when an answer is less than it could be: a client asked further back
than we remember, and about a connection that we do not know.

It costs each connection 8 us of CPU in all, 129 bytes while it is open, and 713 bytes when it has
ended (CPython 3.11, tracemalloc). To answer about 16 connections takes 120 us, what the host costs
apart.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, Protocol

from twocans_core.clock import Clock
from twocans_core.protocol.fields import parse_counters
from twocans_core.protocol.messages import Identity
from twocans_core.protocol.witness import UNKNOWN, Asked, Fate, HostSeen, Seen, Testimony, Witness
from twocans_server.limits import Limits
from twocans_server.tally import ServerTally

from .endings import Account, Ending, Report

__all__ = ["Records"]


class Living(Protocol):
    """A connection that is open; as of ``Connection``."""

    def account(self) -> Account: ...


class _Ended(NamedTuple):
    account: Account
    ended_ns: int
    ending: str
    reason: str


# Of a greeted connection the instance and the number in its HELLO, of others the client's address.
_Key = bytes | tuple[str, int]


class _Memory:
    """Ended connections by key, oldest first.

    Attributes:
        ended: They.
        since_ns: From when on it is complete, CLOCK_BOOTTIME.
    """

    def __init__(self, begun_ns: int) -> None:
        self.ended: OrderedDict[_Key, _Ended] = OrderedDict()
        self.since_ns = begun_ns

    def forget_oldest(self) -> None:
        self.since_ns = self.ended.popitem(last=False)[1].ended_ns

    def forget_until(self, ns: int) -> None:
        while self.ended and next(iter(self.ended.values())).ended_ns < ns:
            self.forget_oldest()
        self.since_ns = max(self.since_ns, ns)


class Records:
    """All connections that are open, and those that ended not long ago.

    Args:
        limits: How many of the ended are remembered, and for how long.
        clock: Ages are by its CLOCK_BOOTTIME.
        tally: Where limits are counted that made an answer less.
        host: Tells what our host went through, since an age in ns; and of whose half-open
            connections.
    """

    def __init__(
        self,
        limits: Limits,
        clock: Clock,
        tally: ServerTally,
        host: Callable[[int, str], HostSeen],
    ) -> None:
        self._most = limits.witness_connections
        self._kept_ns = int(limits.witness_s * 1e9)
        self._boot_ns = clock.boot_ns
        self._hits = tally.limit_hits
        self._host = host
        self._begun_ns = clock.boot_ns()
        self._living: dict[tuple[str, int], Living] = {}
        self._peers: dict[bytes, tuple[str, int]] = {}
        self._done = _Memory(self._begun_ns)
        self._others = _Memory(self._begun_ns)

    def accepted(self, peer: tuple[str, int], connection: Living) -> None:
        """A connection came."""
        self._living[peer] = connection

    def greeted(self, peer: tuple[str, int], client: Identity, connection: int) -> None:
        """Its HELLO came, with this number."""
        self._peers[_key(client.instance, connection)] = peer

    def ended(self, connection: Living, report: Report) -> None:
        """It is over."""
        account = report.account
        peer = account.peer
        # The same client may have come twice from one port: to two addresses of ours.
        if self._living.get(peer) is connection:
            del self._living[peer]
        key: _Key = peer
        if report.client is not None:
            key = _key(report.client.instance, report.connection)
            if self._peers.get(key) == peer:
                del self._peers[key]
        memory = self._done if report.ending is Ending.DONE else self._others
        # One key may come again, with a port: the last counts.
        for one in (self._done, self._others):
            one.ended.pop(key, None)
        memory.ended[key] = _Ended(account, self._boot_ns(), report.ending, report.reason)
        self._forget()

    def testify(self, question: Witness, instance: bytes, host: str) -> Testimony:
        """Answer a client, by its instance and the address that it asks from."""
        now_ns = self._boot_ns()
        self._forget()
        seen = tuple(self._find(asked, instance, host, now_ns) for asked in question.asked)
        others_ns, done_ns = now_ns - self._others.since_ns, now_ns - self._done.since_ns
        if question.since_ns > min(others_ns, done_ns):
            self._count_less(sum(one.fate is Fate.UNKNOWN for one in seen), now_ns)
        return Testimony(others_ns, done_ns, self._host(question.since_ns, host), seen)

    def _find(self, asked: Asked, instance: bytes, host: str, now_ns: int) -> Seen:
        key = _key(instance, asked.connection)
        by_port = host, asked.port
        if living := self._living.get(self._peers.get(key, by_port)):
            account = living.account()
            # From the port that is asked about somebody may have greeted with another number.
            if key in self._peers or not account.greeted:
                return _seen(account, now_ns)
        for memory in (self._others, self._done):
            for name in (key, by_port):
                if ended := memory.ended.get(name):
                    return _seen(ended.account, now_ns, ended)
        return UNKNOWN

    def _forget(self) -> None:
        oldest_ns = self._boot_ns() - self._kept_ns
        for memory in (self._done, self._others):
            memory.forget_until(oldest_ns)
        while len(self._done.ended) + len(self._others.ended) > self._most:
            (self._done if self._done.ended else self._others).forget_oldest()

    def _count_less(self, unknown: int, now_ns: int) -> None:
        oldest_ns = now_ns - self._kept_ns
        if max(self._done.since_ns, self._others.since_ns) > max(oldest_ns, self._begun_ns):
            self._hits["witness_connections"] += unknown
        elif oldest_ns > self._begun_ns:
            self._hits["witness_s"] += unknown


def _key(instance: bytes, connection: int) -> bytes:
    return instance + connection.to_bytes(8)


def _seen(account: Account, now_ns: int, ended: _Ended | None = None) -> Seen:
    heard_ns = account.heard_ns
    return Seen(
        fate=Fate.ENDED if ended else Fate.OPEN,
        greeted=account.greeted,
        peer=account.peer,
        in_vain=account.in_vain,
        accepted_ns=now_ns - account.accepted_ns,
        heard_ns=now_ns - heard_ns if heard_ns else None,
        ended_ns=now_ns - ended.ended_ns if ended else None,
        received=account.received,
        sent=account.sent,
        exchanges=account.exchanges,
        counters=parse_counters(account.counters, 0),
        kind=account.kind,
        ending=ended.ending if ended else "",
        reason=ended.reason if ended else "",
    )
