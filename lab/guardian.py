"""Removes what the lab made, however the lab ends.

A process of its own, told through a pipe what there is to remove. It does so when the pipe is
closed, which the kernel does for a runner that was killed. There is no other way in which the lab
is removed, so every run tests this one.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import LabError

__all__ = ["Guardian", "guardian"]

_PATIENCE_S = 10.0
_DONE = "done"
# What a killed runner had begun, such as an `ip netns add`, is finished by then.
_SETTLING_S = 0.5


class Guardian:
    """The pipe to it.

    Attributes:
        pid: Of its process.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.pid = process.pid
        assert process.stdout is not None
        process.stdout.readline()  # from now on no signal ends it

    def watch(self, kind: str, name: str) -> None:
        """Tell it of something before it is made.

        Args:
            kind: "netns", "cgroup" or "folder".
            name: Of the namespace, or the path of the folder.
        """
        self._tell(f"{kind} {name}")

    def close(self) -> None:
        """Let it remove everything.

        Raises:
            LabError: Something is left; the message has its name.
        """
        self._tell(_DONE)
        said, _ = self._process.communicate()
        if self._process.returncode:
            raise LabError(f"the lab could not remove {said.strip() or 'what it made'}")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()


@contextlib.contextmanager
def guardian() -> Iterator[Guardian]:
    """Start it; in the end everything is removed that it was told of."""
    guard = Guardian(
        subprocess.Popen(
            [sys.executable, "-m", "lab.guardian"],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # out of reach of a Ctrl-C
        )
    )
    try:
        yield guard
    finally:
        guard.close()


def main() -> int:
    """Wait for the end of the pipe, then remove; prints what could not be removed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    print("ready", flush=True)
    lines = sys.stdin.read().splitlines()
    if _DONE not in lines:
        time.sleep(_SETTLING_S)
    told = [line.split(" ", 1) for line in lines if line != _DONE]
    left = [name for kind, name in told if kind == "netns" and not _remove_namespace(name)]
    left += [name for kind, name in told if kind == "cgroup" and not _remove_cgroup(Path(name))]
    for kind, name in told:
        if kind == "folder":
            shutil.rmtree(name, ignore_errors=True)
            left += [name] if Path(name).exists() else []
    # Who started us may be gone, and the pipe with them.
    with contextlib.suppress(BrokenPipeError):
        print(*left, end="", flush=True)
    return 1 if left else 0


def _remove_namespace(name: str) -> bool:
    if Path("/run/netns", name).exists():
        for _ in _turns():
            said = _ip("netns", "pids", name)
            pids = [int(line) for line in said.stdout.split()]
            if not pids:
                break
            _kill(pids)
        _ip("netns", "delete", name)
    return not Path("/run/netns", name).exists()


def _remove_cgroup(folder: Path) -> bool:
    for _ in _turns():
        if not folder.exists():
            return True
        with contextlib.suppress(OSError):
            _kill([int(line) for line in (folder / "cgroup.procs").read_text().split()])
            folder.rmdir()
    return False


def _turns() -> Iterator[None]:
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        yield
        time.sleep(0.02)


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _ip(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["ip", *words], check=False, capture_output=True, text=True)


if __name__ == "__main__":
    sys.exit(main())
