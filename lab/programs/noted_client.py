"""A client, real or odd, that also notes the network's share of each exchange, to be checked.

    python -m lab.programs.noted_client MODULE run --target …

No line of a deployment's log has it. It costs a client under a microsecond for each exchange, and
is said in one line when it ends.
"""

import atexit
import json
import runpy
import sys
from typing import Any

__all__ = ["NOTED", "note_exchanges"]

NOTED = "exchanges_noted"
"""The event; its field ``exchanges`` has the rows of ``lab.transits.Noted``."""


def note_exchanges() -> None:
    """Stand where finished probes are counted."""
    from twocans_client.paths.tally import ClientTally

    observe = ClientTally.observe
    noted: list[tuple[int, int | None, int | None, int]] = []

    def observe_and_note(self: ClientTally, result: Any, zone: str) -> None:
        observe(self, result, zone)
        for exchange in result.exchanges:
            # The client counts the others as recovery, or knows no share.
            if result.local and exchange.split and not exchange.resent:
                stamps = exchange.stamps
                noted.append((result.local[1], stamps.t1k, stamps.t4k, exchange.split.network_ns))

    def say() -> None:
        print(json.dumps({"event.name": NOTED, "exchanges": noted}), flush=True)

    ClientTally.observe = observe_and_note  # type: ignore[method-assign]
    atexit.register(say)


if __name__ == "__main__":
    note_exchanges()
    del sys.argv[0]  # the module's name becomes the program's, and its flags follow
    runpy.run_module(sys.argv[0], run_name="__main__")
