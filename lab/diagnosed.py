"""What ``twocans-client diagnose`` says of faults that are there before it is asked.

    python -m lab.diagnosed CASE ... [--seed N] [--rtt-ms N] [--set duration_s=60]

As nobody, on the client's host, beside the pair. One line a case: what was injected, what was said,
whether that was right, and how long it took.
"""

import argparse
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from random import Random
from typing import Any

from .cases import CASES, Case
from .judge import agrees
from .outcome import Name
from .pair import pair, target_of
from .scene import Base, scene

__all__ = ["main"]

# Until a fault shows, where it is of processes.
_SETTLE_S = 0.5
_PATIENCE_S = 90.0


def diagnosed(
    case: Case, seed: int, base: Base, given: dict[str, float], *, show: bool = False
) -> dict[str, Any]:
    """Return the document of ``diagnose --json`` with ``exit_code``; {} if it did not end.

    Args:
        case: What is injected.
        seed: Draws how bad it is.
        base: The path while it is healthy.
        given: What is not drawn but said.
        show: Whether to print the page, and not only read the document.
    """
    drawn = {**case.draw(Random(seed)), **given}
    with ExitStack() as stack:
        its = stack.enter_context(scene(base, seed=seed))
        stack.enter_context(case.prepare(its, drawn))
        stack.enter_context(pair(its, case))
        stack.enter_context(case.inject(its, drawn))
        time.sleep(_SETTLE_S)
        command = [sys.executable, "-m", "twocans_client", "diagnose", target_of(its, case)]
        if show:
            its.as_nobody(its.client, *command).wait(_PATIENCE_S)
        asked = its.as_nobody(its.client, *command, "--json", stdout=subprocess.PIPE)
        out, _ = asked.communicate(timeout=_PATIENCE_S)
    return {**json.loads(out or b"{}"), "exit_code": asked.returncode}


def is_right(case: Case, document: dict[str, Any]) -> bool:
    """Whether all of the case's verdicts were said, and no others.

    That a process waits for a CPU is true on a machine that others use, and counts neither way.
    """
    said = {Name(v["name"], v["culprit"], v["direction"]) for v in document["verdicts"]}
    wrong = {each.verdict for each in said} - {each.verdict for each in case.expected}
    found = [
        any(each.verdict == true.verdict and agrees(each, Name(*true)) for each in said)
        for true in case.expected
    ]
    info = {v["name"] for v in document["verdicts"] if v["info"]}
    return all(found) and wrong - info <= {"cpu_starved"}


def main() -> int:
    """Run the cases; returns how many were not right."""
    parser = argparse.ArgumentParser(prog="python -m lab.diagnosed", description=__doc__)
    parser.add_argument("cases", nargs="+", choices=sorted(CASES), metavar="CASE")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=NUMBER", help="instead of what is drawn"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rtt-ms", type=float, default=2.0)
    parser.add_argument("--show", action="store_true", help="print the page as well")
    flags = parser.parse_args()
    given = {name: float(value) for name, _, value in (each.partition("=") for each in flags.set)}
    wrong = 0
    for name in flags.cases:
        document = diagnosed(
            CASES[name], flags.seed, Base(flags.rtt_ms / 1e3), given, show=flags.show
        )
        right = is_right(CASES[name], document)
        wrong += not right
        said = "; ".join(
            f"{v['name']}: {v['culprit']} ({v['confidence']})" for v in document["verdicts"]
        )
        word = "right" if right else "WRONG"
        print(
            f"{name:28} {word}  {document['took_s']:5.1f} s  exit {document['exit_code']}  "
            f"{said or document['headline']}",
            flush=True,
        )
    return wrong


if __name__ == "__main__":
    sys.exit(main())
