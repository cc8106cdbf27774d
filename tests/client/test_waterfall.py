from hypothesis import given
from hypothesis import strategies as st

from client.evidence import exchange, good
from client.far_end import SERVER, ended
from fakes import COUNTERS
from twocans_client.results import Reason
from twocans_client.waterfall import waterfall


def test_phases_are_one_below_the_other_and_it_says_how_it_ended():
    result = ended(
        Reason.OK,
        connect_ns=1_000_000,
        greet_ns=1_000_000,
        exchanges=[exchange(stamped=False)],
        close_ns=2_000_000,
        server=SERVER,
    )
    *rows, verdict, who = waterfall(result).splitlines()
    assert [row.split()[0] for row in rows] == ["connect", "greet", "exchange", "close"]
    begins = [row.index("█") for row in rows]
    assert begins == sorted(begins)
    assert rows[2].endswith("network 100 µs, server 5.00 µs")
    assert verdict.startswith("ok")
    assert who == "server server, node-2, zone-2, twocans 0.1.0"


def notes(result):
    """Return what stands beside the bars."""
    return " ".join(line[54:].strip() for line in waterfall(result).splitlines()[:-2])


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
    rows = waterfall(good(exchange(), exchange(stamped=False), exchange(wakeup_ns=0)))
    assert rows.count("exchange ") == 3
    assert rows.count("client_send") == rows.count("server_send") == 2
    assert rows.count("server_wakeup") == 1


@given(
    st.lists(st.integers(0, 10**11), min_size=1, max_size=12),
    st.integers(0, 10**11),
    st.booleans(),
)
def test_no_bar_is_wider_than_the_page(durations, other, stamped):
    exchanges = [
        exchange(there_ns=ns, wakeup_ns=other, stall_ns=ns, send_ns=other, stamped=stamped)
        for ns in durations
    ]
    result = good(*exchanges, greet_ns=other, accept_ns=other)
    for line in waterfall(result).splitlines():
        assert len(line) <= 100


def test_what_lowers_the_exit_code_or_the_trust_is_said():
    result = good(retrans=1, server_ended=COUNTERS._replace(total_retrans=2), tainted="throttled")
    text = waterfall(result)
    assert "sent again: 3" in text
    assert "we stood still meanwhile: throttled" in text
    assert "connect" in text
    assert "sent again" not in waterfall(good())


def test_a_failed_probe_has_a_waterfall_too():
    text = waterfall(ended(Reason.REFUSED, detail="ECONNREFUSED\x1b[2J"))
    assert "refused" in text
    assert "\x1b" not in text
