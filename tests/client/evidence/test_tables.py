"""A box that remembers so many connections, and chance, which does not: simulated to the SYN."""

import random

import pytest

from twocans_client.evidence.results import Reason
from twocans_client.evidence.rows import Probed, Waiting
from twocans_client.evidence.tables import parted

MS = 1_000_000
S = 1_000 * MS
WAIT_NS = 1_022 * MS


class Box:
    """Lets a SYN through while fewer connections are open or have ended lately."""

    def __init__(self, most: int, linger_ns: int) -> None:
        self.most, self.linger_ns = most, linger_ns
        self.ends: list[int] = []

    def passes(self, at_ns: int) -> bool:
        there = sum(end_ns + self.linger_ns > at_ns for end_ns in self.ends)
        if there < self.most:
            self.ends.append(at_ns + 5 * MS)
            return True
        return False


class Chance:
    """Loses SYNs one by one."""

    def __init__(self, share: float, seed: int) -> None:
        self.share, self.random = share, random.Random(seed)
        self.ends: list[int] = []

    def passes(self, at_ns: int) -> bool:
        return self.random.random() > self.share


def probed(box: Box | Chance, until_ns: int, begins_ns: int = 5 * S):
    """Probe ten times a second, from 0 on; the box begins its work later."""
    rows: list[Probed] = []
    waiting: list[Waiting] = []
    syns = [(at, at, 0) for at in range(0, until_ns, 100 * MS)]
    while syns:
        syns.sort(reverse=True)
        at_ns, began_ns, resent = syns.pop()
        number = began_ns // (100 * MS)
        if at_ns < begins_ns or box.passes(at_ns):
            if at_ns < begins_ns:
                box.ends.append(at_ns + 5 * MS)
            took_ns = at_ns - began_ns
            rows.append(
                Probed(
                    number,
                    began_ns,
                    at_ns + 5 * MS,
                    Reason.OK,
                    connect_ns=took_ns + MS,
                    syns_resent=resent,
                    synacks_resent=0,
                )
            )
        elif resent == 4:
            ended_ns = began_ns + 5 * S
            rows.append(Probed(number, began_ns, ended_ns, Reason.CONNECT_TIMEOUT, retrans=4))
        elif at_ns + WAIT_NS < until_ns:
            syns.append((at_ns + WAIT_NS, began_ns, resent + 1))
        else:
            waiting.append(Waiting(began_ns, None, 40_000, False))
    rows = [row for row in rows if row.ended_ns <= until_ns]
    return sorted(rows, key=lambda row: row.began_ns), waiting


@pytest.mark.parametrize(("most", "linger_s"), [(15, 5.0), (16, 5.46), (22, 7.96), (39, 9.9)])
def test_the_number_and_the_time_are_found(most, linger_s):
    rows, waiting = probed(Box(most, int(linger_s * S)), 18 * S)
    found = parted(rows, waiting, 5 * S, 18 * S)
    assert found is not None
    assert found.score > 0.97
    assert found.linger_s == pytest.approx(linger_s, rel=0.05)
    assert found.most == pytest.approx(most, rel=0.1)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.95])
def test_chance_parts_nothing(share):
    for seed in range(5):
        for until_ns in (9 * S, 14 * S, 20 * S):
            rows, waiting = probed(Chance(share, seed), until_ns)
            found = parted(rows, waiting, 5 * S, until_ns)
            assert found is None or found.score < 0.95


def test_an_outage_that_is_over_parts_nothing():
    class Outage(Chance):
        def passes(self, at_ns: int) -> bool:
            return at_ns > 9 * S

    rows, waiting = probed(Outage(0, 1), 12 * S)
    assert parted(rows, waiting, 5 * S, 12 * S) is None


def test_too_few_tell_nothing():
    assert parted([], [], 0, S) is None
    rows, waiting = probed(Box(16, 5 * S), 8 * S)
    assert parted(rows, waiting, 5 * S, 8 * S) is None
