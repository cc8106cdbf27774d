import json
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from client.far_end import SERVER, ended
from fakes import COUNTERS
from twocans_client.report import Report, printable, show_ns, waterfall
from twocans_client.results import Exchange, Reason, Stamps

SPLIT = Exchange(1, 90, Stamps(1_000, 1_010, 5_000, None, None, 5_009, 1_079, 1_090))


def report_of(*results):
    report = Report()
    for result in results:
        report.add(result)
    return report


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=300), st.sampled_from([0.5, 0.99, 1]))
def test_a_quantile_is_the_smallest_sample_with_that_share_at_or_below_it(values, q):
    report = report_of(*(ended(Reason.OK, connect_ns=value) for value in values))
    found = report.quantile("connect", q)

    def share(limit):
        return sum(value <= limit for value in values) / len(values)

    assert found in values
    assert share(found) >= q
    assert all(share(value) < q for value in values if value < found)


def test_there_is_no_quantile_without_samples():
    assert Report().quantile("connect", 0.5) is None


def test_only_the_newest_samples_are_kept():
    report = report_of(*(ended(Reason.OK, connect_ns=n) for n in range(10_100)))
    assert report.quantile("connect", 0.0) == 100


def test_exit_codes_are_those_of_monitoring_plugins():
    ok, fail, void = (ended(reason) for reason in (Reason.OK, Reason.REFUSED, Reason.SELF_STALL))
    resent = ended(Reason.OK, retrans=1)
    assert report_of(ok, ok).exit_code == 0
    assert report_of(ok, void).exit_code == 0
    assert report_of(ok, fail).exit_code == 1
    assert report_of(resent).exit_code == 1
    assert report_of(fail, void).exit_code == 2
    assert report_of(void).exit_code == 3
    assert Report().exit_code == 3


def test_the_report_names_what_happened():
    text = report_of(
        ended(Reason.OK, connect_ns=1_500, bytes_sent=1_234, exchanges=[SPLIT]),
        ended(Reason.REFUSED),
        ended(Reason.REFUSED),
        ended(Reason.NO_PORTS),
    ).text()
    assert "1 ok, 2 fail, 1 void (2 refused, 1 no_ports)" in text
    assert "1,234 sent" in text
    assert show_ns(1_500) in text
    rows = [line.split()[:2] for line in text.splitlines()]
    assert ["network", "kernel"] in rows
    assert ["exchange", "user"] in rows


def test_the_document_is_json_and_holds_every_probe():
    results = [
        ended(Reason.OK, 5, server=SERVER, exchanges=[SPLIT], connect_ns=7, ended=COUNTERS),
        ended(Reason.RESET, detail="ECONNRESET"),
    ]
    document = json.loads(report_of(*results).document(results, "server:5000"))
    assert document["outcomes"] == {"ok": 1, "fail": 1, "void": 0}
    assert document["reasons"] == {"ok": 1, "reset": 1}
    first, second = document["probes"]
    assert first["server"]["instance"] == SERVER.instance.hex()
    assert first["phases_s"]["network"] == [60 / 1e9]
    assert first["client_tcp_info"]["total_retrans"] == 0
    assert (second["reason"], second["detail"], second["phases_s"]) == ("reset", "ECONNRESET", {})
    assert document["phases"]["connect"]["p50_s"] == 7 / 1e9


def test_the_waterfall_shows_phases_one_below_the_other_and_says_how_it_ended():
    result = ended(
        Reason.OK,
        connect_ns=1_000_000,
        greet_ns=1_000_000,
        exchanges=[SPLIT],
        close_ns=2_000_000,
        server=SERVER,
    )
    *rows, verdict, who = waterfall(result).splitlines()
    assert [row.split()[0] for row in rows] == ["connect", "greet", "exchange", "close"]
    begins = [row.index("█") for row in rows]
    assert begins == sorted(begins)
    assert "network" in rows[2]
    assert verdict.startswith("ok")
    assert "server" in who
    assert "node-2" in who


@given(st.lists(st.integers(0, 10**11), min_size=1, max_size=12))
def test_no_bar_is_wider_than_the_page(durations):
    exchanges = [
        Exchange(n, ns, Stamps(0, None, None, None, None, None, None, ns))
        for n, ns in enumerate(durations)
    ]
    for line in waterfall(ended(Reason.OK, exchanges=exchanges)).splitlines():
        assert len(line) <= 100


def test_a_failed_probe_has_a_waterfall_too():
    text = waterfall(ended(Reason.REFUSED, detail="ECONNREFUSED\x1b[2J"))
    assert "refused" in text
    assert "\x1b" not in text


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
