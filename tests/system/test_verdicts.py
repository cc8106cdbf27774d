"""Faults made in containers: each is named in a real Prometheus, and the right alert says it.

Each has a pair of its own, and one Prometheus watches all of them.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from needs import lacking, need
from system.cans import PYTHON_IMAGE, Can, Site, eventually
from system.dashboards import ROOT
from system.prometheus import Prometheus, need_image

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

RULES = ROOT / "observability/prometheus/rules/twocans.yml"
# A hang, not a measure: on a machine with time it takes a few seconds.
NAMED_S = 60.0
# More than half of the last two minutes' probes fail, or the verdict stands: seconds, not the
# minutes after which an alert fires. It is pending from then on.
PENDING_S = 150.0
PAUSE_S = 5.0
LOSS = 0.08

# Accepts for a server that may not be there, as a load balancer does.
PROXY = """
import socket, threading
def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
listener = socket.create_server(("", 5000), backlog=100)
while True:
    client, _ = listener.accept()
    try:
        server = socket.create_connection(("backend", 5000), timeout=1)
    except OSError:
        client.close()
        continue
    server.settimeout(None)
    for ends in ((client, server), (server, client)):
        threading.Thread(target=pump, args=ends, daemon=True).start()
"""


class Named(NamedTuple):
    """A verdict as Prometheus has it."""

    verdict: str
    culprit: str
    direction: str = ""


PAUSED = Named("process_paused", "server_host")
KILLED = Named("refused_by_server", "server_app")
LOSSY = Named("loss", "path_forward", "forward")
DEAD = Named("backend_dead", "server_app")


class Scene(NamedTuple):
    """Pairs that are well, by what will befall them, and who watches them."""

    prometheus: Prometheus
    servers: dict[str, Can]
    clients: dict[str, Can]

    def verdicts(self, pair: str) -> set[Named]:
        """Return what stands now, by the client of a pair."""
        found = self.prometheus.ask(
            f'twocans_client_path_verdict{{instance="client-{pair}:5002"}} == 1'
        )
        labels = [series["metric"] for series in found]
        return {Named(one["verdict"], one["culprit"], one.get("direction", "")) for one in labels}

    def alerts(self, name: str) -> list[dict[str, Any]]:
        """Return the alerts of this name, pending or firing, with their annotations."""
        found: list[dict[str, Any]] = self.prometheus.get("alerts")["alerts"]
        return [one for one in found if one["labels"]["alertname"] == f"Twocans{name}"]


@pytest.fixture(scope="module")
def scene(
    images: dict[str, str], network: Network, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """Give the pairs when all of them are well."""
    need_image()
    with contextlib.ExitStack() as stack:
        site = Site(images, network, stack, [])
        # Its address stays when the process goes, as a node's does.
        holders = {"killed": site.holder("server-killed"), "dead": site.holder("backend")}
        # Each pair in a zone of its own: two that fail in one would be a pair of zones that does.
        servers = {
            pair: site.server(f"server-{pair}", holder=holders.get(pair), zone=pair)
            for pair in ("paused", "killed", "lossy", "dead")
        }
        proxy = DockerContainer(PYTHON_IMAGE, command=["python", "-c", PROXY])  # type: ignore[arg-type]
        stack.enter_context(proxy.with_network(network).with_network_aliases("proxy"))
        clients = {
            pair: site.client(
                f"client-{pair}",
                "proxy:5000" if pair == "dead" else f"server-{pair}:5000",
                zone=pair,
                interval_s="0.1",
                timeout_s="5",
                # Payloads of several segments, so that there is more to lose.
                payload_bytes="10000" if pair == "lossy" else "64",
                budget="2GB",
            )
            for pair in servers
        }
        targets = {
            "twocans-server": [f"server-{pair}:5001" for pair in ("paused", "lossy")],
            "twocans-client": [f"client-{pair}:5002" for pair in clients],
        }
        folder = tmp_path_factory.mktemp("prometheus")
        prometheus = stack.enter_context(Prometheus(network, folder, targets, [RULES]))
        good = 'count(rate(twocans_client_probes_total{outcome="ok"}[5s]) > 5) == 4'
        eventually(lambda: prometheus.ask(good), "all four paths are good")
        yield Scene(prometheus, servers, clients)


def named(scene: Scene, pair: str, wanted: Named) -> None:
    """Wait until Prometheus has this verdict, and see that nobody else is accused."""
    seen: list[set[Named]] = [set()]

    def stands() -> bool:
        if scene.verdicts(pair) != seen[-1]:
            seen.append(scene.verdicts(pair))
        return accused(seen[-1]) == {wanted}

    client = scene.clients[pair]
    try:
        eventually(stands, f"{wanted} stands alone", NAMED_S)
    except AssertionError as failure:
        failure.add_note(f"what stood, one after the other: {seen}")
        failure.add_note("\n".join(map(str, client.events("verdict_began"))))
        raise
    said = [line for line in client.events("verdict_began") if is_about(line, wanted)]
    assert said[-1]["twocans.verdict.proof"]


def accused(verdicts: set[Named]) -> set[Named]:
    """Return the verdicts but those that are true of this machine, if it has no time for us."""
    return {
        one for one in verdicts if one.culprit != "client_host" and one.verdict != "cpu_starved"
    }


def is_about(line: dict[str, Any], wanted: Named) -> bool:
    fields = ("name", "culprit", "direction")
    return tuple(line[f"twocans.verdict.{field}"] for field in fields) == wanted


def ended(scene: Scene, pair: str, wanted: Named) -> None:
    """Wait until a verdict has ended, and see that the log has it from beginning to end."""
    client = scene.clients[pair]

    def lines(event: str) -> int:
        return sum(is_about(line, wanted) for line in client.events(event))

    eventually(lambda: wanted not in scene.verdicts(pair), f"{wanted} has ended", 90)
    eventually(lambda: lines("verdict_ended"), "its end is logged")
    assert (lines("verdict_began"), lines("verdict_ended")) == (1, 1)


def fault_named(scene: Scene, wanted: Named, **labels: str) -> None:
    """Wait for the alert of a fault that has a name."""
    of_it = {"verdict": wanted.verdict, "culprit": wanted.culprit, **labels}
    eventually(
        lambda: [
            one for one in scene.alerts("FaultNamed") if of_it.items() <= one["labels"].items()
        ],
        f"TwocansFaultNamed of {wanted}",
        PENDING_S,
    )


def told_with(scene: Scene, alert: str, server: str, wanted: Named) -> None:
    """Wait for an alert of a server that has the verdict in its description."""
    (told,) = eventually(
        lambda: [one for one in scene.alerts(alert) if one["labels"].get("server") == server],
        f"Twocans{alert} of {server}",
        PENDING_S,
    )
    words = told["annotations"]["description"]
    assert f"Verdict: {wanted.verdict}, culprit {wanted.culprit}" in words


def test_while_all_is_well_there_is_no_verdict_and_no_alert(scene):
    time.sleep(3)
    said = set().union(*(scene.verdicts(pair) for pair in scene.clients))
    assert {one for one in said if one.verdict != "cpu_starved"} == set()
    assert [
        one for one in scene.alerts("FaultNamed") if "cpu" not in one["labels"]["verdict"]
    ] == []


def test_a_server_that_was_paused_is_named(scene):
    with scene.servers["paused"].paused():
        time.sleep(PAUSE_S)
    named(scene, "paused", PAUSED)
    fault_named(scene, PAUSED, scope="server", server="server-paused")
    ended(scene, "paused", PAUSED)


def test_a_server_that_was_killed_is_named(scene):
    assert scene.servers["killed"].end("SIGKILL") == 137
    named(scene, "killed", KILLED)
    told_with(scene, "ServerDown", "server-killed", KILLED)


def test_segments_that_are_lost_on_their_way_to_the_server_are_named(scene):
    with losing(scene.servers["lossy"], LOSS):
        named(scene, "lossy", LOSSY)
        fault_named(scene, LOSSY, scope="zones", direction="forward")


def test_a_back_end_that_is_dead_behind_a_proxy_is_named(scene):
    assert scene.servers["dead"].end("SIGKILL") == 137
    named(scene, "dead", DEAD)
    told_with(scene, "ServerDown", "server-dead", DEAD)


@contextlib.contextmanager
def losing(can: Can, share: float) -> Iterator[None]:
    """Lose a share of the segments that come to a container, before its TCP sees them."""
    inspect = ["docker", "inspect", "--format", "{{.State.Pid}}", can.get_container_id()]
    pid = subprocess.check_output(inspect, text=True).strip()
    rule = ["INPUT", "-p", "tcp", "--dport", "5000", "-m", "statistic", "--mode", "random"]
    rule += ["--probability", str(share), "-j", "DROP"]
    inside = [need("nsenter"), "--target", pid, "--net", need("iptables")]
    if os.geteuid() != 0:
        lacking("only root may enter a container's network namespace")
    subprocess.run([*inside, "-A", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run([*inside, "-D", *rule], check=False)
