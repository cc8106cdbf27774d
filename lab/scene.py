"""Client, router and server as namespaces, with a wire before the server."""

import contextlib
import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

from .namespaces import Namespace
from .wire import Wire

__all__ = ["Base", "Scene", "scene"]


class Base(NamedTuple):
    """The path as it is while it is healthy.

    Attributes:
        rtt_s: Seconds there and back, half in each direction.
        jitter: By how much it varies, as a share of ``rtt_s``.
        loss: Share of packets lost in each direction.
    """

    rtt_s: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0


class Scene:
    """client --veth-- router --wire-- server; all IPv4, the router forwards.

    Attributes:
        server_process: The server of the pair, set by who starts it.
        client_process: The client of the pair, set by who starts it.
    """

    client: Namespace
    router: Namespace
    server: Namespace
    wire: Wire
    server_process: subprocess.Popen[Any] | None = None
    client_process: subprocess.Popen[Any] | None = None

    def as_nobody(self, namespace: Namespace, *command: str, **popen: Any) -> subprocess.Popen[Any]:
        """Start a command in a namespace as a deployment has it: uid nobody, no capabilities."""
        raise NotImplementedError


@contextlib.contextmanager
def scene(base: Base) -> Iterator[Scene]:
    """Set the scene, and remove it, whatever happens."""
    raise NotImplementedError
