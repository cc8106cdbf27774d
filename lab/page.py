"""Scores in words: a line, and a few more. No I/O."""

from collections.abc import Iterator, Mapping

from .score import WINDOW_S, Summary

__all__ = ["NETWORK", "details", "last_line"]

BUSY = 0.2
"""Of the time; from there on a table is about the machine as well."""

NETWORK = {"all": "all runs", "cpu_throttled server_host": "the server short of its CPU quota"}
"""Of the rows of a score's ``network``, those that are shown."""


def last_line(summary: Summary, others: dict[str, Summary]) -> str:
    """Return the scores in one line."""
    alarms = summary["false_alarms"]
    best = max((one["macro_f1"] or 0.0 for one in others.values()), default=None)
    return (
        f"truth: cases {summary['cases']}, macro-F1 {_shown(summary['macro_f1'])}, "
        f"precision {_shown(summary['precision']['share'])}, "
        f"recall {_shown(summary['recall']['share'])}, "
        f"culprit {_shown(summary['culprit']['share'])}, "
        f"direction {_shown(summary['direction']['share'])}, "
        f"false alarms {alarms['alarmed']}/{alarms['controls']}; "
        f"best of the others F1 {_shown(best)}"
    )


def _shown(value: float | None, digits: int = 3) -> str:
    return "none" if value is None else f"{value:.{digits}f}"


def details(summary: Summary, others: Mapping[str, Summary]) -> Iterator[str]:
    """Return what the last line has no room for."""
    yield from summary["wrong"]
    alarms = summary["false_alarms"]
    yield (
        f"healthy: {alarms['spoilt']} of {alarms['windows']} windows of {WINDOW_S} s with a false "
        f"verdict, at most {alarms['upper']:.2%} at 95 %"
    )
    if (summary["starved"] or 0) > BUSY:
        yield (
            f"this machine was short of CPU for {summary['starved']:.0%} of the time (p50 of the "
            "runs): verdicts were late, and the figures say less than on an idle one"
        )
    times = summary["time_to_name_s"]
    if times["n"]:
        yield f"time to name: p50 {times['p50']:.1f} s, p95 {times['p95']:.1f} s, n={times['n']}"
    for kind in ("figures", "counts"):
        for name, row in summary[kind].items():
            error = f", largest error {row['error_max']:g}" if "error_max" in row else ""
            yield f"{name}: {row['count']} of {row['of']} agree{error}"
    for name, shown in NETWORK.items():
        if row := summary["network"].get(name):
            yield (
                f"network time less the wire's, {shown}: p50 {row['p50_s'] * 1e6:.0f} us, p95 "
                f"{row['p95_s'] * 1e6:.0f} us, n={row['exchanges']}"
            )
    yield f"unknown: {summary['unknown']}, instead of {summary['abstained']} faults"
    yield f"never named: {', '.join(summary['never_named']) or 'none'}"
    for tool, one in others.items():
        yield f"{tool}: {last_line(one, {}).partition(';')[0].removeprefix('truth: ')}"
