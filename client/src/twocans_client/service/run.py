"""The command ``run``: the service, its live table, and its report at the end."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable

from twocans_client.config import ClientConfig
from twocans_client.evidence.results import Outcome, ProbeResult
from twocans_client.export.live import Notes, show_paths
from twocans_client.report.shown import WIDTH
from twocans_client.report.summary import Report
from twocans_client.report.text import reports_text
from twocans_core.process.jsonlog import LogPipe
from twocans_core.process.output import complain, say

from .client import Client

__all__ = ["page_width", "run", "shows_table"]

log = logging.getLogger(__name__)

# Reports of so many paths are kept; of all but the first only so many samples of each phase.
_PATHS_KEPT = 100
_SAMPLES_KEPT = 1_000


def shows_table(config: ClientConfig) -> bool:
    """Whether stdout shows the live table, and not JSON lines."""
    return config.output == "table" or (config.output == "auto" and os.isatty(1))


def page_width(fd: int) -> int:
    """Return how many columns there are for a text: the terminal's, else those of a page."""
    with contextlib.suppress(OSError):
        # A terminal that does not know its width says 0.
        return max(40, os.get_terminal_size(fd).columns or WIDTH)
    return WIDTH


async def run(
    config: ClientConfig,
    stop: asyncio.Event,
    logs: LogPipe | None = None,
    reloads: list[Callable[[], None]] | None = None,
) -> int:
    """Probe until ``stop`` is set or the duration is over. Returns the process's exit code.

    To ``reloads`` is added what a SIGHUP is to do.

    Raises:
        ListenError: The HTTP address cannot be had.
        OutputError: The report could not be written.
    """
    table = shows_table(config)
    reports: dict[str, Report] = {}

    def report(result: ProbeResult) -> None:
        if result.path not in reports:
            if len(reports) >= _PATHS_KEPT:
                return
            reports[result.path] = Report(_SAMPLES_KEPT) if reports else Report()
        reports[result.path].add(result)

    client = Client(config, logs, observer=report if table else None)
    notes = Notes()
    if table:
        logging.getLogger().addHandler(notes)
    if reloads is not None:
        reloads.append(client.reread_targets)
    client.start()
    if os.isatty(2):  # elsewhere the log lines tell, and may be mixed with these
        served = "metrics" if config.metrics else "healthz"
        complain(f"twocans-client: {served} on {client.http_address}/{served}")
    fields = {
        "twocans.http.port": client.http_address.port,
        "twocans.targets": len(config.targets),
        "service.instance.id": client.identity.name,
        **config.where(),
    }
    log.info("started", extra=fields)
    shown = asyncio.create_task(show_paths(lambda: client.paths, notes)) if table else None
    is_over = False
    try:
        await asyncio.wait_for(stop.wait(), config.duration_s or None)
    except TimeoutError:
        is_over = True
    # What stood earlier is in the log: that none stands now does not mean that none was found.
    for path in client.paths:
        if path.target.key in reports:
            reports[path.target.key].verdicts = list(path.verdicts.values()) or None
    await client.stop()
    if shown is not None:
        shown.cancel()
        await asyncio.gather(shown, return_exceptions=True)
        logging.getLogger().removeHandler(notes)
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
    if table:
        text = reports_text(reports.values(), page_width(1)) or "unknown      nothing was probed"
        say("\n".join(["", text, *notes.lines]))
    return _exit_code(totals[Outcome.OK], totals[Outcome.FAIL]) if is_over else 0


def _exit_code(ok: int, fail: int) -> int:
    """Return what probes amount to: 0 good, 1 degraded, 2 bad, 3 unknown."""
    if fail:
        return 1 if ok else 2
    return 0 if ok else 3
