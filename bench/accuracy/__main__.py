"""How wrong each figure is, against a packet capture at both ends: ``make bench-accuracy``.

Three conditions, less than a minute each. Needs root, iproute2 and tcpdump; blackbox_exporter and
sockperf are compared where they are installed. Writes bench/results/accuracy.json and .md, and ends
with one line.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from twocans_core import __version__
from twocans_core.net.sockets import open_keeper

from . import report
from .namespaces import cpu_quota, pair
from .run import EXPORTER, GRID, ROOT, SOCKPERF, Run

RESULTS = ROOT / "bench" / "results"
QUOTA = 0.2
BUSY = 3 * (os.cpu_count() or 1)
CONDITIONS = {"idle": 0, "busy": BUSY, "quota": 1}
"""How many processes only count."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Measure, write and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.accuracy", description=__doc__)
    parser.add_argument("--only", choices=CONDITIONS, help="Measure one condition; write nothing.")
    parser.add_argument("--keep", type=Path, help="Keep the captures and logs in this folder.")
    options = parser.parse_args()
    missing = _missing()
    if missing:
        print(f"accuracy: nothing can be measured: {missing}", file=sys.stderr)
        return 2
    for number in SIGNALS:
        signal.signal(number, _stop)
    # Stamping is a switch of the whole kernel. It stays on from here, for every tool's packets.
    close_keeper = open_keeper()
    results: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "kernel": platform.release().partition("-")[0],
        "cpus": os.cpu_count(),
        "load_before": _load(),
        "versions": _versions(),
        "seconds": GRID.bursts * GRID.burst_every_ns / 1e9,
        "probes_per_second": round(1e9 / GRID.interval_ns),
        "pauses": GRID.bursts,
        "burners": BUSY,
        "quota": QUOTA,
        "conditions": {},
    }
    with tempfile.TemporaryDirectory() as scratch, pair():
        for name in [options.only] if options.only else CONDITIONS:
            begun = time.monotonic()
            print(f"accuracy: {name} ...", end=" ", file=sys.stderr, flush=True)
            results["conditions"][name] = _measure(name, (options.keep or Path(scratch)) / name)
            print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)
    close_keeper()
    page = report.markdown(results)
    if not options.only:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "accuracy.json").write_text(json.dumps(results, indent=1) + "\n")
        (RESULTS / "accuracy.md").write_text(page)
    print(page)
    print(report.last_line(results))
    return 0


def _missing() -> str:
    """Return what this cannot do without, and how to get it."""
    wanted = {"ip": "iproute2", "tcpdump": "tcpdump"}
    packages = [package for tool, package in wanted.items() if shutil.which(tool) is None]
    words = [f"apt install {' '.join(packages)}"] if packages else []
    if os.geteuid():
        words.append("run it as root, for network namespaces and captures")
    return "; ".join(words)


def _stop(number: int, _: object) -> NoReturn:
    """Leave by way of every clean-up, which no second signal shall interrupt."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _load() -> float:
    """Return the load average of the last minute; say so if the machine is not idle."""
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"accuracy: load average {load:.1f}: idle figures will not be idle", file=sys.stderr)
    return round(load, 2)


def _versions() -> dict[str, str]:
    versions = {"twocans": __version__, "Python": platform.python_version()}
    tools = {"tcpdump": "tcpdump", "blackbox_exporter": EXPORTER, "sockperf": SOCKPERF}
    for name, tool in tools.items():
        if shutil.which(tool) is None:
            versions[name] = "not measured"
            print(f"accuracy: {name} is not measured: apt install {tool}", file=sys.stderr)
            continue
        done = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False)
        found = re.search(r"version (\d[\d.]*\d)", done.stdout + done.stderr)
        versions[name] = found[1] if found else "of unknown version"
    return versions


def _measure(name: str, folder: Path) -> dict[str, Any] | None:
    """Measure under one condition; None where this machine cannot have it."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        quota = None
        if name == "quota":
            quota = stack.enter_context(cpu_quota(QUOTA))
            if quota is None:
                return None
        run = stack.enter_context(contextlib.closing(Run(folder, quota, CONDITIONS[name])))
        run.start()
        run.go()
    return run.compare()


if __name__ == "__main__":
    raise SystemExit(main())
