"""Run every bench, one after the other: ``make bench``, or ``make bench ARGS=name``.

Figures are ratios against a yardstick in the same run; the machine and its mood cancel out.
"""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def main() -> int:
    """Run what was asked for; returns the worst exit code."""
    names = sys.argv[1:] or sorted(
        file.stem for file in FOLDER.glob("*.py") if file.stem != Path(__file__).stem
    )
    worst = 0
    for name in names:
        print(f"== {name}", flush=True)
        worst = max(worst, subprocess.run([sys.executable, FOLDER / f"{name}.py"]).returncode)
    return worst


if __name__ == "__main__":
    raise SystemExit(main())
