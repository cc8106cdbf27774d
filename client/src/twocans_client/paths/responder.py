"""Who answers at the far end of one path: its names, its restarts, its goodbyes. No I/O."""

from typing import NamedTuple

from twocans_client.discovery.specs import Who
from twocans_client.evidence.results import ProbeResult

from .renames import Renames

__all__ = ["Heard", "Responder"]

# Behind a load balancer each probe may find another server, and a hostile one makes names up.
# Every name is a new set of series, so a path keeps its name until as many answers in a row came
# from one other.
_REPLACED_AFTER = 10
# Replicas of one name are more than one process, and none of them was restarted. So one that
# begins counts as a restart when it has answered so often and no older one did any more.
_RESTARTED_AFTER = 3
_INSTANCES_KEPT = 8


class Heard(NamedTuple):
    """What one result shows of who answers.

    Attributes:
        named: Somebody answered for the first time, so the path has a name now.
        restarted: It is certain now that the server was restarted.
        renamed_often: The server has now been renamed too often: it is called ``other`` from here.
        replaced_by: Another server has now answered ten times in a row; None while the old one
            does. Its path is another path.
    """

    named: bool = False
    restarted: bool = False
    renamed_often: bool = False
    replaced_by: Who | None = None


class Responder:
    """Who answers on one path.

    Args:
        drain_grace_ns: For how long a server's GOODBYE excuses its silence.
        renames: What the server was called before, if this was a path before.

    Attributes:
        who: What series and logs call the server, from its greeting; empty before the first. Once
            named, a path keeps its server's name. Where the server was renamed too often, zone
            and node are no longer what it says.
        is_named: Whether somebody has greeted us.
        renames: How often it was renamed.
    """

    def __init__(self, *, drain_grace_ns: int, renames: Renames | None = None) -> None:
        self.who = Who()
        self.is_named = False
        self.renames = renames or Renames()
        self._called = Who()  # what it calls itself
        self._stranger, self._strangers = Who(), 0
        self._processes = _Processes()
        self._drain_grace_ns = drain_grace_ns
        self._draining_since_ns = self._draining_until_ns = 0

    def expect(self, who: Who, now_ns: int) -> None:
        """Note who is there, as far as discovery knows it before the first answer.

        Args:
            who: As announced.
            now_ns: CLOCK_MONOTONIC.
        """
        self.name(who, now_ns)
        self.is_named = bool(who.name)

    def name(self, who: Who, now_ns: int) -> None:
        """Note who answers here; ``now_ns`` is CLOCK_MONOTONIC."""
        is_same = bool(self.who.name) and who.name == self._called.name
        self.is_named, self._called = True, who
        called = self.renames.call(who, now_ns)
        # A name that series have already is kept: only what is new is not believed.
        self.who = called._replace(name=self.who.name) if is_same else called

    def said_goodbye(self, result: ProbeResult) -> bool:
        """Whether the server had said that it leaves, before a probe that is not heard of yet.

        Not if a process answered the probe that began after the goodbye: it came in the place of
        the one that left.
        """
        return not self._is_successor(result) and result.started_ns < self._draining_until_ns

    def hear(self, result: ProbeResult, expected: Who | None) -> Heard:
        """Learn from a result who answered.

        Args:
            result: Of a probe of this path, ended.
            expected: Who is there by discovery, for what the server does not say itself.
        """
        was_named, was_over = self.is_named, self.renames.is_over
        if self._is_successor(result):
            # The process that left is gone and another is here: its silence has no excuse.
            self._draining_until_ns = 0
        if result.draining:
            self._draining_since_ns = result.ended_ns
            self._draining_until_ns = result.ended_ns + self._drain_grace_ns
        server = result.server
        if server is None:
            return Heard()
        replaced_by, restarted = None, False
        who = Who.of(server).or_else(expected)
        if who == self._called:
            self._strangers = 0
        # Of the same name it may have moved to another node or zone. That is no other path.
        elif not self.is_named or server.name == self._called.name:
            self.name(who, result.ended_ns)
        elif not self.renames.is_over:
            self._strangers = self._strangers + 1 if who == self._stranger else 1
            self._stranger = who
            replaced_by = who if self._strangers >= _REPLACED_AFTER else None
        if server.name == self._called.name:
            began_ns = result.server_began_ns
            # When the WELCOME came, not when the probe ended: results come in the order of their
            # ends, and a slow probe of the old process may end after a quick one of the new.
            alive_ns = result.started_ns + (result.connect_ns or 0) + (result.greet_ns or 0)
            restarted = self._processes.answered(server.instance, began_ns, alive_ns)
        return Heard(
            named=self.is_named and not was_named,
            restarted=restarted,
            renamed_often=self.renames.is_over and not was_over,
            replaced_by=replaced_by,
        )

    def _is_successor(self, result: ProbeResult) -> bool:
        began_ns = result.server_began_ns
        return began_ns is not None and began_ns > self._draining_since_ns


class _Processes:
    """The processes that answer under one name: which came in the place of the others."""

    def __init__(self) -> None:
        self._alive_ns: dict[bytes, int] = {}  # of each, when it answered last
        self._newest = b""  # may have come in the place of all others
        self._began_ns = 0
        self._answers = 0

    def answered(self, instance: bytes, began_ns: int | None, alive_ns: int) -> bool:
        """Take in an answer; returns whether it is certain now that there was a restart.

        All of CLOCK_MONOTONIC, ours.

        Args:
            instance: Who answered.
            began_ns: When that process began, or earlier; None where it does not say.
            alive_ns: When it answered.
        """
        known, is_certain = self._alive_ns, False
        is_new = instance not in known and bool(known)
        if is_new and began_ns is not None and began_ns > max(known.values()):
            # One that came and went before it was believed in was a restart as well.
            is_certain = self._answers > 0
            self._newest, self._began_ns, self._answers = instance, began_ns, 0
        known[instance] = max(alive_ns, known.pop(instance, 0))
        if len(known) > _INSTANCES_KEPT:
            del known[next(iter(known))]
        if instance == self._newest:
            self._answers += 1
            is_certain = is_certain or self._answers == _RESTARTED_AFTER
            if self._answers == _RESTARTED_AFTER:
                self._newest, self._answers = b"", 0
        elif alive_ns > self._began_ns:
            self._newest, self._answers = b"", 0  # both live: another server of the same name
        return is_certain
