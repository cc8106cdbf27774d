from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.far_end import SECOND_NS, SERVER, ended
from client.makers import connection, exchange, good
from twocans_client.evidence.results import Reason, Unfinished
from twocans_client.report.next_steps import next_step
from twocans_client.report.summary import Report
from twocans_client.report.text import report_text, reports_text
from twocans_client.verdicts import either_host, own_side
from twocans_client.verdicts.engine import Verdict
from twocans_client.verdicts.verdict import Confidence, Direction, Finding, Kind
from twocans_core.kernel.tcpinfo import HostCounts
from twocans_core.net.sockets import Address


def text_of(*results):
    report = Report()
    for result in results:
        report.add(result)
    return report_text(report)


def facts(*results):
    """Return what stands above and below the table, by its label, each on one line."""
    found: dict[str, str] = {}
    blocks = [block for block in text_of(*results).split("\n\n") if not block.startswith("phase ")]
    label = ""
    for line in "\n".join(blocks).splitlines():
        named = line[:13].strip()
        label = named or label
        found[label] = line[13:] if named else f"{found[label]} {line.strip()}"
    return found


def rows(text):
    """Return (phase, clock) of each row of the table."""
    (table,) = [block for block in text.split("\n\n") if block.startswith("phase ")]
    return [tuple(line.split()[:2]) for line in table.splitlines()[1:]]


FAILED: dict[str, Any] = {
    "path": "server:5000",
    "address": Address("192.0.2.2", 5000),
    "local": ("192.0.2.1", 40_000),
    "unfinished": Unfinished("greet", 5_000_000_000),
}


def test_the_state_the_target_the_address_and_the_counts_come_first():
    for results, line in (
        (
            [good(**PLACE)],
            "ok           server:5000 (192.0.2.2:5000): 1 probe, 1 ok, 0 fail, 0 void",
        ),
        (
            [ended(Reason.RESET, **PLACE)],
            "fail         server:5000 (192.0.2.2:5000): 1 probe, 0 ok,",
        ),
        (
            [good(**PLACE), ended(Reason.RESET, **PLACE)],
            "degraded     server:5000 (192.0.2.2:5000): 2",
        ),
        ([good(retrans=1, **PLACE)], "degraded     server:5000 (192.0.2.2:5000): 1 probe, 1 ok,"),
        ([ended(Reason.NO_PORTS, **PLACE)], "unknown      server:5000 (192.0.2.2:5000): 1 probe"),
    ):
        assert text_of(*results).splitlines()[0].startswith(line)


PLACE: dict[str, Any] = {"path": "server:5000", "address": Address("192.0.2.2", 5000)}


def verdict_of(kind: Kind, **fields: Any) -> Verdict:
    finding = Finding(kind, kind.culprits[0], "12 of 12 look-ups failed", **fields)
    return Verdict(finding, 0, 0)


def test_a_verdict_comes_before_all_else_with_its_proof_and_what_to_do_next():
    report = Report()
    report.add(ended(Reason.NO_PORTS, **PLACE))
    report.verdicts = [
        verdict_of(either_host.CPU_THROTTLED, confidence=Confidence.PROVEN),
        verdict_of(own_side.CLOCK_STEP, direction=Direction.REVERSE),
    ]
    assert report_text(report).splitlines()[:9] == [
        "verdict      cpu_throttled: a CPU limit stops a process. Whose doing:",
        "             client_host.",
        "             12 of 12 look-ups failed (proven).",
        "             Look next: the CPU limit of that container; cpu.stat.",
        "verdict      clock_step: a clock was stepped, or its host suspended. Whose",
        "             doing: clock, reverse.",
        "             12 of 12 look-ups failed (statistical).",
        "             Look next: the time service of that host.",
        "unknown      server:5000 (192.0.2.2:5000): 1 probe, 0 ok, 0 fail, 1 void",
    ]


def test_failures_without_a_verdict_are_unknown_and_the_missing_evidence_is_named():
    report = Report()
    report.add(ended(Reason.CONNECT_TIMEOUT, **PLACE))
    assert report_text(report).startswith("fail "), "nobody looked for a verdict"
    report.verdicts = []
    first = " ".join(report_text(report).split("\nfail")[0].split())
    assert first == (
        "verdict unknown: probes failed, and nothing can be named. Missing evidence: more than 1"
        " probe (--count); what the server saw, as it never greeted us: see its log."
    )
    report.verdicts = [verdict_of(own_side.CLOCK_STEP._replace(is_info=True))]
    assert "verdict      unknown: " in report_text(report), "that explains nothing"
    report.verdicts = [verdict_of(own_side.CLOCK_STEP)]
    assert "unknown" not in report_text(report)


def test_evidence_that_there_is_is_not_missing():
    report = Report()
    report.verdicts = []
    for _ in range(30):
        report.add(good(exchange(), server=SERVER, retrans=0, **PLACE))
    assert not report.is_unexplained, "nothing failed"
    report.add(ended(Reason.RESET, server=SERVER, **PLACE))
    assert report.is_unexplained
    assert report.lacking == []
    assert report_text(report).splitlines()[0].endswith("nothing can be named.")


