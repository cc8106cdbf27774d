"""One run of a case: set the scene, seal the truth, watch, inject, and keep what was said.

    python -m lab.run FOLDER

does the run that FOLDER/job.json describes, prints the seal of its truth before the pair starts,
and leaves in the folder: sealed.json, the truth; injected.json, when and what was then really done;
said.json, what was said. ``outcomes_in`` puts them together.
"""

import contextlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import NoReturn

from . import others
from .cases import CASES, Case, Drawn
from .counts import counts_of
from .faults.doubles import SECOND
from .outcome import Fault, Name, Outcome, from_json, to_json
from .pair import PORT, Pair, pair, said_in, target_of
from .plan import Planned
from .programs.noted_client import NOTED
from .scene import Base, Scene, scene
from .seal import open_sealed, seal
from .transits import Noted, network_errors

__all__ = ["main", "outcomes_in", "run", "run_one"]

TAIL_S = 2.0
"""How long is listened after the fault has ended."""
OTHERS_S = 8.0
"""How long the other tools watch a fault, and iperf3 after them; half of it before its onset. Not
longer where a fault lasts longer: their rules are for so many attempts, of which one that is slow
by chance is a symptom, and none of the tools is ever silent."""


def run_one(case: str, seed: int, base: Base, lasts_s: float | None = None) -> Outcome:
    """Run a case with the pair, for as long as it has to last unless it is said.

    Returns:
        What was injected and what was said.

    Raises:
        KeyError: There is no such case.
    """
    planned = Planned(case, case, seed, base, 6.0, lasts_s or CASES[case].lasts_s)
    with tempfile.TemporaryDirectory() as folder:
        digest = run(planned, Path(folder))
        return outcomes_in(Path(folder), digest)[0]


def run(
    planned: Planned,
    folder: Path,
    *,
    asked: str = "twocans",
    ablation: str = "",
    announce: Callable[[str], None] = lambda digest: None,
) -> str:
    """Do one run; what comes of it is in the folder afterwards. Returns the seal of its truth.

    Args:
        planned: What to do.
        folder: An empty one.
        asked: Who is to say what is wrong: ``twocans``, or ``others``.
        ablation: Evidence that the client is to do without.
        announce: Is told the seal before the pair starts.
    """
    case = CASES[planned.case]
    drawn = case.draw(Random(planned.seed))
    truth = {"planned": planned._asdict(), "drawn": drawn, "expected": case.expected}
    digest = seal(folder / "sealed.json", truth)
    announce(digest)
    with scene(planned.base, seed=planned.seed % 2**32) as its, case.prepare(its, drawn):
        with pair(its, case, ablation=ablation) as both:
            if asked == "twocans":
                outcomes = [_ask_pair(planned, case, drawn, its, both, folder)]
                _keep_log(both, folder)
            else:
                outcomes = _ask_others(planned, case, drawn, its, both, folder)
        # The client says what it noted when it ends.
        if asked == "twocans":
            outcomes = [one._replace(transits=_transits(its, both)) for one in outcomes]
    documents = [to_json(one) for one in outcomes]
    (folder / "said.json").write_text(json.dumps(documents, indent=1))
    return digest


def _ask_pair(
    planned: Planned, case: Case, drawn: Drawn, its: Scene, both: Pair, folder: Path
) -> Outcome:
    waited_s = _waited_for_cpu_s()
    time.sleep(max(0.0, planned.onset_s - both.now_s()))
    with _injected(case, drawn, its, both, folder):
        time.sleep(planned.lasts_s)
    time.sleep(TAIL_S)
    counts = {}
    with contextlib.suppress(OSError):
        counts = counts_of(both.metrics(), its.wire.log(), PORT)
    said = said_in(both.client_events)
    starved = (_waited_for_cpu_s() - waited_s) / both.now_s()
    return Outcome(planned.run, "twocans", (), said, both.now_s(), counts, starved=starved)


def _transits(its: Scene, both: Pair) -> tuple[tuple[float, float], ...]:
    """The network's share of each exchange beside the wire's log; none if the client was killed."""
    rows = [event.fields["exchanges"] for event in both.client_events if event.name == NOTED]
    noted = [Noted(*row) for row in rows[0]] if rows else []
    began_ns = time.time_ns() - round(both.now_s() * 1e9)
    return tuple(
        ((at_ns - began_ns) / 1e9, error_ns / 1e9)
        for at_ns, error_ns in network_errors(noted, its.wire.log(), PORT)
    )


