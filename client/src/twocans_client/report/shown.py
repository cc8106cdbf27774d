"""How values are written for people. No I/O."""

import re
import textwrap
from collections.abc import Iterable

__all__ = [
    "UNKNOWN_TO_ONE_END",
    "WIDTH",
    "printable",
    "show_ns",
    "show_share",
    "show_where",
    "wrapped",
]

WIDTH = 80
"""Columns of a page where nobody says how wide it is."""

UNKNOWN_TO_ONE_END = "loss and delay of each direction, sizes, whether its program answers"
"""Where connections are only made."""

_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:µs|ms|s|%)(?:\W|$))")
_UNITS = (("µs", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000))


def show_ns(ns: int | None) -> str:
    """Return a duration with three digits in the unit that suits it; ``-`` for None."""
    if ns is None:
        return "-"
    unit, size = next((pair for pair in _UNITS if abs(ns) < 1000 * pair[1]), _UNITS[-1])
    value = ns / size
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f} {unit}"


def show_share(part: int, whole: int) -> str:
    """Return a share in whole percent; what is there at all is never ``0 %``."""
    percent = round(100 * part / whole)
    return f"{percent} %" if percent or not part else "<1 %"


def printable(text: str) -> str:
    """Return a text that a terminal only shows: control characters become ``?``."""
    return "".join(char if char.isprintable() else "?" for char in text)


def show_where(path: str, addresses: Iterable[object]) -> str:
    """Return what was probed as it was written, and the addresses that were really tried."""
    written = path.partition(" ")[0]  # of a name with many the address stands behind it
    tried = ", ".join(str(address) for address in addresses)
    return f"{written} ({tried})" if tried and tried != written else written


def wrapped(label: str, text: str, width: int) -> list[str]:
    """Return a text beside its label, in lines that are not longer than the page."""
    indent = " " * 13
    lines = textwrap.wrap(
        _BEFORE_UNIT.sub("\u00a0", f"{label:12} {text}"),
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\u00a0", " ") for line in lines]
