"""The command ``twocans-server``."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from twocans_core import __version__, settings
from twocans_core.errors import ConfigError
from twocans_core.http import check_health
from twocans_core.jsonlog import configure, install_excepthooks
from twocans_core.lifecycle import stop_signal

from .config import ServerConfig
from .service import run

__all__ = ["main"]

_PROG = "twocans-server"
_EXAMPLE = f"{_PROG} --port 5000"
_COMMANDS = ("run", "health")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 good, 1 not healthy or crashed, 3 wrong usage."""
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
        print(settings.render(config, sources))
        return 0
    if flags.command == "health":
        problem = check_health(config.http_port)
        print(problem or "ok")
        return 1 if problem else 0
    return _serve(config)


def _serve(config: ServerConfig) -> int:
    # The loop waits for the GIL at most this long while a scrape is rendered in a thread.
    sys.setswitchinterval(0.0005)
    logs = configure(config.log_level, service=_PROG, version=__version__)

    async def serve() -> int:
        install_excepthooks(asyncio.get_running_loop())
        async with stop_signal() as stop:
            return await run(config, stop, logs)

    try:
        return asyncio.run(serve())
    except OSError as error:
        wanted = f"port {config.port} or {config.http_port}"
        sys.stderr.write(f"{_PROG}: cannot listen on {wanted}: {error.strerror}\n")
        sys.stderr.write(f"{_PROG}: choose others with --port and --http-port, or 0 for any\n")
        return 1
    except Exception as error:  # the last one: whatever it is goes to the log
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    finally:
        logs.close()


def _parser() -> argparse.ArgumentParser:
    parser = settings.ArgumentParser(
        prog=_PROG,
        description="Echo what clients send; stamp, count and tell them what this end saw.",
        example=_EXAMPLE,
    )
    parser.add_argument("--version", action="version", version=f"{_PROG} {__version__}")
    parser.add_argument(
        "command",
        nargs="?",
        metavar="{run,health}",
        default="run",
        help="run (the default) serves until SIGTERM; health asks a running server whether it "
        "is well, and exits 0 or 1.",
    )
    settings.add_options(parser, ServerConfig)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
