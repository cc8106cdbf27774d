"""What the commands do, given their flags. Each returns the process's exit code."""

import argparse
import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from twocans_client.diagnosis.battery import Battery
from twocans_client.diagnosis.progress import Progress
from twocans_client.discovery.specs import Spec, parse_spec
from twocans_client.probes.connect import ConnectAttempt
from twocans_client.probes.plain import PlainAttempt
from twocans_client.probes.probe import Attempt, Plan
from twocans_client.report.diagnosis_document import diagnosis_json
from twocans_client.report.document import report_json
from twocans_client.report.page import diagnosis_text
from twocans_client.report.shown import printable
from twocans_client.report.summary import Report
from twocans_client.report.text import report_text
from twocans_client.report.waterfall import waterfall
from twocans_client.service.budget import check_budget
from twocans_client.service.run import page_width, run, shows_table
from twocans_core.errors import ConfigError
from twocans_core.net.sockets import Kernel
from twocans_core.process import settings
from twocans_core.process.lifecycle import run_service
from twocans_core.process.output import complain, say

from .config import CONFIGS, PROG, ClientConfig, DiagnoseConfig, ProbeConfig, SendConfig
from .oneshot import make_probes, verdicts_of

if TYPE_CHECKING:
    from twocans_client.evidence.results import ProbeResult

__all__ = ["COMMANDS"]


def run_command(flags: argparse.Namespace) -> int:
    """Probe until SIGTERM."""
    config, sources = settings.load(ClientConfig, flags, os.environ, CONFIGS)
    if flags.print_config:
        say(settings.render(config, sources))
        return 0
    if not config.targets and not config.targets_file:
        raise ConfigError("nothing to probe: give --target, TWOCANS_TARGETS or --targets-file")
    for text in config.targets:
        _spec(text)
    check_budget(config)
    reloads: list[Callable[[], None]] = []
    return run_service(
        lambda stop, logs: run(config, stop, logs, reloads),
        prog=PROG,
        level=lambda: settings.load(ClientConfig, flags, os.environ, CONFIGS)[0].log_level,
        port_flags="--http-port",
        leaving=f"stopping: probes under way may end, for {config.timeout_s:g} s",
        fd=_log_descriptor(config),
        file=config.log_file,
        reloads=reloads,
    )


def _log_descriptor(config: ClientConfig) -> int:
    if config.log_file or not shows_table(config):
        return 1
    # Lines would tear the table apart where both go to one terminal.
    return os.open(os.devnull, os.O_WRONLY) if os.isatty(2) else 2


def probe_command(flags: argparse.Namespace) -> int:
    """Probe a few times and report."""
    config, sources = settings.load(ProbeConfig, flags, os.environ, CONFIGS)
    if flags.print_config:
        say(settings.render(config, sources))
        return 0
    spec = _spec(flags.target)
    results: list[ProbeResult] = []
    work = make_probes(
        spec,
        Plan(int(config.timeout_s * 1e9), config.exchanges, config.payload_bytes),
        name=config.name,
        count=config.count,
        interval_s=config.interval_s,
        attempt_type=ConnectAttempt if flags.connect_only else Attempt,
        kernel=_kernel(config),
        family=config.family,
        results=results,
    )
    cut_off = _run(work)
    report = Report()
    for result in results:
        report.add(result)
    report.verdicts = verdicts_of(spec, results)
    report.only_connects = flags.connect_only
    if flags.json:
        say(report_json(report, results, spec.text))
    elif results:
        say(report_text(report, page_width(1)))
    if cut_off:
        complain(f"{PROG} probe: cut off, {len(results)} of {config.count} probes were begun")
    return cut_off or report.exit_code


def diagnose_command(flags: argparse.Namespace) -> int:
    """Try everything of one target for half a minute, and say what is wrong with it."""
    config, sources = settings.load(DiagnoseConfig, flags, os.environ, CONFIGS)
    if flags.print_config:
        say(settings.render(config, sources))
        return 0
    _mute_logs()
    progress = Progress()
    battery = Battery(
        _spec(flags.target), config, connect_only=flags.connect_only, progress=progress.say
    )
    try:
        cut_off = _run(battery.run())
    finally:
        progress.clear()
    found = battery.diagnosis
    say(diagnosis_json(found) if flags.json else diagnosis_text(found, page_width(1)))
    if cut_off:
        complain(f"{PROG} diagnose: cut off after {found.took_ns / 1e9:.0f} s")
    return cut_off or found.exit_code


def _mute_logs() -> None:
    """Keep back what a service logs of its paths, but for our own bugs."""
    bugs = logging.StreamHandler()
    bugs.addFilter(lambda record: record.getMessage() == "bug")
    logging.getLogger().addHandler(bugs)


def send_command(flags: argparse.Namespace) -> int:
    """Send one text and print its echo."""
    config, sources = settings.load(SendConfig, flags, os.environ, CONFIGS)
    if flags.print_config:
        say(settings.render(config, sources))
        return 0
    results: list[ProbeResult] = []
    work = make_probes(
        _spec(flags.target),
        Plan(int(config.timeout_s * 1e9), payload=flags.text.encode()),
        name="",
        attempt_type=PlainAttempt if flags.plain else Attempt,
        kernel=_kernel(config),
        family=config.family,
        results=results,
    )
    cut_off = _run(work)
    if not results:
        return cut_off
    (result,) = results
    if result.reply:
        text = result.reply.decode(errors="replace")
        # A pipe is to get the bytes; a terminal must not act on them.
        say(printable(text) if os.isatty(1) else text)
    report = Report()
    report.add(result)
    complain(waterfall(result, report.state, page_width(2)))
    return cut_off or report.exit_code


def _run(work: Coroutine[Any, Any, object]) -> int:
    """Run it; returns the exit code of who was cut off by a signal, else 0."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return asyncio.run(_cut_off_by(handlers, work))
    finally:
        # asyncio leaves the default action behind, not what ``entry.begin`` had set.
        for number, handler in handlers.items():
            signal.signal(number, handler)


async def _cut_off_by(numbers: Iterable[int], work: Coroutine[Any, Any, object]) -> int:
    """Await the work until a signal comes; returns as ``_run``.

    By the loop, and not by an exception out of the handler: that would come up in the middle of
    whatever runs, a probe's bookkeeping too.
    """
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    cut_off: list[int] = []

    def on_signal(number: int) -> None:
        cut_off.append(number)
        task.cancel()

    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        await task
    except asyncio.CancelledError:
        if not cut_off:
            raise
    return 128 + cut_off[0] if cut_off else 0


def _kernel(config: SendConfig) -> Kernel:
    return Kernel(stamps=config.stamps, tcp_info=config.tcp_info)


def _spec(text: str) -> Spec:
    try:
        return parse_spec(text)
    except ValueError as error:
        raise ConfigError(str(error)) from None


COMMANDS = {
    "run": run_command,
    "probe": probe_command,
    "diagnose": diagnose_command,
    "send": send_command,
}
