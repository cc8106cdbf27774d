"""How values are written for people. No I/O."""

__all__ = ["printable", "show_ns", "show_share"]

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