def _ask_others(
    planned: Planned, case: Case, drawn: Drawn, its: Scene, both: Pair, folder: Path
) -> list[Outcome]:
    target = target_of(its, case)
    base = _healthy(its)
    healthy = others.watch(its, target, base, OTHERS_S / 2)
    with _injected(case, drawn, its, both, folder):
        symptoms = others.watch(its, target, base, OTHERS_S)
        symptoms["iperf3"] = others.fill(its, target, base, OTHERS_S)
        said = others.said_by(symptoms, healthy, both.now_s())
    document = {"healthy": healthy, "injected": symptoms}
    (folder / "symptoms.json").write_text(json.dumps(document, indent=1))
    return [Outcome(planned.run, tool, (), words, both.now_s()) for tool, words in said.items()]


def _waited_for_cpu_s() -> float:
    """Return for how long anybody on this machine has waited for a CPU; 0.0: it does not tell."""
    try:
        text = Path("/proc/pressure/cpu").read_text()
    except OSError:
        return 0.0
    return int(text.split("total=", 1)[1].split()[0]) / 1e6


def _healthy(its: Scene) -> Base:
    """The path as the case prepared it."""
    rtt_s, jitter_s, loss = (
        sum(its.wire.setting(direction, name) for direction in ("forward", "reverse"))
        for name in ("delay_s", "jitter_s", "loss")
    )
    return Base(rtt_s, jitter_s / rtt_s if rtt_s else 0.0, loss / 2)


@contextlib.contextmanager
def _injected(case: Case, drawn: Drawn, its: Scene, both: Pair, folder: Path) -> Iterator[None]:
    """Inject the fault until the block ends; write down when, and what the case says it did."""
    with case.inject(its, drawn) as truth:
        onset_s = both.now_s()
        yield
        ended_s = both.now_s()
    document = {"onset_s": onset_s, "ended_s": ended_s, "figures": truth.figures}
    (folder / "injected.json").write_text(json.dumps(document))


def _keep_log(both: Pair, folder: Path) -> None:
    lines = [json.dumps({"at_s": event.at_s, **event.fields}) for event in both.client_events]
    (folder / "client.jsonl").write_text("\n".join(lines) + "\n")


def outcomes_in(folder: Path, digest: str) -> list[Outcome]:
    """Open the seal, and return the run's truth with what each tool said of it.

    Raises:
        BrokenSealError: The truth is not the one that was sealed.
        OSError: The run did not come to its end.
    """
    truth = open_sealed(folder / "sealed.json", digest)
    injected = json.loads((folder / "injected.json").read_text())
    faults = tuple(
        Fault(
            truth["planned"]["case"],
            Name(*expected),
            injected["onset_s"],
            injected["ended_s"],
            _severity(_of(number, truth["drawn"])),
            _of(number, injected["figures"]),
        )
        for number, expected in enumerate(truth["expected"])
    )
    said = [from_json(document) for document in json.loads((folder / "said.json").read_text())]
    return [outcome._replace(faults=faults) for outcome in said]


def _of(number: int, values: Drawn) -> Drawn:
    """What belongs to the first or the second of two faults."""
    second = {k.removeprefix(SECOND): v for k, v in values.items() if k.startswith(SECOND)}
    return second if number else {k: v for k, v in values.items() if not k.startswith(SECOND)}


def _severity(drawn: Drawn) -> float | None:
    """The first number that was drawn, which is how bad the fault is."""
    numbers = (value for value in drawn.values() if isinstance(value, int | float))
    return next((float(value) for value in numbers if not isinstance(value, bool)), None)


def main() -> int:
    """Do the run of a folder; returns the exit code."""
    folder = Path(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    job = json.loads((folder / "job.json").read_text())
    planned = Planned(**{**job["planned"], "base": Base(*job["planned"]["base"])})
    announce = partial(print, flush=True)
    run(planned, folder, asked=job["asked"], ablation=job["ablation"], announce=announce)
    return 0


def _stop(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    raise SystemExit(main())
