"""Two hosts on one machine: network namespaces joined by a cable, and a CPU quota. Needs root.

Everything made here has a name of its own, with this process's number in it, and is removed by
that name when its context ends, however it ends.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

__all__ = [
    "CLIENT",
    "DEVICE",
    "SERVER",
    "SERVER_HOST",
    "Quota",
    "cpu_quota",
    "enter",
    "pair",
    "running",
]

CLIENT, SERVER = "client", "server"
SERVER_HOST = "10.91.0.2"
_CLIENT_HOST = "10.91.0.1"
# The server answers for all of these. Who gives each connection an address of its own can tell
# it from every other in a capture.
_MORE_HOSTS = "10.92.0.0/15"
DEVICE = "cable"

_PERIOD_US = 100_000
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def _name(end: str) -> str:
    return f"twocans-{os.getpid()}-{end}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _delete(end: str) -> None:
    if Path("/run/netns", _name(end)).exists():
        _ip("netns", "delete", _name(end))


@contextlib.contextmanager
def pair() -> Iterator[None]:
    """Make both namespaces and their cable; remove them in the end."""
    with contextlib.ExitStack() as stack:
        for end in (CLIENT, SERVER):
            stack.callback(_delete, end)  # first: a signal may come between any two lines
            _ip("netns", "add", _name(end))
        near, far = ("-netns", _name(CLIENT)), ("-netns", _name(SERVER))
        peer = ("peer", "name", DEVICE, "netns", _name(SERVER))
        _ip("link", "add", DEVICE, "netns", _name(CLIENT), "type", "veth", *peer)
        for inside, host in ((near, _CLIENT_HOST), (far, SERVER_HOST)):
            _ip(*inside, "address", "add", f"{host}/30", "dev", DEVICE)
            _ip(*inside, "link", "set", DEVICE, "up")
            _ip(*inside, "link", "set", "lo", "up")
        _ip(*far, "route", "add", "local", _MORE_HOSTS, "dev", "lo")
        _ip(*near, "route", "add", _MORE_HOSTS, "via", SERVER_HOST)
        ports = ["sysctl", "--quiet", "--write", "net.ipv4.ip_local_port_range=10000 65000"]
        subprocess.run(enter(CLIENT, ports), check=True)
        yield


def enter(end: str, command: Sequence[str]) -> list[str]:
    """Return the command that runs a command at one end."""
    return ["ip", "netns", "exec", _name(end), *command]


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    stdin: int | None = None,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] | None = subprocess.DEVNULL,
    cwd: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the context ends; it is asked to stop, then made to.

    It hears no Ctrl-C of ours, and does not outlive us.
    """
    process = subprocess.Popen(
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.send_signal(signal.SIGCONT)  # one that is stopped hears nothing else
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Quota(NamedTuple):
    """A cgroup whose members together get a share of one CPU.

    Attributes:
        folder: Of the cgroup.
    """

    folder: Path

    def add(self, pid: int) -> None:
        """Put a process in."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def throttled(self) -> tuple[int, int]:
        """Return in how many periods of 100 ms it was stopped, and how many there were."""
        lines = (self.folder / "cpu.stat").read_text().split("\n")
        stat = dict(line.split() for line in lines if line)
        return int(stat["nr_throttled"]), int(stat["nr_periods"])


@contextlib.contextmanager
def cpu_quota(share: float) -> Iterator[Quota | None]:
    """Make a cgroup with this share of one CPU; None where this machine does not let us.

    Its members must have ended before the context does.
    """
    quota_us = int(share * _PERIOD_US)
    name = f"twocans-{os.getpid()}"
    unified, separate = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu")  # cgroup v2, v1
    if (unified / "cgroup.controllers").exists():
        folder = unified / name
        settings = {"cpu.max": f"{quota_us} {_PERIOD_US}"}
    else:
        folder = separate / name
        settings = {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": str(quota_us)}
    try:
        try:
            if folder.parent == unified:
                (unified / "cgroup.subtree_control").write_text("+cpu")
            folder.mkdir()
            for file, value in settings.items():
                (folder / file).write_text(value)
        except OSError as error:
            print(f"accuracy: no CPU quota here: {error}", file=sys.stderr)
            quota = None
        else:
            quota = Quota(folder)
        yield quota
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    for _ in range(50):
        if not folder.exists():
            return
        with contextlib.suppress(OSError):  # busy until its last member is gone
            folder.rmdir()
            return
        time.sleep(0.1)
    print(f"accuracy: could not remove {folder}", file=sys.stderr)
