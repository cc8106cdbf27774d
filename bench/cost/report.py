"""The results as JSON, as a Markdown page and as one line. No I/O but the page's template."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .turn import BLACKBOX, CLIENT, SERVER, Measured

__all__ = ["EVERYTHING", "cost", "last_line", "markdown", "order"]

EVERYTHING = "everything on"
_PAGE = Path(__file__).with_name("page.md")


def order(names: Sequence[str]) -> list[str]:
    """Return whose turn it is within a round.

    The two that are compared, which are the first, come twice, next to each other; the others
    once, about them.
    """
    compared, others = names[:2], names[2:]
    half = len(others) // 2
    return [*compared, *others[:half], *compared, *others[half:]]


def cost(turns: Sequence[Measured]) -> dict[str, Any] | None:
    """Return what one prober's turns cost a probe, in us, by process; None without a turn."""
    if not turns:
        return None
    probes = sum(turn.probes for turn in turns)
    return {"probes": round(probes)} | {role: _process(turns, role) for role in turns[0].used}


def _process(turns: Sequence[Measured], role: str) -> dict[str, Any]:
    spent = [turn.used[role] for turn in turns]
    each_us = [used.cpu_ns / turn.probes / 1e3 for used, turn in zip(spent, turns, strict=True)]
    ticks = sum(used.user_ticks + used.system_ticks for used in spent)
    return {
        "us": sum(used.cpu_ns for used in spent) / sum(turn.probes for turn in turns) / 1e3,
        "turns_us": each_us,
        "kernel_share": sum(used.system_ticks for used in spent) / ticks if ticks else None,
    }


def markdown(results: Mapping[str, Any]) -> str:
    """Return the page."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    fields = {
        "versions": versions,
        "costs": _costs(results["cost"]),
        "shares": _shares(results["cost"]),
        "memory": _memory(results["memory_mib"]),
    }
    return _PAGE.read_text().format_map({**results, **fields})


def _costs(costs: Mapping[str, Any]) -> str:
    rows: list[Sequence[str]] = [
        ("", "process", "us a probe", "of that in the kernel", "least turn", "most turn")
    ]
    for name, of in (("twocans", EVERYTHING), ("blackbox_exporter", BLACKBOX)):
        found = costs[of]
        if found is None:
            rows.append((name, "not measured", "", "", "", ""))
            continue
        for role in (CLIENT, BLACKBOX, SERVER):
            if role in found:
                row = found[role]
                share = "" if row["kernel_share"] is None else f"{row['kernel_share']:.0%}"
                figures = (f"{value:.0f}" for value in (min(row["turns_us"]), max(row["turns_us"])))
                rows.append((name, _ROLES[role], f"{row['us']:.0f}", share, *figures))
    return _table(rows, left=2)


_ROLES = {CLIENT: "client", BLACKBOX: "exporter", SERVER: "twocans server"}


def _shares(costs: Mapping[str, Any]) -> str:
    rows: list[Sequence[str]] = [
        ("", "client, us a probe", "less by", "server, us a probe", "less by")
    ]
    for name, found in costs.items():
        if name == BLACKBOX:
            continue
        if found is None:
            rows.append((name, "not measured", "", "", ""))
            continue
        cells = [name]
        for role in (CLIENT, SERVER):
            cells.append(f"{found[role]['us']:.0f}")
            cells.append("" if name == EVERYTHING else _saved(costs[EVERYTHING][role], found[role]))
        rows.append(cells)
    return _table(rows, left=1)


def _saved(everything: Mapping[str, Any], without: Mapping[str, Any]) -> str:
    """Say what one thing less saved: in each round, against the mean of all with everything on."""
    turns_us, off_us = everything["turns_us"], without["turns_us"]
    each, rest = divmod(len(turns_us), len(off_us))
    if rest:
        raise ValueError(f"{len(turns_us)} turns are no whole number for {len(off_us)} rounds")
    saved = [
        statistics.mean(turns_us[number * each : (number + 1) * each]) - off
        for number, off in enumerate(off_us)
    ]
    return f"{round(statistics.median(saved))} ({round(min(saved))} to {round(max(saved))})"


def _memory(sizes: Mapping[str, Mapping[str, float | None]]) -> str:
    names = list(next(iter(sizes.values())))
    rows: list[Sequence[str]] = [("paths", *names)]
    for paths, by_name in sizes.items():
        cells = ("not measured" if size is None else f"{size:.0f}" for size in by_name.values())
        rows.append((paths, *cells))
    return _table(rows, left=0)


def _table(rows: Sequence[Sequence[str]], left: int) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * left + "---:|" * (len(rows[0]) - left))
    return "\n".join(lines)


def last_line(results: Mapping[str, Any]) -> str:
    """Return the bench's last word."""
    ours_us = results["cost"][EVERYTHING][CLIENT]["us"]
    theirs = results["cost"][BLACKBOX]
    if theirs is None:
        return f"cost: {ours_us:.0f} us CPU per probe, blackbox not measured, ratio not measured"
    theirs_us = theirs[BLACKBOX]["us"]
    ratio = ours_us / theirs_us
    return f"cost: {ours_us:.0f} us CPU per probe, blackbox {theirs_us:.0f} us, ratio {ratio:.2f}"
