from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twocans_server.turns import Turns


@given(st.dictionaries(st.integers(), st.integers(1, 9), max_size=9))
def test_each_has_one_share_a_round_and_a_turn_of_the_loop_serves_one(shares):
    loop: deque[Any] = deque()
    left, order = dict(shares), []

    def serve(one: int) -> None:
        order.append(one)
        left[one] -= 1
        if left[one]:
            turns.put(one)

    turns: Turns[int] = Turns(loop.append, serve)
    for one in shares:
        turns.put(one)
    while loop:
        assert len(loop) == 1
        before = len(order)
        loop.popleft()()
        assert len(order) == before + 1
    assert not turns
    rounds = range(max(shares.values(), default=0))
    assert order == [one for number in rounds for one in shares if shares[one] > number]


def test_a_turn_that_fails_costs_no_other_its_own():
    calls: list[Any] = []
    served: list[str] = []

    def serve(one):
        if one == "bad":
            raise MemoryError
        served.append(one)

    turns = Turns(calls.append, serve)
    for one in ("bad", "good", "last"):
        turns.put(one)
    with pytest.raises(MemoryError):
        calls.pop(0)()
    while calls:
        calls.pop(0)()
    assert served == ["good", "last"]
