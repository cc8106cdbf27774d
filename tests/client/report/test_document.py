import json

import pytest

from client.far_end import SECOND_NS, SERVER, ended
from client.makers import connection, exchange, good
from twocans_client.evidence.results import Reason
from twocans_client.report.document import report_json
from twocans_client.report.summary import Report
from twocans_client.verdicts.either_host import CPU_THROTTLED
from twocans_client.verdicts.engine import Verdict
from twocans_client.verdicts.verdict import Culprit, Finding


def document_of(*results):
    report = Report()
    for result in results:
        report.add(result)
    return json.loads(report_json(report, results, "server:5000"))


def nulls(value):
    """Count what is null, at any depth."""
    if isinstance(value, dict | list):
        return sum(map(nulls, value.values() if isinstance(value, dict) else value))
    return value is None


def test_the_document_holds_every_probe():
    document = document_of(
        good(exchange(), connect_ns=7_000, handshake_ns=3_000, accept_ns=9, **connection()),
        ended(Reason.RESET, detail="ECONNRESET"),
    )
    assert (document["schema"], document["target"]) == (5, "server:5000")
    assert document["outcomes"] == {"ok": 1, "fail": 1, "void": 0}
    assert document["reasons"] == {"ok": 1, "reset": 1}
    assert document["phases"]["connect"]["user"]["p50_s"] == 7e-6
    assert document["phases"]["client_connect"]["user"] == {
        "samples": 1,
        **dict.fromkeys(("p50_s", "p99_s", "max_s"), 4e-6),
    }
    first, second = document["probes"]
    assert first["server"]["instance"] == SERVER.instance.hex()
    assert first["phases_s"]["network"] == [6e-5]
    assert first["phases_s"]["accept"] == [9e-9]
    assert first["client_tcp_info_connected"]["total_retrans"] == 0
    assert (second["reason"], second["detail"], second["phases_s"]) == ("reset", "ECONNRESET", {})
    assert second["exchanges"] == []


def test_verdicts_are_told_with_their_figures_or_what_is_missing():
    report = Report()
    report.add(ended(Reason.RESET))
    report.verdicts = []
    document = json.loads(report_json(report, [], "server:5000"))
    assert (document["state"], document["verdicts"]) == ("fail", [])
    assert document["missing_evidence"] == report.lacking
    finding = Finding(CPU_THROTTLED, Culprit.SERVER_HOST, "Proof.", figures={"worst_s": 0.2})
    report.verdicts = [Verdict(finding, 0, 0)]
    document = json.loads(report_json(report, [], "server:5000"))
    assert "missing_evidence" not in document
    assert document["verdicts"] == [
        {
            "name": "cpu_throttled",
            "title": CPU_THROTTLED.title,
            "culprit": "server_host",
            "direction": "",
            "confidence": "statistical",
            "proof": "Proof.",
            "figures": {"worst_s": 0.2},
            "look_next": CPU_THROTTLED.look,
        }
    ]


def test_every_exchange_has_its_parts_and_its_raw_stamps():
    one = exchange(wakeup_ns=123)
    assert one.split is not None
    (probe,) = document_of(good(one))["probes"]
    (told,) = probe["exchanges"]
    parts = told["parts_s"]
    assert list(parts) == [part for part, _ in one.split.parts()]
    assert parts["server_wakeup"] == 123e-9
    assert sum(parts.values()) - parts["client_qdisc"] == pytest.approx(told["duration_s"])
    assert told["stamps_ns"] == one.stamps._asdict()
    assert "refusal" not in told


def test_what_was_not_measured_is_left_out():
    unstamped = exchange(stamped=False, stall_ns=None)
    document = document_of(
        good(unstamped, handshake_ns=None, connect_ns=None), ended(Reason.CONNECT_TIMEOUT)
    )
    assert nulls(document) == 0
    assert "retransmits" not in document
    assert set(document["phases"]["network"]) == {"user"}
    mean_s = document["where"]["user"]["mean_s"]
    assert mean_s == {"network": pytest.approx(100e-6), "server": pytest.approx(5e-6)}
    told = document["probes"][0]["exchanges"][0]
    assert told["refusal"] == "unstamped"
    assert "parts_s" not in told
    assert {"t1k", "t4k", "stalled_ns"}.isdisjoint(told["stamps_ns"])
    assert document["segments"]["connections"] == 0
    assert not {"forward", "reverse", "lost_is_least"} & document["segments"].keys()
    assert "segments" not in document["probes"][0]


def test_what_our_stall_has_spoiled_is_in_the_probe_but_in_no_figure():
    document = document_of(good(exchange(), tainted="starved"))
    assert document["tainted"] == {"starved": 1}
    assert "connect" not in document["phases"]
    (probe,) = document["probes"]
    assert (probe["tainted"], probe["phases_s"]["connect"]) == ("starved", [1e-4])


def test_means_say_who_has_the_time():
    where = document_of(good(exchange(), exchange(resent=True, reverse_ns=70_000)))["where"]
    assert where["kernel"]["exchanges"] == 2
    assert where["kernel"]["mean_s"] == {
        "client": 17e-6,
        "network": 30e-6,
        "recovery": 50e-6,
        "server_host": 23e-6,
        "server_app": 5e-6,
    }


def test_directions_and_the_clocks_offset_are_told():
    exchanges = [exchange(offset_ns=50_000)] * 10 + [
        exchange(offset_ns=50_000, reverse_ns=9_000_000)
    ]
    probes = [good(each, at_ns=n * SECOND_NS) for n, each in enumerate(exchanges)]
    direction = document_of(*probes)["direction"]
    assert direction["grew"] == {"none": 6, "reverse": 1}
    assert direction["unjudged"] == 4
    assert direction["offset_s"] == 50e-6
    assert 0 < direction["offset_bound_s"] < 10e-3


def test_loss_is_told_with_its_interval_in_all_and_of_each_probe():
    document = document_of(good(**connection(lost_forward=1)), good(**connection()))
    forward = document["segments"]["forward"]
    assert document["segments"]["connections"] == 2
    assert (forward["sent"], forward["lost"]) == (7, 1)
    low, high = forward["lost_interval"]
    assert 0 < low < 1 / 7 < high < 1
    assert [probe["segments"]["forward"]["lost"] for probe in document["probes"]] == [1, 0]


def test_where_probes_failed_the_upper_end_is_open():
    failed = ended(Reason.CONNECT_TIMEOUT, dialled=True, retrans=1)
    segments = document_of(good(**connection(lost_forward=1)), failed)["segments"]
    assert segments["unaccounted"] == {"connect_timeout": 1}
    assert segments["unanswered_syns"] == 2
    assert segments["lost_is_least"] is True
    low, high = segments["forward"]["lost_interval"]
    assert 0 < low < 0.25
    assert high == 1
    assert document_of(good(**connection()))["segments"]["lost_is_least"] is False


def test_behind_a_proxy_no_loss_is_claimed():
    document = document_of(good(**connection(lost_forward=1, proxied=True)))
    assert document["segments"]["proxies"] == ["options"]
    assert not {"forward", "reverse", "lost_is_least"} & document["segments"].keys()
    assert "segments" not in document["probes"][0]
