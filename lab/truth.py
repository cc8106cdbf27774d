"""The truth table: faults that nobody told the pair of, and how often it names them right.

    make truth          each verdict's fault once, beside healthy controls; 14 minutes
    make truth-full     every case several times, and the ablations; 90 minutes

As root. The seed is the date unless one is given; the same seed draws the same table. The last line
of the output is the score; lab/results/ has the details.
"""

import argparse
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from twocans_core import __version__

from . import others
from .ablated_client import ABLATIONS
from .cases import CASES
from .outcome import Outcome
from .page import details, last_line
from .pair import INTERVAL_S
from .plan import Planned, plan
from .rules import RULES, TOGETHER
from .run import outcomes_in
from .score import markdown, score
from .seal import BrokenSealError

__all__ = ["main"]

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "lab" / "results"
_PATIENCE_S = 134
"""How long a run may take besides its fault; then it is ended and counted as a problem."""
_STOP_S = 20


class Job(NamedTuple):
    """A run that is to be done by a process of its own.

    Attributes:
        planned: What to do.
        asked: Who is to say what is wrong.
        ablation: Evidence that the client does without.
        folder: For what comes of it.
    """

    planned: Planned
    asked: str
    ablation: str
    folder: Path


class Runner:
    """Does jobs, several at a time, each in a process of its own."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._is_stopping = False

    def do(self, job: Job) -> list[Outcome]:
        """Do one; the truth is opened only when everything is said."""
        if self._is_stopping:
            return _failed(job, "stopped")
        job.folder.mkdir(parents=True)
        document = {**job._asdict(), "planned": job.planned._asdict(), "folder": None}
        (job.folder / "job.json").write_text(json.dumps(document))
        words = [sys.executable, "-m", "lab.run", str(job.folder)]
        errors = (job.folder / "errors").open("w")
        with (
            errors,
            subprocess.Popen(
                words, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=errors
            ) as process,
        ):
            self._running.add(process)
            if self._is_stopping:  # it was not yet among those that were ended
                process.terminate()
            digest = process.stdout.readline().strip() if process.stdout else ""
            try:
                process.wait(_PATIENCE_S + job.planned.lasts_s)
            except subprocess.TimeoutExpired:
                self._end(process)
            self._running.discard(process)
        if process.returncode:
            lines = (job.folder / "errors").read_text().strip().splitlines()
            return _failed(job, lines[-1] if lines else "it took too long")
        try:
            return outcomes_in(job.folder, digest)
        except (OSError, BrokenSealError) as error:
            return _failed(job, str(error))

    def stop(self) -> None:
        """End what runs; each run removes its own scene."""
        self._is_stopping = True
        running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            self._end(process)

    def _end(self, process: subprocess.Popen[str]) -> None:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()  # the scene's guardian removes what it leaves
            process.wait()


def _failed(job: Job, problem: str) -> list[Outcome]:
    tools = [*RULES, TOGETHER] if job.asked == "others" else [job.asked]
    return [Outcome(job.planned.run, tool, (), (), 0.0, problem=problem) for tool in tools]


def main() -> int:
    """Draw a table, do its runs, and print their score; returns the exit code."""
    options = _options()
    lacking = [] if options.without_others else others.missing()
    if lacking:
        print(f"truth: the other tools are left out: apt install {' '.join(lacking)}")
    asked = ["twocans"] if lacking or options.without_others else ["twocans", "others"]
    cases = {name: CASES[name] for name in options.only} if options.only else CASES
    planned = plan(cases, options.seed, repeats=options.repeats)
    shown = f"seed {options.seed}, {len(planned)} cases, {options.scenes} at a time"
    print(f"truth: {shown}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.keep or Path(scratch)).resolve()
        jobs = [Job(one, who, "", folder / who / one.run) for one in planned for who in asked]
        once = plan(cases, options.seed, repeats=1) if options.ablations else []
        jobs += [
            Job(one, "twocans", a, folder / a / one.run) for a in options.ablations for one in once
        ]
        done = _do(jobs, options.scenes)
    outcomes = [one for job, several in done if not job.ablation for one in several]
    scores = {
        tool: score(one for one in outcomes if one.tool == tool)
        for tool in dict.fromkeys(one.tool for one in outcomes)
    }
    ablations = {
        name: score(one for job, several in done if job.ablation == name for one in several)
        for name in options.ablations
    }
    if not options.only:
        _write({**_circumstances(options), "scores": scores, "without": ablations}, options)
    mine = scores.pop("twocans")
    print(markdown(mine))
    for job, several in done:
        if several[0].problem:
            who = job.ablation or job.asked
            print(f"truth: {job.planned.run} ({who}) shows nothing: {several[0].problem}")
    for line in details(mine, scores | {f"without {name}": a for name, a in ablations.items()}):
        print(line)
    print(last_line(mine, scores))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="lab.truth", description=(__doc__ or "").partition("\n")[0]
    )
    today = int(datetime.datetime.now(datetime.UTC).strftime("%Y%m%d"))
    scenes = 3 * (os.cpu_count() or 1)  # each takes a tenth of one, and with more it is short
    add = parser.add_argument
    add("--seed", type=int, default=today, help="Of the whole table. Default: the date.")
    add("--full", action="store_true", help="Every case three times, and every ablation.")
    add("--repeats", type=int, default=0, help="Of every case; 0: one case of each verdict.")
    add("--scenes", type=int, default=scenes, help=f"Runs at a time. Default: {scenes}.")
    add("--only", nargs="+", choices=sorted(CASES), metavar="CASE", help="Write no results.")
    add("--without-others", action="store_true", help="Do not ask the other tools.")
    add("--ablations", nargs="+", choices=ABLATIONS, default=[], help="Score without evidence.")
    add("--keep", type=Path, metavar="FOLDER", help="Keep every run's files in this new folder.")
    options = parser.parse_args()
    if options.full:
        options.repeats, options.ablations = options.repeats or 3, list(ABLATIONS)
    return options


def _do(jobs: Sequence[Job], scenes: int) -> list[tuple[Job, list[Outcome]]]:
    runner = Runner()
    done: list[tuple[Job, list[Outcome]]] = []
    begun = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with ThreadPoolExecutor(scenes) as pool:
        try:
            for count, outcomes in enumerate(pool.map(runner.do, jobs), 1):
                done.append((jobs[count - 1], outcomes))
                if count % 10 == 0:
                    print(
                        f"truth: {count} of {len(jobs)}, {time.monotonic() - begun:.0f} s",
                        flush=True,
                    )
        except KeyboardInterrupt:
            runner.stop()
            raise SystemExit(130) from None
    return done


def _circumstances(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seed": options.seed,
        "repeats": options.repeats,
        "version": __version__,
        "kernel": platform.release().partition("-")[0],
        "cores": os.cpu_count(),
        "scenes": options.scenes,
        "probes_per_s": round(1 / INTERVAL_S),
    }


def _write(summary: dict[str, Any], options: argparse.Namespace) -> None:
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / ("truth-full.json" if options.repeats else "truth.json")
    new = file.with_suffix(".new")  # so that the file is a whole one at any time
    new.write_text(json.dumps(summary, indent=1) + "\n")
    new.replace(file)


if __name__ == "__main__":
    raise SystemExit(main())
