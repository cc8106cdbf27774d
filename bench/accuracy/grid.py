"""When each tool of the bench makes its probes: bursts on a fixed grid, the same for all.

A worker is told its grid in one line of JSON on stdin, once it has said that it is ready.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

__all__ = ["Grid", "on_grid"]


class Grid(NamedTuple):
    """Moments of CLOCK_MONOTONIC, which all processes of a machine share.

    Attributes:
        start_ns: Of the first burst.
        bursts: How many.
        burst_every_ns: From the start of one to the start of the next.
        probes: In a burst.
        interval_ns: From one to the next.
        phase_ns: Of this tool, so that no two start at the same time.
    """

    start_ns: int
    bursts: int
    burst_every_ns: int
    probes: int
    interval_ns: int
    phase_ns: int = 0

    def moments(self) -> list[int]:
        """Return when each probe is due."""
        return [
            self.start_ns + burst * self.burst_every_ns + at * self.interval_ns + self.phase_ns
            for burst in range(self.bursts)
            for at in range(self.probes)
        ]

    def burst_end_ns(self, burst: int) -> int:
        """Return when the last probe of a burst was due, and one interval more."""
        return self.start_ns + burst * self.burst_every_ns + self.probes * self.interval_ns


async def on_grid(make: Callable[[int], Coroutine[Any, Any, object]]) -> None:
    """Make one probe at each moment of the grid, none waiting for another; print what they return.

    Args:
        make: Makes the probe of this number; what it returns becomes a line of JSON.
    """
    print("ready", flush=True)
    grid = Grid(*json.loads(await asyncio.to_thread(sys.stdin.readline)))
    loop = asyncio.get_running_loop()
    started = []
    for number, due_ns in enumerate(grid.moments()):
        await asyncio.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
        started.append(loop.create_task(make(number)))
    for probe in started:
        print(json.dumps(await probe))
