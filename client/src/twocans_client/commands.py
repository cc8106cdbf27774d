"""What the commands do, given their flags. Each returns the process's exit code."""

import argparse
import os
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from twocans_core import settings
from twocans_core.errors import ConfigError
from twocans_core.lifecycle import run_service
from twocans_core.poller import run_loop
from twocans_core.sockets import Kernel

from .config import PROG, ClientConfig, ProbeConfig, SendConfig
from .oneshot import make_probes
from .plain import PlainAttempt
from .probe import Attempt, Plan
from .report import Report
from .report_json import report_json
from .report_text import report_text
from .run import page_width, run, shows_table
from .shown import printable
from .specs import Spec, parse_spec
from .waterfall import waterfall

if TYPE_CHECKING:
    from .results import ProbeResult

__all__ = ["COMMANDS"]


def run_command(flags: argparse.Namespace) -> int:
    """Probe until SIGTERM."""
    config, sources = settings.load(ClientConfig, flags, os.environ)
    if flags.print_config:
        print(settings.render(config, sources))
        return 0
    if not config.targets and not config.targets_file:
        raise ConfigError("nothing to probe: give --target, TWOCANS_TARGETS or --targets-file")
    for text in config.targets:
        _spec(text)
    return run_service(
        lambda stop, logs: run(config, stop, logs),
        prog=PROG,
        level=config.log_level,
        port_flags="--http-port",
        fd=_log_descriptor(config),
    )


def _log_descriptor(config: ClientConfig) -> int:
    if config.log_file:
        try:
            return os.open(config.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise ConfigError(f"--log-file {config.log_file}: {error.strerror}") from None
    if not shows_table(config):
        return 1
    # Lines would tear the table apart where both go to one terminal.
    return os.open(os.devnull, os.O_WRONLY) if sys.stderr.isatty() else 2


def probe_command(flags: argparse.Namespace) -> int:
    """Probe a few times and report."""
    config, sources = settings.load(ProbeConfig, flags, os.environ)
    if flags.print_config:
        print(settings.render(config, sources))
        return 0
    spec = _spec(flags.target)
    results: list[ProbeResult] = []
    work = make_probes(
        spec,
        Plan(int(config.timeout_s * 1e9), config.exchanges, config.payload_bytes),
        name=config.name,
        count=config.count,
        interval_s=config.interval_s,
        kernel=_kernel(config),
        family=config.family,
        results=results,
    )
    cut_off = _run(work)
    report = Report()
    for result in results:
        report.add(result)
    if flags.json:
        print(report_json(report, results, spec.text), flush=True)
    elif results:
        print(report_text(report, page_width(sys.stdout)), flush=True)
    if cut_off:
        made = f"{len(results)} of {config.count} probes were begun"
        sys.stderr.write(f"{PROG} probe: cut off, {made}\n")
    return cut_off or report.exit_code


def send_command(flags: argparse.Namespace) -> int:
    """Send one text and print its echo."""
    config, sources = settings.load(SendConfig, flags, os.environ)
    if flags.print_config:
        print(settings.render(config, sources))
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
        # Whoever pipes it wants the bytes; a terminal must not act on them.
        print(printable(text) if sys.stdout.isatty() else text, flush=True)
    report = Report()
    report.add(result)
    sys.stderr.write(waterfall(result, report.verdict, page_width(sys.stderr)) + "\n")
    return cut_off or report.exit_code


def _run(work: Coroutine[Any, Any, object]) -> int:
    """Run it; returns the exit code of who was cut off by a signal, else 0."""
    try:
        run_loop(work)
    except KeyboardInterrupt:
        return 130
    except SystemExit as cut_off:  # of ``leave_on_sigterm``
        return int(cut_off.code or 0)
    return 0


def _kernel(config: SendConfig) -> Kernel:
    return Kernel(stamps=config.stamps, tcp_info=config.tcp_info)


def _spec(text: str) -> Spec:
    try:
        return parse_spec(text)
    except ValueError as error:
        raise ConfigError(str(error)) from None


COMMANDS = {"run": run_command, "probe": probe_command, "send": send_command}
