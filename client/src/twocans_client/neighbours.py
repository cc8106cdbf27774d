"""Which servers of one name a client probes, when there are many. No I/O.

Every client chooses by itself, and knows nothing of the others. Its places go to

1. the servers that follow its own node's on a ring that is the same for all: so that every server
   is chosen by the clients of the nodes before it, and none is overlooked;
2. the best server of each zone that has none yet;
3. the best of all.

Which server is best for a client is drawn by hashing the two names together (rendezvous hashing):
when one leaves, whoever had it takes another, and nobody else changes anything.

An address says nothing about node and zone, so each is greeted once before it is chosen: see
``stranger``. Where a watch tells both, nobody needs to be greeted.
"""

import bisect
import enum
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from twocans_core.sockets import Address

__all__ = ["Neighbourhood", "Server", "Who"]

# Servers after our own node's on the ring: by as many clients is each probed at least.
_RING_PLACES = 3
# Who said GOODBYE may be back under the same address, and whatever of ours failed may be well.
_ASK_SOON_NS = 5_000_000_000
# Who did not answer may by now.
_ASK_SILENT_NS = 60_000_000_000
# Greetings of one server that came to nothing by our own fault; then it may be its fault too.
_MOST_TRIES = 3
_NEVER_ASKED = -1


class Who(NamedTuple):
    """Who a server says that it is; each may be empty."""

    name: str = ""
    node: str = ""
    zone: str = ""
    version: str = ""

    def or_else(self, other: "Who | None") -> "Who":
        """Return this, with what it lacks taken from another."""
        return Who(*(mine or theirs for mine, theirs in zip(self, other or Who(), strict=True)))


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
    """It did not answer. It is chosen as the others are, so that this shows."""
    LEAVING = enum.auto()
    """It said that it stops. It is not chosen."""


