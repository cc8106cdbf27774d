import asyncio
import contextlib
import itertools
import random
import select
import signal
import socket
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import header
from integration.harness import (
    CLIENT,
    FramedClient,
    ServerProcess,
    dial,
    echo,
    read_exactly,
    read_to_end,
    running,
    until,
)
from twocans_core.kernel.tcpinfo import NO_COUNTERS, Counters
from twocans_core.net.channel import Channel
from twocans_core.protocol.frames import MAGIC, Frame, Kind, encode
from twocans_core.protocol.messages import Error, FollowUp, Goodbye, Hello, Reply, Request, Welcome


@pytest.fixture(scope="module")
def server():
    with ServerProcess() as server:
        yield server
        assert not server.events("bug")


def is_all_gone(server: ServerProcess) -> bool:
    kinds = ("new", "plain", "framed")
    return not any(server.metric("twocans_server_connections", kind=kind) for kind in kinds)


# --- plain echo ---------------------------------------------------------------------------


def test_the_client_of_the_tutorial_works_unchanged(server):
    host, port = "127.0.0.1", server.port
    # docs.python.org, "socket - Low-level networking interface", section Example.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        s.connect((host, port))
        s.sendall(b"Hello, world")
        data = s.recv(1024)
    assert data == b"Hello, world"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_ipv4_and_ipv6_are_served_on_one_port(server, host):
    with dial(server.port, host) as sock:
        assert echo(sock, b"Hello, world") == b"Hello, world"


CHUNKS = st.lists(st.binary(min_size=1, max_size=5_000), min_size=1, max_size=20)


@settings(max_examples=50, deadline=None)
@given(chunks=CHUNKS.filter(lambda chunks: chunks[0][0] != MAGIC[0]), data=st.data())
def test_any_bytes_come_back_however_they_are_cut(server, chunks, data):
    wanted = b"".join(chunks)
    with dial(server.port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        got = b""
        for chunk in chunks:
            sock.sendall(chunk)
            if data.draw(st.booleans()):
                got += sock.recv(data.draw(st.integers(1, 3_000)))
        sock.shutdown(socket.SHUT_WR)
        assert got + read_to_end(sock) == wanted


@pytest.mark.parametrize("size", [0, 1, 100_000, 30_000_000])
def test_a_half_closed_client_gets_all_that_is_due_and_then_the_end(server, size):
    sent = random.Random(size).randbytes(size).replace(MAGIC[:1], b"x")
    with dial(server.port) as sock:
        # It reads late and slowly, so that most of it waits in the server for a while.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)

        def write() -> None:
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)

        writer = threading.Thread(target=write)
        writer.start()
        time.sleep(0.2)
        got = read_to_end(sock)
        writer.join()
    assert got == sent


def test_a_client_that_resets_leaves_nothing_behind(server):
    for _ in range(50):
        with dial(server.port) as sock:
            sock.sendall(b"hello")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    until(lambda: is_all_gone(server))
    descriptors = server.descriptors()
    assert descriptors < 30


@pytest.mark.slow
def test_clients_that_send_64_mib_and_never_read_cost_128_kib_each_and_harm_nobody():
    clients = 100
    with ServerProcess() as server, contextlib.ExitStack() as stack:
        with dial(server.port) as sock:
            echo(sock, b"warm" * 10_000)
        before = server.rss_bytes()
        left = {}
        for _ in range(clients):
            sock = stack.enter_context(dial(server.port))
            sock.setblocking(False)
            left[sock] = 64 * 1024 * 1024
        chunk = b"x" * 1_000_000
        with FramedClient(server.port) as good:
            good.greet()
            quiet_since = time.monotonic()
            while time.monotonic() - quiet_since < 1.0:
                writable = select.select([], list(left), [], 0.05)[1]
                for sock in writable:
                    with contextlib.suppress(BlockingIOError):
                        left[sock] -= sock.send(chunk)
                        quiet_since = time.monotonic()
                assert good.ask(b"still here?").payload == b"still here?"
            assert min(left.values()) > 0, "somebody's 64 MiB were taken whole"
            grown = server.rss_bytes() - before
            assert grown < clients * 128 * 1024 + 8_000_000
            assert server.metric("twocans_server_connections", kind="plain") == clients
            assert (
                server.metric("twocans_server_limit_hits_total", limit="max_buffered_bytes")
                >= clients
            )


