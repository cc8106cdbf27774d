"""CPU time of a probe, beside blackbox_exporter's: ``make bench-cost``.

About eight minutes. blackbox_exporter is compared where it is installed. Writes
bench/results/cost.json and .md, and ends with one line.
"""

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twocans_client.config import ClientConfig
from twocans_core import __version__

from . import report
from .turn import (
    BLACKBOX,
    CLIENT,
    EXPORTER,
    SCRAPE_EVERY_S,
    SERVER,
    Load,
    Measured,
    TooFewError,
    turn,
)

RESULTS = Path(__file__).parents[1] / "results"
PATHS, INTERVAL_S, SECONDS, ROUNDS = 20, 0.1, SCRAPE_EVERY_S, 2
MEMORY_PATHS, MEMORY_INTERVAL_S, MEMORY_S = (10, 500), 2.0, 10.0
TRIES = 4
OFF = {"stamps": "no", "tcp-info": "no", "metrics": "no", "held": "no", "grid-s": "0"}


def main() -> int:
    """Measure, write and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.cost", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="One short round, to try the bench; write nothing."
    )
    quick = parser.parse_args().quick
    load = Load(PATHS, INTERVAL_S, 2.0 if quick else SECONDS)
    rounds = 1 if quick else ROUNDS
    memory = {str(paths): _memory(paths, quick=quick) for paths in MEMORY_PATHS}
    turns = _measure(load, rounds)
    results: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "kernel": platform.release().partition("-")[0],
        "cpus": os.cpu_count(),
        "versions": _versions(),
        "rate": PATHS / INTERVAL_S,
        "paths": PATHS,
        "interval_ms": INTERVAL_S * 1e3,
        "exchanges": ClientConfig().exchanges,
        "rounds": rounds,
        "seconds": load.seconds,
        "scrape_every_s": SCRAPE_EVERY_S,
        "cost": {name: report.cost(each) for name, each in turns.items()},
        "memory_s": load.seconds if quick else MEMORY_S,
        "memory_interval_s": MEMORY_INTERVAL_S,
        "memory_mib": memory,
    }
    page = report.markdown(results)
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "cost.json").write_text(json.dumps(results, indent=1) + "\n")
        (RESULTS / "cost.md").write_text(page)
    print(page)
    print(report.last_line(results))
    return 0


def _measure(load: Load, rounds: int) -> dict[str, list[Measured]]:
    """Give everybody their turns; what cannot be measured gets none."""
    settings = {report.EVERYTHING: [], BLACKBOX: []} | {
        f"without {name}": [f"TWOCANS_{name.replace('-', '_').upper()}={off}"]
        for name, off in OFF.items()
    }
    turns: dict[str, list[Measured]] = {name: [] for name in settings}
    order = report.order(list(settings))
    for number in range(rounds):
        # There and back again, so that a machine that gets slower or quicker is so for all.
        for name in order[:: -1 if number % 2 else 1]:
            prober = BLACKBOX if name == BLACKBOX else CLIENT
            if name != BLACKBOX or shutil.which(EXPORTER) is not None:
                print(f"cost: round {number + 1} of {rounds}, {name}", file=sys.stderr)
                turns[name].append(_turn(prober, load, settings[name]))
    return turns


def _turn(prober: str, load: Load, settings: Sequence[str]) -> Measured:
    """Have a turn, and another one if the machine was too busy for it."""
    for _ in range(TRIES):
        try:
            return turn(prober, load, settings)
        except TooFewError as error:
            print(f"cost: once more, {error}", file=sys.stderr)
    raise SystemExit("cost: this machine is too busy")


def _memory(paths: int, *, quick: bool) -> dict[str, float | None]:
    load = Load(paths, MEMORY_INTERVAL_S, 2.0 if quick else MEMORY_S)
    sizes: dict[str, float | None] = {}
    found = _turn(CLIENT, load, ()).memory
    sizes["twocans client"] = found[CLIENT] / 2**20
    sizes["twocans server"] = found[SERVER] / 2**20
    sizes["blackbox_exporter"] = None
    if shutil.which(EXPORTER):
        sizes["blackbox_exporter"] = _turn(BLACKBOX, load, {}).memory[BLACKBOX] / 2**20
    return sizes


def _versions() -> dict[str, str]:
    versions = {"twocans": __version__, "Python": platform.python_version()}
    if shutil.which(EXPORTER) is None:
        print(f"cost: blackbox_exporter is not measured: apt install {EXPORTER}", file=sys.stderr)
        return versions | {"blackbox_exporter": "not measured"}
    done = subprocess.run([EXPORTER, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\d[\d.]*\d)", done.stdout + done.stderr)
    return versions | {"blackbox_exporter": found[1] if found else "of unknown version"}


if __name__ == "__main__":
    raise SystemExit(main())
