import contextlib
import signal
import socket
import threading
import time

import pytest

from integration.harness import (
    CLIENT,
    FramedClient,
    ServerProcess,
    dial,
    echo,
    read_to_end,
    until,
)
from twocans_core.protocol.messages import FollowUp, Goodbye, Hello, Reply, Request, Welcome


def test_sigterm_is_seen_by_everybody_at_once_and_harms_nobody():
    with ServerProcess("--drain-accept-s", "1", "--drain-s", "10") as server:
        assert server.get("/readyz")[0] == 200
        with FramedClient(server.port) as early, dial(server.port) as plain:
            early.greet()
            assert early.ask().payload == b"payload"
            server.signal()
            assert early.receive() == Goodbye("draining")
            assert server.get("/readyz")[0] == 503
            assert server.get("/healthz")[0] == 200
            with FramedClient(server.port) as late:
                welcome = late.greet()
                assert isinstance(welcome, Welcome)
                assert welcome.draining
                assert late.ask().payload == b"payload"
                assert late.leave()[-1] == Goodbye("done")
            assert echo(plain, b"still") == b"still"
            until(lambda: not can_connect(server.port))
            assert server.metric("twocans_server_draining") == 1, "/metrics closes last"
            assert early.ask(b"after").payload == b"after"
            follow_up, goodbye = early.leave()
            assert isinstance(follow_up, FollowUp)
            assert goodbye == Goodbye("done")
        assert server.wait() == 0
        stopped = server.lines[-1]
        assert stopped["event.name"] == "stopped"
        assert stopped["twocans.sessions.done"] == 2
        assert stopped["twocans.connections.cut_off"] == 0
        assert not server.events("bug")


def can_connect(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.2):
        return True
    return False


def test_an_idle_plain_client_does_not_hold_up_the_stop():
    with ServerProcess("--drain-accept-s", "0", "--drain-s", "15") as server:
        with dial(server.port) as idle, dial(server.port) as silent:
            assert echo(idle, b"x") == b"x"
            started = time.monotonic()
            server.signal()
            assert read_to_end(idle) == b""
            assert read_to_end(silent) == b""
            # Neither closes its own end: the server waits a moment for that, not 15 s.
            assert server.wait() == 0
            assert time.monotonic() - started < 8
        assert server.lines[-1]["twocans.connections.cut_off"] == 0


def test_a_session_that_stays_is_cut_off_when_the_drain_is_over():
    with ServerProcess("--drain-accept-s", "0", "--drain-s", "0.5") as server:
        with FramedClient(server.port) as client:
            client.greet()
            server.signal()
            assert server.wait() == 0
        assert server.lines[-1]["twocans.connections.cut_off"] == 1
        assert not server.events("bug")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_exits_at_once(number):
    with ServerProcess("--drain-accept-s", "30") as server:
        server.signal()
        until(lambda: server.events("stopping"))
        started = time.monotonic()
        server.signal(number)
        assert server.wait() == 128 + number
        assert time.monotonic() - started < 1


def test_a_connection_that_waits_to_be_accepted_when_the_server_stops_is_served():
    with ServerProcess("--drain-accept-s", "0.3", "--accepts-per-turn", "1") as server:
        with contextlib.ExitStack() as stack:
            server.signal(signal.SIGSTOP)
            clients = [stack.enter_context(FramedClient(server.port)) for _ in range(100)]
            for client in clients:
                client.sock.sendall(client.session.hello(Hello(CLIENT, 7)))
            server.signal(signal.SIGTERM)
            server.signal(signal.SIGCONT)
            for client in clients:
                assert isinstance(client.receive(), Welcome)
                assert client.leave()[-1] == Goodbye("done")
        assert server.wait() == 0


# --- restarts under load ------------------------------------------------------------------


class Load(threading.Thread):
    """Sessions of three probes, one after the other, as long as there is a server.

    Args:
        port: Of the server.
        pause_s: Seconds after each probe.

    Attributes:
        lost: What a client was owed and did not get.
    """

    def __init__(self, port: int, pause_s: float) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.pause_s = pause_s
        self.stop = threading.Event()
        self.replies = 0
        self.sessions = 0
        self.away = 0
        self.lost: list[str] = []

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                # A SYN that is dropped would be sent again after a second: too little load.
                client = FramedClient(self.port, connect_s=0.1)
            except OSError:
                self.away += 1  # no server here, and none that owes us anything
                time.sleep(0.01)
                continue
            with client:
                self._probe(client)

    def _probe(self, client: FramedClient) -> None:
        due = "a WELCOME"
        try:
            client.greet()
            for _ in range(3):
                due = "a REPLY"
                client.sock.sendall(client.session.request(Request.of(b"x" * 64)))
                while not isinstance(client.receive(), Reply):
                    due = "a REPLY in the drain"
                self.replies += 1
                time.sleep(self.pause_s)
            due = "a FOLLOW_UP"
            assert isinstance(next(iter_leave(client)), FollowUp)
            self.sessions += 1
        except Exception as error:
            self.lost.append(f"{due}: {error!r}")


def iter_leave(client: FramedClient):
    client.sock.sendall(client.session.goodbye())
    while True:
        message = client.receive()
        if message != Goodbye("draining"):
            yield message


def more_replies(loads: list[Load]) -> None:
    """Wait until the loads had a hundred more replies."""
    before = sum(load.replies for load in loads)
    until(lambda: sum(load.replies for load in loads) > before + 100)


@pytest.mark.slow
def test_not_one_reply_is_lost_in_20_restarts_under_load():
    flags = ("--drain-accept-s", "0.2", "--drain-s", "10")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ServerProcess(*flags))
        # Short sessions, and some that are still there when the listener closes.
        pauses_s = [0.002] * 6 + [0.15] * 4
        loads = [Load(server.port, pause_s) for pause_s in pauses_s]
        for load in loads:
            load.start()
        for load in loads:
            stack.callback(load.stop.set)
        for _ in range(20):
            more_replies(loads)
            server.signal()
            assert server.wait() == 0
            assert server.lines[-1]["twocans.connections.cut_off"] == 0
            server = stack.enter_context(ServerProcess(*flags, port=server.port))
        more_replies(loads)
        for load in loads:
            load.stop.set()
        for load in loads:
            load.join()
        lost = [problem for load in loads for problem in load.lost]
        print(
            f"\n20 restarts: {sum(load.replies for load in loads)} replies, "
            f"{sum(load.sessions for load in loads)} sessions, {len(lost)} lost, "
            f"{sum(load.away for load in loads)} times nobody there"
        )
        assert lost == []
