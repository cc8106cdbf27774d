"""What a truth table consists of, drawn from one seed: which fault, where, when, for how long."""

import math
from collections.abc import Iterable, Mapping
from random import Random
from typing import NamedTuple

from .cases import Case
from .scene import Base

__all__ = ["HEALTHY_SHARE", "Planned", "plan"]

HEALTHY_SHARE, DOUBLE_SHARE = 0.4, 0.1
"""Of all runs: healthy controls, and runs with two faults at once."""
RTTS_S = (0.00005, 0.002, 0.02, 0.08)
JITTERS = (0.0, 0.02, 0.05, 0.1)
LOSSES = (0.0, 1e-4)


class Planned(NamedTuple):
    """One run.

    Attributes:
        run: Its name.
        case: Its case's name.
        seed: Of everything that the case draws.
        base: The path while it is healthy.
        onset_s: How long all is well at first.
        lasts_s: How long the fault lasts then.
    """

    run: str
    case: str
    seed: int
    base: Base
    onset_s: float
    lasts_s: float


def plan(cases: Mapping[str, Case], seed: int, *, repeats: int = 0) -> list[Planned]:
    """Return the runs of a table, in the order in which they begin.

    Args:
        cases: To draw from.
        seed: The same seed gives the same table.
        repeats: Of each case; 0: of the cases that expect the same verdict one is drawn.
    """
    random = Random(seed)
    single = [case for case in cases.values() if len(case.expected) == 1]
    double = [case for case in cases.values() if len(case.expected) > 1]
    healthy = [case for case in cases.values() if not case.expected]
    chosen = single * repeats if repeats else _one_each(single, random)
    total = math.ceil(len(chosen) / (1 - HEALTHY_SHARE - DOUBLE_SHARE))
    chosen += _drawn(double, round(total * DOUBLE_SHARE), random)
    chosen += _drawn(healthy, math.ceil(total * HEALTHY_SHARE), random)
    random.shuffle(chosen)
    return [_planned(number, case, random) for number, case in enumerate(chosen)]


def _one_each(cases: Iterable[Case], random: Random) -> list[Case]:
    """Draw one of the cases of each verdict."""
    by_verdict: dict[str, list[Case]] = {}
    for case in cases:
        by_verdict.setdefault(case.expected[0].verdict, []).append(case)
    return [random.choice(group) for group in by_verdict.values()]


def _drawn(cases: list[Case], count: int, random: Random) -> list[Case]:
    """Draw this many; none comes again before each came once."""
    drawn: list[Case] = []
    while cases and len(drawn) < count:
        drawn += random.sample(cases, min(len(cases), count - len(drawn)))
    return drawn


def _planned(number: int, case: Case, random: Random) -> Planned:
    base = Base(random.choice(RTTS_S), random.choice(JITTERS), random.choice(LOSSES))
    return Planned(
        run=f"{number:03}-{case.name}",
        case=case.name,
        seed=random.getrandbits(48),
        base=base,
        onset_s=round(random.uniform(5.0, 11.0), 3),
        lasts_s=case.lasts_s,
    )
