"""One run of a case: set the scene, seal the truth, watch, inject, and keep what was said.

    python -m lab.run FOLDER

does the run that FOLDER/planned.json describes, and leaves in the folder: sealed.json, the truth,
written before the pair starts; seal, its hash; injected.json, when and what was then really done;
said.json, what was said. ``outcome_in`` puts them together.
"""

import argparse
import contextlib
import json
import signal
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any, NoReturn

from . import others
from .cases import CASES, Case, Drawn, Truth
from .counts import counts_of
from .outcome import Fault, Name, Outcome, Said, from_json, to_json
from .pair import pair, said_in
from .plan import Planned
from .scene import Base, Scene, scene
from .seal import open_sealed, seal

__all__ = ["main", "outcome_in", "run", "run_one"]

TAIL_S = 3.0
"""How long is listened after the fault has ended."""
OTHERS_S = 12.0
"""How long the other tools watch a fault; they know the healthy path beforehand."""


def run_one(case: str, seed: int, base: Base, lasts_s: float = 18.0) -> Outcome:
    """Run a case with the pair; returns what was injected and what was said.

    Raises:
        KeyError: There is no such case.
    """
    planned = Planned(case, case, seed, base, 6.0, lasts_s)
    with tempfile.TemporaryDirectory() as folder:
        run(planned, Path(folder))
        return outcome_in(Path(folder))[0]


def run(planned: Planned, folder: Path, *, asked: str = "twocans", ablation: str = "") -> None:
    """Do one run; what comes of it is in the folder afterwards.

    Args:
        planned: What to do.
        folder: An empty one.
        asked: Who is to say what is wrong: ``twocans``, or ``others`` or ``iperf3``.
        ablation: Evidence that the client is to do without.
    """
    case = CASES[planned.case]
    random = Random(planned.seed)
    drawn = case.draw(random)
    truth = {"planned": planned, "drawn": drawn, "expected": case.expected}
    (folder / "seal").write_text(seal(folder / "sealed.json", truth))
    with scene(planned.base) as its, case.prepare(its, drawn):
        if asked == "twocans":
            documents = [_with_pair(planned, case, drawn, its, folder, ablation)]
        else:
            documents = _with_others(planned, case, drawn, its, folder, asked)
    (folder / "said.json").write_text(json.dumps(documents, indent=1))


def _with_pair(
    planned: Planned, case: Case, drawn: Drawn, its: Scene, folder: Path, ablation: str
) -> dict[str, Any]:
    counts = {}
    with pair(
        its,
        target=case.target,
        server_flags=case.server_flags,
        client_flags=case.client_flags,
        ablation=ablation,
    ) as both:
        time.sleep(max(0.0, planned.onset_s - both.now_s()))
        onset_s = both.now_s()
        with case.inject(its, drawn) as truth:
            if case.expected:
                onset_s = both.now_s()
            time.sleep(planned.lasts_s)
            ended_s = both.now_s()
        _injected(folder, truth, onset_s, ended_s)
        time.sleep(TAIL_S)
        with contextlib.suppress(OSError):
            counts = counts_of(both.metrics(), its.wire.log())
        lasted_s = both.now_s()
    events = [event.fields | {"at_s": event.at_s} for event in both.client_events]
    (folder / "client.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    said = said_in(both.client_events)
    return to_json(Outcome(planned.run, "twocans", (), said, lasted_s, counts))


def _with_others(
    planned: Planned, case: Case, drawn: Drawn, its: Scene, folder: Path, asked: str
) -> list[dict[str, Any]]:
    with others.server(its, case), case.inject(its, drawn) as truth:
        watched = others.watch(its, case, planned.base, OTHERS_S, asked)
        _injected(folder, truth, 0.0, OTHERS_S)
    (folder / "others.json").write_text(json.dumps(watched.raw, indent=1))
    return [
        to_json(Outcome(planned.run, tool, (), said, OTHERS_S))
        for tool, said in watched.said.items()
    ]


def _injected(folder: Path, truth: Truth, onset_s: float, ended_s: float) -> None:
    document = {"onset_s": onset_s, "ended_s": ended_s, "figures": truth.figures}
    (folder / "injected.json").write_text(json.dumps(document))
