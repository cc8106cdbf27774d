import json
import os
from pathlib import Path

import pytest
from lab.cases import CASES
from lab.plan import Planned
from lab.rules import RULES, TOGETHER
from lab.run import outcomes_in, run, run_one
from lab.scene import Base
from lab.seal import BrokenSealError
from lab.truth import Job, Runner

BASE = Base(0.002, 0.0, 0.0)


def job(folder: Path, case: str, asked: str = "twocans") -> Job:
    return Job(Planned(case, case, 7, BASE, 1.0, 1.0), asked, "", folder / "run")


def test_a_run_that_fails_shows_nothing_and_says_why(tmp_path):
    (outcome,) = Runner().do(job(tmp_path, "no_such_case"))
    assert outcome.problem == "KeyError: 'no_such_case'"
    assert (outcome.faults, outcome.said) == ((), ())


def test_a_run_of_the_others_that_fails_fails_each(tmp_path):
    outcomes = Runner().do(job(tmp_path, "no_such_case", "others"))
    assert {one.tool for one in outcomes} == {*RULES, TOGETHER}
    assert all(one.problem for one in outcomes)


def test_nothing_begins_after_a_stop(tmp_path):
    runner = Runner()
    runner.stop()
    (outcome,) = runner.do(job(tmp_path, "healthy"))
    assert outcome.problem == "stopped"
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_counts_what_the_wire_lost_and_knows_its_fault(able):
    # Where the held connection lost something, there is nothing to compare.
    outcomes = (run_one("loss_forward", seed, BASE, lasts_s=4.0) for seed in range(7, 12))
    outcome = next(one for one in outcomes if one.counts)
    (fault,) = outcome.faults
    assert fault.name == CASES["loss_forward"].expected[0]
    assert fault.severity == fault.figures["share"]
    assert 0 < fault.onset_s < fault.ended_s < outcome.lasted_s
    counted, lost = outcome.counts["lost_forward"]
    assert lost > 0
    assert counted == lost
    assert outcome.counts["lost_reverse"] == (0, 0)
    # Ten probes a second; those in which a segment was sent again are not among them.
    during = [error_s for at_s, error_s in outcome.transits if fault.onset_s <= at_s]
    assert 10 <= len(during) <= 70
    assert all(error_s > -0.001 for error_s in during)


@pytest.mark.slow
def test_the_truth_is_sealed_before_the_pair_starts_and_not_for_its_eyes(able, tmp_path):
    seen = []

    def announced(digest: str) -> None:
        seen.append(sorted(path.name for path in tmp_path.iterdir()))
        assert os.stat(tmp_path / "sealed.json").st_mode & 0o077 == 0

    planned = Planned("run", "healthy", 7, BASE, 1.0, 1.0)
    digest = run(planned, tmp_path, announce=announced)
    assert seen == [["sealed.json"]]
    assert outcomes_in(tmp_path, digest)[0].run == "run"
    truth = json.loads((tmp_path / "sealed.json").read_text())
    (tmp_path / "sealed.json").write_text(json.dumps({**truth, "expected": [["loss", "path"]]}))
    with pytest.raises(BrokenSealError):
        outcomes_in(tmp_path, digest)
