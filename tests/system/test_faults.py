"""What the client says when something happens to the server, and when it is over."""

import time

import pytest

from system.cans import eventually, moment

pytestmark = pytest.mark.docker

INTERVAL_S = 1.0

# What a program that hangs behind a kernel that answers looks like.
HANGING = {"greeting_timeout", "reply_timeout", "close_timeout"}
# What a program that is gone looks like, on a host that is still there to say so.
DOWN = {"refused", "reset", "closed_early"}
# What a host that is gone looks like: silence, and after three seconds of asking for its
# hardware address, the kernel's word that it is not there.
SILENT = {"connect_timeout", "unreachable"}

HOSTILE = """
import random, socket, struct, time, zlib
rng = random.Random(1)
hello = b"\\xfc\\x2c\\x01\\x01"
def frame(kind, length, body=b"", version=1, sequence=0, flip=0):
    crc = zlib.crc32(body[:88] if kind == 3 else body)
    head = struct.pack("!2sBBIII", b"\\xfc\\x2c", version, kind, length, sequence, crc)
    return head + struct.pack("!I", zlib.crc32(head) ^ flip) + body
payloads = [
    b"\\xfc", b"\\xfc\\x2d", hello, frame(1, 0xFFFFFFFF), frame(1, 1025, bytes(1025)),
    frame(1, 64, bytes(64)), frame(1, 80, b"\\xff" * 80), frame(3, 88, bytes(88), sequence=1),
    frame(6, 5, b"\\x04done"), frame(200, 0), frame(8, 3, b"\\x01\\x01\\x00"),
    frame(1, 0, version=255), frame(1, 32, bytes(32), flip=1),
    b"GET / HTTP/1.1\\r\\nHost: server\\r\\n\\r\\n",
    b"\\x16\\x03\\x01\\x02\\x00\\x01\\x00\\x01\\xfc\\x03\\x03" + rng.randbytes(500),
    *(b"\\xfc\\x2c\\x01" + rng.randbytes(rng.randrange(1, 2000)) for _ in range(50)),
    *(rng.randbytes(rng.randrange(1, 5000)) for _ in range(50)),
]
held = []
for number, payload in enumerate(payloads * 3):
    client = socket.create_connection(("server", 5000), timeout=10)
    try:
        client.sendall(payload)
        if number % 4 == 0:  # a reset in the middle
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        elif number % 4 == 1:  # stays, and never reads
            held.append(client)
        else:
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
            client.close()
    except OSError:
        client.close()
print(len(held))
"""


@pytest.fixture
def holder(site):
    """Give an address that stays when the server at it goes."""
    return site.holder("held")


@pytest.fixture
def server(site, holder):
    """Give a server at that address, that stays long enough to tell every client when it stops."""
    return site.server("fragile", holder=holder, drain_accept_s=str(1.5 * INTERVAL_S))


@pytest.fixture
def client(site, server):
    """Give a client of it whose path is good."""
    server.last("listening")
    client = site.client("judge", "held:5000", interval_s=str(INTERVAL_S))
    client.last("path_ok")
    return client


def reasons(client):
    return client.metrics().values("twocans_client_probe_reasons_total", "reason")


def probes(client, outcome):
    return client.metrics().sum("twocans_client_probes_total", outcome=outcome)


def assert_it_recovers(client, since):
    """Two intervals after the server is back, the path is good."""
    ok = eventually(
        lambda: [line for line in client.events("path_ok") if moment(line) >= since],
        "the path is good again",
    )
    assert moment(ok[0]) <= since + 2 * INTERVAL_S


def test_a_server_that_is_killed_refuses_until_it_is_back(server, client):
    assert server.end("SIGKILL") == 137
    line = client.last("path_failing")
    assert line["twocans.path.before"] == "ok"
    eventually(lambda: "refused" in reasons(client), "a probe is refused")
    assert reasons(client) <= DOWN
    assert probes(client, "void") == 0

    listening = len(server.events("listening"))
    server.start_again()
    eventually(lambda: len(server.events("listening")) > listening, "the server is back")
    assert_it_recovers(client, moment(server.last("listening")))


def test_a_host_that_is_gone_is_told_from_a_server_that_is_down(site):
    server = site.server("host")
    client = site.client("judge", "host:5000")
    client.last("path_ok")
    server.end("SIGKILL")
    client.last("path_failing")
    eventually(lambda: reasons(client) & SILENT, "silence is seen")
    # The process dies a moment before its address does, and a probe may be under way.
    assert reasons(client) <= SILENT | DOWN | HANGING
    assert probes(client, "void") == 0

    since = time.time()
    server.start_again()
    eventually(
        lambda: [line for line in client.events("path_ok") if moment(line) >= since],
        "the path is good again, at whatever address the name has now",
    )


def test_a_server_that_hangs_is_told_from_one_that_is_down(server, client):
    with server.paused():
        client.last("path_failing")
        eventually(lambda: "greeting_timeout" in reasons(client), "a greeting times out")
        assert reasons(client) <= HANGING
        since = time.time()
    assert_it_recovers(client, since)
    assert reasons(client) <= HANGING
    assert probes(client, "void") == 0


def test_a_server_that_restarts_fails_nothing(server, client):
    container = server.get_wrapped_container()
    assert server.end("SIGTERM") == 0
    eventually(lambda: probes(client, "void") >= 2, "probes find nobody, and are excused")
    assert client.last("path_draining")["twocans.path.before"] == "ok"
    assert reasons(client) == {"draining"}

    container.start()
    eventually(lambda: len(server.events("listening")) == 2, "the server is back")
    assert_it_recovers(client, moment(server.last("listening")))
    assert probes(client, "fail") == 0
    assert server.events("stopped")[0]["twocans.connections.cut_off"] == 0


def test_hostile_bytes_disturb_no_probe(pair, site):
    def scrape(outcome):
        return probes(pair.client, outcome)

    eventually(lambda: scrape("ok"), "the path is good")
    good, bad = scrape("ok"), scrape("fail") + scrape("void")
    accepted = pair.server.metrics().sum("twocans_server_connections_accepted_total")
    assert int(site.python(HOSTILE)) > 50
    after = pair.server.metrics()
    assert after.sum("twocans_server_connections_accepted_total") >= accepted + 300
    assert after.sum("twocans_server_protocol_errors_total") > 15
    assert after.sum("twocans_server_damaged_frames_total") > 80
    assert after.sum("twocans_server_connections_ended_total", ending="bug") == 0
    eventually(lambda: scrape("ok") >= good + 5, "probes go on")
    assert scrape("fail") + scrape("void") == bad
    assert pair.server.events("bug") == []
