from random import Random

from hypothesis import given
from hypothesis import strategies as st

from twocans_client.report.shown import printable, show_ns, show_share


@given(st.text())
def test_what_a_terminal_would_act_on_is_not_printed(text):
    shown = printable(text)
    assert len(shown) == len(text)
    assert all(char.isprintable() for char in shown)


def test_durations_are_shown_in_the_unit_that_suits_them():
    shown = [show_ns(ns) for ns in (1_500, 1_500_000, 1_500_000_000)]
    assert shown == ["1.50 µs", "1.50 ms", "1.50 s"]
    assert show_ns(None) == "-"
    assert float(show_ns(0).split()[0]) == 0
    rng = Random(1)
    for _ in range(2_000):
        cell = show_ns(rng.randrange(10 ** rng.randrange(1, 13)))
        assert len(cell) <= 10, cell


def test_a_share_is_whole_percent_and_nothing_only_when_it_is():
    shown = [show_share(part, 1_000) for part in (0, 1, 6, 126, 1_000)]
    assert shown == ["0 %", "<1 %", "1 %", "13 %", "100 %"]
