from pathlib import Path

import pytest
from lab.attempts import Attempt, curl_attempt, exporter_attempt, of_attempts
from lab.others import said_by
from lab.rules import RULES, TOGETHER, conclude, conclude_together
from lab.scene import Base
from lab.symptoms import of_iperf3, of_mtr, of_ping

BASE = Base(0.004, 0.05, 0.0)
LAB = Path(__file__).parents[2] / "lab"


def ping(*replies, sent=100, words=""):
    lines = [
        f"64 bytes from 10.0.0.2: icmp_seq={seq} ttl=63 time={ms} ms{dup}"
        for seq, ms, dup in replies
    ]
    return "\n".join([*lines, words, f"{sent} packets transmitted, {len(lines)} received"])


def good(count=100, ms=2.0):
    return [(seq, ms, "") for seq in range(1, count + 1)]


BIG = ping(*good(10), sent=10)


@pytest.mark.parametrize(
    ("small", "big", "symptoms"),
    [
        (ping(*good()), BIG, set()),
        (ping(*[one for one in good() if one[0] % 6]), BIG, {"some_lost"}),
        (ping(*[one for one in good() if one[0] % 12 > 3]), BIG, {"lost_in_bursts"}),
        (ping(*good()[:60], sent=300), BIG, {"gap"}),
        (ping(sent=100), ping(sent=10), {"all_lost"}),
        (ping(*good(), (7, 2.1, " (DUP!)")), BIG, {"duplicated"}),
        (ping((2, 2.0, ""), (1, 9.0, ""), *good()[2:]), BIG, {"reordered"}),
        (ping(*good(ms=12.0)), BIG, {"delay_grew"}),
        (ping(*good(60), *[(seq, 90.0, "") for seq in range(61, 101)]), BIG, {"delay_varies"}),
        (ping(*[(seq, 20.0 + seq, "") for seq in range(1, 101)]), BIG, {"queue"}),
        (ping(*good()), ping(sent=10), {"big_lost"}),
        (ping(*good()), ping(sent=0, words="message too long, mtu=1300"), {"too_big"}),
        (ping(sent=5, words="Destination Host Unreachable"), BIG, {"all_lost", "unreachable"}),
        ("ping: server: Name or service not known", "", {"name_unknown"}),
    ],
)
def test_what_ping_shows(small, big, symptoms):
    assert of_ping(small, big, BASE).keys() == symptoms


def mtr(loss=0.0, best=2.0, worst=2.4, deviation=0.1):
    hub = f'"Loss%": {loss}, "Snt": 40, "Best": {best}, "Wrst": {worst}, "StDev": {deviation}'
    return '{"report": {"hubs": [{"Loss%": 100.0}, {' + hub + "}]}}"


@pytest.mark.parametrize(
    ("output", "symptoms"),
    [
        (mtr(), set()),
        (mtr(loss=10.0), {"some_lost"}),
        (mtr(loss=100.0), {"all_lost"}),
        (mtr(best=9.0), {"delay_grew"}),
        (mtr(worst=1010.0, deviation=200), {"connect_retried"}),
        (mtr(deviation=30.0), {"delay_varies"}),
        ("mtr: Failed to resolve host: server", {"name_unknown"}),
        ("", set()),
    ],
)
def test_what_mtr_shows(output, symptoms):
    assert of_mtr(output, BASE).keys() == symptoms


def attempt(lookup=0.0, connect=0.002, first=0.002, error="", total=1.0, is_big=False):
    return Attempt(lookup, connect, first, error, total, is_big)


FINE, LATE = attempt(), attempt(connect=None, first=None, error="Connection timed out")


