"""Why a server was slow: by its own account, or not at all."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from client.far_end import SERVER
from client.makers import exchange
from twocans_client.evidence import testimony
from twocans_client.evidence.results import Reason
from twocans_client.evidence.rows import Probed
from twocans_client.evidence.window import Window
from twocans_client.verdicts import hosts
from twocans_client.verdicts.case import Case
from twocans_client.verdicts.verdict import Culprit
from twocans_core.host.stalls import Cause
from twocans_core.kernel.tcpinfo import NO_TCP_COUNTS

MS, SECOND = 1_000_000, 1_000_000_000
WELL = testimony.HostHistory(
    since_ns=0,
    stalled_ns=0,
    worst_ns=0,
    cause="",
    throttled_ns=0,
    run_delay_ns=0,
    tcp=NO_TCP_COUNTS,
    accept_errors=0,
    connections=1,
    max_connections=100,
    accept_queue=0,
    accept_queue_limit=100,
    half_open=0,
    limits=(),
)


def probe(number: int, reason: Reason = Reason.OK, **parts_ns: Any) -> Probed:
    ended_ns = number * SECOND // 10
    split = exchange(**parts_ns).split if reason is Reason.OK else None
    instance = SERVER.instance if reason is Reason.OK else b""
    return Probed(number, ended_ns - 10, ended_ns, reason, split=split, instance=instance)


def window(*probes: Probed, host: testimony.HostHistory | None = None) -> Window:
    made = Window()
    made.probes.extend(probes)
    made.odd.extend(each for each in probes if each.is_odd)
    made.now_ns = probes[-1].ended_ns
    if host is not None:
        now_ns = made.now_ns
        made.testified(testimony.Testimony(SERVER, None, now_ns, now_ns + MS, 0, 0, (), host))
    return made


def names(evidence: Window) -> list[tuple[str, Culprit]]:
    return [(found.kind.name, found.culprit) for found in hosts.judge(Case(evidence))]


def slow(count: int = 10, **parts_ns: Any) -> list[Probed]:
    return [probe(number, **(parts_ns or {"wakeup_ns": 60 * MS})) for number in range(count)]


THROTTLED = WELL._replace(throttled_ns=2 * SECOND, stalled_ns=2 * SECOND, cause="throttled")
STOPPED = WELL._replace(stalled_ns=2 * SECOND, worst_ns=2 * SECOND, cause="stopped")
STARVED = WELL._replace(stalled_ns=SECOND, worst_ns=30 * MS, cause="starved")
APP = {"stall_ns": 50 * MS}


def test_a_throttled_server_is_its_hosts_doing():
    assert names(window(*slow(), host=THROTTLED)) == [("cpu_throttled", Culprit.SERVER_HOST)]


def test_a_starved_server_is_its_hosts_doing():
    assert names(window(*slow(), host=STARVED)) == [("cpu_starved", Culprit.SERVER_HOST)]


def test_one_stop_of_a_server_is_enough():
    assert names(window(*slow(1), host=STOPPED)) == [("process_paused", Culprit.SERVER_HOST)]


def test_probes_that_failed_while_the_server_was_stopped_are_explained_by_it():
    silent = [probe(number, Reason.GREETING_TIMEOUT) for number in range(5)]
    (found,) = hosts.judge(Case(window(*silent, probe(5), host=STOPPED)))
    assert found.kind.name == "process_paused"
    assert found.explains == {0, 1, 2, 3, 4}


def test_a_program_that_is_slow_on_a_host_that_lets_it_run_is_the_programs_doing():
    blocked = WELL._replace(stalled_ns=5 * SECOND, worst_ns=50 * MS, cause="blocked")
    for host in (WELL, blocked):
        assert names(window(*slow(**APP), host=host)) == [("slow_app", Culprit.SERVER_APP)]


def test_a_slow_program_is_not_named_on_a_host_that_stops_it():
    assert names(window(*slow(**APP), host=THROTTLED)) == [("cpu_throttled", Culprit.SERVER_HOST)]


def test_without_the_servers_word_nothing_is_said():
    assert names(window(*slow())) == []
    other = SERVER._replace(instance=b"o" * 16)
    evidence = window(*slow(), host=THROTTLED)
    evidence.testimonies[0] = evidence.testimonies[0]._replace(server=other)
    assert names(evidence) == []


def test_what_it_went_through_before_is_no_explanation():
    evidence = window(*slow(), host=THROTTLED)
    evidence.testimonies[0] = evidence.testimonies[0]._replace(answered_ns=-SECOND)
    assert names(evidence) == []


def test_what_a_limit_explained_is_not_blamed_on_others_later():
    evidence = window(*slow(), host=THROTTLED)
    evidence.testified(evidence.testimonies[0]._replace(host=STARVED))
    assert names(evidence) == [("cpu_throttled", Culprit.SERVER_HOST)]


def test_a_limit_and_then_others_are_two():
    first, later = slow(5), [probe(number, wakeup_ns=60 * MS) for number in range(20, 25)]
    evidence = window(*first, *later)
    early_ns = first[-1].ended_ns + 1
    early = testimony.Testimony(SERVER, None, early_ns, early_ns, 0, 0, (), THROTTLED)
    late_ns = later[-1].ended_ns
    since = STARVED._replace(since_ns=later[0].began_ns)
    evidence.testified(early)
    evidence.testified(early._replace(asked_ns=late_ns, answered_ns=late_ns, host=since))
    assert [name for name, _ in names(evidence)] == ["cpu_throttled", "cpu_starved"]


def test_a_moment_is_no_verdict():
    assert names(window(*slow(1), host=THROTTLED)) == []
    assert names(window(*slow(), host=WELL._replace(throttled_ns=20 * MS))) == []
    assert names(window(*slow(1), host=STOPPED._replace(worst_ns=40 * MS))) == []


def test_a_slow_network_is_not_the_servers_doing():
    late = [probe(number, forward_ns=60 * MS) for number in range(10)]
    assert names(window(*late, host=WELL)) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from([Reason.OK] * 8 + list(Reason)),
            st.integers(0, 4 * MS),
            st.integers(0, 900_000),
        ),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from(["", "blocked", "nonsense", *Cause]),
    st.none() | st.integers(0, 49 * MS),
)
def test_no_evidence_makes_it_raise_and_noise_gives_no_verdict(rows, cause, stalled_ns):
    probes = [
        probe(number, reason, wakeup_ns=wakeup_ns, app_ns=app_ns)
        for number, (reason, wakeup_ns, app_ns) in enumerate(rows)
    ]
    host = WELL._replace(
        cause=str(cause), stalled_ns=stalled_ns, worst_ns=stalled_ns, throttled_ns=stalled_ns
    )
    assert names(window(*probes, host=host)) == []
