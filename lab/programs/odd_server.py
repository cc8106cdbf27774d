"""The real twocans server, with an application that has the faults of applications.

It computes or waits over its replies, accepts slowly, stands still, closes connections, or has a
clock of its own: whatever the knobs in LAB_FOLDER say. With all at 0 it is the server as it is.

Its clock is moved where the program reads it, and where it reads the kernel's timestamps; the
machine's clock stays, because all namespaces share it.
"""

import errno
import os
import random
import socket
import struct
import time
from pathlib import Path
from typing import Any, cast

from .knobs import Knobs

__all__ = ["make_it_odd"]

# struct linger: on, for no time.
_NO_LINGER = struct.pack("=ii", 1, 0)
KNOBS = Knobs(Path(os.environ["LAB_FOLDER"], "knobs"))


def move_the_clock() -> None:
    """Before anything else is imported, since it is handed on from module to module."""
    from twocans_core import clock
    from twocans_core.kernel import stamps

    def ahead_ns() -> int:
        return int(KNOBS["clock_s"] * 1e9)

    def real_ns() -> int:
        return time.time_ns() + ahead_ns()

    timespec_ns = stamps._timespec_ns

    def stamp_ns(data: bytes) -> int | None:
        ns = timespec_ns(data)
        return None if ns is None else ns + ahead_ns()

    clock.SYSTEM_CLOCK = clock.SYSTEM_CLOCK._replace(real_ns=real_ns)
    stamps._timespec_ns = stamp_ns


def make_it_odd() -> None:
    """Stand between its parts."""
    from twocans_server.acceptor import Acceptor
    from twocans_server.connections.connection import Connection
    from twocans_server.connections.conversation import Conversation
    from twocans_server.connections.endings import Kind

    reply, accept_some = Conversation._reply, Acceptor._accept_some
    become = Connection._become

    def work(wire: Any) -> None:
        time.sleep(KNOBS["answer_wait_s"])
        end = time.thread_time() + KNOBS["answer_cpu_s"]
        while time.thread_time() < end:
            pass
        while KNOBS["hang"]:
            time.sleep(0.02)
        if random.random() < KNOBS["close_share"]:
            if random.random() < 0.5:  # an RST, as of who leaves something unread; else a FIN
                wire._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            raise ConnectionAbortedError(errno.ECONNABORTED, "the application wants no more")

    def odd_reply(self: Conversation, request: Any) -> bytes:
        work(self._wire)  # between the read and the reply's t3u: the time is the application's own
        return reply(self, request)

    def odd_become(self: Connection, kind: Kind) -> None:
        become(self, kind)
        if kind is Kind.PLAIN:  # other tools are to see the same application
            work(self.wire)

    def odd_accept_some(self: Acceptor) -> float | None:
        wait_s, size = KNOBS["accept_s"], int(KNOBS["receive_bytes"])
        if size:  # for those whose SYN is still to come
            listener = cast("Any", self._listener)
            listener._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        if not wait_s:
            return accept_some(self)
        self._per_turn, per_turn = 1, self._per_turn
        try:
            more_s = accept_some(self)
        finally:
            self._per_turn = per_turn
        return None if more_s is None else max(more_s, wait_s)

    Conversation._reply = odd_reply  # type: ignore[method-assign]
    Acceptor._accept_some = odd_accept_some  # type: ignore[method-assign]
    Connection._become = odd_become  # type: ignore[method-assign]


if __name__ == "__main__":
    move_the_clock()
    make_it_odd()
    from twocans_server.__main__ import main

    raise SystemExit(main())
