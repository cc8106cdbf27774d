"""The server under a real memory limit: it sheds before the kernel kills."""

import contextlib
import socket
import struct

import pytest

from integration.harness import FramedClient, ServerProcess, dial, until
from integration.memory_cgroup import memory_cgroup
from server.scripted import HELLO, request
from twocans_core.protocol.messages import Welcome
from twocans_server.limits import CONNECTION_BYTES, RESERVED_BYTES

MIB = 1024 * 1024
LIMIT = 64 * MIB
UNFINISHED = HELLO + request(1, bytes(65_536))[:-1]


def stranger(port: int, number: int) -> socket.socket:
    """Greet, and send a request of 64 KiB but for its last byte."""
    sock = dial(port, source=f"127.0.1.{1 + number // 100}")
    # What is reset at the end leaves no port behind in TIME_WAIT.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        sock.sendall(UNFINISHED)
    return sock


@pytest.mark.slow
def test_under_a_memory_limit_connections_are_shed_before_the_kernel_kills():
    with (
        memory_cgroup(LIMIT) as cgroup,
        ServerProcess("--frame-s=300", wrapper=cgroup.wrapper) as server,
        contextlib.ExitStack() as stack,
    ):
        fitting = (LIMIT - RESERVED_BYTES) // CONNECTION_BYTES
        assert server.events("listening")[0]["twocans.max_connections"] == fitting
        honest = stack.enter_context(FramedClient(server.port))
        assert isinstance(honest.greet(), Welcome)
        # Of frames that are not whole alone 94 MiB.
        for number in range(1_500):
            stack.enter_context(stranger(server.port, number))
        until(lambda: server.metric("twocans_server_connections_accepted_total") == 1_501)
        assert honest.ask().payload == b"payload", "who holds nothing stays"
        assert server.get("/readyz")[0] == 200
        assert cgroup.kills() == 0
        assert server.process.poll() is None
        reached = [line["twocans.limit"] for line in server.events("limit_reached")]
        assert reached.count("memory") == 1
        held = server.metric("twocans_server_connections", kind="framed")
        assert held > 50, "no more are shed than there is need for"  # of what fits, some 500
        print(f"\n{held:.0f} of 1,500 stay")
