"""Every can of a small mesh is replaced in turn, as Kubernetes does it, and nobody is blamed."""

import functools

import pytest

from system.cans import eventually

pytestmark = [pytest.mark.docker, pytest.mark.slow]

NODES = ("node-a", "node-b", "node-c")
SCRAPE_S = 1.0
SETTINGS = {"interval_s": "0.1", "explore_per_s": "10", "resolve_interval_s": "0.5"}


class Mesh:
    """Three servers behind one name, and three clients that probe all of them ten times a second.

    Args:
        site: Where to.
    """

    def __init__(self, site):
        self._site = site
        self._probes = {"ok": 0, "fail": 0, "void": 0, "missed": 0}
        self.servers = {node: self._start_server(node) for node in NODES}
        self.clients = {node: self._start_client(node) for node in NODES}

    def _start_server(self, node):
        return self._site.server(node, alias="servers", node=node, drain_accept_s="1")

    def _start_client(self, node):
        # On nodes of their own: all three servers are another node's.
        return self._site.client(f"client-{node}", "dns:servers:5000", **SETTINGS)

    def is_whole(self):
        """Whether every client has good probes of every server."""
        return all(
            client.metrics().values("twocans_client_last_success_timestamp_seconds", "server")
            == set(NODES)
            for client in self.clients.values()
        )

    def replace_server(self, node):
        """Stop it as a pod is stopped, see its series go, and start another in its place."""
        server = self.servers[node]
        server.get_wrapped_container().kill("SIGTERM")
        for client in self.clients.values():
            eventually(
                functools.partial(self.has_dropped, client, node),
                f"the series of {node} are gone from {client.name}",
                2 * SCRAPE_S + 1,  # the second until every probe had its turn to hear of it
            )
        assert server.get_wrapped_container().wait(timeout=30)["StatusCode"] == 0
        assert server.last("stopped")["twocans.connections.cut_off"] == 0
        server.stop()
        self.servers[node] = self._start_server(node)
        eventually(self.is_whole, f"every client probes the new {node}")

    def replace_client(self, node):
        """Stop it, keep its books, and start another in its place."""
        client = self.clients[node]
        assert client.end() == 0
        self.count(client)
        client.stop()
        self.clients[node] = self._start_client(node)
        eventually(self.is_whole, f"the new client of {node} probes every server")

    @staticmethod
    def has_dropped(client, server):
        """Whether a client exports no series of a server."""
        samples = client.metrics().samples
        return all(sample.labels.get("server") != server for sample in samples)

    def count(self, client):
        """Add what a client that has stopped says that it did."""
        last = client.last("stopped")
        told = {key: last[f"twocans.probes.{key}"] for key in self._probes}
        assert last["twocans.probes.scheduled"] == sum(told.values())
        for key in self._probes:
            self._probes[key] += told[key]

    def totals(self):
        """Stop the clients; returns what all clients that ever were did together."""
        for client in self.clients.values():
            assert client.end() == 0
            self.count(client)
        return self._probes


@pytest.fixture
def mesh(site):
    mesh = Mesh(site)
    eventually(mesh.is_whole, "every client probes every server")
    return mesh


def test_replacing_every_server_and_every_client_in_turn_fails_no_probe(mesh, record_property):
    for node in NODES:
        mesh.replace_server(node)
    for node in NODES:
        mesh.replace_client(node)
    failing = [line for client in mesh.clients.values() for line in client.events("path_failing")]
    totals = mesh.totals()
    print("rolling restart:", totals)
    record_property("probes", totals)
    assert (totals["fail"], failing) == (0, [])
    assert totals["ok"] > 500


def test_a_server_that_is_killed_instead_does_fail_probes(mesh):
    """The proof that the test above can fail."""
    server = mesh.servers["node-b"]
    server.end("SIGKILL")
    clients = mesh.clients.values()
    eventually(lambda: any(client.events("path_failing") for client in clients), "it shows")
    assert mesh.totals()["fail"] > 0