# --- a framed session ---------------------------------------------------------------------


def is_rising(*stamps: int | None) -> bool:
    """Whether every stamp is there and none is before the one before it."""
    known = [stamp for stamp in stamps if stamp is not None]
    return len(known) == len(stamps) and known == sorted(known)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_session_has_kernel_stamps_and_they_are_in_order(server, host):
    with FramedClient(server.port, host) as client:
        welcome = client.greet()
        assert isinstance(welcome, Welcome)
        assert welcome.peer == client.sock.getsockname()[:2]
        replies = []
        for size in (0, 1, 1_000, 65_536, 10):
            payload = bytes(size)
            before_ns = time.time_ns()
            reply = client.ask(payload)
            after_ns = time.time_ns()
            assert reply.payload == payload
            assert is_rising(before_ns, reply.t2k, reply.t2u, reply.t3u, after_ns)
            replies.append(reply)
        follow_up, goodbye = client.leave()
        assert goodbye == Goodbye("done")
        assert isinstance(follow_up, FollowUp)
        assert client.sock.recv(1) == b"", "the server closes first"
    assert is_rising(welcome.t2k, welcome.t2u, welcome.t3u, replies[0].previous_t3k)
    sent_at = [*(reply.previous_t3k for reply in replies[1:]), follow_up.t3k]
    for reply, t3k in zip(replies, sent_at, strict=True):
        assert is_rising(reply.t2k, reply.t2u, reply.t3u, t3k)
    assert is_rising(6, follow_up.counters.data_segs_in)
    for reply in replies:
        assert is_rising(0, reply.stalled_ns, between(reply))


def between(reply: Reply) -> int:
    """Return how long the server took from its read to its reply."""
    assert reply.t2u is not None
    assert reply.t3u is not None
    return reply.t3u - reply.t2u


def test_a_greeting_that_waited_for_accept_says_for_how_long():
    with ServerProcess() as server:
        server.signal(signal.SIGSTOP)
        with FramedClient(server.port) as client:
            # The kernel alone completes the handshake and takes the HELLO in.
            client.sock.sendall(client.session.hello(Hello(CLIENT, 7)))
            time.sleep(0.2)
            server.signal(signal.SIGCONT)
            welcome = client.receive()
        assert isinstance(welcome, Welcome)
        assert is_rising(welcome.t2k, welcome.accepted, welcome.t2u, welcome.t3u)
        assert welcome.t2k is not None
        assert is_rising(welcome.t2k + 100_000_000, welcome.accepted)
        until(lambda: is_all_gone(server))
        assert server.metric("twocans_server_accept_delay_seconds_count") == 1
        assert server.metric("twocans_server_accept_delay_seconds_bucket", le="0.1") == 0


def test_a_greeting_that_came_after_accept_waited_for_nobody():
    with ServerProcess() as server, FramedClient(server.port) as client:
        until(lambda: server.metric("twocans_server_connections", kind="new") == 1)
        welcome = client.greet()
        assert isinstance(welcome, Welcome)
        assert is_rising(welcome.accepted, welcome.t2k)
        assert server.metric("twocans_server_accept_delay_seconds_count") == 1
        assert server.metric("twocans_server_accept_delay_seconds_sum") == 0


def answered_by_a_server_that(acts: Callable[[], None], monkeypatch) -> Reply:
    """Ask a server that does something between reading a request and replying to it."""
    counters = Channel.counters

    def and_then(channel: Channel) -> Counters:
        acts()
        return counters(channel)

    async def story() -> Reply:
        async with running() as server:

            def ask() -> Reply:
                with FramedClient(server.address.port) as client:
                    client.greet()
                    monkeypatch.setattr(Channel, "counters", and_then)
                    return client.ask()

            return await asyncio.to_thread(ask)

    return asyncio.run(story())


def test_time_in_which_the_servers_thread_slept_is_a_stall(monkeypatch):
    reply = answered_by_a_server_that(lambda: time.sleep(0.1), monkeypatch)
    assert is_rising(99_000_000, reply.stalled_ns, between(reply))


