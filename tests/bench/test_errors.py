from pathlib import Path
from random import Random
from typing import Any

import pytest
from bench.accuracy import errors, report
from bench.accuracy.capture import Endpoint, Segment, connections, read_pcap
from bench.accuracy.errors import Captures, Errors, Stamped, quantile
from bench.accuracy.rivals import align, measured_ns, read_log

FOLDER = Path(__file__).parent / "captures"
SERVER = ("10.91.0.2", 5000)
PORT = 62008
# The probe's own window and stamps, from its line in the same run.
WINDOW = [1795459955882116009, 1795459955883739925]
STAMPS = [1795459955882881978, 1795459955882884142, 1795459955883015186, 1795459955883017340]
HANDSHAKE_NS, GREETING_NS, EXCHANGE_NS = 17156, 5879, 5178


def recorded(end: str) -> list[Segment]:
    return list(read_pcap((FOLDER / f"{end}.pcap").read_bytes()))


def captures(near: list[Segment], far: list[Segment]) -> Captures:
    return Captures(connections(near), connections(far))


@pytest.fixture
def both() -> Captures:
    return captures(recorded("client"), recorded("server"))


def probe(**more: Any) -> dict[str, Any]:
    exchange = {"network": 4318, "user": 181279, "stamps": STAMPS}
    made = {"window": WINDOW, "port": PORT, "connect": [22000, 166017], "exchanges": [exchange]}
    return made | more


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.5, 50), (0.9, 90), (0.99, 99), (0.999, 100), (0.001, 1), (0.501, 51)],
)
def test_a_quantile_is_the_smallest_value_that_covers_its_share(share, expected):
    assert quantile(range(1, 101), share) == expected


def test_a_quantile_of_one_value_is_that():
    assert [quantile([7], share) for share in (0.001, 0.5, 0.999)] == [7, 7, 7]


def test_our_figures_are_held_against_the_capture(both):
    found, stamped = errors.twocans([probe()], both, SERVER)

    assert {key: value.errors for key, value in found.items()} == {
        ("connect", "twocans"): [22000 - HANDSHAKE_NS],
        ("connect", "user clock"): [166017 - HANDSHAKE_NS],
        ("exchange", "twocans"): [4318 - EXCHANGE_NS],
        ("exchange", "user clock"): [181279 - EXCHANGE_NS],
    }
    assert found["exchange", "twocans"].truths == [EXCHANGE_NS]
    forward, reverse = STAMPS[1] - 531 - STAMPS[0], STAMPS[3] - 651 - STAMPS[2]
    assert stamped == [Stamped(991, 531, 1051, 651, forward=forward, reverse=reverse)]
    # What the stamps are off is what the figure is off.
    assert 4318 - EXCHANGE_NS == (651 - 991) - (1051 - 531)


def test_a_figure_that_we_did_not_give_is_counted_and_its_user_clock_stays(both):
    exchange = {"network": None, "user": 181279, "stamps": [*STAMPS[:2], None, STAMPS[3]]}
    made = probe(connect=[None, 166017], exchanges=[exchange])
    found, stamped = errors.twocans([made], both, SERVER)

    for kind in ("connect", "exchange"):
        assert (found[kind, "twocans"].no_figure, found[kind, "twocans"].errors) == (1, [])
        assert (found[kind, "user clock"].no_figure, len(found[kind, "user clock"].errors)) == (
            0,
            1,
        )
    assert stamped == []


@pytest.mark.parametrize(
    "more",
    [
        {"port": PORT + 1},
        {"port": None},
        {"window": [WINDOW[0] - 10**9, WINDOW[0]]},
        {"window": [WINDOW[1], WINDOW[1] + 10**9]},
    ],
)
def test_a_probe_that_no_capture_shows_has_no_truth(both, more):
    found, stamped = errors.twocans([probe(**more)], both, SERVER)
    assert {(one.no_truth, one.no_figure, len(one.errors)) for one in found.values()} == {(1, 0, 0)}
    assert stamped == []


def test_two_connections_that_fit_are_no_truth():
    near = recorded("client")
    again = [one._replace(sequence=one.sequence + 7) for one in near]
    both = captures(near + again, recorded("server"))
    found, _ = errors.twocans([probe()], both, SERVER)
    assert {one.no_truth for one in found.values()} == {1}
    connect = errors.blackbox("connect", [("10.91.0.2", 500_000)], both, 5000)
    assert connect["connect", "blackbox_exporter"].no_truth == 1