def test_a_failure_names_both_ends_the_phase_and_the_next_step_and_nothing_is_empty():
    result = ended(Reason.GREETING_TIMEOUT, **FAILED)
    text = " ".join(text_of(result, result).split())
    assert (
        "greeting_timeout: 2; the newest from 192.0.2.1:40000 to 192.0.2.2:5000,"
        " greet 5.00 s, no answer" in text
    )
    assert next_step(Reason.GREETING_TIMEOUT) in text
    for nothing in ("phase ", "not measured", "bytes", "not claimed"):
        assert nothing not in text


def test_what_nobody_ever_waited_for_has_no_row_and_what_few_did_says_none():
    assert ("accept", "both") not in rows(text_of(good(accept_ns=0)))
    text = text_of(good(accept_ns=0), good(accept_ns=0), good(accept_ns=5_000))
    (row,) = [line for line in text.splitlines() if line.startswith("  accept")]
    assert row.split() == ["accept", "both", "none", "5.00", "µs", "5.00", "µs", "3"]


def test_the_reports_of_several_paths_are_apart_and_the_worst_is_first():
    texts = {}
    for path, reason in (("good:1", Reason.OK), ("bad:2", Reason.REFUSED)):
        report = Report()
        report.add(ended(reason, path=path))
        texts[path] = report
    heads, first, second = reports_text(texts.values()).split("\n\n")[:3]
    assert [line.split()[:2] for line in heads.splitlines()] == [
        ["fail", "bad:2:"],
        ["ok", "good:1:"],
    ]
    assert first.startswith("fail         bad:2: 1 probe")
    assert second.startswith("ok           good:1: 1 probe")


def test_the_report_names_what_happened():
    shown = facts(
        good(exchange(), bytes_sent=1_234, retrans=0),
        ended(Reason.REFUSED),
        ended(Reason.REFUSED),
        ended(Reason.NO_PORTS),
    )
    assert shown["degraded"].endswith("4 probes, 1 ok, 2 fail, 1 void")
    assert shown["refused"].startswith("2; ")
    assert shown["no_ports"].startswith("1; ")
    assert shown["bytes"] == "1,234 sent, 0 received"
    assert shown["retransmits"] == "0, both ends together"


def test_rows_are_in_the_order_in_which_things_happen():
    resent = exchange(resent=True)
    result = good(exchange(), resent, resolve_ns=1, greet_ns=1, accept_ns=1, close_ns=1)
    assert rows(text_of(result)) == [
        ("resolve", "user"),
        ("connect", "user"),
        ("handshake", "kernel"),
        ("client_connect", "user"),
        ("greet", "user"),
        ("accept", "both"),
        ("exchange", "user"),
        ("client_send", "both"),
        ("qdisc", "kernel"),
        ("network", "kernel"),
        ("recovery", "kernel"),
        ("server_wakeup", "both"),
        ("server_app", "user"),
        ("server_send", "both"),
        ("client_wakeup", "both"),
        ("close", "user"),
    ]


def test_who_has_the_time_is_said_by_means():
    slow = exchange(wakeup_ns=920_000, stall_ns=1_000_000)
    assert facts(good(exchange()), good(slow))["where"] == (
        "client 2 %, network 6 %, server host 92 %, server app <1 % of 1.05 ms (mean)"
    )
    resent = facts(good(exchange(reverse_ns=200_000_000, resent=True)))["where"]
    assert resent.startswith("client <1 %, recovery 100 %, server host")
    assert "mean" not in resent


def test_without_kernel_stamps_everything_is_by_the_users_clock_and_nothing_is_zero():
    result = good(exchange(stamped=False), handshake_ns=None)
    assert rows(text_of(result)) == [
        ("connect", "user"),
        ("exchange", "user"),
        ("network", "user"),
        ("server", "user"),
    ]
    assert " 0.00 " not in text_of(result)
    shown = facts(result)
    assert shown["where"].startswith("network and wake-ups 95 %, server 5 % of")
    assert shown["not split"] == "1 of 1 exchanges: 1 unstamped"
    assert "delay grew" not in shown
    assert shown["loss"].startswith("not measured")
    assert shown["retransmits"] == "not measured"


def test_what_is_missing_from_a_row_is_said():
    backwards = exchange(client_wakeup_ns=-1)
    shown = facts(
        good(exchange(), backwards), good(exchange(stamped=False), tainted="blocked"), good()
    )
    assert shown["not split"] == "2 of 3 exchanges: 1 contradiction, 1 unstamped"
    assert shown["tainted"].startswith("1 ok, but we stalled meanwhile (1 blocked)")


def test_a_report_of_nothing_is_a_report():
    assert facts()["unknown"].endswith("0 probes, 0 ok, 0 fail, 0 void")
    assert "loss" not in facts()


# --- in which direction --------------------------------------------------------------------------