def test_time_in_which_the_servers_thread_worked_is_none(monkeypatch):
    def work() -> None:
        until_ns = time.thread_time_ns() + 100_000_000
        while time.thread_time_ns() < until_ns:
            pass

    reply = answered_by_a_server_that(work, monkeypatch)
    assert reply.stalled_ns is not None
    assert is_rising(99_000_000, between(reply) - reply.stalled_ns)


# --- what can be switched off -------------------------------------------------------------


def test_without_stamps_and_tcp_info_a_session_is_served_and_nothing_is_made_up():
    with ServerProcess("--stamps=no", wrapper=["env", "TWOCANS_TCP_INFO=no"]) as server:
        with FramedClient(server.port) as client:
            welcome = client.greet()
            replies = [client.ask(), client.ask()]
            follow_up, _ = client.leave()
        assert isinstance(welcome, Welcome)
        assert isinstance(follow_up, FollowUp)
        assert welcome.counters == follow_up.counters == NO_COUNTERS
        assert welcome.t2k is follow_up.t3k is None
        for reply in replies:
            assert reply.counters == NO_COUNTERS
            assert reply.t2k is reply.previous_t3k is None
            assert is_rising(reply.t2u, reply.t3u)
            assert reply.stalled_ns is not None
        assert is_rising(welcome.accepted, welcome.t2u, welcome.t3u)
        until(lambda: is_all_gone(server))
        for name in ("accept_delay", "wakeup", "send", "residence"):
            assert server.metric(f"twocans_server_{name}_seconds_count") == 0
        assert server.metric("twocans_server_application_seconds_count") == 2


@pytest.mark.parametrize("name", ["stamps", "tcp_info"])
def test_what_is_switched_off_takes_nothing_else_with_it(name):
    with ServerProcess(wrapper=["env", f"TWOCANS_{name.upper()}=no"]) as server:
        with FramedClient(server.port) as client:
            client.greet()
            reply = client.ask()
        assert (reply.t2k is None) is (name == "stamps")
        assert (reply.counters == NO_COUNTERS) is (name == "tcp_info")


def test_without_metrics_a_session_is_served_and_health_is_told():
    with ServerProcess(wrapper=["env", "TWOCANS_METRICS=no"]) as server:
        assert [server.get(path)[0] for path in ("/metrics", "/healthz", "/readyz")] == [
            404,
            200,
            200,
        ]
        with FramedClient(server.port) as client:
            welcome = client.greet()
            reply = client.ask()
            client.leave()
        assert isinstance(welcome, Welcome)
        assert is_rising(reply.t2k, reply.t2u, reply.t3u)
        assert reply.stalled_ns is not None
        server.signal()
        assert server.wait() == 0
        (stopped,) = server.events("stopped")
        assert (stopped["twocans.exchanges"], stopped["twocans.sessions.done"]) == (1, 1)


def test_the_server_closes_first_so_that_the_client_keeps_its_port(server):
    with FramedClient(server.port) as client:
        client.greet()
        client.leave()
        address, port = client.sock.getsockname()

    def is_free():
        # A port in TIME_WAIT cannot be bound without SO_REUSEADDR, for a minute.
        with socket.socket() as again, contextlib.suppress(OSError):
            again.bind((address, port))
            return True
        return False

    until(is_free)  # our own FIN may still be on its way


def test_what_is_counted_is_what_happened(server):
    durations = ("wakeup", "application", "application_stall", "send", "residence")

    def counts() -> list[float]:
        until(lambda: is_all_gone(server))
        return [
            server.metric("twocans_server_connections_ended_total", kind="framed", ending="done"),
            server.metric("twocans_server_exchanges_total"),
            *(server.metric(f"twocans_server_{name}_seconds_count") for name in durations),
        ]

    before = counts()
    for _ in range(5):
        with FramedClient(server.port) as client:
            client.greet()
            for _ in range(7):
                client.ask()
            client.leave()
    grown = [after - was for after, was in zip(counts(), before, strict=True)]
    assert grown == [5, 35, *[35] * len(durations)]


# --- hostile bytes ------------------------------------------------------------------------

