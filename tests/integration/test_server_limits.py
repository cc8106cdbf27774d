import contextlib
import resource
import time

import pytest

from integration.harness import FramedClient, ServerProcess, dial, echo, limited, read_to_end, until
from twocans_core.protocol.messages import Busy, Welcome


def ended(server: ServerProcess, kind: str) -> float:
    return server.metric("twocans_server_connections_ended_total", kind=kind, ending="busy")


def test_over_the_cap_a_framed_client_is_told_and_a_plain_one_is_closed_and_both_are_counted():
    with (
        ServerProcess("--max-connections", "10") as server,
        contextlib.ExitStack() as stack,
    ):
        served = [stack.enter_context(dial(server.port)) for _ in range(10)]
        assert all(echo(sock, b"x") == b"x" for sock in served)
        for _ in range(5):
            with FramedClient(server.port) as client:
                assert client.greet() == Busy("connections")
                assert client.sock.recv(1) == b""
            with dial(server.port) as sock:
                sock.sendall(b"hello")
                with contextlib.suppress(ConnectionError):
                    assert read_to_end(sock) == b""
        assert all(echo(sock, b"y") == b"y" for sock in served), "those who are in stay in"
        until(lambda: ended(server, "framed") == ended(server, "plain") == 5)
        hits = server.metric("twocans_server_limit_hits_total", limit="max_connections")
        assert hits == 10
        served.pop().close()
        until(lambda: server.metric("twocans_server_connections", kind="plain") == 9)
        with FramedClient(server.port) as client:
            assert isinstance(client.greet(), Welcome)
        assert len(server.events("limit_reached")) == 1


@pytest.mark.slow
def test_the_cap_comes_before_the_descriptors_run_out():
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ServerProcess(wrapper=limited(356, 356)))
        assert server.events("listening")[0]["twocans.max_connections"] == 100
        for _ in range(600):
            stack.enter_context(dial(server.port))
        until(lambda: server.metric("twocans_server_connections_accepted_total") == 600)
        assert server.get("/healthz")[0] == 200
        assert server.metric("twocans_server_accept_errors_total") == 0
        assert not server.events("accept_failed")


@pytest.mark.slow
def test_without_descriptors_the_server_is_quiet_and_serves_again_when_they_are_back():
    with ServerProcess() as server, contextlib.ExitStack() as stack:
        with dial(server.port) as sock:
            echo(sock, b"x")
        until(lambda: not server.metric("twocans_server_connections", kind="plain"))
        _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        most = server.descriptors() + 5
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (most, hard))
        held = [stack.enter_context(dial(server.port)) for _ in range(200)]
        until(lambda: server.events("accept_failed"))
        cpu_s, started = server.cpu_s(), time.monotonic()
        while time.monotonic() - started < 2:
            stack.enter_context(dial(server.port))  # each is one more event
            time.sleep(0.02)
        used = (server.cpu_s() - cpu_s) / (time.monotonic() - started)
        assert used < 0.2
        assert echo(held[0], b"x") == b"x", "those who are in are served"
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (10_000, hard))
        reverse = time.monotonic()
        assert echo(held[-1], b"x") == b"x"
        assert time.monotonic() - reverse < 1
        assert len(server.events("accept_failed")) == 1
        assert server.metric("twocans_server_accept_errors_total") < 60
        print(f"\nEMFILE: {used:.1%} CPU, {len(server.events('accept_failed'))} line")
