"""The real twocans client, whose own event loop computes for a while, twice a second.

For how long, the knob ``spin_s`` in LAB_FOLDER says; with 0 it is the client as it is.
"""

import asyncio
import os
import time
from pathlib import Path

from .knobs import Knobs

__all__ = ["make_it_odd"]

KNOBS = Knobs(Path(os.environ["LAB_FOLDER"], "knobs"))
_EVERY_S = 0.5


def make_it_odd() -> None:
    """Let its loop do something else now and then."""
    from twocans_client.service.client import Client

    start = Client.start

    def spin(loop: asyncio.AbstractEventLoop) -> None:
        end = time.thread_time() + KNOBS["spin_s"]
        while time.thread_time() < end:
            pass
        loop.call_later(_EVERY_S, spin, loop)

    def odd_start(self: Client) -> None:
        start(self)
        spin(asyncio.get_running_loop())

    Client.start = odd_start  # type: ignore[method-assign]


if __name__ == "__main__":
    make_it_odd()
    from twocans_client.__main__ import main

    raise SystemExit(main())
