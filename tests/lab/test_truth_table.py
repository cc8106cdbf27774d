"""A small truth table: faults that nobody told the pair of, one or two of each family.

`make truth` has all of them, and draws them anew each day; these are always the same.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from lab.cases import CASES
from lab.judge import judge
from lab.plan import Planned
from lab.scene import Base
from lab.truth import Job, Runner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # the first waits for all

# Fewer than `make truth` has: other tests go on at the same time.
_SCENES = 2 * (os.cpu_count() or 1)
# What it draws is well within each range: a blackout lasts long enough to show its direction.
_SEED = 5
# Half of the SYNs are lost: where it is most of them, ten in a row are common, as in a blackout.
# No case needs CPU time of its own: on a busy machine nobody uses up a quota.
_SEEDS = {"syn_loss_forward": 7}
NEAR, LAN, FAR = Base(0.00005), Base(0.002, 0.05), Base(0.02, 0.02)
TABLE = {
    "syn_loss_forward": FAR,
    "refused_by_server": NEAR,
    "dns_failing": LAN,
    "loss_reverse": LAN,
    "mtu_blackhole_forward": FAR,
    "delay_increase_reverse": LAN,
    "bufferbloat_forward": FAR,
    "blackout_forward": LAN,
    "rst_injected": LAN,
    "stale_endpoint": NEAR,
    "process_paused_server": LAN,
    "app_hung": NEAR,
    "peer_lost": FAR,
    "healthy": FAR,
    "healthy_background_loss": LAN,
    "healthy_nat": NEAR,
}
"""Each case, and the path while it is healthy."""


@pytest.fixture(scope="module")
def judged(able, tmp_path_factory):
    """All runs, several at a time; by case."""
    folder = tmp_path_factory.mktemp("runs")
    runner = Runner()
    jobs = [
        Job(
            Planned(case, case, _SEEDS.get(case, _SEED), base, 6.0, 16.0),
            "twocans",
            "",
            folder / case,
        )
        for case, base in TABLE.items()
    ]
    with ThreadPoolExecutor(_SCENES) as pool:
        try:
            outcomes = [one for (one,) in pool.map(runner.do, jobs)]
        except BaseException:
            runner.stop()
            raise
    return {outcome.run: judge(outcome) for outcome in outcomes}


@pytest.mark.parametrize("case", TABLE)
def test_each_fault_gets_its_name_and_nothing_false_is_said(judged, case):
    one = judged[case]
    assert one.outcome.problem == ""
    assert one.false == ()
    expected = CASES[case].expected
    found = [match.found.name for match in one.matches if match.found]
    # With the direction: here nobody has to leave it open.
    assert found == [*expected], [said.name for said in one.outcome.said]


@pytest.mark.parametrize("case", [name for name in TABLE if not CASES[name].expected])
def test_a_healthy_path_gets_no_verdict_at_all(judged, case):
    one = judged[case].outcome
    assert [said.name for said in one.said if not said.is_info] == []
