"""What the command ``twocans-server`` does."""

import argparse
import os
from collections.abc import Sequence

from twocans_core import __version__
from twocans_core.errors import ConfigError
from twocans_core.process import settings
from twocans_core.process.entry import become_service
from twocans_core.process.health import HttpPlace, say_health
from twocans_core.process.output import run_main, say

from .config import ServerConfig

__all__ = ["main"]

_PROG = "twocans-server"
_EXAMPLE = f"{_PROG} --port 5000"
_COMMANDS = ("run", "health")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code.

    0 good, 1 not healthy or crashed, 3 wrong usage, or its output could not be written.
    """
    become_service()
    return run_main(_PROG, lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    parser = _parser()
    flags = parser.parse_args(argv)
    # Not by argparse's choices: it would call the value of a mistyped flag an invalid command.
    if flags.command not in _COMMANDS:
        parser.error(f"no command {flags.command!r}; there are {' and '.join(_COMMANDS)}")
    try:
        config, sources = settings.load(ServerConfig, flags, os.environ)
    except ConfigError as error:
        settings.exit_with(_PROG, error, _EXAMPLE)
    if flags.print_config:
        say(settings.render(config, sources))
        return 0
    if flags.command == "health":
        return say_health(_PROG, HttpPlace(config.http_host, config.http_port), flags)
    # Imported late: a health check every few seconds must cost next to nothing.
    from .run import serve

    return serve(config, _PROG, lambda: settings.load(ServerConfig, flags, os.environ)[0].log_level)


def _parser() -> argparse.ArgumentParser:
    parser = settings.ArgumentParser(
        prog=_PROG,
        description="Answer probes, and report to the client what this end of the path saw.",
        example=_EXAMPLE,
    )
    parser.add_argument("--version", action="version", version=f"{_PROG} {__version__}")
    parser.add_argument(
        "command",
        nargs="?",
        metavar="{run,health}",
        default="run",
        help="run (the default) serves until SIGTERM; health checks a running server and exits 0 "
        "or 1.",
    )
    settings.add_options(parser, ServerConfig)
    return parser
