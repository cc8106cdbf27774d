"""The real client without some of its evidence, to see what that evidence is worth.

    python lab/ablated_client.py ABLATION run --target …

The client is not changed; what it is told is. Nothing outside the lab can ask for this.
"""

import sys
from collections.abc import Callable
from typing import Any

__all__ = ["ABLATIONS", "main"]


def without_server_stamps() -> None:
    """Take the server's timestamps out of each exchange, and with them where its time went."""
    from twocans_client.evidence.results import Exchange
    from twocans_client.evidence.rows import Probed

    split, boil_down = Exchange.of, Probed.of

    def unstamped(sequence: int, duration_ns: int, stamps: Any, **more: Any) -> Exchange:
        unknown = dict.fromkeys(("t2k", "t2u", "t3u", "t3k", "stalled_ns"))
        return split(sequence, duration_ns, stamps._replace(**unknown), **more)

    def unaccepted(*evidence: Any) -> Probed:
        return boil_down(*evidence)._replace(accept_ns=None)

    Exchange.of = staticmethod(unstamped)  # type: ignore[method-assign]
    Probed.of = staticmethod(unaccepted)  # type: ignore[method-assign, assignment]


def without_conservation() -> None:
    """Take away what both ends' counters tell of lost segments when they are compared."""
    from twocans_client.evidence.window import Window

    take_in = Window.probed

    def uncounted(self: Window, result: Any, segments: Any) -> None:
        del segments
        take_in(self, result, None)

    Window.probed = uncounted  # type: ignore[method-assign]
    Window.counted = lambda self, segments: None  # type: ignore[method-assign]


def without_witness() -> None:
    """Ask the server nothing about other connections."""
    from twocans_client.service.questions import Questions

    Questions.look = lambda self, now_ns, explained: None  # type: ignore[method-assign]


ABLATIONS: dict[str, Callable[[], None]] = {
    "server_stamps": without_server_stamps,
    "conservation": without_conservation,
    "witness": without_witness,
}
"""How to take each away."""


def main() -> int:
    """Run the client; returns its exit code."""
    ABLATIONS[sys.argv.pop(1)]()
    from twocans_client.cli import main as client

    return client()


if __name__ == "__main__":
    raise SystemExit(main())