def test_an_exchange_that_the_far_capture_misses_has_no_truth_but_its_connect_has():
    near, far = recorded("client"), recorded("server")
    del far[7]
    found, _ = errors.twocans([probe()], captures(near, far), SERVER)
    assert (found["exchange", "twocans"].no_truth, found["connect", "twocans"].no_truth) == (1, 0)

    found, _ = errors.twocans([probe()], captures(near, []), SERVER)
    assert (found["exchange", "twocans"].no_truth, found["connect", "twocans"].no_truth) == (1, 0)


def test_more_exchanges_than_the_capture_shows_have_no_truth(both):
    # There is one turn after the exchange: the goodbye.
    exchanges = probe()["exchanges"] * 3
    found, _ = errors.twocans([probe(exchanges=exchanges)], both, SERVER)
    assert found["exchange", "twocans"].no_truth == 1


def test_blackbox_exporters_probes_are_found_by_the_address_that_they_went_to(both):
    answers = [("10.91.0.2", 500_000), ("10.91.0.3", 500_000), ("10.91.0.2", None)]

    connect = errors.blackbox("connect", answers, both, 5000)["connect", "blackbox_exporter"]
    assert connect.errors == [500_000 - HANDSHAKE_NS]
    assert (connect.no_truth, connect.no_figure) == (1, 1)

    exchange = errors.blackbox("exchange", answers, both, 5000)["exchange", "blackbox_exporter"]
    assert exchange.errors == [500_000 - HANDSHAKE_NS - GREETING_NS]
    assert (exchange.no_truth, exchange.no_figure) == (1, 1)


def test_blackbox_exporters_exchange_without_its_turn_has_no_truth():
    both = captures(recorded("client"), [])
    found = errors.blackbox("exchange", [("10.91.0.2", 500_000)], both, 5000)
    assert found["exchange", "blackbox_exporter"].no_truth == 1


def test_a_page_of_blackbox_exporter_is_a_duration_less_its_look_up():
    page = """\
# HELP probe_dns_lookup_time_seconds Returns the time taken for probe dns lookup in seconds
# TYPE probe_dns_lookup_time_seconds gauge
probe_dns_lookup_time_seconds 1.327e-05
# TYPE probe_duration_seconds gauge
probe_duration_seconds 0.000179757
# TYPE probe_success gauge
probe_success 1
"""
    assert measured_ns(page) == 166_487
    assert measured_ns(page.replace("success 1", "success 0")) is None


LOG = """\
------------------------------
test was performed using the following parameters: --mps=max --time=1
------------------------------
packet, txTime(sec), rxTime(sec), latency(usec)
0, 2.402615678, 2.402676679, 30.501
1, 2.403615696, 2.403674683, 29.494
------------------------------
"""


def test_sockperfs_log_has_both_moments_of_each_round_trip():
    assert read_log(LOG) == [(2_402_615_678, 2_402_676_679), (2_403_615_696, 2_403_674_683)]
    assert read_log("sockperf: no server\n") == []


# Times between messages, in us, that repeat nowhere.
_RANDOM = Random(1)
GAPS = [_RANDOM.randrange(50, 150) for _ in range(300)]
DEPARTURES = [sum(GAPS[:at]) * 1_000 for at in range(301)]


