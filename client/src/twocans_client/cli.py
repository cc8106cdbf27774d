"""What the command ``twocans-client`` does."""

import argparse
import os
from collections.abc import Sequence

from twocans_core import __version__
from twocans_core.errors import ConfigError
from twocans_core.process import settings
from twocans_core.process.entry import become_service
from twocans_core.process.health import HttpPlace, say_health
from twocans_core.process.output import run_main

from .config import CONFIGS, PROG, ClientConfig, DiagnoseConfig, ProbeConfig, SendConfig

__all__ = ["main"]

_CONNECT_ONLY = "Only connect, and say nothing: for any TCP server that is not ours."
_EXAMPLES = {
    "run": f"{PROG} run --target server:5000",
    "send": f"{PROG} send localhost:5000 'Hello, server!'",
    "probe": f"{PROG} probe localhost:5000 --count 10",
    "diagnose": f"{PROG} diagnose server:5000",
    "health": f"{PROG} health",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code.

    ``run``: 0 after SIGTERM, 1 when it crashed; as ``probe`` when its duration is over. ``send``,
    ``probe`` and ``diagnose``: 0 good, 1 degraded, 2 bad, 3 unknown. ``health``: 0 or 1. Wrong
    usage, or output that could not be written: 3.
    """
    return run_main(PROG, lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    flags, unknown = _parser().parse_known_args(argv)
    if unknown:
        # The command's own parser says so: it has the example and the help that fit.
        flags.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if flags.command == "run":  # a command that was cut off must not look like one that ended well
        become_service()
    try:
        if flags.command == "health":
            return _health(flags)
        # Imported late: a health check every few seconds must cost next to nothing.
        from .commands import COMMANDS

        return COMMANDS[flags.command](flags)
    except ConfigError as error:
        settings.exit_with(f"{PROG} {flags.command}", error, _EXAMPLES[flags.command])


def _health(flags: argparse.Namespace) -> int:
    config, _ = settings.load(ClientConfig, flags, os.environ, CONFIGS)
    return say_health(PROG, HttpPlace(config.http_host, config.http_port), flags)


def _parser() -> argparse.ArgumentParser:
    parser = settings.ArgumentParser(
        prog=PROG,
        description="Probe TCP paths: connect, send, receive, close, and report where the time "
        "went.",
        epilog="examples:\n" + "\n".join(f"  {example}" for example in _EXAMPLES.values()),
        example=_EXAMPLES["send"],
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(
            name, help=text, description=text, example=_EXAMPLES[name]
        )
        sub.set_defaults(parser=sub)
        return sub

    settings.add_options(
        add("run", "Probe targets until SIGTERM, and serve metrics."), ClientConfig
    )
    send = add("send", "Send one text: its echo goes to stdout, the phases to stderr.")
    send.add_argument("target", metavar="HOST:PORT")
    send.add_argument("text", metavar="TEXT")
    send.add_argument(
        "--plain",
        action="store_true",
        help="Talk to any echo server (RFC 862), not only to twocans-server.",
    )
    settings.add_options(send, SendConfig)
    one = add("probe", "Make a few probes, and report.")
    one.add_argument("target", metavar="HOST:PORT")
    one.add_argument("--json", action="store_true", help="Print one JSON document instead of text.")
    one.add_argument("--connect-only", action="store_true", help=_CONNECT_ONLY)
    settings.add_options(one, ProbeConfig)
    every = add("diagnose", "Try everything for half a minute, and say what is wrong.")
    every.add_argument("target", metavar="HOST:PORT")
    every.add_argument(
        "--json", action="store_true", help="Print one JSON document instead of text."
    )
    every.add_argument("--connect-only", action="store_true", help=_CONNECT_ONLY)
    settings.add_options(every, DiagnoseConfig)
    settings.add_options(add("health", "Check a running client, and exit 0 or 1."), ClientConfig)
    return parser
