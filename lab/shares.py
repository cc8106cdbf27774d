"""Shares and quantiles of a few runs, with what is certain of them. No I/O."""

from collections.abc import Sequence
from math import exp, lgamma, log
from typing import Any

from twocans_client.evidence.intervals import wilson

__all__ = ["quantile", "share", "upper_bound"]


def share(count: int, of: int) -> dict[str, Any]:
    """Return a share with its 95 % interval (Wilson 1927), as a document."""
    low, high = wilson(count, of)
    return {
        "count": count,
        "of": of,
        "share": round(count / of, 4) if of else None,
        "low": round(low, 4),
        "high": round(high, 4),
    }


def upper_bound(count: int, of: int) -> float:
    """Return the 95 % upper bound of a share (Clopper and Pearson 1934); with none seen, 3/n."""
    if of <= count:
        return 1.0
    low, high = count / of, 1.0
    while high - low > 1e-7:
        middle = (low + high) / 2
        as_few = sum(_binomial(k, of, middle) for k in range(count + 1))
        low, high = (middle, high) if as_few > 0.05 else (low, middle)
    return high


def _binomial(k: int, n: int, p: float) -> float:
    """The chance of k in n; by logarithms, since the factors leave what a float can hold."""
    ways = lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
    return exp(ways + k * log(p) + (n - k) * log(1 - p))


def quantile(values: Sequence[float], part: float) -> float | None:
    """Return the least value that at least this part of sorted values do not exceed."""
    if not values:
        return None
    return round(values[max(0, -int(-part * len(values) // 1) - 1)], 6)