def test_sockperfs_messages_are_found_in_the_capture_by_the_times_between_them():
    sent = [ns - 7_000_000 + (ns // 1_000 % 3) * 100 for ns in DEPARTURES]
    assert align(sent[40:240], DEPARTURES) == 40
    assert align(sent[101:], DEPARTURES) == 101
    assert align(sent, DEPARTURES) == 0


def test_messages_that_fit_in_two_places_or_in_none_are_not_found():
    even = [at * 1_000_000 for at in range(300)]
    assert align(even[40:240], even) is None
    assert align(DEPARTURES, DEPARTURES[:-1]) is None
    assert align(DEPARTURES[40:50], DEPARTURES) is None


def conversation(server: Endpoint) -> tuple[list[Segment], list[Segment]]:
    """Both ends' captures of one connection with 300 round trips of 5 us in the network."""
    client = ("10.91.0.1", 40_000)

    def end(request_ns: int, reply_ns: int) -> list[Segment]:
        segments = [Segment(0, client, server, 0, 0, 0x02, 0)]
        for at, ns in enumerate(DEPARTURES):
            forward, reverse = 1 + 14 * at, 1 + 14 * (at + 1)
            segments.append(Segment(ns + request_ns, client, server, forward, forward, 0x10, 14))
            segments.append(Segment(ns + reply_ns, server, client, forward, reverse, 0x10, 14))
        return segments

    return end(0, 30_000), end(3_000, 28_000)


def test_sockperfs_round_trips_are_held_against_the_capture():
    server = ("10.91.0.2", 11111)
    both = captures(*conversation(server))
    log = [(ns - 7_000_000, ns - 7_000_000 + 40_000) for ns in DEPARTURES[40:240]]

    found = errors.sockperf([log], both, server)["exchange", "sockperf"]
    assert (set(found.errors), len(found.errors)) == ({40_000 - 5_000}, 200)
    assert set(found.truths) == {5_000}

    unfit = [(at * 1_000_000, at * 1_000_000 + 40_000) for at in range(200)]
    found = errors.sockperf([unfit], both, server)["exchange", "sockperf"]
    assert (found.errors, found.no_truth) == ([], 200)


def measured(*, blackbox: list[int] | None) -> dict[str, Any]:
    found = {
        ("connect", "twocans"): Errors([5_000], [20_000]),
        ("connect", "user clock"): Errors([90_000], [20_000], 1, 2),
        ("exchange", "twocans"): Errors([-1_000] * 99 + [-2_500], [6_000] * 100, 3, 4),
        ("exchange", "user clock"): Errors([5_000_000] * 100, [6_000] * 100),
    }
    if blackbox is not None:
        found["connect", "blackbox_exporter"] = Errors(no_truth=2_100)
        found["exchange", "blackbox_exporter"] = Errors(blackbox, [6_000] * len(blackbox))
    return report.condition(
        found, [Stamped(1_200, 700, 1_100, 600, 2_000, 2_000)], counts={"probes": 2_100}
    )


def results(**conditions: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "date": "2026-11-23",
        "kernel": "6.18.44",
        "cpus": 2,
        "load_before": 0.1,
        "versions": {"twocans": "0.1.0", "sockperf": "not measured"},
        "seconds": 52.0,
        "probes_per_second": 100,
        "pauses": 4,
        "burners": 6,
        "quota": 0.2,
        "conditions": conditions,
    }


def test_the_last_line_has_the_p99_of_exchanges():
    three = [measured(blackbox=[ns] * 50) for ns in (8_000_000, 9_000_000, 7_000_000)]
    found = results(idle=three[0], busy=three[1], quota=three[2])
    assert report.last_line(found) == (
        "accuracy: idle p99 1.0 us, busy p99 1.0 us, quota p99 1.0 us; "
        "blackbox busy p99 9000.0 us; ratio 9,000"
    )


def test_the_last_line_says_what_was_not_measured():
    found = results(idle=measured(blackbox=None), busy=measured(blackbox=None), quota=None)
    assert report.last_line(found) == (
        "accuracy: idle p99 1.0 us, busy p99 1.0 us, quota p99 not measured; "
        "blackbox busy p99 not measured; ratio not measured"
    )


def test_errors_count_by_their_size_and_not_their_sign():
    row = measured(blackbox=None)["errors_us"]["exchange"]["twocans"]
    assert row == {
        "samples": 100,
        "no_figure": 3,
        "no_truth": 4,
        "error": {"p50": 1.0, "p90": 1.0, "p99": 1.0, "p99.9": 2.5, "max": 2.5},
    }


def test_a_transmit_stamp_that_the_other_end_confirms_is_not_the_late_one():
    stamped = [
        Stamped(10_000, 0, 10_000, 0, forward=0, reverse=0),
        Stamped(10_001, 0, 0, 99_000, forward=10_000, reverse=99_000),
        Stamped(0, 99_000, 20_000, 0, forward=99_000, reverse=10_001),
        Stamped(20_000, 0, 0, 0, forward=-1, reverse=0),
    ]
    found = dict.fromkeys([("connect", "twocans"), ("exchange", "twocans")], Errors())
    condition = report.condition(found, stamped, counts={"probes": 4})
    assert condition["late_transmits"] == {"late": 3, "on_time": 1}
    page = report.markdown(results(idle=condition))
    assert "3 transmit stamps (t1k, t3k) are more than 10 us after the capture's. 1 of" in page


def test_the_page_has_a_row_for_each_tool():
    page = report.markdown(results(idle=measured(blackbox=[2_000_000]), busy=None))
    assert "| exchange | twocans | 1.0 | 1.0 | 1.0 | 2.5 | 2.5 |  | 100 | 3 | 4 |" in page
    assert (
        "| exchange | user clock | 5,000.0 | 5,000.0 | 5,000.0 | 5,000.0 | 5,000.0 | 5,000 |"
        in page
    )
    assert "| exchange | blackbox_exporter | 2,000.0 " in page
    assert "| exchange | sockperf | not measured |" in page
    assert "| connect | blackbox_exporter | not measured |" in page
    assert "| exchange | the truth itself | 6.0 | 6.0 | 6.0 | 6.0 | 6.0 | 6 | 100 |  |  |" in page
    assert "| t2k | 0.70 | 0.70 |" in page
    assert "## busy\n\nNot measured." in page
    assert "{" not in page
