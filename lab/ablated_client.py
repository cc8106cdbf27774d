"""The real client without some of its evidence, to see what that evidence is worth.

    python lab/ablated_client.py ABLATION run --target …

The client is not changed; what it is told is. Where the evidence is not there to be taken away,
this refuses to run, for a score would say nothing.
"""

import sys
from collections.abc import Callable

__all__ = ["ABLATIONS", "main"]

ABLATIONS: dict[str, Callable[[], None]] = {}
"""How to take each away, by name; filled as soon as there is a window of evidence."""


def main() -> int:
    """Run the client; returns its exit code."""
    ablation = sys.argv.pop(1)
    if ablation not in ABLATIONS:
        raise SystemExit(f"ablated client: there is no evidence {ablation!r} to take away")
    ABLATIONS[ablation]()
    from twocans_client.cli import main as client

    return client()


if __name__ == "__main__":
    raise SystemExit(main())
