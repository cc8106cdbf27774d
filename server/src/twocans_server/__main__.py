"""The command ``twocans-server``: safe and quiet from its first moment on."""

from collections.abc import Sequence

from twocans_core.process.entry import begin

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, as of ``cli.main``."""
    begin()
    # Imported late: a signal that comes meanwhile has its handler.
    from .cli import main

    return main(argv)


if __name__ == "__main__":
    raise SystemExit(main())