def after(quiet, *slow):
    exchanges = [exchange(offset_ns=70_000) for _ in range(quiet)] + list(slow)
    return facts(*(good(each, at_ns=n * SECOND_NS) for n, each in enumerate(exchanges)))


def test_where_a_delay_grew_is_said_or_that_it_is_unknown():
    slow = [exchange(offset_ns=70_000, forward_ns=ns) for ns in (5_000_000, 9_000_000)]
    slow.append(exchange(offset_ns=70_000, reverse_ns=5_000_000))
    shown = after(20, *slow)
    assert shown["delay grew"] == "in 3 of 19 exchanges: 2 forward, 1 reverse"
    assert after(20)["delay grew"] == "in none of 16 exchanges"
    assert after(4)["delay grew"] == "unknown: too few exchanges with all timestamps"


def test_the_clocks_offset_is_told_with_its_bound():
    assert after(1)["clocks"].startswith("the server's is 70.0 µs ahead of ours, give or take 60.0")
    assert "30.0 µs behind" in facts(good(exchange(offset_ns=-30_000)))["clocks"]


# --- what was lost -------------------------------------------------------------------------


def test_loss_is_told_for_each_way_with_what_is_certain_of_it():
    quiet = [good(**connection()) for _ in range(100)]
    shown = facts(*quiet)
    assert shown["lost forward"] == "none of 300: less than 1 %"
    assert shown["lost reverse"] == "none of 200: less than 1.5 %"
    assert "loss" not in shown
    assert "lost SYN" not in shown
    shown = facts(*quiet, good(**connection(lost_reverse=1, syns_lost=1, acks_lost=2, in_vain=1)))
    assert shown["lost forward"] == ("none of 304: less than 0.99 %, 2 ACKs lost, 1 spurious")
    assert shown["lost reverse"].startswith("1 of 203: 0.087 % to 2.7 %")
    assert shown["lost SYN"].startswith("1 of 102:")
    assert "lost SYN-ACK" not in shown


def test_damage_and_what_our_own_host_dropped_are_told_apart_from_loss():
    shown = facts(good(**connection(damaged=2)), good(**connection(unsent=3)))
    assert shown["lost forward"] == "none of 8: less than 38 %, 2 damaged"
    assert shown["unsent"] == "3 more, dropped by our own host (firewall or full queue)"


def test_where_probes_failed_loss_is_said_to_be_the_least():
    failed = ended(Reason.CONNECT_TIMEOUT, dialled=True, retrans=1)
    shown = facts(good(**connection(lost_reverse=1)), failed)
    assert shown["lost forward"] == "none of 3"
    assert shown["lost reverse"].endswith(" or more")
    assert (
        shown["unaccounted"]
        == "1 of 2 probes failed and may have lost more; 2 SYNs went unanswered"
    )
    # The same where nothing else is known, and not where nothing is measured at all.
    assert "2 SYNs" in facts(failed)["unaccounted"]
    assert "unaccounted" not in facts(ended(Reason.REFUSED, dialled=True))


def test_what_a_full_accept_queue_may_have_dropped_is_told():
    full = good(**(connection(syns_lost=2) | {"host_greeted": HostCounts(2, 0)}))
    shown = facts(full)
    assert "lost SYN" not in shown
    assert shown["overflowed"] == "2 segments that the server's full accept queue may have dropped"


@pytest.mark.parametrize(
    ("options", "heard", "said"),
    [(5, 1, "TCP options are rewritten"), (7, 2, "answers our handshake for the server")],
)
def test_a_box_on_the_way_is_named_and_loss_is_told(options, heard, said):
    fields = connection()
    fields["connected"] = fields["connected"]._replace(options=options, segs_in=heard)
    shown = facts(*[good(**fields)] * 10)
    assert said in shown["on the path"]
    assert shown["lost forward"].startswith("none of 30")


def test_behind_a_proxy_loss_is_not_claimed_and_the_report_says_why():
    shown = facts(good(**connection(lost_forward=1, proxied=True)))
    assert shown["loss"].startswith("not claimed: signs of a proxy")
    assert "TCP options" in shown["loss"]
    assert "lost forward" not in shown


@settings(deadline=None)
@given(
    st.integers(0, 10**11),
    st.integers(0, 10**11),
    st.booleans(),
    st.integers(0, 10**6),
    st.integers(65, 200),
)
def test_no_line_is_wider_than_the_page(one, other, resent, lost, width):
    exchanges = [
        exchange(forward_ns=one, wakeup_ns=other, send_ns=other, resent=resent),
        exchange(client_wakeup_ns=one, app_ns=other, stamped=False),
    ]
    result = good(
        *exchanges,
        tainted="suspended",
        accept_ns=other,
        **connection(lost_forward=lost, in_vain=lost, acks_lost=lost, syns_lost=lost % 8),
    )
    failed = ended(Reason.CONNECT_TIMEOUT, detail="x y " * 50, **FAILED)
    for results in ([result] * 8, [good(**connection(proxied=True))], [failed]):
        report = Report()
        for each in results:
            report.add(each)
        assert max(map(len, report_text(report, width).splitlines())) <= width
