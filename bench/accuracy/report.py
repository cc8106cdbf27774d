"""The results as JSON, as a Markdown page and as one line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import BLACKBOX, EXCHANGE, FIGURES, NETWORK, Errors, Found, Stamped, quantile

__all__ = ["condition", "last_line", "markdown"]

_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
_COLUMNS = (*_SHARES, "max")

_STAMPS = ("t1k", "t2k", "t3k", "t4k")
_LATE_NS = 10_000

_PAGE = Path(__file__).with_name("page.md")


def _spread(values: Sequence[int]) -> dict[str, float] | None:
    """Return the quantiles of some ns, in us; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    spread = {name: quantile(ordered, share) / 1e3 for name, share in _SHARES.items()}
    return spread | {"max": ordered[-1] / 1e3}


def condition(found: Found, stamped: Sequence[Stamped], **more: Any) -> dict[str, Any]:
    """Return one condition's results, all in us."""
    figures: dict[str, Any] = {}
    for kind, tools in FIGURES.items():
        figures[kind] = {
            tool: _errors(found[kind, tool]) if (kind, tool) in found else None for tool in tools
        }
        figures[kind]["the truth itself"] = _truth(found[kind, NETWORK])
    return more | {
        "errors_us": figures,
        "stamps_less_capture_us": _offsets(stamped),
        "late_transmits": _late_transmits(stamped),
    }


def _errors(errors: Errors) -> dict[str, Any]:
    return {
        "samples": len(errors.errors),
        "no_figure": errors.no_figure,
        "no_truth": errors.no_truth,
        "error": _spread([abs(error) for error in errors.errors]),
    }


def _truth(errors: Errors) -> dict[str, Any]:
    return {"samples": len(errors.truths), "error": _spread(errors.truths)}


def _offsets(stamped: Sequence[Stamped]) -> dict[str, Any]:
    """Return for each timestamp how much later than the capture's it is."""
    spreads = {}
    for name in _STAMPS:
        values = [getattr(each, name) for each in stamped]
        spread = _spread(values)
        if spread is not None:
            spreads[name] = {"min": min(values) / 1e3} | spread
    return spreads


def _late_transmits(stamped: Sequence[Stamped]) -> dict[str, int]:
    """Count transmit timestamps that are late by the capture at their own end.

    ``on_time`` are those of them that the other end's confirms: the packet was there right after
    the timestamp.
    """
    transmits = [(each.t1k, each.forward) for each in stamped]
    transmits += [(each.t3k, each.reverse) for each in stamped]
    late = [arrived_ns for less_ns, arrived_ns in transmits if less_ns > _LATE_NS]
    return {"late": len(late), "on_time": sum(0 <= ns <= _LATE_NS for ns in late)}


def markdown(results: Mapping[str, Any]) -> str:
    """Return the page."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    tables = "\n".join(
        f"## {name}\n\n" + (_tables(measured) if measured else "Not measured.\n")
        for name, measured in results["conditions"].items()
    )
    page = _PAGE.read_text()
    return page.format_map({**results, "versions": versions, "tables": tables})


def _tables(measured: Mapping[str, Any]) -> str:
    lines = [f"{', '.join(f'{count:,} {name}' for name, count in measured['counts'].items())}.", ""]
    head = ("", "tool", *_COLUMNS, "p99 : twocans", "samples", "no figure", "no truth")
    lines += [_line(head), "|---|---|" + "---:|" * (len(head) - 2)]
    for kind, tools in measured["errors_us"].items():
        for tool, row in tools.items():
            if row is None or row["error"] is None:
                lines.append(_line((kind, tool, "not measured", *[""] * (len(head) - 3))))
                continue
            counts = [f"{row[key]:,}" if key in row else "" for key in ("no_figure", "no_truth")]
            shown = [f"{row['error'][column]:,.1f}" for column in _COLUMNS]
            shown.append(_ratio(row, tools[NETWORK]) if tool != NETWORK else "")
            lines.append(_line((kind, tool, *shown, f"{row['samples']:,}", *counts)))
    lines += ["", "twocans' stamps less the capture's of the same event, in microseconds:", ""]
    head = ("stamp", "min", *_COLUMNS)
    lines += [_line(head), "|---|" + "---:|" * (len(head) - 1)]
    for name, row in measured["stamps_less_capture_us"].items():
        lines.append(_line((name, *(f"{row[column]:,.2f}" for column in head[1:]))))
    late = measured["late_transmits"]
    lines += [
        "",
        f"{late['late']} transmit stamps (t1k, t3k) are more than {_LATE_NS // 1000} us after the"
        f" capture's. {late['on_time']} of these packets",
        f"were in the other end's capture within {_LATE_NS // 1000} us of the stamp.",
    ]
    return "\n".join(lines) + "\n"


def _ratio(row: Mapping[str, Any] | None, ours: Mapping[str, Any] | None) -> str:
    """Return how many times as wrong as we somebody is, by the p99."""
    if not row or not row["error"] or not ours or not ours["error"] or not ours["error"]["p99"]:
        return "not measured"
    return f"{row['error']['p99'] / ours['error']['p99']:,.0f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def last_line(results: Mapping[str, Any]) -> str:
    """Return the bench's last word: exchange figures, p99."""

    def row(name: str, tool: str) -> Mapping[str, Any] | None:
        measured = results["conditions"].get(name)
        found: Mapping[str, Any] | None = measured and measured["errors_us"][EXCHANGE][tool]
        return found

    def p99(name: str, tool: str) -> str:
        found = row(name, tool)
        return f"{found['error']['p99']:.1f} us" if found and found["error"] else "not measured"

    return (
        f"accuracy: idle p99 {p99('idle', NETWORK)}, busy p99 {p99('busy', NETWORK)}, "
        f"quota p99 {p99('quota', NETWORK)}; blackbox busy p99 {p99('busy', BLACKBOX)}; "
        f"ratio {_ratio(row('busy', BLACKBOX), row('busy', NETWORK))}"
    )
