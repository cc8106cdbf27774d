"""The evidence at one moment, as the families look at it one after the other. No I/O."""

from collections.abc import Iterable, Iterator, Set

from twocans_client.evidence.results import Reason
from twocans_client.evidence.rows import Probed
from twocans_client.evidence.window import Window

__all__ = ["Case"]

_ALL_NS = 1 << 62


class Case:
    """A window, less what has been explained.

    A family takes from it what its findings explain, and those after it see the rest. So one fault
    has one name, and two faults have two.

    Args:
        window: All of the evidence.
        standing: Names of the verdicts that stand and are not provisional: what is left of their
            evidence, when a fault ends, must not be given another name.

    Attributes:
        window: Likewise.
        standing: Likewise.
        found: Names of the verdicts so far.
    """

    def __init__(self, window: Window, standing: Set[str] = frozenset()) -> None:
        self.window = window
        self.standing = standing
        self.found: set[str] = set()
        self._explained: set[int] = set()

    def explain(self, name: str, numbers: Set[int]) -> None:
        """Note a verdict, and the probes that need no other one."""
        self.found.add(name)
        self._explained |= numbers

    def is_explained(self, number: int) -> bool:
        """Whether a probe needs no other explanation."""
        return number in self._explained

    def probes(self, since_ns: int = _ALL_NS) -> Iterator[Probed]:
        """Yield the probes that nobody has explained, oldest first.

        Args:
            since_ns: Those that ended in the last so many ns.
        """
        return self._unexplained(self.window.probes, since_ns)

    def odd(self, since_ns: int = _ALL_NS) -> Iterator[Probed]:
        """Yield those of them that are ``odd``: without any, there is no fault to look for."""
        return self._unexplained(self.window.odd, since_ns)

    def ended(self, *reasons: Reason, since_ns: int = _ALL_NS) -> list[Probed]:
        """Return those of them that ended for one of these reasons."""
        return [probe for probe in self.odd(since_ns) if probe.reason in reasons]

    def failures(self, since_ns: int = _ALL_NS) -> list[Probed]:
        """Return those of them that the path or the far end failed."""
        return [probe for probe in self.odd(since_ns) if probe.is_failure]

    def _unexplained(self, rows: Iterable[Probed], since_ns: int) -> Iterator[Probed]:
        oldest_ns = self.window.now_ns - since_ns
        for row in rows:
            if row.ended_ns >= oldest_ns and row.number not in self._explained:
                yield row
