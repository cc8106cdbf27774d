"""A network namespace of the lab's own: commands and sockets in it."""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Namespace", "command"]

_CLONE_NEWNET = 0x4000_0000
_LIBC = ctypes.CDLL(None, use_errno=True)


class Namespace(NamedTuple):
    """One host of a scene.

    Attributes:
        name: As ``ip netns`` knows it.
        address: Its IPv4 address, as the other hosts know it.
    """

    name: str
    address: str

    @property
    def wrapper(self) -> list[str]:
        """What to put before a command that is to run here."""
        return ["ip", "netns", "exec", self.name]

    def run(self, *words: str) -> str:
        """Run a command here; returns what it printed.

        Raises:
            subprocess.CalledProcessError: It failed.
        """
        return command(*self.wrapper, *words)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Make sockets here: this thread is inside until the block ends."""
        with open("/proc/thread-self/ns/net") as home, self._path.open() as here:
            _set_namespace(here.fileno())
            try:
                yield
            finally:
                _set_namespace(home.fileno())

    def ip(self, *lines: str) -> None:
        """Let ``ip`` do several things here, one in each line."""
        command("ip", "-n", self.name, "-batch", "-", text="\n".join(lines))

    def sysctl(self, name: str, value: str | None = None) -> str:
        """Return a setting of this namespace, ``net.ipv4.…``; sets it first if a value is given."""
        path = Path("/proc/sys", name.replace(".", "/"))
        with self.entered():
            if value is not None:
                path.write_text(value)
            return path.read_text().strip()

    @property
    def _path(self) -> Path:
        return Path("/run/netns", self.name)


def command(*words: str, text: str = "") -> str:
    """Run a command; returns what it printed.

    Args:
        words: The command.
        text: What it reads.

    Raises:
        subprocess.CalledProcessError: It failed; its message has what the command complained of.
    """
    done = subprocess.run(
        words, input=text, check=False, capture_output=True, text=True, timeout=30
    )
    if done.returncode:
        error = subprocess.CalledProcessError(done.returncode, words, done.stdout, done.stderr)
        error.add_note(done.stderr.strip())
        raise error
    return done.stdout


def _set_namespace(fd: int) -> None:
    if _LIBC.setns(fd, _CLONE_NEWNET):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
