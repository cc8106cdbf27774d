"""Write observability/grafana/dashboards/*.json.

python -m scripts.dashboards           write them
python -m scripts.dashboards --check   exit 1 when one of them is stale
"""

import argparse
import sys
from pathlib import Path

from .cans import CANS
from .grafana import Dashboard, render
from .path import PATH
from .paths import PATHS

FOLDER = Path(__file__).parents[2] / "observability/grafana/dashboards"
DASHBOARDS: dict[str, Dashboard] = {"paths.json": PATHS, "path.json": PATH, "cans.json": CANS}


def main() -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="Change nothing, say what is stale.")
    check = parser.parse_args().check
    stale = False
    for name, dashboard in DASHBOARDS.items():
        text = render(dashboard)
        file = FOLDER / name
        if not file.exists() or file.read_text() != text:
            stale = True
            print(f"{name} is stale" if check else f"{name} written", file=sys.stderr)
            if not check:
                file.write_text(text)
    return int(check and stale)


if __name__ == "__main__":
    raise SystemExit(main())
