"""What ``twocans-client diagnose`` says of faults that are there before it is asked.

    python -m lab.diagnosed CASE ... [--seed N] [--rtt-ms N] [--show]

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
from .pair import PORT, pair
from .scene import Base, scene

__all__ = ["main"]

# Until a fault shows, where it is of processes.
_SETTLE_S = 0.5
_PATIENCE_S = 90.0


def diagnosed(case: Case, seed: int, base: Base, *, show: bool = False) -> dict[str, Any]:
    """Return the document of ``diagnose --json`` with ``exit_code``; {} if it did not end.

    Args:
        case: What is injected.
        seed: Draws how bad it is.
        base: The path while it is healthy.
        show: Whether to print the page, and not only read the document.
    """
    drawn = case.draw(Random(seed))
    with ExitStack() as stack:
        its = stack.enter_context(scene(base, seed=seed))
        stack.enter_context(case.prepare(its, drawn))
        flags = {"server_flags": case.server_flags, "client_flags": case.client_flags}
        stack.enter_context(pair(its, target=case.target, **flags))
        stack.enter_context(case.inject(its, drawn))
        time.sleep(_SETTLE_S)
        target = case.target or f"{its.server.address}:{PORT}"
        command = [sys.executable, "-m", "twocans_client", "diagnose", target]
        if show:
            its.as_nobody(its.client, *command).wait(_PATIENCE_S)
        asked = its.as_nobody(its.client, *command, "--json", stdout=subprocess.PIPE)
        out, _ = asked.communicate(timeout=_PATIENCE_S)
    return {**json.loads(out or b"{}"), "exit_code": asked.returncode}


def is_right(case: Case, document: dict[str, Any]) -> bool:
    """Whether exactly the case's verdicts were said, each with its culprit."""
    said = {(v["name"], v["culprit"]) for v in document["verdicts"] if not v["info"]}
    return said == {(verdict, culprit) for verdict, culprit, _ in case.expected}


def main() -> int:
    """Run the cases; returns how many were not right."""
    parser = argparse.ArgumentParser(prog="python -m lab.diagnosed", description=__doc__)
    parser.add_argument("cases", nargs="+", choices=sorted(CASES), metavar="CASE")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rtt-ms", type=float, default=2.0)
    parser.add_argument("--show", action="store_true", help="print the page as well")
    flags = parser.parse_args()
    wrong = 0
    for name in flags.cases:
        document = diagnosed(CASES[name], flags.seed, Base(flags.rtt_ms / 1e3), show=flags.show)
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
