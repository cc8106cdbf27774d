import json
import re
from pathlib import Path

import pytest

from client.far_end import ADDRESS, SERVER, ended
from client.makers import connection, exchange, good
from twocans_client.evidence.bulk import Load, Way
from twocans_client.evidence.loss import Fates, Segments
from twocans_client.evidence.results import Outcome, Reason
from twocans_client.evidence.rows import Resolved
from twocans_client.report.diagnosis import Diagnosis, examine
from twocans_client.report.diagnosis_document import SCHEMA, diagnosis_json
from twocans_client.report.excluded import excluded, unknowable
from twocans_client.report.page import diagnosis_text, headline
from twocans_client.verdicts.dns import SLOW
from twocans_client.verdicts.engine import KINDS, Verdict
from twocans_client.verdicts.verdict import Confidence, Culprit, Direction, Finding
from twocans_core.net.sockets import Address

OTHER = Address("2001:db8::2", 5000)
LOAD = Load(
    65_536,
    80,
    21e6,
    Way(2.1e9, 2_000_000),
    Way(1.9e9, 0),
    2_000_000,
    4_000_000,
    0.5,
    0.25,
    0.0,
    Segments(Fates(sent=3_000), Fates(sent=3_000)),
)


def well(count=40, **fields):
    return [
        good(
            exchange(),
            at_ns=n * 100_000_000,
            address=ADDRESS,
            dialled=True,
            local=("192.0.2.1", 40_000 + n),
            path="server:5000",
            **connection(),
            **fields,
        )
        for n in range(count)
    ]


def failing(reason, count=5, **fields):
    fields = {"address": ADDRESS, "dialled": True, "path": "server:5000", **fields}
    return [ended(reason, n * 100_000_000, **fields) for n in range(count)]


def found(*results, verdicts=(), **fields):
    path = examine(ADDRESS, results)
    path.verdicts = path.report.verdicts = list(verdicts)
    path.standing = len(path.verdicts)
    speaks = any(result.server for result in results) or None
    fields = {"target": "server:5000", "speaks": speaks, "is_whole": True, **fields}
    return Diagnosis(paths=[path], **fields)


def verdict(name="loss", culprit=Culprit.PATH_FORWARD, direction=Direction.FORWARD, **fields):
    return Verdict(Finding(KINDS[name], culprit, "10 of 100", direction, **fields), 0, 0)


# --- what it amounts to ---------------------------------------------------------------------


def test_a_healthy_path_is_said_to_be_within_the_bounds_that_were_measured():
    says = found(*well(), load=LOAD)
    path = says.paths[0]
    path.mtu = (1_500, 1_500)
    assert says.exit_code == 0
    text = headline(says)
    assert text.startswith("server:5000 is healthy: round trip 60.0 µs, loss forward below ")
    assert "packets of 1,500 bytes pass both ways" in text
    assert text.endswith("21 Mbit/s or more each way")


def test_the_bound_of_loss_is_of_all_that_was_sent_under_load_too():
    alone, loaded = found(*well()), found(*well(), load=LOAD)
    assert loaded.lost("forward")[1] == alone.lost("forward")[1] + 3_000
    assert loaded.lost_at_most("forward") == 3 / loaded.lost("forward")[1]


def test_a_bound_is_not_claimed_where_a_probe_that_failed_may_have_lost_more():
    for load in (None, LOAD):
        says = found(*well(), *failing(Reason.REPLY_TIMEOUT), load=load)
        assert says.lost_at_most("forward") is None


def test_no_loss_is_claimed_where_a_proxy_may_be_between_the_ends():
    proxied = [
        good(exchange(), address=ADDRESS, dialled=True, **connection(proxied=True))
        for _ in range(20)
    ]
    says = found(*proxied, load=LOAD)
    assert says.paths[0].report.proxies
    assert says.lost("forward") is None


def test_a_verdict_comes_first_with_its_proof_and_what_to_do():
    says = found(*well(), verdicts=[verdict()])
    page = diagnosis_text(says).splitlines()
    assert page[0].startswith("verdict      loss: ")
    assert "Whose doing: path_forward," in "".join(page[:3])
    assert any(line.startswith("proof        10 of 100 (statistical)") for line in page)
    assert any(line.startswith("next  ") for line in page)
    assert "healthy" not in "".join(page)
    assert says.exit_code == 1


def test_what_was_over_before_the_end_comes_after_what_stands():
    says = found(*well(), verdicts=[verdict("burst_loss"), verdict("loss")])
    says.paths[0].standing = 1
    heads = [line for line in diagnosis_text(says).splitlines() if "loss: " in line]
    assert heads[0].startswith("verdict      burst_loss")
    assert heads[1].startswith("earlier      loss")
    assert [said["stands"] for said in json.loads(diagnosis_json(says))["verdicts"]] == [
        True,
        False,
    ]


def test_what_is_only_worth_knowing_makes_no_path_bad():
    info = next(kind for kind in KINDS.values() if kind.is_info)
    note = Verdict(Finding(info, info.culprits[0], "seen"), 0, 0)
    says = found(*well(), verdicts=[note])
    assert says.exit_code == 0
    assert diagnosis_text(says).startswith("ok  ")
    assert f"note         {info.name}" in diagnosis_text(says)


def test_failures_that_no_verdict_explains_are_told_beside_a_verdict_of_something_else():
    starved = verdict("cpu_starved", Culprit.CLIENT_HOST, Direction.NONE)
    says = found(*failing(Reason.GREETING_TIMEOUT), verdicts=[starved])
    page = diagnosis_text(says)
    assert "5 probes failed, most for another reason" in page
    assert "greeting_timeout" in page
    explained = verdict(explains={1, 2, 3, 4, 5})
    assert found(*failing(Reason.REFUSED), verdicts=[explained]).unexplained == []


