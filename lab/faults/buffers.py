"""Limits of TCP itself at either end: windows and buffers."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from lab.case import Case, Drawn, Expected, Truth
from lab.namespaces import Namespace
from lab.scene import Scene

from .tools import drawing, figures, prepared, turned

__all__ = ["CASES"]

_BUDGET = ("--budget", "10GB")
# Several times a small buffer, and little enough to be answered in time through one.
_SOME = ("--payload-bytes", "65536", "--interval-s", "0.5", *_BUDGET)
# More than one window without scaling.
_MORE = ("--payload-bytes", "262144", "--interval-s", "0.5", *_BUDGET)
_SERVER_FLAGS = ("--max-payload-bytes", "262144")
_RTT_S = 0.04


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
    for way in ("forward", "reverse"):
        scene.wire.set(way, delay_s=max(_RTT_S / 2, scene.wire.setting(way, "delay_s")))
    yield


@contextmanager
def _far_apart_and_odd(scene: Scene, drawn: Drawn) -> Iterator[None]:
    with far_apart(scene, drawn), prepared(scene, drawn):
        yield


@contextmanager
def small_receive_buffer(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
    """Set SO_RCVBUF: the sysctl would not do it, since who listens has its buffer already."""
    with turned(scene, receive_bytes=drawn["buffer"]):
        yield figures(drawn)


def _three(drawn: Drawn) -> str:
    """Return least, default and most of a buffer, all the same: nothing is tuned."""
    return f"{drawn['buffer']} {drawn['buffer']} {drawn['buffer']}"


CASES = (
    Case(
        "receiver_limited",
        "the server gives its sockets a small receive buffer",
        (Expected("receiver_limited", "server_host"),),
        drawing(buffer=range(4096, 16384, 1024)),
        small_receive_buffer,
        client_flags=_SOME,
        prepare=_far_apart_and_odd,
    ),
    Case(
        "sender_limited",
        "the client's host gives its sockets a small send buffer",
        (Expected("sender_limited", "client_host"),),
        drawing(buffer=range(4096, 16384, 1024)),
        _setting(lambda scene: scene.client, "net.ipv4.tcp_wmem", _three),
        client_flags=_SOME,
        prepare=far_apart,
    ),
    Case(
        "window_limited",
        "the server's host scales no window: 64 KiB may be under way, and no more",
        (Expected("window_limited", "configuration"),),
        drawing(),
        _setting(lambda scene: scene.server, "net.ipv4.tcp_window_scaling", lambda _: "0"),
        server_flags=_SERVER_FLAGS,
        client_flags=_MORE,
        prepare=far_apart,
    ),
)
