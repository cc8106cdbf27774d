"""The server's process: it serves until a signal, drains, and says what it did."""

import asyncio
import gc
import logging
import os
from collections.abc import Callable

from twocans_core.host import procfs
from twocans_core.process.jsonlog import LogPipe
from twocans_core.process.lifecycle import run_service
from twocans_core.process.output import complain
from twocans_server.connections.endings import Ending, Kind

from .config import ServerConfig
from .limits import RESERVED_DESCRIPTORS, fitting_connections
from .service import Server

__all__ = ["serve"]

log = logging.getLogger(__name__)


def serve(config: ServerConfig, prog: str, level: Callable[[], str]) -> int:
    """Be the server's process; returns its exit code. ``level`` reads the log's level."""
    return run_service(
        lambda stop, logs: _run(config, stop, logs),
        prog=prog,
        level=level,
        port_flags="--port or --http-port",
        leaving=(
            f"stopping: new connections are served for {config.drain_accept_s:g} s, then open "
            f"ones may finish for {config.drain_s:g} s"
        ),
    )


async def _run(config: ServerConfig, stop: asyncio.Event, logs: LogPipe | None = None) -> int:
    """Serve until ``stop`` is set, then drain. Returns the process's exit code.

    Raises:
        ListenError: An address cannot be had.
    """
    server = Server(config, logs)
    server.start()
    # What lives now lives as long as we do: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    if os.isatty(2):  # elsewhere the log lines tell, and may be mixed with these
        served = "metrics" if config.metrics else "healthz"
        complain(
            f"twocans-server: listening on {server.address}, {served} on "
            f"{server.http_address}/{served}"
        )
    fields = {
        "server.address": server.address.host,
        "server.port": server.address.port,
        "twocans.http.port": server.http_address.port,
        "twocans.max_connections": server.max_connections,
        "service.instance.id": server.identity.name,
        **config.where(),
    }
    log.info("listening", extra=fields)
    # Where memory is what bounds it, the limits' table says so, and the line above how many.
    by_descriptors = fitting_connections(None, procfs.descriptor_limit())
    if server.max_connections == by_descriptors < config.max_connections:
        few = {
            "twocans.descriptors.limit": procfs.descriptor_limit(),
            "twocans.descriptors.wanted": config.max_connections + RESERVED_DESCRIPTORS,
            "twocans.max_connections": server.max_connections,
        }
        log.warning("few_descriptors", extra=few)
    await stop.wait()
    cut_off = await server.stop()
    tally = server.tally
    log.info(
        "stopped",
        extra={
            "twocans.connections.accepted": tally.accepted,
            "twocans.sessions.done": tally.ended[Kind.FRAMED, Ending.DONE],
            "twocans.exchanges": tally.exchanges,
            "twocans.connections.cut_off": cut_off,
            "twocans.connections.ended": {
                " ".join(kind): count for kind, count in tally.ended.items() if count
            },
        },
    )
    return 0
