"""Our own side: what kept our process from running, and what of it was our own code."""

import pytest

from client.far_end import ended
from client.verdicts.evidence import MS, S, good, judge, window
from twocans_client.evidence.results import ProbeResult, Reason
from twocans_client.evidence.rows import Kept
from twocans_client.evidence.window import Window
from twocans_client.verdicts import own_side
from twocans_client.verdicts.verdict import Culprit
from twocans_core.host.stalls import Cause, Stalled

# As the lab's ``self_inflicted`` showed it, with 0.15 s of own code twice a second: on an idle
# machine, and on one that gave our thread two fifths of a CPU.
COMPUTED = Stalled(140 * MS, 140 * MS, Cause.BLOCKED, 140 * MS)
SHARED = Stalled(360 * MS, 360 * MS, Cause.STARVED, 145 * MS)
STOPPED = Stalled(560 * MS, 560 * MS, Cause.STOPPED)


SELF = ("self_inflicted", Culprit.TOOL)
SHORT = ("cpu_starved", Culprit.CLIENT_HOST)
PAUSED = ("process_paused", Culprit.CLIENT_HOST)


def names(made: Window) -> list[tuple[str, Culprit]]:
    return [(finding.kind.name, finding.culprit) for finding in judge(own_side, made)]


def waited(stalled: Stalled, *at_ns: int, took_ns: int = 400 * MS) -> Window:
    """Return a window of good probes that waited in such a stall each."""
    results: list[ProbeResult] = [good(at, stalled=stalled) for at in at_ns]
    for result in results:
        result.ended_ns = result.started_ns + took_ns
    return window(*results)


def due(stalled: Stalled, *at_ns: int) -> Window:
    """Return a window of good probes, before which others were due in such a stall each."""
    made = window(*(good(at) for at in at_ns))
    made.kept.extend(Kept(at - stalled.worst_ns, at, stalled) for at in at_ns)
    return made


def test_own_code_in_which_good_probes_waited_is_self_inflicted():
    (finding,) = judge(own_side, waited(COMPUTED, S, 2 * S))
    assert (finding.kind.name, finding.culprit) == SELF
    assert finding.proof == (
        "our own code ran for up to 0.140 s at a stretch, and meanwhile 2 probes waited or could "
        "not begin"
    )
    assert finding.explains == {1, 2}


def test_own_code_shows_where_no_probe_was_under_way():
    (finding,) = judge(own_side, due(COMPUTED, S, 2 * S))
    assert (finding.kind.name, finding.culprit) == SELF
    assert not finding.explains


def test_on_a_machine_that_is_short_of_cpu_both_are_true():
    assert names(waited(SHARED, S, 2 * S)) == [SHORT, SELF]


def test_who_only_waited_for_a_cpu_did_nothing_himself():
    assert names(waited(SHARED._replace(own_ns=0), S, 2 * S)) == [SHORT]


@pytest.mark.parametrize("stalled", [COMPUTED, SHARED])
def test_one_stall_is_one_however_many_probes_waited_in_it(stalled):
    # On a path of 80 ms several are under way at any time.
    assert names(waited(stalled, S, S + 100 * MS, S + 200 * MS, S + 300 * MS)) == []


def test_less_than_a_hundredth_of_the_time_is_what_any_program_does():
    short = Stalled(30 * MS, 30 * MS, Cause.BLOCKED, 30 * MS)
    assert names(waited(short, S, 2 * S, 3 * S, 4 * S)) == []
    assert names(waited(short, S, 2 * S, 3 * S, 4 * S, 5 * S)) == [SELF]
    assert names(due(short, S, 2 * S, 3 * S, 4 * S)) == []


def test_what_is_long_ago_is_over():
    made = due(COMPUTED, S, 2 * S)
    made.forget(18 * S)
    assert names(made) == []


def test_a_slow_call_to_the_system_is_not_named():
    assert names(waited(COMPUTED._replace(own_ns=0), S, 2 * S, 3 * S)) == []


def test_a_stop_shows_where_no_probe_was_under_way():
    assert names(due(STOPPED, S)) == [PAUSED]
    assert names(due(STOPPED._replace(worst_ns=149 * MS, total_ns=149 * MS), S)) == []


def test_waits_for_a_cpu_count_of_what_was_under_way():
    assert names(due(SHARED._replace(own_ns=0), S, 2 * S, 3 * S)) == []


def test_what_a_stop_has_made_void_is_not_our_own_doing_besides():
    void = [ended(Reason.SELF_STALL, at * S, stalled=STOPPED, timeout_ns=S) for at in (1, 3)]
    assert names(window(*void)) == [PAUSED]


def test_void_probes_that_nothing_explains_are_self_inflicted():
    blocked = Stalled(S, S, Cause.BLOCKED)
    void = [ended(Reason.SELF_STALL, at * S, stalled=blocked, timeout_ns=S) for at in (1, 3)]
    assert names(window(*void)) == [SELF]
