"""From findings to verdicts that begin and end. No I/O.

Families are asked in a fixed order, the most decisive first: our own side, what an errno proves,
DNS, what the witness says, the hosts, sizes, ports, loss, queues, silences, endpoints, options.
"""

from collections.abc import Iterator, Set
from typing import NamedTuple

from twocans_client.evidence.window import Window

from . import (
    dns,
    endpoints,
    hosts,
    idle,
    limits,
    losses,
    options,
    own_side,
    ports,
    queues,
    refusals,
    resets,
    silences,
    sizes,
    witnessed,
)
from .case import Case
from .verdict import Confidence, Culprit, Direction, Finding, Kind

__all__ = [
    "AT_ONCE",
    "FAMILIES",
    "KINDS",
    "QUIET_NS",
    "Began",
    "Confirmed",
    "Ended",
    "Engine",
    "Standing",
    "Verdict",
    "judge",
]

FAMILIES = (
    own_side,
    refusals,
    dns,
    resets,
    # Before the witness: whatever else SYNs without an answer look like, it is not by port.
    ports,
    witnessed,
    hosts,
    sizes,
    losses,
    queues,
    limits,
    silences,
    idle,
    endpoints,
    options,
)
"""In the order in which they are asked."""
KINDS: dict[str, Kind] = {kind.name: kind for family in FAMILIES for kind in family.KINDS}

QUIET_NS = 10_000_000_000
"""A verdict ends when nothing has shown it for so long: less, and one that comes and goes with
every third probe would be twenty verdicts."""
AT_ONCE = 4
"""At most so many stand: each is a series of the path."""
# Rivals that began so near to each other are of the same fault.
_SAME_NS = 3_000_000_000


class Verdict(NamedTuple):
    """A finding that stands.

    Attributes:
        finding: The newest.
        began_ns: When the fault began, as far as the evidence reaches; CLOCK_MONOTONIC.
        seen_ns: When it was last found.
    """

    finding: Finding
    began_ns: int
    seen_ns: int


Standing = dict[tuple[str, Culprit, Direction], Verdict]
"""The verdicts that hold, by ``Finding.key``."""


class Began(NamedTuple):
    """A verdict began."""

    verdict: Verdict


class Confirmed(NamedTuple):
    """A provisional verdict is not provisional any more."""

    verdict: Verdict


class Ended(NamedTuple):
    """A verdict ended.

    Attributes:
        verdict: It.
        withdrawn: It was provisional, and later evidence says something else, or confirmed nothing.
    """

    verdict: Verdict
    withdrawn: bool


def judge(window: Window, standing: Set[str] = frozenset()) -> list[Finding]:
    """Return what the evidence shows now, in the order of the families.

    Arguments as of ``Case``.
    """
    case = Case(window, standing)
    found: list[Finding] = []
    for family in FAMILIES:
        for finding in family.judge(case):
            case.explain(finding.kind.name, finding.explains)
            found.append(finding)
    return found


class Engine:
    """The verdicts of one path.

    Args:
        window: Its evidence.

    Attributes:
        standing: Verdicts that hold.
        explained: Numbers of the probes that need no other explanation, nor a better one.
    """

    def __init__(self, window: Window) -> None:
        self.window = window
        self.standing: Standing = {}
        self.explained: Set[int] = frozenset()

    def look(self, now_ns: int) -> "list[Began | Confirmed | Ended]":
        """Judge the evidence; returns what has begun and ended since the last look.

        Args:
            now_ns: CLOCK_MONOTONIC.
        """
        self.window.forget(now_ns)
        standing = {
            key[0] for key, old in self.standing.items() if not _is_provisional(old.finding)
        }
        findings = judge(self.window, standing)
        found = {finding.key: finding for finding in findings}
        certain = (each.explains for each in findings if not _is_provisional(each))
        self.explained = frozenset().union(*certain)
        changes: list[Began | Confirmed | Ended] = []
        for key, finding in found.items():
            old = self.standing.get(key)
            if old is not None:
                verdict = self.standing[key] = old._replace(finding=finding, seen_ns=now_ns)
                if _is_provisional(old.finding) and not _is_provisional(finding):
                    changes += self._withdraw(finding)
                    changes.append(Confirmed(verdict))
            elif len(self.standing) < AT_ONCE or self._replaced(finding):
                began_ns = min(now_ns, finding.began_ns or now_ns)
                changes += self._withdraw(finding)
                verdict = self.standing[key] = Verdict(finding, began_ns, now_ns)
                changes.append(Began(verdict))
        for key, verdict in list(self.standing.items()):
            if now_ns - verdict.seen_ns >= QUIET_NS:
                del self.standing[key]
                # One that nothing has confirmed in the end is not true by default.
                changes.append(Ended(verdict, withdrawn=_is_provisional(verdict.finding)))
        return changes

    def _replaced(self, finding: Finding) -> list[tuple[str, Culprit, Direction]]:
        """Return the provisional verdicts that a finding says better."""
        if _is_provisional(finding):
            return []
        return [
            key
            for key, verdict in self.standing.items()
            if _is_provisional(verdict.finding)
            and (
                key[0] == finding.kind.name
                or verdict.finding.explains & finding.explains
                # A fault that has just begun has no probe yet that ended of it.
                or _are_rivals(verdict, finding)
            )
        ]

    def _withdraw(self, finding: Finding) -> Iterator[Ended]:
        for key in self._replaced(finding):
            yield Ended(self.standing.pop(key), withdrawn=True)


def _are_rivals(verdict: Verdict, finding: Finding) -> bool:
    is_near = abs(verdict.began_ns - (finding.began_ns or 0)) < _SAME_NS
    return is_near and finding.kind.name in verdict.finding.kind.rivals


def _is_provisional(finding: Finding) -> bool:
    return finding.confidence is Confidence.PROVISIONAL
