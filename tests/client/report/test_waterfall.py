from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.far_end import SERVER, ended
from client.makers import exchange, good
from fakes import COUNTERS
from twocans_client.evidence.results import Reason, Unfinished
from twocans_client.report.summary import Report
from twocans_client.report.waterfall import waterfall as waterfall_of
from twocans_core.net.sockets import Address


def waterfall(result, width=80):
    report = Report()
    report.add(result)
    return waterfall_of(result, report.state, width)


BOTH_ENDS: dict[str, Any] = {
    "path": "server:5000",
    "address": Address("192.0.2.2", 5000),
    "local": ("192.0.2.1", 40_000),
}


def test_phases_are_one_below_the_other_and_it_says_how_it_ended():
    result = ended(
        Reason.OK,
        connect_ns=1_000_000,
        greet_ns=1_000_000,
        exchanges=[exchange(stamped=False)],
        close_ns=2_000_000,
        server=SERVER,
        **BOTH_ENDS,
    )
    verdict, *rows, who = waterfall(result).splitlines()
    assert [row.split()[0] for row in rows] == ["connect", "greet", "exchange", "close"]
    begins = [row.index("█") for row in rows]
    assert begins == sorted(begins)
    assert rows[2].endswith("network 100 µs, server 5.00 µs")
    assert verdict == "ok           server:5000 (192.0.2.2:5000), from 192.0.2.1:40000: 1.00 ms"
    assert who == "server       server, node-2, zone-2, twocans 0.1.0"


def notes(result):
    """Return what stands beside the bars."""
    return " ".join(line[57:].strip() for line in waterfall(result, 120).splitlines()[1:-1])


def test_an_exchange_is_told_by_its_parts_in_their_order():
    assert notes(good(exchange(), connect_ns=None, handshake_ns=None)) == (
        "client_send 10.0 µs, client_qdisc 1.00 µs, network 60.0 µs, server_wakeup 20.0 µs,"
        " server_app 5.00 µs, server_send 3.00 µs, client_wakeup 7.00 µs "
    ), "and nothing of a stall that was none"
    assert "recovery 60.0 µs" in notes(good(exchange(resent=True)))
    assert "network" not in notes(good(exchange(resent=True)))


def test_an_accept_that_was_waited_for_is_told():
    assert "accept 2.00 ms" in notes(good(greet_ns=3_000_000, accept_ns=2_000_000))
    assert "accept" not in notes(good(greet_ns=3_000_000, accept_ns=4_999))
    assert "accept" not in notes(good(greet_ns=3_000_000, accept_ns=None))


def test_each_of_several_exchanges_has_its_own_parts():
    rows = waterfall(good(exchange(), exchange(stamped=False), exchange(wakeup_ns=0)), 100)
    assert rows.count("exchange ") == 3
    assert rows.count("client_send") == rows.count("server_send") == 2
    assert rows.count("server_wakeup") == 1


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 10**11), min_size=1, max_size=12),
    st.integers(0, 10**11),
    st.booleans(),
    st.integers(60, 200),
)
def test_no_bar_is_wider_than_the_page(durations, other, stamped, width):
    exchanges = [
        exchange(forward_ns=ns, wakeup_ns=other, stall_ns=ns, send_ns=other, stamped=stamped)
        for ns in durations
    ]
    result = good(*exchanges, greet_ns=other, accept_ns=other)
    for line in waterfall(result, width).splitlines():
        assert len(line) <= width


def test_what_lowers_the_exit_code_or_the_trust_is_said():
    result = good(retrans=1, server_ended=COUNTERS._replace(total_retrans=2), tainted="throttled")
    text = waterfall(result)
    assert text.startswith("degraded ")
    assert "retransmitted: 3" in text
    assert "We stalled meanwhile: throttled" in text
    assert "connect" in text
    assert "retransmitted" not in waterfall(good())


def test_a_failed_probe_has_a_waterfall_too():
    result = ended(Reason.REFUSED, detail="ECONNREFUSED\x1b[2J", **BOTH_ENDS)
    result.unfinished = Unfinished("connect", 1_000_000)
    verdict, *_, row = waterfall(result).splitlines()
    assert verdict.startswith(
        "fail         server:5000 (192.0.2.2:5000), from 192.0.2.1:40000: refused"
    )
    assert row.split() == ["connect", "1.00", "ms", "█" * 18, "refused"]
    assert "whether the server is running" in waterfall(result)
    assert "\x1b" not in waterfall(result)


@pytest.mark.parametrize(
    ("reason", "phase", "words"),
    [
        (Reason.CONNECT_TIMEOUT, "connect", "no answer"),
        (Reason.GREETING_TIMEOUT, "greet", "no answer"),
        (Reason.REPLY_TIMEOUT, "exchange", "no answer"),
        (Reason.CLOSE_TIMEOUT, "close", "no answer"),
        (Reason.SHUTDOWN, "greet", "no answer yet"),
        (Reason.RESET, "greet", "reset"),
    ],
)
def test_the_phase_that_never_ended_has_its_bar_and_nobody_else_has_its_time(reason, phase, words):
    result = ended(reason, unfinished=Unfinished(phase, 1_000_000), dialled=True, **BOTH_ENDS)
    text = waterfall(result)
    (row,) = [line for line in text.splitlines() if "█" in line]
    assert row.split(maxsplit=4) == [phase, "1.00", "ms", "█" * 18, words]
    assert "overhead" not in text


def test_a_name_that_does_not_resolve_has_its_time_once():
    text = waterfall(ended(Reason.DNS_FAILURE, path="name:5000", resolve_ns=1_000_000))
    assert "name:5000: dns_failure, 1.00 ms" in text
    assert [line.split()[0] for line in text.splitlines() if "█" in line] == ["resolve"]
