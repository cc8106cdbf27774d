"""Start and stop: what both cans do alike when a signal comes."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator

__all__ = ["stop_signal"]

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.asynccontextmanager
async def stop_signal() -> AsyncIterator[asyncio.Event]:
    """Yield an event that SIGTERM or SIGINT sets. A second signal exits at once.

    As PID 1 of a container there is no default action for either, so both are handled here.
    The second one exits with 128 plus the signal's number.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)  # the operator has asked twice
        log.info("stopping", extra={"signal": number.name})
        stop.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
