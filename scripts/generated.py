"""Files that are made: write them, or say which are stale."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["write_or_check"]


def write_or_check(
    files: Mapping[Path, Callable[[], str]], about: str | None, arguments: Sequence[str] | None
) -> int:
    """Be the command that makes these files; returns its exit code.

    Args:
        files: What makes the text of each.
        about: For --help.
        arguments: Of the command line; None for the process's own.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true", help="Change nothing, say what is stale.")
    check = parser.parse_args(arguments).check
    stale = False
    for file, make in files.items():
        text = make()
        if not file.exists() or file.read_text() != text:
            stale = True
            print(f"{file.name} {'is stale' if check else 'written'}", file=sys.stderr)
            if not check:
                file.write_text(text)
    return int(check and stale)
