"""Parsers of settings. Each refuses a text by ValueError, whose message is for the user."""

import hashlib
import math
import re
from collections.abc import Callable
from typing import TypeVar

__all__ = [
    "between",
    "boolean",
    "choice",
    "count",
    "label",
    "number",
    "place",
    "positive",
    "seconds",
    "size",
    "tcp_port",
    "timespan",
    "words",
]

NumberT = TypeVar("NumberT", int, float)

_MAX_LABEL = 128
_UNITS_BYTES = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_UNITS_S = {"ms": 1e-3, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def count(text: str) -> int:
    """Parse a whole number, 0 or more."""
    try:
        value = int(text)
    except ValueError:
        raise ValueError("not a whole number") from None
    if value < 0:
        raise ValueError("must not be negative")
    return value


def positive(text: str) -> int:
    """Parse a whole number, 1 or more."""
    value = count(text)
    if value == 0:
        raise ValueError("must be 1 or more")
    return value


def tcp_port(text: str) -> int:
    """Parse a TCP port; 0 lets the kernel choose."""
    if text.startswith("tcp://"):
        raise ValueError("Kubernetes sets this for a Service; set enableServiceLinks: false")
    value = count(text)
    if value > 65_535:
        raise ValueError("a port is at most 65535")
    return value


def seconds(text: str) -> float:
    """Parse a duration in seconds; ``500ms``, ``2s``, ``5m`` and ``1h`` work too."""
    match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*(ms|s|m|h|)\s*", text)
    try:
        value = float(match[1]) * _UNITS_S[match[2]] if match else math.nan
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError("not a duration; write 0.5, 500ms, 2s or 5m")
    return value


def size(text: str) -> int:
    """Parse a size in bytes; ``500kB``, ``50MB`` and ``1GB`` work too, by powers of 1,000."""
    match = re.fullmatch(r"\s*([0-9]+)\s*(B|kB|MB|GB|)\s*", text)
    if match is None:
        raise ValueError("not a size; write 1000000, 500kB, 50MB or 1GB")
    return int(match[1]) * _UNITS_BYTES[match[2]]


def timespan(text: str) -> float:
    """Parse a duration as ``seconds`` does, above 0."""
    value = seconds(text)
    if value == 0:
        raise ValueError("must be more than 0")
    return value


def number(text: str) -> float:
    """Parse a number."""
    try:
        return float(text)
    except ValueError:
        raise ValueError("not a number") from None


def between(parse: Callable[[str], NumberT], low: str, high: str) -> Callable[[str], NumberT]:
    """Make a parser for what ``parse`` takes, from ``low`` to ``high``: as a user writes them."""
    least, most = parse(low), parse(high)

    def parse_bounded(text: str) -> NumberT:
        value = parse(text)
        if not least <= value <= most:  # NaN is refused as well
            raise ValueError(f"must be {low} to {high}")
        return value

    return parse_bounded


def label(text: str) -> str:
    """Parse a text that may be a metric label: at most 128 printable ASCII characters."""
    if len(text) > _MAX_LABEL or not (text.isascii() and text.isprintable()):
        raise ValueError(f"must be at most {_MAX_LABEL} printable ASCII characters")
    return text


def place(text: str) -> str:
    """Parse the name of a process, a node or a zone. One over 128 characters is cut.

    A Kubernetes node may be called by 253. A hash stands for what is cut off, so that no two
    become one.
    """
    if len(text) > _MAX_LABEL:
        mark = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
        text = f"{text[: _MAX_LABEL - len(mark) - 1]}~{mark}"
    return label(text)


def boolean(text: str) -> bool:
    """Parse yes or no."""
    try:
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[
            text.lower()
        ]
    except KeyError:
        raise ValueError("not yes or no") from None


def words(text: str) -> tuple[str, ...]:
    """Parse a list, separated by commas or blanks."""
    return tuple(text.replace(",", " ").split())


def choice(*allowed: str) -> Callable[[str], str]:
    """Make a parser for one of the allowed words."""

    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return text

    return parse