@pytest.mark.parametrize(
    ("attempts", "symptoms"),
    [
        ([FINE] * 8, set()),
        ([], set()),
        ([attempt(lookup=0.3)] * 8, {"lookup_slow"}),
        ([FINE] * 4 + [attempt(lookup=1.0)] * 4, {"lookup_lost"}),
        ([LATE] * 8, {"connect_all_lost"}),
        ([LATE, FINE, LATE, FINE, FINE], {"connect_some_lost"}),
        ([FINE] * 7 + [attempt(connect=1.02)], {"connect_retried", "delay_varies"}),
        ([attempt(first=None)] * 8, {"no_answer"}),
        ([attempt(first=0.05)] * 8, {"answer_slow"}),
        ([attempt(first=0.9)] * 8, {"answer_slow", "answer_very_slow"}),
        ([FINE] * 7 + [attempt(first=0.208)], {"answer_sometimes_slow", "data_resent"}),
        (
            [LATE, LATE, *[attempt(first=0.05)] * 6],
            {"connect_some_lost", "answer_slow", "silent_and_slow"},
        ),
        (
            [attempt(connect=0.001, first=None, error="Empty reply")] * 8,
            {
                "connect_too_quick",
                "closed_empty",
                "no_answer",
                "quick_and_closed",
                "quick_and_silent",
            },
        ),
        ([FINE] * 7 + [attempt(first=0.4)], {"answer_sometimes_slow"}),
        ([FINE] * 7 + [attempt(is_big=True, first=None)] * 2, {"big_lost"}),
        ([attempt(connect=None, first=None, error="Connection refused")] * 8, {"refused"}),
        (
            [attempt(connect=None, first=None, error="No route to host", total=3.1)] * 8,
            {"unreachable_late"},
        ),
        (
            [attempt(connect=None, first=None, error="No route to host", total=0.01)] * 8,
            {"unreachable"},
        ),
        ([attempt(first=None, error="Connection reset by peer")] * 8, {"reset", "no_answer"}),
    ],
)
def test_what_connections_show(attempts, symptoms):
    assert of_attempts(attempts, BASE).keys() == symptoms


CURL = (
    '{{"errormsg":"{error}","exitcode":{code},"size_download":78,"time_connect":0.003,'
    '"time_namelookup":0.001,"time_starttransfer":{first},"time_total":1.0}}'
)


def test_curl_that_was_told_to_give_up_was_answered():
    one = curl_attempt(CURL.format(error="Operation timed out", code=28, first=0.007), is_big=True)
    assert one == Attempt(0.001, 0.002, 0.004, "", 1.0, True)


def test_curl_that_got_nothing_was_not():
    line = CURL.format(error="Operation timed out", code=28, first=0).replace("78", "0")
    assert curl_attempt(line, is_big=False).first_s is None


PAGE = """\
ts=2026-11-27T11:16:59.900Z level=info msg="Dialing TCP without TLS"
ts=2026-11-27T11:16:59.950Z level=info msg="Successfully dialed"
ts=2026-11-27T11:17:00.050Z level=info msg="Regexp matched" regexp=^0123

probe_dns_lookup_time_seconds 0.25
probe_duration_seconds 0.4
probe_success 1
"""


def test_the_exporter_is_read_from_its_log():
    one = exporter_attempt(PAGE)
    assert one.lookup_s == 0.25
    assert one.connect_s == pytest.approx(0.05)  # over a minute's end
    assert one.first_s == pytest.approx(0.1)
    assert one.error == ""


def test_the_exporter_says_why_it_failed():
    line = 'ts=2026-11-27T11:16:59.9Z level=error msg="Error dialing TCP" err="dial: refused"\n'
    one = exporter_attempt(line + "probe_success 0\n")
    assert (one.connect_s, one.error) == (None, "dial: refused")


def tcp(
    resent=0,
    rtt_us=4000,
    least_us=4000,
    received=1_448_000,
    rate=8e6,
    window=1 << 20,
    mss=1448,
    buffer=16_384,
):
    sender = {"mean_rtt": rtt_us, "min_rtt": least_us, "max_snd_wnd": window}
    return {
        "start": {"tcp_mss_default": mss, "sndbuf_actual": buffer},
        "end": {
            "sum_sent": {"bytes": 1_448_000, "retransmits": resent},
            "sum_received": {"bytes": received, "bits_per_second": rate},
            "streams": [{"sender": sender}],
        },
    }


def udp(lost=0, late=0):
    stream = {"udp": {"out_of_order": late}}
    return {"end": {"sum": {"packets": 1000, "lost_packets": lost}, "streams": [stream]}}