TLS = bytes.fromhex("16030100c8010000c40303") + bytes(range(190))
HOSTILE = {
    "a TLS ClientHello": TLS,
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an SSH banner": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a PROXY header": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    "a PROXY v2 header": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12),
    "a Redis command": b"*1\r\n$4\r\nPING\r\n",
    "zeros": bytes(10_000),
}


@pytest.fixture
def undisturbed(server):
    """A good session, asked without a pause while the test goes on."""
    stop = threading.Event()
    problems: list[BaseException] = []
    asked = 0

    def ask() -> None:
        nonlocal asked
        try:
            with FramedClient(server.port) as client:
                client.greet()
                while not stop.is_set():
                    payload = asked.to_bytes(4)
                    assert client.ask(payload).payload == payload
                    asked += 1
                assert client.leave()[-1] == Goodbye("done")
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: asked or problems)
    yield
    before = asked
    until(lambda: asked > before or problems)
    stop.set()
    thread.join()
    assert not problems
    until(lambda: is_all_gone(server))


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("is_cut", [False, True], ids=["whole", "byte by byte"])
def test_another_protocol_gets_its_own_bytes_back(server, undisturbed, name, is_cut):
    data = HOSTILE[name][:300] if is_cut else HOSTILE[name]
    with dial(server.port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in [data[at : at + 1] for at in range(len(data))] if is_cut else [data]:
            sock.sendall(piece)
        assert read_exactly(sock, len(data)) == data


def test_random_bytes_behind_the_first_byte_of_a_frame_get_an_error_and_the_end(
    server, undisturbed
):
    chance = random.Random(20)
    for number in range(300):
        head = itertools.islice(itertools.chain(MAGIC, [1]), number % 4)
        data = bytes([MAGIC[0], *head]) + chance.randbytes(chance.randrange(2, 3_000))
        with dial(server.port) as sock, contextlib.suppress(ConnectionError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            answer = read_to_end(sock)
            assert answer[:4] == MAGIC + bytes((1, Kind.ERROR))
            assert len(answer) < 64


def test_a_flood_of_tiny_frames_is_answered_and_nobody_else_waits(server, undisturbed):
    with FramedClient(server.port) as client:
        client.greet()
        for _ in range(20):
            requests = []
            for _ in range(100):
                client.session.sequence += 1
                requests.append(
                    encode(Frame(Kind.REQUEST, client.session.sequence, Request.of(b"").encode()))
                )
            client.sock.sendall(b"".join(requests))
            replies = [client.receive() for _ in range(100)]
            assert all(isinstance(reply, Reply) and reply.payload == b"" for reply in replies)


def test_segments_of_one_byte_make_a_session_as_well(server, undisturbed):
    with FramedClient(server.port) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain_sendall = client.sock.sendall

        class OneByte:
            def sendall(self, data: bytes) -> None:
                for at in range(len(data)):
                    plain_sendall(data[at : at + 1])

            def recv(self, size: int) -> bytes:
                return real.recv(size)

        real, client.sock = client.sock, OneByte()  # type: ignore[assignment]
        try:
            assert isinstance(client.greet(), Welcome)
            assert client.ask(b"x" * 50).payload == b"x" * 50
            assert client.leave()[-1] == Goodbye("done")
        finally:
            client.sock = real


def test_a_frame_that_declares_4_gib_is_refused_within_a_round_trip(server, undisturbed):
    before = server.rss_bytes()
    for _ in range(200):
        with dial(server.port) as sock:
            sock.sendall(header(1, 0xFFFF_FFFF))
            assert read_to_end(sock)[-8:] == b"\x07too_big"
    assert server.rss_bytes() - before < 2_000_000


def test_a_refused_client_is_logged_once_in_a_while_and_not_each_time(server):
    reasons = [f"reason_{number}" for number in range(50)]
    for reason in reasons:
        with dial(server.port) as sock:
            sock.sendall(encode(Frame(Kind.ERROR, 0, Error(reason).encode())))
            sock.shutdown(socket.SHUT_WR)
            read_to_end(sock)
    errors = server.metric("twocans_server_protocol_errors_total", reason="from_client")
    assert errors == 50
    # Of the whole module's minute or so: one in 10 s.
    assert len(server.events("client_refused")) < 10
