"""What is certain of a share, at 95 %, in numbers and for people. No I/O."""

from decimal import Decimal
from math import sqrt

__all__ = ["in_words", "wilson"]

_Z95 = 1.959964


def wilson(lost: int, sent: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927); everything when nothing was sent."""
    if sent <= 0:
        return 0.0, 1.0
    lost = min(max(lost, 0), sent)
    share = lost / sent
    spread = _Z95 * sqrt(share * (1 - share) / sent + _Z95**2 / (4 * sent**2))
    middle = share + _Z95**2 / (2 * sent)
    scale = 1 + _Z95**2 / sent
    # At both ends exactly, and not what rounding leaves.
    low = (middle - spread) / scale if lost > 0 else 0.0
    high = (middle + spread) / scale if lost < sent else 1.0
    return low, high


def in_words(lost: int, sent: int, *, is_least: bool = False) -> str:
    """Say a share with what is certain of it at 95 %.

    With nothing lost that is "less than 3/n", the rule of three: had the share been larger,
    a loss would have been seen in 19 of 20 cases.

    Args:
        lost: How many.
        sent: Of how many.
        is_least: Loss may have kept others out of the count: then only the lower end is certain.
    """
    if sent <= 0:
        return "nothing sent"
    if not lost:
        bound = "" if is_least else f": less than {_percent(min(1.0, 3 / sent))}"
        return f"none of {sent:,}{bound}"
    low, high = wilson(lost, sent)
    bound = "or more" if is_least else f"to {_percent(high)}"
    return f"{lost:,} of {sent:,}: {_percent(low)} {bound}"


def _percent(share: float) -> str:
    return f"{Decimal(f'{share * 100:.2g}'):f} %"