@pytest.mark.parametrize(
    ("runs", "symptoms"),
    [
        ({"tcp_forward": tcp(), "udp_reverse": udp()}, set()),
        ({"tcp_forward": tcp(resent=90)}, {"resent_forward"}),
        (
            {"tcp_reverse": tcp(resent=90), "udp_reverse": udp(lost=140)},
            {"resent_reverse", "policed_reverse"},
        ),
        ({"tcp_forward": tcp(window=65_535)}, {"small_window"}),
        ({"tcp_forward": tcp(window=9_000)}, {"tiny_window_forward"}),
        ({"tcp_forward": tcp(least_us=50_000)}, {"delay_grew"}),
        ({"tcp_forward": tcp(mss=524)}, {"small_mss"}),
        ({"tcp_forward": tcp(buffer=10_240)}, {"small_send_buffer"}),
        ({"tcp_reverse": tcp(rtt_us=90_000)}, {"queue_reverse"}),
        ({"tcp_forward": tcp(received=0, rate=0)}, {"stalled_forward"}),
        ({"tcp_forward": tcp(rate=5e5)}, {"slow_forward"}),
        ({"udp_reverse": udp(lost=30)}, {"lost_reverse"}),
        ({"udp_forward": udp(late=5)}, {"reordered_forward"}),
        ({"tcp_forward": {"error": "Connection refused"}}, {"refused", "all_failed"}),
        ({}, set()),
    ],
)
def test_what_iperf3_shows(runs, symptoms):
    assert of_iperf3(runs, BASE).keys() == symptoms


@pytest.mark.parametrize("tool", RULES)
def test_every_rule_is_about_a_symptom_that_the_tool_can_show(tool):
    text = (LAB / "symptoms.py").read_text() + (LAB / "attempts.py").read_text()
    ways = ("_forward", "_reverse")
    stems = {next((s.removesuffix(w) for w in ways if s.endswith(w)), s) for s in RULES[tool]}
    assert [stem for stem in stems if f'"{stem}' not in text and f"{stem}_{{" not in text] == []


def test_the_first_symptom_of_the_table_is_what_a_tool_says():
    (said,) = conclude("ping", {"delay_grew": 0.01, "some_lost": 0.1}, 8.0)
    assert (said.name.verdict, said.at_s, said.proof) == ("loss", 8.0, "some_lost")
    assert conclude("ping", {}, 8.0) == ()


def test_an_mtu_is_a_figure():
    (said,) = conclude("ping", {"too_big": 1300}, 8.0)
    assert said.figures == {"mtu": 1300}


def test_a_tool_says_nothing_of_what_it_saw_while_all_was_well():
    healthy = {"ping": {"too_big": 1400.0}, "curl": {}}
    said = said_by({"ping": {"too_big": 1400.0}, "curl": {"refused": 1.0}}, healthy, 8.0)
    assert said["ping"] == ()
    assert [one.name.verdict for one in said["curl"]] == ["refused_by_server"]
    assert said.keys() == {*RULES, TOGETHER}


@pytest.mark.parametrize(
    ("symptoms", "names"),
    [
        ({}, []),
        ({"ping": {"some_lost": 0.1}}, ["loss path"]),
        (
            {"ping": {"some_lost": 0.1}, "iperf3": {"lost_reverse": 0.1}},
            ["loss path_reverse reverse"],
        ),
        ({"curl": {"connect_some_lost": 0.3}}, ["path_subset_loss path"]),
        ({"curl": {"connect_some_lost": 0.3}, "ping": {"some_lost": 0.1}}, ["loss path"]),
        ({"curl": {"connect_all_lost": 1}}, ["new_connection_limit middlebox"]),
        ({"curl": {"connect_all_lost": 1}, "ping": {"all_lost": 1}}, ["blackout path"]),
        (
            {"curl": {"lookup_slow": 0.5}, "ping": {"big_lost": 1}},
            ["dns_slow dns", "mtu_blackhole path"],
        ),
        ({"ping": {"name_unknown": 1}, "iperf3": {"all_failed": 1}}, ["dns_failing dns"]),
        ({"ping": {"gap": 0.4}, "curl": {"refused": 1}}, ["peer_lost server_host"]),
    ],
)
def test_a_script_that_reads_all_of_them_knows_more_than_each(symptoms, names):
    said = conclude_together(symptoms, 8.0)
    assert [" ".join(filter(None, one.name)) for one in said] == names


def test_what_ping_still_waited_for_is_not_lost():
    far = Base(0.08, 0.0, 0.0)
    replies = ping(*good(88, ms=80.0), sent=100)
    assert of_ping(replies, BIG, far).keys() == set()
    assert of_ping(ping(*good(40, ms=80.0), sent=100), BIG, far).keys() == {"lost_in_bursts"}
