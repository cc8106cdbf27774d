"""The command ``run``: the service, its live table, and its report at the end."""

import asyncio
import contextlib
import logging
import sys

from twocans_core.jsonlog import LogPipe

from .config import ClientConfig
from .live import show_paths
from .report import Report
from .report_text import report_text
from .results import Outcome
from .service import Client

__all__ = ["run", "shows_table"]

log = logging.getLogger(__name__)


def shows_table(config: ClientConfig) -> bool:
    """Whether stdout shows the live table, and not JSON lines."""
    return config.output == "table" or (config.output == "auto" and sys.stdout.isatty())


async def run(config: ClientConfig, stop: asyncio.Event, logs: LogPipe | None = None) -> int:
    """Probe until ``stop`` is set or the duration is over. Returns the process's exit code.

    Raises:
        ListenError: The HTTP address cannot be had.
    """
    table = shows_table(config)
    report = Report()

    client = Client(config, logs, observer=report.add if table else None)
    client.start()
    served = "metrics" if config.metrics else "healthz"
    sys.stderr.write(f"twocans-client: {served} on {client.http_address}/{served}\n")
    fields = {
        "twocans.http.port": client.http_address.port,
        "twocans.targets": len(config.targets),
        "service.instance.id": client.identity.name,
        **config.where(),
    }
    log.info("started", extra=fields)
    shown = asyncio.create_task(show_paths(lambda: client.paths)) if table else None
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), config.duration_s or None)
    await client.stop()
    if shown is not None:
        shown.cancel()
        await asyncio.gather(shown, return_exceptions=True)
        with contextlib.suppress(OSError):  # whoever read it has gone
            print(report_text(report), flush=True)
    totals = client.totals
    log.info(
        "stopped",
        extra={
            "twocans.probes.scheduled": totals["scheduled"],
            "twocans.probes.ok": totals[Outcome.OK],
            "twocans.probes.fail": totals[Outcome.FAIL],
            "twocans.probes.void": totals[Outcome.VOID],
            "twocans.probes.missed": totals["missed"],
        },
    )
    return 0
