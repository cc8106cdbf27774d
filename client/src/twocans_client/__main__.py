"""The command ``twocans-client``."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence

from twocans_core import __version__, settings
from twocans_core.errors import ConfigError
from twocans_core.http import check_health
from twocans_core.jsonlog import configure, install_excepthooks
from twocans_core.lifecycle import stop_signal

from .config import ClientConfig, ProbeConfig, ShotConfig
from .oneshot import make_probes
from .plain import PlainAttempt
from .probe import Attempt, Plan
from .report import Report, printable, waterfall
from .run import run, shows_table
from .specs import Spec, parse_spec

__all__ = ["main"]

_PROG = "twocans-client"
_EXAMPLES = {
    "run": f"{_PROG} run --target server:5000",
    "send": f"{_PROG} send localhost:5000 'Hello, server!'",
    "probe": f"{_PROG} probe localhost:5000 --count 10",
    "health": f"{_PROG} health",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code.

    ``run``: 0 after SIGTERM, 1 when it crashed. ``send`` and ``probe``: 0 good, 1 degraded,
    2 bad, 3 unknown. ``health``: 0 or 1. Wrong usage: 3.
    """
    flags, unknown = _parser().parse_known_args(argv)
    if unknown:
        # The command's own parser says so: it has the example and the help that fit.
        flags.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    command: Callable[[argparse.Namespace], int] = flags.run_command
    try:
        return command(flags)
    except ConfigError as error:
        settings.exit_with(f"{_PROG} {flags.command}", error, _EXAMPLES[flags.command])
    except KeyboardInterrupt:
        return 130


def _run(flags: argparse.Namespace) -> int:
    config, sources = settings.load(ClientConfig, flags, os.environ)
    if flags.print_config:
        print(settings.render(config, sources))
        return 0
    if not config.targets and not config.targets_file:
        raise ConfigError("nothing to probe: give --target, TWOCANS_TARGETS or --targets-file")
    for text in config.targets:
        _spec(text)
    # The loop waits for the GIL at most this long while a scrape is rendered in a thread.
    sys.setswitchinterval(0.0005)
    logs = configure(
        config.log_level, service=_PROG, version=__version__, fd=_log_descriptor(config)
    )

    async def serve() -> int:
        install_excepthooks(asyncio.get_running_loop())
        async with stop_signal() as stop:
            return await run(config, stop, logs)

    try:
        return asyncio.run(serve())
    except OSError as error:
        sys.stderr.write(f"{_PROG}: cannot serve metrics on port {config.http_port}: ")
        sys.stderr.write(f"{error.strerror}; choose another with --http-port, or 0 for any\n")
        return 1
    except Exception as error:  # the last one: whatever it is goes to the log
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    finally:
        logs.close()


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


def _probe(flags: argparse.Namespace) -> int:
    config, sources = settings.load(ProbeConfig, flags, os.environ)
    if flags.print_config:
        print(settings.render(config, sources))
        return 0
    spec = _spec(flags.target)
    work = make_probes(
        spec, _plan(config), name=config.name, count=config.count, interval_s=config.interval_s
    )
    results = asyncio.run(work)
    report = Report()
    for result in results:
        report.add(result)
    if flags.json:
        print(report.document(results, spec.text))
    else:
        print(report.text())
        details = sorted({printable(result.detail) for result in results if result.detail})
        for detail in details[:5]:
            print(f"detail       {detail}")
    return report.exit_code


def _send(flags: argparse.Namespace) -> int:
    config, sources = settings.load(ShotConfig, flags, os.environ)
    if flags.print_config:
        print(settings.render(config, sources))
        return 0
    plan = _plan(config)._replace(exchanges=1, payload=flags.text.encode())
    attempt_type = PlainAttempt if flags.plain else Attempt
    work = make_probes(_spec(flags.target), plan, name="", attempt_type=attempt_type)
    (result,) = asyncio.run(work)
    if result.reply:
        text = result.reply.decode(errors="replace")
        # Whoever pipes it wants the bytes; a terminal must not act on them.
        print(printable(text) if sys.stdout.isatty() else text, flush=True)
    sys.stderr.write(waterfall(result) + "\n")
    report = Report()
    report.add(result)
    return report.exit_code


def _health(flags: argparse.Namespace) -> int:
    config, _ = settings.load(ClientConfig, flags, os.environ)
    problem = check_health(config.http_port)
    print(problem or "ok")
    return 1 if problem else 0


def _plan(config: ShotConfig) -> Plan:
    return Plan(int(config.timeout_s * 1e9), config.exchanges, config.payload_bytes)


def _spec(text: str) -> Spec:
    try:
        return parse_spec(text)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = settings.ArgumentParser(
        prog=_PROG,
        description="Probe TCP paths: connect, send, receive, close, and say where the time went.",
        epilog="examples:\n" + "\n".join(f"  {example}" for example in _EXAMPLES.values()),
        example=_EXAMPLES["send"],
    )
    parser.add_argument("--version", action="version", version=f"{_PROG} {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        name: str, text: str, run_command: Callable[[argparse.Namespace], int]
    ) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(
            name, help=text, description=text, example=_EXAMPLES[name]
        )
        sub.set_defaults(run_command=run_command, parser=sub)
        return sub

    settings.add_options(
        add("run", "Probe targets until SIGTERM; serve metrics.", _run), ClientConfig
    )
    send = add("send", "Send one text; its echo on stdout, the phases on stderr.", _send)
    send.add_argument("target", metavar="HOST:PORT")
    send.add_argument("text", metavar="TEXT")
    send.add_argument(
        "--plain", action="store_true", help="For any echo server (RFC 862), not only ours."
    )
    settings.add_options(send, ShotConfig)
    one = add("probe", "Probe a few times and report.", _probe)
    one.add_argument("target", metavar="HOST:PORT")
    one.add_argument("--json", action="store_true", help="Print one JSON document instead.")
    settings.add_options(one, ProbeConfig)
    settings.add_options(
        add("health", "Ask a running client whether it is well.", _health), ClientConfig
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
