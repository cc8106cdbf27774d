"""The container's check: ask a process on this machine whether it is well.

It runs every few seconds in a process of its own, so it imports next to nothing.

Its HTTP address may come from a flag, a file or the kernel, of which a check that is started
beside it knows nothing. So a process in a container shows it by the name of a socket that does
nothing else (``signpost``): no file system need be writable for that, nothing is left behind
when it dies, and the name has the PID namespace in it, which no two containers share even where
they share a network.
"""

import argparse
import contextlib
import http.client
import os
from typing import NamedTuple

from twocans_core.errors import OutputError

from .output import say

__all__ = ["HttpPlace", "check_health", "find_place", "say_health", "signpost"]

_EVERY_ADDRESS = {"", "0.0.0.0", "::"}  # noqa: S104
# The PID namespace of the machine itself always has this number (PROC_PID_INIT_INO).
_MACHINES_NAMESPACE = 0xEFFFFFFC


class HttpPlace(NamedTuple):
    """Where a process serves HTTP, as it binds it, or as configured."""

    host: str
    port: int

    @property
    def near(self) -> tuple[str, int]:
        """How to come there from this machine: to every address, by loopback."""
        return "127.0.0.1" if self.host in _EVERY_ADDRESS else self.host, self.port


def say_health(prog: str, configured: HttpPlace, flags: argparse.Namespace) -> int:
    """Be the command ``health``; returns its exit code, 0 or 1, whether or not its output is read.

    Args:
        prog: Whose health.
        configured: Where it would be by our own settings.
        flags: An address among them is taken at its word.
    """
    is_told = flags.http_host is not None or flags.http_port is not None
    try:
        problem = check_health(configured if is_told else find_place(prog, configured))
    except LookupError as error:
        problem = str(error)
    with contextlib.suppress(OutputError):
        say(problem or "ok")
    return 1 if problem else 0


def signpost(prog: str, place: HttpPlace) -> str:
    """Return the name that shows where this process, a ``prog``, serves HTTP."""
    return f"{prog} {_pid_namespace()} {os.getpid()} {place.port} {place.host}"


def find_place(prog: str, configured: HttpPlace) -> HttpPlace:
    """Return where the ``prog`` of this container serves HTTP: as configured, if no name shows it.

    On a machine of many of them, outside of containers, the one that is asked for is the configured
    one, unless its port was left to the kernel.

    Raises:
        LookupError: There are several, and none of them as configured.
    """
    namespace = _pid_namespace()
    if namespace == _MACHINES_NAMESPACE and configured.port:
        return configured
    found = _signposts(prog, namespace)
    if not found or configured.near in [place.near for place in found]:
        return configured
    if len(found) > 1:
        ports = ", ".join(str(place.port) for place in found)
        raise LookupError(f"several run here, at ports {ports}: choose one by --http-port")
    return found[0]


def check_health(place: HttpPlace, *, timeout_s: float = 2.0) -> str | None:
    """Ask the process that serves HTTP there; None when it is well, else why not.

    Args:
        place: Where that is.
        timeout_s: Seconds to wait.
    """
    host, port = place.near
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"port {port}: {error}"
    finally:
        connection.close()
    return None if status == http.client.OK else f"port {port}: /healthz says {status}"


def _pid_namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # no /proc, or of no such kernel
        return _MACHINES_NAMESPACE


def _signposts(prog: str, namespace: int) -> list[HttpPlace]:
    found = []
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="replace") as table:
            # Seven columns, then the name, which may have spaces in it. Of an abstract one the
            # first byte is shown as @ (unix_seq_show, net/unix/af_unix.c).
            names = [line.split(maxsplit=7)[-1].rstrip("\n") for line in table]
    except OSError:
        return []
    for name in names:
        parts = name.split(" ", 4)
        if parts[:2] == [f"@{prog}", str(namespace)] and len(parts) == 5 and parts[3].isdecimal():
            found.append(HttpPlace(parts[4], int(parts[3])))
    return found
