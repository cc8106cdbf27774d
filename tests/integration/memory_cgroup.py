"""A memory cgroup of a test's own, v1 or v2: a real limit, and a kernel that really kills."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

_ROOT = Path("/sys/fs/cgroup")
_NAME = f"twocans-test-{os.getpid()}"


class MemoryCgroup:
    """A cgroup with a memory limit.

    Attributes:
        wrapper: Put before a command that is to run in it.
    """

    def __init__(self, folder: Path, is_v1: bool, limit: int) -> None:
        self._folder = folder
        self._is_v1 = is_v1
        (folder / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(str(limit))
        if is_v1:  # or else version 1 does not charge sockets as version 2 does
            (folder / "memory.kmem.tcp.limit_in_bytes").write_text(str(1 << 40))
        join = f'echo $$ > {folder}/cgroup.procs; exec "$@"'
        self.wrapper: Sequence[str] = ("sh", "-c", join, "sh")

    def kills(self) -> int:
        """Return how often the kernel killed in it."""
        name = "memory.oom_control" if self._is_v1 else "memory.events"
        table = dict(line.split() for line in (self._folder / name).read_text().splitlines())
        return int(table["oom_kill"])


@contextlib.contextmanager
def memory_cgroup(limit: int) -> Iterator[MemoryCgroup]:
    """Make one, and remove it; skips where that may not be."""
    is_v1 = (_ROOT / "memory").is_dir()
    folder = (_ROOT / "memory" if is_v1 else _ROOT) / _NAME
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    try:
        yield MemoryCgroup(folder, is_v1, limit)
    finally:
        for _ in range(100):  # the kernel needs a moment after its last process
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.02)
