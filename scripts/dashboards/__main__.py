"""Write observability/grafana/dashboards/*.json.

python -m scripts.dashboards           write them
python -m scripts.dashboards --check   exit 1 when one of them is stale
"""

import functools
from pathlib import Path

from scripts.generated import write_or_check

from .grafana import Dashboard, render
from .path import PATH
from .paths import PATHS
from .processes import PROCESSES

FOLDER = Path(__file__).parents[2] / "observability/grafana/dashboards"
DASHBOARDS: dict[str, Dashboard] = {
    "paths.json": PATHS,
    "path.json": PATH,
    "processes.json": PROCESSES,
}


def main() -> int:
    """Write or check; returns the exit code."""
    files = {
        FOLDER / name: functools.partial(render, dashboard)
        for name, dashboard in DASHBOARDS.items()
    }
    return write_or_check(files, __doc__, None)


if __name__ == "__main__":
    raise SystemExit(main())
