"""Scores of many runs: how often the verdicts were right, how soon, and how exact. No I/O."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from .agreement import counts, figures, network
from .judge import Judged, Match, judge
from .outcome import Outcome
from .shares import quantile, share, upper_bound

__all__ = ["WINDOW_S", "Summary", "markdown", "score"]

WINDOW_S = 10
"""Healthy time is counted in windows of this length: a false alarm spoils one."""

Summary = dict[str, Any]


def score(outcomes: Iterable[Outcome]) -> Summary:
    """Return the scores of one tool's runs, as a document.

    A run with a problem shows nothing and is only counted.
    """
    outcomes = list(outcomes)
    judged = [judge(one) for one in outcomes if not one.problem]
    matches = [match for one in judged for match in one.matches]
    found = [match for match in matches if match.found]
    false = [said for one in judged for said in one.false]
    by_fault = _by_fault(judged, matches)
    named = [match for match in matches if match.named]
    culprits = [match for match in named if _culprit_is_right(match)]
    directed = [match for match in named if match.fault.name.direction]
    directions = [match for match in directed if _direction(match) == match.fault.name.direction]
    return {
        "cases": len(judged),
        "problems": len(outcomes) - len(judged),
        "faults": len(matches),
        "macro_f1": round(fmean(row["f1"] for row in by_fault.values()), 4) if by_fault else None,
        "precision": share(len(found), len(found) + len(false)),
        "recall": share(len(found), len(matches)),
        "culprit": share(len(culprits), len(named)),
        "direction": share(len(directions), len(directed)),
        "starved": quantile(sorted(one.outcome.starved for one in judged), 0.5),
        "unknown": sum(one.unknown for one in judged),
        "abstained": sum(len(_missed(one)) for one in judged if one.unknown),
        "false_alarms": _false_alarms(judged),
        "time_to_name_s": _times(matches),
        "by_fault": by_fault,
        "never_named": [verdict for verdict, row in by_fault.items() if not row["named"]],
        "figures": figures(found),
        "counts": counts(judged),
        "network": network(judged),
        "confusion": _confusion(judged),
        "wrong": [one for each in judged for one in _wrong(each)],
    }


def _wrong(one: Judged) -> list[str]:
    """What was missed in a run, with what was said instead, and what was false."""
    said = ", ".join(dict.fromkeys(each.name.verdict for each in one.outcome.said)) or "nothing"
    run = one.outcome.run
    missed = [f"{run}: {each.fault.name.verdict} missed, said {said}" for each in _missed(one)]
    return missed + [
        f"{run}: {' '.join(filter(None, each.name))} is false: {each.proof}" for each in one.false
    ]


def _missed(one: Judged) -> list[Match]:
    return [match for match in one.matches if match.found is None]


def _culprit_is_right(match: Match) -> bool:
    """Of the first verdict with the right name: what a reader would have acted upon."""
    return match.named is not None and match.named == match.found


def _direction(match: Match) -> str:
    return match.named.name.direction if match.named else ""


def _by_fault(judged: Sequence[Judged], matches: Sequence[Match]) -> dict[str, dict[str, Any]]:
    false = Counter(said.name.verdict for one in judged for said in one.false)
    rows = {}
    for verdict in sorted({match.fault.name.verdict for match in matches}):
        mine = [match for match in matches if match.fault.name.verdict == verdict]
        found = sum(match.found is not None for match in mine)
        directed = [match for match in mine if match.named and match.fault.name.direction]
        rows[verdict] = {
            "faults": len(mine),
            "named": sum(match.named is not None for match in mine),
            "found": found,
            "false": false[verdict],
            "recall": share(found, len(mine)),
            "f1": round(2 * found / (found + false[verdict] + len(mine)), 4),
            "directed": len(directed),
            "directions": sum(
                _direction(match) == match.fault.name.direction for match in directed
            ),
            "time_to_name_s": _times(mine),
            "severity": _by_severity(mine),
        }
    return rows


def _times(matches: Iterable[Match]) -> dict[str, float | int | None]:
    times = sorted(time for match in matches if (time := match.time_to_name_s) is not None)
    return {"n": len(times), "p50": quantile(times, 0.5), "p95": quantile(times, 0.95)}


def _by_severity(matches: Iterable[Match]) -> list[dict[str, Any]]:
    """Recall by thirds of what was drawn, least numbers first; by case, for units differ."""
    cases: dict[str, list[Match]] = {}
    for match in matches:
        if match.fault.severity is not None:
            cases.setdefault(match.fault.case, []).append(match)
    rows = []
    for case, mine in sorted(cases.items()):
        mine.sort(key=lambda match: match.fault.severity or 0.0)
        for third in range(3):
            part = mine[len(mine) * third // 3 : len(mine) * (third + 1) // 3]
            if part:
                rows.append(
                    {
                        "case": case,
                        "from": part[0].fault.severity,
                        "to": part[-1].fault.severity,
                        "recall": share(sum(m.found is not None for m in part), len(part)),
                    }
                )
    return rows


def _false_alarms(judged: Sequence[Judged]) -> dict[str, Any]:
    """Of healthy controls, and of all healthy time, which is also what precedes a fault."""
    controls = [one for one in judged if not one.outcome.faults]
    alarmed = [one for one in controls if one.false]
    windows, spoilt = 0, 0
    for one in judged:
        healthy = int(one.outcome.healthy_s // WINDOW_S)
        windows += healthy
        spoilt += len({w for said in one.false if (w := int(said.at_s // WINDOW_S)) < healthy})
    return {
        "controls": len(controls),
        "alarmed": len(alarmed),
        "windows": windows,
        "spoilt": spoilt,
        "upper": round(upper_bound(spoilt, windows), 5),
        "said": sorted(
            f"{one.outcome.run}: {said.name.verdict}" for one in alarmed for said in one.false
        ),
    }


def _confusion(judged: Iterable[Judged]) -> dict[str, dict[str, int]]:
    """What was said of which fault; of the healthy controls too. ``nothing``: no verdict at all.

    What was false in a run of two faults stands with the first.
    """
    table: dict[str, Counter[str]] = {}
    for one in judged:
        rows = [match.fault.name.verdict for match in one.matches] or ["healthy"]
        cells = table.setdefault(rows[0], Counter())
        cells.update(said.name.verdict for said in one.false)
        found = [match.fault.name.verdict for match in one.matches if match.found]
        for row in rows:
            if row in found:
                table.setdefault(row, Counter())[row] += 1
            elif not one.false:
                table.setdefault(row, Counter())["nothing"] += 1
    return {row: dict(sorted(cells.items())) for row, cells in sorted(table.items())}


def markdown(summary: Summary) -> str:
    """Return the table by fault."""
    rows = [
        "| fault | injected | found | false | F1 | direction right | time to name p50, p95 |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for verdict, row in summary["by_fault"].items():
        times = row["time_to_name_s"]
        direction = f"{row['directions']}/{row['directed']}" if row["directed"] else ""
        seconds = f"{times['p50']:.1f} s, {times['p95']:.1f} s" if times["n"] else ""
        rows.append(
            f"| `{verdict}` | {row['faults']} | {row['found']} | {row['false']} "
            f"| {row['f1']:.2f} | {direction} | {seconds} |"
        )
    return "\n".join(rows) + "\n"