class _Entry:
    """What we know of one server."""

    __slots__ = (
        *("due_ns", "missing_ns", "place", "rank"),
        *("said_goodbye_ns", "server", "standing", "tries"),
    )

    def __init__(self, server: Server, rank: int, place: int) -> None:
        self.server = server
        self.rank = rank
        self.place = place
        self.standing = _Standing.MET if server.who else _Standing.STRANGER
        # When it is to be greeted; None: not, or it is under way.
        self.due_ns: int | None = None if server.who else _NEVER_ASKED
        self.tries = 0
        self.said_goodbye_ns = 0
        # Since when it is not announced any more.
        self.missing_ns: int | None = None

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
        leaving_ns: How long a GOODBYE holds for who can be found all the same.
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

    @property
    def zones(self) -> frozenset[str]:
        """The zones that servers were heard to be in, other than our own node's."""
        return frozenset(self._zones)

    def update(self, servers: Iterable[Server], now_ns: int) -> None:
        """Take in who is there now; whoever is not in the list is forgotten, sooner or later.

        Args:
            servers: By name look-up or watch. What was learned of an address stays, unless a
                watch knows better.
            now_ns: CLOCK_MONOTONIC.
        """
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
            entry.missing_ns = None
            self._entries[server.address] = entry
        self._keep_missing(before, now_ns)
        # By address where hashes are equal: two servers of one node.
        entries = self._entries.values()
        self._order = sorted(entries, key=lambda e: (-e.rank, e.server.address))
        self._ring = sorted(entries, key=lambda e: (e.place, e.server.address))
        self._survey()

    def stranger(self, now_ns: int) -> Address | None:
        """Return whom to greet next, and take it as asked; None when nobody is due.

        Those never greeted come first, and of them those on our part of the ring, then the best;
        after them those who said GOODBYE or did not answer, for they may be there again. Say
        what came of it: ``met``, ``leaves``, ``silent`` or ``unasked``.

        Args:
            now_ns: CLOCK_MONOTONIC.
        """
        entries = itertools.chain(self._after_home(now_ns), self._order)
        due = next((entry for entry in entries if entry.due_ns == _NEVER_ASKED), None)
        if due is None:
            again = [e for e in self._order if e.due_ns is not None and e.missing_ns is None]
            due = min(again, key=lambda entry: entry.due_ns or 0, default=None)
        if due is None or due.due_ns is None or due.due_ns > now_ns:
            return None
        due.due_ns = None
        return due.server.address

    def met(self, address: Address, who: Who) -> bool:
        """A server told who it is, in a greeting or a probe; returns whether that is news."""
        entry = self._entries.get(address)
        if entry is None:
            return False
        before = entry.standing, entry.who
        entry.standing, entry.due_ns, entry.tries = _Standing.MET, None, 0
        # What it does not know itself, a watch may have told.
        entry.server = entry.server._replace(who=who.or_else(entry.who))
        if entry.missing_ns is None:
            self._drop_former(who.name)
        was, is_now = before[1], entry.who
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
            entry.said_goodbye_ns = now_ns
            entry.due_ns = now_ns + _ASK_SOON_NS

    def silent(self, address: Address, now_ns: int) -> None:
        """A server that was greeted did not say who it is."""
        entry = self._entries.get(address)
        if entry is None or entry.standing is _Standing.MET:
            return
        wait_ns = _ASK_SILENT_NS
        if entry.standing is _Standing.LEAVING:
            wait_ns = _ASK_SOON_NS
        else:
            entry.standing = _Standing.SILENT
        entry.due_ns = now_ns + wait_ns

    def unasked(self, address: Address, now_ns: int) -> None:
        """Greeting a server came to nothing by our own fault: again soon, but not for ever."""
        entry = self._entries.get(address)
        if entry is None or entry.standing is _Standing.MET:
            return
        entry.tries += 1
        if entry.tries >= _MOST_TRIES:
            self.silent(address, now_ns)
        else:
            entry.due_ns = now_ns + _ASK_SOON_NS

    def chosen(self, now_ns: int) -> list[Server]:
        """Return the servers to probe, first those whom we can least do without.

        Args:
            now_ns: CLOCK_MONOTONIC.
        """
        # Each is in it once, and the first ones stay when it is cut.
        picked: dict[_Entry, None] = {}
        if self._probe_self:
            picked |= dict.fromkeys(e for e in self._able(now_ns) if self._is_own(e))
        picked |= dict.fromkeys(e for e in self._after_home(now_ns) if self._is_able(e, now_ns))
        zones = self._zones - {entry.who.zone for entry in picked}
        for entry in self._able_others(now_ns):
            if not zones:
                break
            if entry.who.zone in zones:
                zones.remove(entry.who.zone)
                picked[entry] = None
        for entry in self._able_others(now_ns):
            if len(picked) >= self._limit:
                break
            picked[entry] = None
        servers = [entry.server for entry in picked][: self._limit]
        self._chosen = frozenset(server.address for server in servers)
        return servers

    def _keep_missing(self, before: dict[Address, _Entry], now_ns: int) -> None:
        """Keep those who are not announced now: targets to probe on, and goodbyes to remember.

        A resolver may answer with some of its addresses, and with others the next time.
        """
        self._missing = []
        keys = {server.key for server in self._newest.values()}
        for address in before.keys() - self._entries.keys():
            entry = before[address]
            if entry.standing is _Standing.LEAVING:
                keep = now_ns - entry.said_goodbye_ns <= self._leaving_ns
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
            rank=_hash(f"{self._client}\n{server.key}"),
            place=_hash(server.key),
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
        if homes:
            self._home, self.own_zone = homes[0].place, homes[0].who.zone

    def _drop_former(self, name: str) -> None:
        """Forget where a server was missed: it is here."""
        for entry in self._missing:
            if entry.missing_ns is not None and entry.who.name == name:
                entry.missing_ns -= self._linger_ns

    def _able(self, now_ns: int) -> Iterator[_Entry]:
        return (entry for entry in self._order if self._is_able(entry, now_ns))

    def _able_others(self, now_ns: int) -> Iterator[_Entry]:
        return (entry for entry in self._able(now_ns) if not self._is_own(entry))

    def _is_own(self, entry: _Entry) -> bool:
        return bool(self._node) and entry.who.node == self._node

    def _is_able(self, entry: _Entry, now_ns: int) -> bool:
        """Whether it may be chosen."""
        if self._is_lost(entry, now_ns):
            return False
        if entry.standing is _Standing.LEAVING:
            # Still announced long after its GOODBYE, and not back: now that is a fault.
            is_over = now_ns - entry.said_goodbye_ns > self._leaving_ns
            return is_over and entry.missing_ns is None
        return entry.standing in (_Standing.MET, _Standing.SILENT)

    def _is_lost(self, entry: _Entry, now_ns: int) -> bool:
        """Whether it has been missing for so long that nobody need wait for it."""
        return entry.missing_ns is not None and now_ns - entry.missing_ns >= self._linger_ns

    def _after_home(self, now_ns: int) -> list[_Entry]:
        """Return whoever follows our own node's server on the ring."""
        if self._home is None:
            return []
        places = min(_RING_PLACES, max(1, self._limit - len(self._zones)))
        start = bisect.bisect_right(self._ring, self._home, key=lambda entry: entry.place)
        staying = (
            entry
            for entry in itertools.chain(self._ring[start:], self._ring[:start])
            if entry.standing is not _Standing.LEAVING
            and not self._is_lost(entry, now_ns)
            and not self._is_own(entry)
        )
        return list(itertools.islice(staying, places))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
