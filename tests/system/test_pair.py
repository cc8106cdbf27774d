"""A client and a server, the real images on one network, and nothing wrong with it."""

import functools

import pytest

from system.cans import eventually

pytestmark = pytest.mark.docker

# The client of every tutorial, as it is written there.
TUTORIAL = """
import socket
client = socket.socket()
client.connect(("server", 5000))
client.send("Hello, server!".encode())
print(client.recv(1024))
client.close()
"""


def test_the_path_is_measured_by_kernel_clocks_at_both_ends(pair):
    phases = "twocans_client_phase_duration_seconds_count"
    measured = eventually(
        lambda: (
            (
                metrics := pair.client.metrics(),
                metrics.sum(phases, phase="network", clock="kernel"),
            )[1]
            and metrics
        ),
        "the client has exchanges that were stamped by the kernels of both ends",
    )
    for phase in ("network", "server", "client", "handshake"):
        assert measured.sum(phases, phase=phase, clock="kernel") > 0, phase
        assert measured.sum(phases, phase=phase, clock="user") == 0, phase
    server = pair.server.metrics()
    assert server.sum("twocans_server_wakeup_seconds_count") > 0
    assert server.sum("twocans_server_residence_seconds_count") > 0


def test_every_exchange_is_stamped_and_adds_up(pair):
    def counts(metrics):
        name = "twocans_client_phase_duration_seconds_count"
        return [metrics.sum(name, phase=phase) for phase in ("exchange", "network", "server")]

    exchanges, network, server = eventually(
        lambda: (found := counts(pair.client.metrics()))[0] >= 30 and found,
        "the client has made ten probes",
    )
    assert exchanges == network == server


def test_send_prints_the_echo_and_nothing_else_on_stdout(pair, site, images):
    code, stdout, stderr = site.run(images["client"], "send", "server:5000", "Hello, server!")
    assert (code, stdout) == (0, "Hello, server!\n")
    assert "network" in stderr


def test_probe_says_that_the_path_is_good(pair, site, images):
    code, stdout, stderr = site.run(images["client"], "probe", "server:5000", "--count", "3")
    assert code == 0, stdout + stderr


def test_the_tutorials_client_gets_its_bytes_back(pair, site):
    assert site.python(TUTORIAL) == "b'Hello, server!'\n"


def test_both_ends_count_the_same(site):
    server = site.server("counted")
    # One exchange a probe, and one connection each.
    client = site.client(
        "counting", "counted:5000", held="no", sized_interval_s="0", idle_connections="0"
    )
    eventually(
        lambda: client.metrics().sum("twocans_client_probes_total", outcome="ok") >= 5,
        "five probes are good",
    )
    assert client.end() == 0
    told = client.last("stopped")
    scraped = server.metrics()
    assert server.end() == 0

    probes = {
        key: told[f"twocans.probes.{key}"] for key in ("scheduled", "ok", "fail", "void", "missed")
    }
    assert probes["scheduled"] == sum(probes.values()) - probes["scheduled"]
    assert probes["fail"] == 0
    # On a busy machine the client asks why the server was slow, over one connection each.
    connections = probes["ok"] + scraped.sum("twocans_server_testimonies_total")
    assert server.last("stopped")["twocans.sessions.done"] == connections
    assert server.last("stopped")["twocans.exchanges"] == probes["ok"]
    endings = "twocans_server_connections_ended_total"
    assert scraped.sum(endings, kind="framed", ending="done") == connections
    assert scraped.sum("twocans_server_exchanges_total") == probes["ok"]


def has_good_probes(client):
    """Whether it has three, on whatever paths."""
    return client.metrics().sum("twocans_client_probes_total", outcome="ok") >= 3


def test_two_clients_share_one_server(site):
    server = site.server("shared", zone="a")
    # A held connection is a session, too, and so is an idle one.
    none = {"held": "no", "idle_connections": "0"}
    clients = [site.client(f"client-{zone}", "shared:5000", zone=zone, **none) for zone in "ab"]
    for client in clients:
        eventually(
            functools.partial(has_good_probes, client), f"{client.name} has three good probes"
        )
        assert client.metrics().values("twocans_client_path_info", "server") == {"shared"}
        assert client.end() == 0
    told = [client.last("stopped") for client in clients]
    assert [line["twocans.probes.fail"] for line in told] == [0, 0]
    scraped = server.metrics()
    done = scraped.sum("twocans_server_connections_ended_total", kind="framed", ending="done")
    # On a busy machine the clients ask why the server was slow, over one connection each.
    asked = scraped.sum("twocans_server_testimonies_total")
    assert done == sum(line["twocans.probes.ok"] for line in told) + asked


def test_a_client_that_starts_first_finds_its_server_later(site):
    client = site.client("early", "late:5000")
    eventually(
        lambda: client.metrics().sum("twocans_client_probe_reasons_total", reason="dns_failure"),
        "a probe fails because there is no such name",
    )
    assert client.last("path_failing")["error.type"] == "dns_failure"
    site.server("late")
    # Just before, it may have been refused: a container has a name before its process listens.
    assert client.last("path_ok")["twocans.server.name"] == "late"


def test_the_addresses_of_a_name_are_paths_that_come_and_go(site):
    stays = site.server("stays", alias="many")
    leaves = site.server("leaves", alias="many")
    client = site.client("watcher", "dns:many:5000")

    def servers():
        return client.metrics().values("twocans_client_path_info", "server")

    eventually(lambda: servers() == {"stays", "leaves"}, "both addresses are probed")
    leaves.end()
    eventually(lambda: servers() == {"stays"}, "the path to the server that left is gone")
    before = client.metrics().sum("twocans_client_probes_total", outcome="ok", server="stays")
    eventually(
        lambda: (
            client.metrics().sum("twocans_client_probes_total", outcome="ok", server="stays")
            >= before + 3
        ),
        "the other path is probed on",
    )
    assert client.metrics().values("twocans_client_probes_scheduled_total", "server") == {"stays"}
    assert client.metrics().sum("twocans_client_probes_total", outcome="fail") == 0
    assert client.last("path_removed")["twocans.target"] == "dns:many:5000"
    assert client.end() == 0
    assert client.last("stopped")["twocans.probes.fail"] == 0
    assert stays.end() == 0
