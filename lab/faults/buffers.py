"""Limits of TCP itself at either end: windows and buffers."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from lab.case import Case, Drawn, Expected, Truth
from lab.namespaces import Namespace
from lab.scene import Scene

from .tools import drawing, figures

__all__ = ["CASES"]

_BIG = 256 * 1024
_SERVER_FLAGS = ("--max-payload-bytes", str(_BIG))
# A quarter of a megabyte, twice a second: more than one window, and 4 Mbit/s.
_CLIENT_FLAGS = ("--payload-bytes", str(_BIG), "--interval-s", "0.5")


def _setting(
    host: Callable[[Scene], Namespace], name: str, value: Callable[[Drawn], str]
) -> Callable[[Scene, Drawn], AbstractContextManager[Truth]]:
    """Return what changes a sysctl of one end's host; connections that are there keep theirs."""

    @contextmanager
    def inject(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
        namespace = host(scene)
        before = namespace.sysctl(name)
        namespace.sysctl(name, value(drawn))
        try:
            yield figures(drawn)
        finally:
            namespace.sysctl(name, before)

    return inject


@contextmanager
def far_apart(scene: Scene, drawn: Drawn) -> Iterator[None]:
    """Make the path long enough for a window to matter."""
    del drawn
    before = {way: scene.wire.setting(way, "delay_s") for way in ("forward", "reverse")}
    for way, delay_s in before.items():
        scene.wire.set(way, delay_s=delay_s + 0.02)
    yield


def _three(drawn: Drawn) -> str:
    """Return least, default and most of a buffer, all the same: nothing is tuned."""
    return f"{drawn['buffer']} {drawn['buffer']} {drawn['buffer']}"


CASES = (
    Case(
        "receiver_limited",
        "the server's host gives its sockets a small receive buffer",
        (Expected("receiver_limited", "server_host"),),
        drawing(buffer=range(4096, 16384, 1024)),
        _setting(lambda scene: scene.server, "net.ipv4.tcp_rmem", _three),
        server_flags=_SERVER_FLAGS,
        client_flags=_CLIENT_FLAGS,
        prepare=far_apart,
    ),
    Case(
        "sender_limited",
        "the client's host gives its sockets a small send buffer",
        (Expected("sender_limited", "client_host"),),
        drawing(buffer=range(4096, 16384, 1024)),
        _setting(lambda scene: scene.client, "net.ipv4.tcp_wmem", _three),
        server_flags=_SERVER_FLAGS,
        client_flags=_CLIENT_FLAGS,
        prepare=far_apart,
    ),
    Case(
        "window_limited",
        "the server's host scales no window: 64 KiB may be under way, and no more",
        (Expected("window_limited", "configuration"),),
        drawing(),
        _setting(lambda scene: scene.server, "net.ipv4.tcp_window_scaling", lambda _: "0"),
        server_flags=_SERVER_FLAGS,
        client_flags=_CLIENT_FLAGS,
        prepare=far_apart,
    ),
)
