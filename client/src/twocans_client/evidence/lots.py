"""Whether it depends on the local port which connections come to be. No I/O.

Equal-cost routes, the links of a bundle and the workers of a balancer each take some connections,
by their addresses and ports. If one of them is dead, the connections with some local ports fail
whole, every SYN of theirs, and all others are as good as ever.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from .rows import Probed
from .window import Window

__all__ = ["Fate", "Lot", "fates", "lot_of", "ports_like", "ports_to_try"]

# A SYN, and the one that is sent again a second later, had no answer.
_WAITED_NS = 1_200_000_000
_MOST_CLASSES = 16
_HYPOTHESES = 2 + 4 + 8 + 16
# Times that good and bad ones take turns: else it may be an outage of all.
_TURNS = 5
_FEW = 3
# Ports to try again a second, beside one that failed.
_ASKED = 3
# Another port of the same class, near to it: this bit is turned over.
_SAME_CLASS = 2 * _MOST_CLASSES


class Fate(NamedTuple):
    """What became of one connection.

    Attributes:
        began_ns: When it was begun.
        port: Our own.
        failed: Every SYN of it was lost, as far as is known.
        number: Of the probe; 0 while it is under way.
    """

    began_ns: int
    port: int
    failed: bool
    number: int


class Lot(NamedTuple):
    """Ports whose connections fail whole.

    Attributes:
        failed: Those connections, and no others.
        good: Connections that were begun among them and came to be.
        of: Of so many classes of ports it is one, by the remainder; None: of no such class, but the
            same ports failed again.
        remainder: That.
        chance: Of it looking so if the ports had nothing to do with it.
    """

    failed: tuple[Fate, ...]
    good: tuple[Fate, ...]
    of: int | None
    remainder: int
    chance: float


def fates(window: Window, since_ns: int) -> list[Fate]:
    """Return what became of the connections begun since then, oldest first.

    Left out is what tells nothing: those that came to be after a SYN was lost, too.
    """
    found = [fate for row in window.probes if (fate := _fate(row)) and fate.began_ns >= since_ns]
    found += [
        Fate(each.began_ns, each.local_port, failed=True, number=0)
        for each in window.waiting
        if each.connected_ns is None
        and each.local_port is not None
        and window.now_ns - each.began_ns >= _WAITED_NS
        and each.began_ns >= since_ns
    ]
    return sorted(found)


def _fate(row: Probed) -> Fate | None:
    if row.local_port is None:
        return None
    if row.is_unanswered:
        return Fate(row.began_ns, row.local_port, failed=True, number=row.number)
    if row.connect_ns is not None and not row.syns_resent:
        return Fate(row.began_ns, row.local_port, failed=False, number=row.number)
    return None


def lot_of(found: list[Fate]) -> Lot | None:
    """Return the ports that fail, if it is the ports; None where it need not be.

    Args:
        found: As by ``fates``.
    """
    failed = [fate for fate in found if fate.failed]
    if len(failed) < _FEW:
        return None
    first_ns, last_ns = failed[0].began_ns, failed[-1].began_ns
    among = [fate for fate in found if first_ns <= fate.began_ns <= last_ns]
    good = [fate for fate in among if not fate.failed]
    if sum(a.failed != b.failed for a, b in pairwise(among)) < _TURNS:
        return None
    return _class_of(failed, good) or _same_again(failed, among)


def _class_of(failed: list[Fate], good: list[Fate]) -> Lot | None:
    """Of equally many ways to choose who fails, one has all of a class and none besides."""
    chance = _HYPOTHESES / math.comb(len(failed) + len(good), len(failed))
    # The largest class that fits: of fewer than all of it nothing is known.
    of = 2
    while of <= _MOST_CLASSES:
        remainder = failed[0].port % of
        if any(fate.port % of != remainder for fate in failed):
            return None
        if all(fate.port % of != remainder for fate in good):
            return Lot(tuple(failed), tuple(good), of, remainder, chance)
        of *= 2
    return None


def _same_again(failed: list[Fate], among: list[Fate]) -> Lot | None:
    """Ports that failed once fail whenever they are tried again, and others do not."""
    share = len(failed) / len(among)
    seen: dict[int, bool] = {}
    again = 0
    for fate in among:
        if fate.port in seen:
            if seen[fate.port] != fate.failed:
                return None
            again += fate.failed
        seen[fate.port] = fate.failed
    if not again:
        return None
    good = tuple(fate for fate in among if not fate.failed)
    return Lot(tuple(failed), good, None, 0, share**again)


def ports_to_try(window: Window, since_ns: int) -> Iterator[int]:
    """Yield ports that would tell more, if one of the next probes used them; none if all is well.

    One that failed, if it is free again, or one of its class; and neighbours of some that came to
    be: where most ports fail, too few others would show that some do not.
    """
    found = fates(window, since_ns)
    failed = [fate for fate in found if fate.failed]
    good = [fate for fate in found if not fate.failed]
    if not failed or not good:
        return
    newest = failed[-1]
    yield newest.port if newest.number else newest.port ^ _SAME_CLASS
    for fate in good[-_ASKED:]:
        yield fate.port ^ _SAME_CLASS


def ports_like(port: int | None) -> tuple[int, ...]:
    """Return ports of the same class as one that was good, for what is to get through as well."""
    return () if port is None else (port ^ _SAME_CLASS, port ^ 2 * _SAME_CLASS)
