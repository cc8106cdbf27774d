"""What was injected in one run, and what was said of it: all that the score is made from."""

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Fault", "Name", "Outcome", "Said", "from_json", "to_json"]


class Name(NamedTuple):
    """A verdict's name.

    Attributes:
        verdict: Such as ``syn_loss``.
        culprit: Whose doing it is, such as ``path_forward``.
        direction: "forward", "reverse", or "" where there is none or none is claimed.
    """

    verdict: str
    culprit: str
    direction: str = ""


class Said(NamedTuple):
    """A verdict as it was said.

    Attributes:
        name: Its name.
        at_s: When it was said, seconds since the run began, on the clock of who listened.
        confidence: As its engine states it.
        is_withdrawn: Whether its engine took it back later.
        is_info: Whether it says that nothing is wrong: worth knowing, and no alarm.
        figures: Its proof in numbers, by name.
        proof: Its proof in words.
    """

    name: Name
    at_s: float
    confidence: str = ""
    is_withdrawn: bool = False
    is_info: bool = False
    figures: Mapping[str, float] = {}
    proof: str = ""


class Fault(NamedTuple):
    """What was really wrong, and when.

    Attributes:
        case: Its case in the lab.
        name: The verdict that it should get.
        onset_s: When it began, seconds since the run began.
        ended_s: When it was taken away.
        severity: The first number that was drawn for it; None if there was none.
        figures: What was injected, by the names that verdicts use.
    """

    case: str
    name: Name
    onset_s: float
    ended_s: float
    severity: float | None = None
    figures: Mapping[str, float] = {}


class Outcome(NamedTuple):
    """One run.

    Attributes:
        run: Its name: case and seed.
        tool: Who was asked: ``twocans``, or another tool's name.
        faults: What was wrong; none in a healthy control.
        said: What was said of it, in this order.
        lasted_s: How long it was watched.
        counts: Whole-run counts of each: (what the pair counted, what the wire's log has).
        transits: Of each exchange, (when it began, the network's share of it by the client less how
            long the wire had its packets), in seconds; see ``transits``.
        starved: Share of the run in which somebody on this machine waited for a CPU, by the kernel
            (``/proc/pressure/cpu``); 0 where it does not tell.
        problem: Why the run shows nothing; "" if it was as it should be.
    """

    run: str
    tool: str
    faults: tuple[Fault, ...]
    said: tuple[Said, ...]
    lasted_s: float
    counts: Mapping[str, tuple[float, float]] = {}
    transits: tuple[tuple[float, float], ...] = ()
    starved: float = 0.0
    problem: str = ""

    @property
    def healthy_s(self) -> float:
        """How long nothing was wrong, from the beginning on."""
        return min((fault.onset_s for fault in self.faults), default=self.lasted_s)


def to_json(outcome: Outcome) -> dict[str, Any]:
    """Return it as a document."""
    faults = [fault._asdict() for fault in outcome.faults]
    return {
        **outcome._asdict(),
        "faults": faults,
        "said": [said._asdict() for said in outcome.said],
    }


def from_json(document: dict[str, Any]) -> Outcome:
    """Return what ``to_json`` was given.

    Raises:
        KeyError, TypeError: It is no such document.
    """
    faults = tuple(Fault(**{**one, "name": Name(*one["name"])}) for one in document["faults"])
    said = tuple(Said(**{**one, "name": Name(*one["name"])}) for one in document["said"])
    counts = {name: (pair[0], pair[1]) for name, pair in document["counts"].items()}
    transits = tuple((at_s, error_s) for at_s, error_s in document["transits"])
    read = {"faults": faults, "said": said, "counts": counts, "transits": transits}
    return Outcome(**{**document, **read})
