"""Which servers of one name a client probes, when there are many. No I/O.

Every client chooses by itself, and knows nothing of the others. Its places go to

1. the servers that follow its own node's on a ring that is the same for all: so that every server
   is chosen by the clients of the nodes before it, and none is overlooked;
2. the best server of each zone that has none yet;
3. the best of all.

Which server is best for a client is drawn by hashing the two names together (rendezvous hashing):
when one leaves, the clients that had it take another, and nobody else changes anything.
That is one algorithm over one table of entries, so it is one module, longer than others.

An address says nothing about node and zone, so each is greeted once before it is chosen: see
``stranger``. Where a watch tells both, nobody needs to be greeted.

A list of addresses is older than it looks: a resolver's cache may announce for half a minute who
has gone, and a watch may be cut off. So

- nobody is newly chosen who did not answer within the last seconds, or is told by a live watch;
- who said GOODBYE, or did not answer a greeting, is chosen only where a list that is younger than
  that by more than a cache's time announces it all the same: now that is a fault, and shows.
"""

import bisect
import enum
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from twocans_core.hashing import hash_of
from twocans_core.net.sockets import Address

from .specs import Who

__all__ = ["Neighbourhood", "Server"]

# Servers after our own node's on the ring: by as many clients is each probed at least.
_RING_PLACES = 3
# Who said GOODBYE may be back under the same address, and whatever of ours failed may be well.
_ASK_SOON_NS = 5_000_000_000
# Who did not answer may by now.
_ASK_SILENT_NS = 60_000_000_000
# Who answered so lately is there: a server serves for as long after it was told to stop.
_FRESH_NS = 3_000_000_000
# Greetings of one server that came to nothing by our own fault; then it may be its fault too.
_MOST_TRIES = 3
# When one is to be greeted, where that is no moment.
_NEVER_ASKED, _WANTED, _UNDER_WAY = -1, -2, sys.maxsize


class Server(NamedTuple):
    """One address of the name.

    Attributes:
        address: Where it is.
        who: Who it is; None while nobody said so.
        key: What stands for it in the hashes: its node where a watch tells it, and then it stays
            the same when its pod is made anew; else its address.
    """

    address: Address
    who: Who | None
    key: str

    @classmethod
    def at(cls, address: Address) -> "Server":
        """Return a server of which nothing but the address is known."""
        return cls(address, None, address.host)


class _Standing(enum.Enum):
    """How we stand with a server."""

    STRANGER = enum.auto()
    MET = enum.auto()
    SILENT = enum.auto()
    """It did not answer a greeting."""
    LEAVING = enum.auto()
    """It said that it stops."""


@dataclass(slots=True, eq=False)
class _Entry:
    """What we know of one server. Each is itself alone: not what it holds makes it equal.

    Attributes:
        server: What is announced of it, and what it says itself.
        rank: How good it is for us, by hash.
        place: Where it stands on the ring, by hash.
        is_told: Whether a watch tells who it is.
        standing: How we stand with it.
        due_ns: When it is to be greeted; None: not at all.
        tries: Greetings that came to nothing by our own fault.
        alive_ns: When it last answered.
        away_ns: Since when it is LEAVING or SILENT.
        missing_ns: Since when it is not announced any more; None while it is.
    """

    server: Server
    rank: int
    place: int
    is_told: bool = False
    standing: _Standing = _Standing.STRANGER
    due_ns: int | None = _NEVER_ASKED
    tries: int = 0
    alive_ns: int | None = None
    away_ns: int = 0
    missing_ns: int | None = None

    def __post_init__(self) -> None:
        if self.server.who is not None:
            self.is_told, self.standing, self.due_ns = True, _Standing.MET, None

    @property
    def who(self) -> Who:
        return self.server.who or Who()


