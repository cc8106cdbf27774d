import pytest
from hypothesis import given
from hypothesis import strategies as st

from twocans_core.process.values import (
    between,
    boolean,
    choice,
    count,
    label,
    number,
    place,
    positive,
    seconds,
    size,
    tcp_port,
    words,
)
from twocans_core.protocol.messages import MAX_TEXT


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (count, "0", 0),
        (positive, "1", 1),
        (tcp_port, "65535", 65_535),
        (size, "0", 0),
        (size, "500", 500),
        (size, " 500 kB ", 500_000),
        (size, "50MB", 50_000_000),
        (size, "1GB", 1_000_000_000),
        (seconds, "0", 0.0),
        (seconds, "0.5", 0.5),
        (seconds, " 500 ms ", 0.5),
        (seconds, "2s", 2.0),
        (seconds, "5m", 300.0),
        (seconds, "1h", 3600.0),
        (seconds, "1e-05", 0.000_01),
        (seconds, "1e+16", 1e16),
        (label, "", ""),
        (label, "~ " * 64, "~ " * 64),
        (boolean, "YES", True),
        (boolean, "1", True),
        (boolean, "False", False),
        (words, "", ()),
        (words, " a, b\tc,,d ", ("a", "b", "c", "d")),
        (choice("low", "high"), "high", "high"),
        (number, "0.25", 0.25),
        (between(seconds, "1ms", "30s"), "1ms", 0.001),
        (between(seconds, "1ms", "30s"), "30", 30.0),
        (between(count, "0", "9"), "9", 9),
    ],
)
def test_a_text_means_this(parse, text, value):
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "problem"),
    [
        (count, "-1", "must not be negative"),
        (count, "1.5", "not a whole number"),
        (count, "", "not a whole number"),
        (positive, "0", "must be 1 or more"),
        (tcp_port, "65536", "a port is at most 65535"),
        (seconds, "", "not a duration"),
        (seconds, "-1", "not a duration"),
        (seconds, "nan", "not a duration"),
        (seconds, "inf", "not a duration"),
        (seconds, "1e999", "not a duration"),
        (seconds, "1.2.3", "not a duration"),
        (seconds, "5 parsecs", "not a duration"),
        (size, "", "not a size"),
        (size, "-1", "not a size"),
        (size, "1.5MB", "not a size"),
        (size, "1 MiB", "not a size"),
        (label, "a" * 129, "at most 128"),
        (label, "\u00fc", "printable ASCII"),
        (place, "\u00fc" * 200, "printable ASCII"),
        (label, "a\nb", "printable ASCII"),
        (boolean, "perhaps", "not yes or no"),
        (number, "some", "not a number"),
        (between(seconds, "1ms", "30s"), "0", "must be 1ms to 30s"),
        (between(seconds, "1ms", "30s"), "31s", "must be 1ms to 30s"),
        (between(seconds, "1ms", "30s"), "some", "not a duration"),
        (between(number, "0", "1"), "nan", "must be 0 to 1"),
        (choice("low", "high"), "middle", "must be one of low, high"),
    ],
)
def test_a_text_is_refused_and_why(parse, text, problem):
    with pytest.raises(ValueError, match=problem):
        parse(text)


def test_a_name_of_a_place_is_cut_so_that_no_two_become_one():
    long = "node-" + "x" * 248
    assert place("x" * 128) == "x" * 128
    assert len(place(long)) == 128 == MAX_TEXT, "it travels in the greeting"
    assert place(long)[:100] == long[:100]
    assert place(long) != place(long + "y")
    assert place(long) == place(long)


@given(st.text(max_size=20))
@pytest.mark.parametrize("parse", [count, positive, tcp_port, seconds, label, boolean, words])
def test_any_text_is_a_value_or_a_value_error(parse, text):
    try:
        value = parse(text)
    except ValueError:
        return
    assert value is not None
