"""One line on a terminal that says how far it is; elsewhere nothing."""

import os
from collections.abc import Callable

from twocans_core.process.output import write_some

__all__ = ["Progress"]

_BAR = 20
_CLEAR = "\r\x1b[K"


class Progress:
    """The line, rewritten in place.

    Args:
        fd: Of the terminal.
        write: Writes what fits, and waits for nothing.
    """

    def __init__(self, fd: int = 2, write: Callable[[int, bytes], object] = write_some) -> None:
        self._fd = fd
        self._write = write
        self._is_shown = os.isatty(fd)
        self._text = ""

    def say(self, doing: str, share: float) -> None:
        """Say what is being done, and the share of all that is done."""
        filled = round(_BAR * min(1.0, share))
        text = f"{'█' * filled}{'░' * (_BAR - filled)} {doing}"
        if self._is_shown and text != self._text:
            self._text = text
            self._write(self._fd, f"{_CLEAR}{text}".encode())

    def clear(self) -> None:
        """Leave the line as it was found."""
        if self._text:
            self._write(self._fd, _CLEAR.encode())
            self._text = ""