@pytest.mark.parametrize(
    ("results", "code"),
    [
        (well(), 0),
        ([*well(), *failing(Reason.RESET)], 1),
        (failing(Reason.REFUSED), 2),
        ([], 3),
        (failing(Reason.SHUTDOWN), 3),
    ],
)
def test_exit_codes_are_those_of_probe(results, code):
    says = found(*results)
    assert says.exit_code == code
    assert diagnosis_text(says)


def test_one_dead_address_of_two_is_degraded_and_both_are_listed():
    says = found(*well())
    dead = examine(OTHER, failing(Reason.REFUSED, address=OTHER))
    says.paths.append(dead)
    says.no_route = [Address("2001:db8::3", 5000)]
    assert says.exit_code == 1
    page = diagnosis_text(says)
    assert "192.0.2.2:5000: ok, 40 ok" in page
    assert "[2001:db8::2]:5000: fail, 5 fail" in page
    assert "[2001:db8::3]:5000: not tried" in page


def test_probes_that_we_ended_ourselves_are_in_no_count():
    says = found(*well(10), *failing(Reason.SHUTDOWN, 3), is_whole=False)
    assert says.counts == {Outcome.OK: 10, Outcome.FAIL: 0, Outcome.VOID: 0}
    assert "3 more were under way; it was cut off" in " ".join(diagnosis_text(says).split())


# --- what it excludes -----------------------------------------------------------------------


def test_what_is_excluded_is_what_was_measured():
    look_up = Resolved(0, 1_000_000, Reason.OK)
    says = found(*well(), look_ups=[look_up] * 3, load=LOAD)
    says.paths[0].mtu = (1_500, 1_400)
    how = dict(excluded(says))
    assert how["DNS"] == "3 look-ups answered, the slowest in 1.00 ms"
    assert how["one bad lane of many"] == "so from 40 local ports, of 16 of 16 classes"
    assert how["a packet size that does not pass"].endswith("1,500 bytes forward, 1,400 reverse")
    assert how["loss forward"].startswith("none of 3,")


def test_nothing_is_excluded_that_is_blamed():
    dns = Verdict(Finding(SLOW, Culprit.DNS, "slow"), 0, 0)
    app = verdict("slow_app", Culprit.SERVER_APP, Direction.NONE)
    says = found(*well(), look_ups=[Resolved(0, 1, Reason.OK)], verdicts=[dns, app])
    assert {"DNS", "a server that hangs"} & set(dict(excluded(says))) == set()


@pytest.mark.parametrize("reason", [Reason.REFUSED, Reason.CONNECT_TIMEOUT])
def test_where_some_connections_fail_no_port_and_no_firewall_is_excluded(reason):
    how = dict(excluded(found(*well(), *failing(reason))))
    assert {"a closed port, a firewall", "one bad lane of many", "a server that hangs"}.isdisjoint(
        how
    )


def test_of_a_stranger_it_says_what_one_end_cannot_know():
    silent = failing(Reason.GREETING_TIMEOUT, connect_ns=1, local=("192.0.2.1", 1))
    unknown, missing = unknowable(found(*silent, speaks=None))
    assert "either its program hangs, or it is no twocans server" in unknown
    assert "loss and delay of each direction" in missing
    assert "--connect-only" in diagnosis_text(found(*silent, speaks=None))
    assert unknowable(found(*well())) == []
    connects = [ended(Reason.OK, handshake_ns=40_000, connect_ns=1)] * 40
    says = found(*connects, speaks=False)
    assert "takes connections: 40 of 40, a handshake is 40.0 µs" in headline(says)
    assert "another protocol" in unknowable(says)[0]


def test_no_line_is_longer_than_the_page():
    says = found(*well(), load=LOAD, look_ups=[Resolved(0, 1_000_000, Reason.OK)])
    for width in (60, 80, 200):
        assert max(map(len, diagnosis_text(says, width).splitlines())) <= width


# --- the document ---------------------------------------------------------------------------


def test_the_document_has_the_fields_that_its_page_describes():
    says = found(*well(2), load=LOAD, verdicts=[verdict()], look_ups=[Resolved(0, 1, Reason.OK)])
    document = json.loads(diagnosis_json(says))
    page = Path(__file__).parents[3].joinpath("docs/diagnose.md").read_text()
    described = re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE)
    assert list(document) == described
    assert document["schema"] == SCHEMA
    assert f"schema {SCHEMA}" in page


def test_the_document_has_all_evidence():
    says = found(*well(2, server=SERVER), load=LOAD, verdicts=[verdict()])
    document = json.loads(diagnosis_json(says))
    (address,) = document["addresses"]
    assert address["address"] == ["192.0.2.2", 5000]
    assert len(address["report"]["probes"]) == 2
    (said,) = document["verdicts"]
    assert (said["name"], said["culprit"], said["proof"]) == ("loss", "path_forward", "10 of 100")
    assert said["confidence"] == Confidence.STATISTICAL
    assert document["load"]["receiver_limited_share"] == 0.25
    assert document["load"]["forward"] == {
        "burst_bits_per_s": 2.1e9,
        "small_messages_later_s": 0.002,
    }
    assert document["bounds"]["bits_per_s"] == 21e6
    assert document["state"] == "degraded"


def test_what_was_not_measured_is_left_out():
    document = json.loads(diagnosis_json(found(speaks=None, no_load="probes fail")))
    assert document["load"] == {"reason": "probes fail"}
    assert document["bounds"] == {}
    assert "speaks" not in document
