from collections import deque
from typing import Any

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
