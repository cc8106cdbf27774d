"""Figures that were measured beside what was injected. No I/O."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from twocans_client.evidence.intervals import wilson

from .judge import Judged, Match
from .shares import quantile, share

__all__ = ["AGREES", "counts", "figures", "network"]


def _exactly(measured: float, true: float) -> bool:
    return round(measured) == round(true)


def _within_5_percent(measured: float, true: float) -> bool:
    return abs(measured - true) <= 0.05 * abs(true)


AGREES: dict[str, Callable[[float, float], bool]] = {
    "mtu": _exactly,
    "rate": _within_5_percent,
    "delay_s": lambda measured, true: abs(measured - true) <= max(0.0005, 0.1 * abs(true)),
    "step_s": lambda measured, true: abs(measured - true) <= 0.01,
    "idle_s": lambda measured, true: abs(measured - true) <= max(1.0, 0.02 * abs(true)),
}
"""When a figure of a verdict agrees with what was injected; others are not compared, for what is
counted when a verdict begins is not what there will be in the end. ``share`` is apart: its interval
has to cover what was drawn."""


def figures(found: Iterable[Match]) -> dict[str, dict[str, Any]]:
    """Figures that verdicts stated beside what was injected."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    covered: list[bool] = []
    for match in found:
        said, true = match.found.figures if match.found else {}, match.fault.figures
        for name in AGREES.keys() & said.keys() & true.keys():
            pairs.setdefault(name, []).append((said[name], true[name]))
        if "share" in true and (interval := _interval(said)):
            covered.append(interval[0] <= true["share"] <= interval[1])
    agreed = {name: _agreement(mine, AGREES[name]) for name, mine in sorted(pairs.items())}
    if covered:
        agreed["share"] = share(sum(covered), len(covered))
    return agreed


def _interval(figures: Mapping[str, float]) -> tuple[float, float] | None:
    """The 95 % interval of a share that a verdict states, or its counts give."""
    if "share_low" in figures and "share_high" in figures:
        return figures["share_low"], figures["share_high"]
    if "lost" in figures and "sent" in figures:
        return wilson(int(figures["lost"]), int(figures["sent"]))
    return None


def counts(judged: Iterable[Judged]) -> dict[str, dict[str, Any]]:
    """Counts over whole runs, the pair's beside the wire's: only the same number agrees."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for one in judged:
        for name, pair in one.outcome.counts.items():
            pairs.setdefault(name, []).append(pair)
    return {name: _agreement(mine, _exactly) for name, mine in sorted(pairs.items())}


def _agreement(
    pairs: Sequence[tuple[float, float]], agrees: Callable[[float, float], bool]
) -> dict[str, Any]:
    errors = sorted(abs(measured - true) for measured, true in pairs)
    agreeing = sum(agrees(measured, true) for measured, true in pairs)
    return {
        **share(agreeing, len(pairs)),
        "error_p50": quantile(errors, 0.5),
        "error_max": errors[-1],
    }


def network(judged: Iterable[Judged]) -> dict[str, dict[str, Any]]:
    """The network's share of exchanges beside the wire's log: of all, and by what was wrong.

    In a run with a fault those count that began while it lasted, and no others.
    """
    groups: dict[str, list[list[float]]] = {}
    for one in judged:
        faults = one.outcome.faults
        errors = [
            abs(error_s)
            for at_s, error_s in one.outcome.transits
            if not faults or any(fault.onset_s <= at_s < fault.ended_s for fault in faults)
        ]
        names = {f"{fault.name.verdict} {fault.name.culprit}" for fault in faults} or {"healthy"}
        for name in ("all", *names) if errors else ():
            groups.setdefault(name, []).append(sorted(errors))
    return {name: _spread(runs) for name, runs in sorted(groups.items())}


def _spread(runs: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Errors of the exchanges of some runs, and the median of the run that has the largest."""
    errors = sorted(error for run in runs for error in run)
    return {
        "runs": len(runs),
        "exchanges": len(errors),
        "p50_s": quantile(errors, 0.5),
        "p95_s": quantile(errors, 0.95),
        "run_p50_max_s": max(quantile(run, 0.5) or 0.0 for run in runs),
    }
