"""What a verdict is, and how each kind of it is declared. No I/O.

docs/verdicts.md is made from the declarations.
"""

import enum
from collections.abc import Mapping, Set
from typing import NamedTuple

__all__ = ["Confidence", "Culprit", "Direction", "Finding", "Kind"]


class Culprit(enum.StrEnum):
    """Whose doing it is. Values are metric labels: never rename them."""

    CLIENT_HOST = "client_host"
    SERVER_HOST = "server_host"
    SERVER_APP = "server_app"
    PATH_FORWARD = "path_forward"
    PATH_REVERSE = "path_reverse"
    PATH = "path"
    """The path, in both directions, or in one that cannot be told."""
    MIDDLEBOX = "middlebox"
    DNS = "dns"
    CONFIGURATION = "configuration"
    CLOCK = "clock"
    TOOL = "tool"
    """Twocans itself, or how it was set up."""

    @classmethod
    def path(cls, direction: "Direction") -> "Culprit":
        """Return the path's culprit for a direction."""
        return {
            Direction.FORWARD: cls.PATH_FORWARD,
            Direction.REVERSE: cls.PATH_REVERSE,
        }.get(direction, cls.PATH)


class Direction(enum.StrEnum):
    """In which direction. Values are metric labels: never rename them."""

    NONE = ""
    FORWARD = "forward"
    REVERSE = "reverse"


class Confidence(enum.StrEnum):
    """How far a verdict is to be trusted. Values are in logs: never rename them."""

    PROVEN = "proven"
    """The evidence leaves nothing else: an errno, both ends' counts, the server's own word."""
    STATISTICAL = "statistical"
    """Chance would give the same evidence at the false-alarm rate that the kind states."""
    PROVISIONAL = "provisional"
    """One end's evidence: the other cannot be asked. It is confirmed or withdrawn later."""


class Kind(NamedTuple):
    """The declaration of one verdict.

    Attributes:
        name: A metric label: never rename it.
        title: What is wrong, in a few words.
        culprits: Whose doing it can be.
        directions: In which it can be.
        needs: The evidence that it is drawn from.
        apart: How it is told from its nearest neighbours.
        threshold: When it is said, and the false-alarm rate that this was chosen for.
        look: What to do next.
        is_info: Worth knowing, but nothing is wrong.
        rivals: Verdicts that look the same at first: where it is provisional, each of them that
            begins at the same time and is not replaces it.
    """

    name: str
    title: str
    culprits: tuple[Culprit, ...]
    needs: str
    apart: str
    threshold: str
    look: str
    directions: tuple[Direction, ...] = (Direction.NONE,)
    is_info: bool = False
    rivals: frozenset[str] = frozenset()


class Finding(NamedTuple):
    """That a verdict holds, and why.

    Attributes:
        kind: Which.
        culprit: Whose doing it is.
        proof: One sentence, with figures.
        direction: In which it is.
        confidence: How far to trust it.
        figures: Those of the proof, by name, in base units.
        explains: Numbers of the probes that need no other explanation (``Probed.number``).
        began_ns: When the fault began, as far as the evidence reaches; CLOCK_MONOTONIC.
    """

    kind: Kind
    culprit: Culprit
    proof: str
    direction: Direction = Direction.NONE
    confidence: Confidence = Confidence.STATISTICAL
    figures: Mapping[str, float] = {}
    explains: Set[int] = frozenset()
    began_ns: int | None = None

    @property
    def key(self) -> tuple[str, Culprit, Direction]:
        """What makes it another verdict."""
        return self.kind.name, self.culprit, self.direction
