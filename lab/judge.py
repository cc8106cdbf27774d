"""Which verdicts of one run were right: what was said, beside what was injected. No I/O.

The rules, which are the same for the pair and for every other tool:

- A fault is *named* by a verdict of exactly its name, said after its onset and not withdrawn.
- It is *found* if the culprit is right as well: a wrong culprit is a wrong verdict. ``path`` is not
  wrong about a fault of one direction; it only lacks the direction, which is scored apart.
- A verdict is *false* if it neither finds a fault nor is one of its consequences (below). Said five
  times in one run, it is one false verdict.
- What is worth knowing and no alarm (``is_info``) may find a fault, and is never false.
- ``unknown`` is no false verdict, and no fault is found by it. It is counted apart.
- ``cpu_starved`` is not false in a run in which the machine was short of CPU, by its kernel's own
  account: nobody injected that, and it was so.
- A provisional verdict that its engine withdrew counts for nothing.
"""

from collections.abc import Iterable
from typing import NamedTuple

from .outcome import Fault, Name, Outcome, Said

__all__ = ["CONSEQUENCES", "STARVED", "UNKNOWN", "Judged", "Match", "agrees", "judge"]

UNKNOWN, STARVED = "unknown", "cpu_starved"
_STARVED_SHARE = 0.05
_PATHS = {"path_forward": "forward", "path_reverse": "reverse"}

CONSEQUENCES: dict[str, tuple[str, ...]] = {
    "loss": ("syn_loss", "synack_loss", "ack_loss"),
    "burst_loss": ("loss", "syn_loss", "synack_loss", "ack_loss"),
    "path_subset_loss": ("syn_loss", "synack_loss", "loss", "ack_loss"),
    "blackout": ("syn_loss", "synack_loss", "loss", "burst_loss"),
    "bufferbloat": ("delay_increase", "loss", "burst_loss"),
    "policing": ("loss", "burst_loss"),
    "nat_port_exhaustion": ("new_connection_limit",),
    "idle_timeout": ("rst_injected",),
    "dns_loss": ("dns_slow", "dns_failing"),
    "dns_slow": ("dns_failing",),
    "backlog_overflow": ("slow_app", "app_hung"),
    "app_hung": ("slow_app", "backlog_overflow"),
    "process_paused": ("self_inflicted",),
    "cpu_throttled": ("process_paused", "self_inflicted"),
    "option_stripped": ("window_limited",),
}
"""What a fault truly does besides, by its verdict: true if said of the same culprit and direction.

A few packets lost by chance are SYNs now and then; a full queue drops what it cannot hold.
"""


class Match(NamedTuple):
    """A fault, and what was said of it.

    Attributes:
        fault: It.
        named: The first verdict that has its name, whatever its culprit.
        found: The first that has its culprit too.
    """

    fault: Fault
    named: Said | None
    found: Said | None

    @property
    def time_to_name_s(self) -> float | None:
        """From the true onset to the right verdict; None if there was none."""
        return self.found.at_s - self.fault.onset_s if self.found else None


class Judged(NamedTuple):
    """One run with its verdicts sorted.

    Attributes:
        outcome: The run.
        matches: One for each fault.
        false: False verdicts, one for each name.
        unknown: How often the engine said that it does not know.
    """

    outcome: Outcome
    matches: tuple[Match, ...]
    false: tuple[Said, ...]
    unknown: int


def judge(outcome: Outcome) -> Judged:
    """Sort the verdicts of one run."""
    said = [one for one in outcome.said if not _is_nothing(one)]
    matches = tuple(_match(fault, said) for fault in outcome.faults)
    false: dict[Name, Said] = {}
    for one in said:
        is_alarm = one.name.verdict != UNKNOWN and not one.is_info
        is_alarm &= not (one.name.verdict == STARVED and outcome.starved >= _STARVED_SHARE)
        if is_alarm and not _is_true(one, outcome.faults):
            false.setdefault(one.name, one)
    unknown = sum(one.name.verdict == UNKNOWN for one in said)
    return Judged(outcome, matches, tuple(false.values()), unknown)


def _is_nothing(said: Said) -> bool:
    return said.is_withdrawn and said.confidence == "provisional"


def _match(fault: Fault, said: Iterable[Said]) -> Match:
    names = [
        one
        for one in said
        if one.name.verdict == fault.name.verdict
        and one.at_s >= fault.onset_s
        and not one.is_withdrawn
    ]
    right = [one for one in names if agrees(one.name, fault.name)]
    return Match(fault, next(iter(names), None), next(iter(right), None))


def _is_true(said: Said, faults: Iterable[Fault]) -> bool:
    """Whether it finds a fault that has begun, or one of its consequences."""
    return any(
        said.at_s >= fault.onset_s
        and agrees(said.name, fault.name)
        and not said.is_withdrawn
        and (
            said.name.verdict == fault.name.verdict
            or (
                said.name.verdict in CONSEQUENCES.get(fault.name.verdict, ())
                and said.name.direction in ("", fault.name.direction)
            )
        )
        for fault in faults
    )


def agrees(said: Name, true: Name) -> bool:
    """Whether the culprit is right; a path without a direction may be either direction."""
    return said.culprit == true.culprit or (said.culprit == "path" and true.culprit in _PATHS)