class Neighbourhood:
    """The servers of one name and address family, and which of them to probe.

    Args:
        client: Our own name.
        node: Our own node; ``""``: none of the servers is on it.
        limit: How many to probe at most.
        probe_self: Whether to probe the server on our own node.
        leaving_ns: How much younger than a GOODBYE, or than a greeting in vain, a list must be
            for its word to count that the server is there. Longer than any resolver's cache.
        linger_ns: How long to go on with a target that is not announced any more and never said
            GOODBYE. A dead node is taken off the list within a minute, and is to show.
    """

    def __init__(
        self,
        *,
        client: str,
        node: str,
        limit: int,
        probe_self: bool,
        leaving_ns: int,
        linger_ns: int,
    ) -> None:
        self._client = client
        self._node = node
        self._limit = limit
        self._probe_self = probe_self
        self._leaving_ns = leaving_ns
        self._linger_ns = linger_ns
        self._newest: dict[Address, Server] = {}
        self._entries: dict[Address, _Entry] = {}
        # Best first, and as they stand on the ring.
        self._order: list[_Entry] = []
        self._ring: list[_Entry] = []
        self._missing: list[_Entry] = []
        self._zones: set[str] = set()
        self._chosen: frozenset[Address] = frozenset()
        self.has_answered = False
        """Whether any server of it ever did."""
        # From when the newest list is; None: it is told of every change, so it is of now.
        self._told_ns: int | None = 0
        self.own_zone = ""
        """The zone of the server on our own node, so ours; ``""`` until it is known."""
        # Our own place on the ring; None until we know which server is on our node.
        self._home: int | None = None

    @property
    def is_only_ours(self) -> bool:
        """Whether there is no server but that of our own node, which is not probed."""
        alone = not self._probe_self and bool(self._newest)
        return alone and all(self._is_own(self._entries[address]) for address in self._newest)

    def __len__(self) -> int:
        """How many servers are announced."""
        return len(self._newest)

    def some(self, count: int) -> list[Address]:
        """Return a few of the addresses that are announced."""
        return list(itertools.islice(self._newest, count))

    @property
    def zones(self) -> frozenset[str]:
        """The zones that servers were heard to be in, other than our own node's."""
        return frozenset(self._zones)

    def update(self, servers: Iterable[Server], now_ns: int, *, told_ns: int | None = None) -> None:
        """Take in who is there now; what is not in the list is forgotten, sooner or later.

        Args:
            servers: By name look-up or watch. What was learned of an address stays, unless a
                watch knows better.
            now_ns: CLOCK_MONOTONIC.
            told_ns: When the list was asked for; None: a watch tells of every change of it, until
                ``out_of_date``.
        """
        self._told_ns = told_ns
        now = {server.address: server for server in servers}
        if now == self._newest:
            return  # sorting thousands takes milliseconds, and the loop has probes to time
        self._newest = now
        before, self._entries = self._entries, {}
        for server in now.values():
            entry = before.get(server.address)
            if entry is None or entry.server.key != server.key:
                entry = self._new_entry(server)
            elif server.who is not None:
                entry.server = server._replace(who=server.who.or_else(entry.who))
            entry.is_told = server.who is not None
            entry.missing_ns = None
            self._entries[server.address] = entry
        self._keep_missing(before, now_ns)
        # By address where hashes are equal: two servers of one node.
        entries = self._entries.values()
        self._order = sorted(entries, key=lambda e: (-e.rank, e.server.address))
        self._ring = sorted(entries, key=lambda e: (e.place, e.server.address))
        self._survey()

    def out_of_date(self, now_ns: int) -> None:
        """The watch is told of changes no longer."""
        if self._told_ns is None:
            self._told_ns = now_ns

    def stranger(self, now_ns: int) -> Address | None:
        """Return which to greet next, and take it as asked; None when none is due.

        Those come first who are to be chosen if they are still there. Then those never greeted,
        and of them those on our part of the ring, then the best; after them those who said
        GOODBYE or did not answer, for they may be there again. Say what came of it: ``met``,
        ``leaves``, ``silent`` or ``unasked``.

        Args:
            now_ns: CLOCK_MONOTONIC.
        """
        due = next((entry for entry in self._order if entry.due_ns == _WANTED), None)
        if due is None:
            entries = itertools.chain(self._after_home(now_ns), self._order)
            due = next((entry for entry in entries if entry.due_ns == _NEVER_ASKED), None)
        if due is None:
            again = [e for e in self._order if e.due_ns is not None and e.missing_ns is None]
            due = min(again, key=lambda entry: entry.due_ns or 0, default=None)
        if due is None or due.due_ns is None or due.due_ns > now_ns:
            return None
        due.due_ns = _UNDER_WAY
        return due.server.address

    def met(self, address: Address, who: Who, now_ns: int) -> bool:
        """A server told who it is, in a greeting or a probe; returns whether that is news."""
        entry = self._entries.get(address)
        if entry is None:
            return False
        before = entry.standing, entry.who
        entry.standing, entry.due_ns, entry.tries = _Standing.MET, None, 0
        entry.alive_ns = now_ns
        self.has_answered = True
        # What it does not know itself, a watch may have told.
        entry.server = entry.server._replace(who=who.or_else(entry.who))
        if entry.missing_ns is None:
            self._drop_former(who.name)
        was, is_now = before[1], entry.who
        # Every answered probe comes here, and a survey goes over all entries: so only if our own
        # place, or the zone of a node that we knew, may be another.
        if self._is_own(entry) or (was.node and (was.node, was.zone) != (is_now.node, is_now.zone)):
            self._survey()
        elif is_now.zone:
            self._zones.add(is_now.zone)
        return before != (entry.standing, is_now)

    def leaves(self, address: Address, now_ns: int) -> None:
        """A server said that it stops."""
        entry = self._entries.get(address)
        if entry is not None:
            entry.standing = _Standing.LEAVING
            entry.away_ns = now_ns
            entry.due_ns = now_ns + _ASK_SOON_NS

    def silent(self, address: Address, now_ns: int) -> None:
        """A server that was greeted did not say who it is."""
        entry = self._entries.get(address)
        if entry is None or self._is_there(entry, now_ns):
            return
        # A server that said GOODBYE and is silent now does what it said: that it left is what
        # counts.
        if entry.standing is not _Standing.LEAVING:
            if entry.standing is not _Standing.SILENT:
                entry.away_ns = now_ns
            entry.standing = _Standing.SILENT
        wait_ns = _ASK_SILENT_NS if self._is_fault(entry, now_ns) else _ASK_SOON_NS
        entry.due_ns = now_ns + wait_ns

    def unasked(self, address: Address, now_ns: int) -> None:
        """Greeting a server came to nothing by our own fault: again soon, but not forever."""
        entry = self._entries.get(address)
        if entry is None or self._is_there(entry, now_ns):
            return
        entry.tries += 1
        if entry.tries >= _MOST_TRIES:
            self.silent(address, now_ns)
        else:
            entry.due_ns = now_ns + _ASK_SOON_NS

    def chosen(self, now_ns: int) -> list[Server]:
        """Return the servers to probe, first those that we can least do without.

        Args:
            now_ns: CLOCK_MONOTONIC.
        """
        # Twice. Whom we would take, were they known to be there, is greeted next. Meanwhile we take
        # of those who are.
        for entry in self._pick(now_ns, self._is_able):
            if entry.due_ns is None and not self._is_ready(entry, now_ns):
                entry.due_ns = _WANTED
        servers = [entry.server for entry in self._pick(now_ns, self._is_ready)]
        self._chosen = frozenset(server.address for server in servers)
        return servers

    def _pick(self, now_ns: int, may: Callable[[_Entry, int], bool]) -> list[_Entry]:
        """Return the one that we can least do without, of those that may be picked."""

        def others() -> Iterator[_Entry]:
            return (e for e in self._order if may(e, now_ns) and not self._is_own(e))

        # Each is in it once, and the first ones stay when it is cut.
        picked: dict[_Entry, None] = {}
        if self._probe_self:
            picked |= dict.fromkeys(e for e in self._order if self._is_own(e) and may(e, now_ns))
        picked |= dict.fromkeys(entry for entry in self._after_home(now_ns) if may(entry, now_ns))
        zones = self._zones - {entry.who.zone for entry in picked}
        for entry in others():
            if not zones:
                break
            if entry.who.zone in zones:
                zones.remove(entry.who.zone)
                picked[entry] = None
        for entry in others():
            if len(picked) >= self._limit:
                break
            picked[entry] = None
        return list(picked)[: self._limit]

    def _keep_missing(self, before: dict[Address, _Entry], now_ns: int) -> None:
        """Keep those who are not announced now: targets to probe on, and goodbyes to remember.

        A resolver may answer with some of its addresses, and with others the next time.
        """
        self._missing = []
        # A pod that was made anew has another address and the same node: it is not missing, it has
        # moved.
        keys = {server.key for server in self._newest.values()}
        for address in before.keys() - self._entries.keys():
            entry = before[address]
            if entry.standing is _Standing.LEAVING:
                keep = now_ns - entry.away_ns <= self._leaving_ns
            else:
                is_target = address in self._chosen and entry.server.key not in keys
                keep = is_target and entry.standing is _Standing.MET
            if keep:
                if entry.missing_ns is None:
                    entry.missing_ns = now_ns
                self._entries[address] = entry
                self._missing.append(entry)

    def _new_entry(self, server: Server) -> _Entry:
        return _Entry(
            server,
            # No name has a line feed in it, so no two pairs of names make the same text.
            rank=hash_of(f"{self._client}\n{server.key}"),
            place=hash_of(server.key),
        )

    def _survey(self) -> None:
        """Find our own place, and the zones of the others."""
        self._zones = set()
        homes = []
        for entry in self._order:
            if self._is_own(entry):
                homes.append(entry)
            elif entry.who.zone:
                self._zones.add(entry.who.zone)
        # Else our place stays as it was: a server that is being replaced leaves the ring for a
        # moment, and all of our choices would change and change back.
        if homes:
            self._home, self.own_zone = homes[0].place, homes[0].who.zone

    def _drop_former(self, name: str) -> None:
        """Forget where a server was missed: it is here."""
        for entry in self._missing:
            if entry.missing_ns is not None and entry.who.name == name:
                # Lost at once, instead of at the end of its time.
                entry.missing_ns -= self._linger_ns

    def _is_own(self, entry: _Entry) -> bool:
        return bool(self._node) and entry.who.node == self._node

    def _is_able(self, entry: _Entry, now_ns: int) -> bool:
        """Whether it may be chosen, once it has shown that it is still there."""
        if self._is_lost(entry, now_ns) or entry.standing is _Standing.STRANGER:
            return False
        return entry.standing is _Standing.MET or self._is_fault(entry, now_ns)

    def _is_ready(self, entry: _Entry, now_ns: int) -> bool:
        """Whether it may be chosen now."""
        is_there = entry.standing is not _Standing.MET or self._is_fresh(entry, now_ns)
        return is_there and self._is_able(entry, now_ns)

    def _is_fresh(self, entry: _Entry, now_ns: int) -> bool:
        """Whether it is being probed, which shows how it is, or was there just now."""
        if entry.server.address in self._chosen:
            return True
        if entry.is_told and now_ns - self._as_of(now_ns) <= _FRESH_NS:
            return True
        return entry.alive_ns is not None and now_ns - entry.alive_ns <= _FRESH_NS

    def _is_there(self, entry: _Entry, now_ns: int) -> bool:
        """Whether a greeting in vain says nothing: another was answered meanwhile, or a probe."""
        if entry.standing is not _Standing.MET or not self._is_fresh(entry, now_ns):
            return False
        entry.due_ns = None
        return True

    def _is_fault(self, entry: _Entry, now_ns: int) -> bool:
        """Whether who is away is announced by a list that must know better."""
        return entry.missing_ns is None and self._as_of(now_ns) - entry.away_ns > self._leaving_ns

    def _as_of(self, now_ns: int) -> int:
        """Return from when the newest list is."""
        return now_ns if self._told_ns is None else self._told_ns

    def _is_lost(self, entry: _Entry, now_ns: int) -> bool:
        """Whether it has been missing for so long that nobody need wait for it."""
        return entry.missing_ns is not None and now_ns - entry.missing_ns >= self._linger_ns

    def _after_home(self, now_ns: int) -> list[_Entry]:
        """Return what follows our own node's server on the ring."""
        if self._home is None:
            return []
        # With a low limit the other zones come before the second and third on the ring.
        places = min(_RING_PLACES, max(1, self._limit - len(self._zones)))
        # A stranger holds its place here until it has been greeted, which is next: else who stands
        # behind it would be taken for a moment, as another path.
        start = bisect.bisect_right(self._ring, self._home, key=lambda entry: entry.place)
        staying = (
            entry
            for entry in itertools.chain(self._ring[start:], self._ring[:start])
            if (entry.standing is _Standing.STRANGER or self._is_able(entry, now_ns))
            and not self._is_lost(entry, now_ns)
            and not self._is_own(entry)
        )
        return list(itertools.islice(staying, places))
