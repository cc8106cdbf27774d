"""Where the time goes between two containers, and that a paused server is no slow network."""

import time

import pytest

from system.cans import eventually
from twocans_client.evidence.split import PARTS

pytestmark = pytest.mark.docker

PAUSE_S = 1.5
PART = "twocans_client_exchange_part_seconds"
PHASE = "twocans_client_phase_duration_seconds"


@pytest.fixture
def server(site):
    return site.server("split")


@pytest.fixture
def client(site, server):
    """Give a client that probes ten times a second and never loses its patience."""
    server.last("listening")
    client = site.client(
        "splitter", "split:5000", interval_s="0.1", timeout_s="10", held_interval_s="0.1"
    )
    client.last("path_ok")
    return client


def sums(client):
    """Return how long each part took, all exchanges together, and how many there were."""
    metrics = client.metrics()
    parts = {part: metrics.sum(f"{PART}_sum", part=part) for part in PARTS}
    accept_s = metrics.sum(f"{PART}_sum", part="accept")
    return parts, accept_s, metrics.sum(f"{PART}_count", part="network")


def test_the_parts_add_up_to_the_exchange_across_a_docker_network(client):
    eventually(lambda: sums(client)[2] >= 40, "exchanges are split")
    metrics = client.metrics()
    assert metrics.values("twocans_client_exchange_splits_total", "result") == {"split"}
    parts, _, count = sums(client)
    assert min(parts.values()) >= 0
    assert count >= 40
    # Held exchanges have parts as well, but are no phase: so of phases alone the sum is known.
    whole = metrics.sum(f"{PHASE}_sum", phase="exchange")
    shares = sum(
        metrics.sum(f"{PHASE}_sum", phase=each) for each in ("client", "network", "server")
    )
    assert shares == pytest.approx(whole, rel=0.02)
    # All segments of both ends are accounted for, and none is missing.
    for direction in ("forward", "reverse"):
        assert (
            metrics.sum("twocans_client_path_segments_total", direction=direction, fate="sent") > 40
        )
        assert (
            metrics.sum("twocans_client_path_segments_total", direction=direction, fate="lost") == 0
        )
    assert metrics.sum("twocans_client_path_held") == 1
    assert metrics.sum("twocans_client_proxied_paths") == 0


def test_a_paused_server_is_the_servers_time_and_not_the_networks(server, client):
    eventually(lambda: sums(client)[2] >= 10, "exchanges are split")
    before, accept_before_s, count = sums(client)
    with server.paused():
        time.sleep(PAUSE_S)
    eventually(lambda: sums(client)[2] >= count + 40, "exchanges are split again")
    after, accept_after_s, _ = sums(client)
    grown = {part: after[part] - before[part] for part in PARTS}
    host_s = sum(grown[part] for part in ("server_wakeup", "server_stall", "server_send"))
    host_s += accept_after_s - accept_before_s
    assert host_s > PAUSE_S, grown
    # Everything else together is less than what a single exchange waited for.
    assert grown["network"] + grown["server_app"] < PAUSE_S / 2, grown
    metrics = client.metrics()
    assert metrics.sum("twocans_client_probes_total", outcome="fail") == 0
    # The server knows it, too.
    stalls = server.metrics()
    assert stalls.sum("twocans_server_stalls_total", cause="stopped") >= 1
    assert stalls.sum("twocans_server_stall_seconds_total", cause="stopped") > PAUSE_S / 2
