"""``docker compose up``: what is on the machine a minute later, and after ``down``."""

import contextlib
import functools
import json
import os
import re
import subprocess
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from needs import lacking
from system.cans import eventually
from system.dashboards import FILES, choose, load, queries
from system.prometheus import has_image, need_image

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
GRAFANA_IMAGE = os.environ.get("GRAFANA_IMAGE", "grafana/grafana:12.1.1")
NOT_OURS = ("PROMETHEUS", "GRAFANA")
UP_WITHIN_S = 60.0

# Panels without data as long as all is well, by dashboard. In test_dashboards_live.py all have.
EMPTY_IN_HEALTH = {
    "paths": {
        "Which alerts are there?",
        "Which faults have a name now?",
        "Which servers are not probed?",
        # Empty where this host stalls: its client is left out.
        "How far is it from zone to zone?",
    },
    "path": {
        "Why were probes not good?",
        "Which of its limits were reached?",
        "How did held connections end?",
        "Which faults have a name?",
        # Losses are counted, so nobody needs that.
        "Which end retransmits segments?",
    },
    "processes": {
        "Why are probes void?",
        "Which hosts do not run a process in time?",
        "Which limits are reached?",
        "Which connections break the protocol?",
        # The only target is a host, and not all addresses of a name.
        "How many addresses does discovery give?",
    },
}

# Peers of the measured port, from the kernel's own table. IPv4 addresses, as the port is IPv6's
# and takes both, are the last four bytes, in the machine's order.
PEERS = """
import socket
for line in open("/proc/net/tcp6").readlines()[1:]:
    local, remote = line.split()[1:3]
    if local.endswith(":1388") and not remote.endswith(":0000"):
        print(socket.inet_ntoa(bytes.fromhex(remote[24:32])[::-1]))
"""


class Stack:
    """The compose file as a project of a name and ports of its own."""

    def __init__(self, tag: str) -> None:
        self.project = f"twocans-test-{uuid.uuid4().hex[:12]}"
        self.with_grafana = has_image(GRAFANA_IMAGE)
        self.begun = time.monotonic()
        self.engine = docker.from_env()
        ports = ("SERVER", "SERVER_METRICS", "CLIENT_METRICS", "PROMETHEUS", "GRAFANA")
        # Port 0: the engine chooses. A COMPOSE_FILE of the user's would replace ours.
        self._environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("COMPOSE_")},
            **{f"{name}_PORT": "0" for name in ports},
            "TWOCANS_TAG": tag,
        }

    def compose(self, *arguments: str) -> str:
        """Run ``docker compose`` with every service."""
        return self.run("--profile", "dashboards", *arguments).stdout

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run ``docker compose``, which must succeed."""
        done = subprocess.run(
            ["docker", "compose", "--project-name", self.project, *arguments],
            cwd=ROOT,
            env={**self._environ, **environ},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"docker compose {arguments}: {done.stderr}"
        return done

    def up(self, *arguments: str) -> None:
        """Start it. The images are built by ``make images`` and by nobody else."""
        self.begun = time.monotonic()
        # As who has no Grafana is told to.
        which = () if self.with_grafana else ("prometheus", "client")
        self.compose("up", "--detach", "--no-build", "--quiet-pull", *arguments, *which)

    def down(self) -> None:
        """End it and remove all that it made."""
        self.compose("down", "--volumes")

    def config(self) -> dict[str, Any]:
        """Return the services as compose understands them, Grafana too."""
        text = self.compose("config", "--format", "json")
        services: dict[str, Any] = json.loads(text)["services"]
        return services

    def containers(self) -> dict[str, Any]:
        """Return the containers by service."""
        found = self.engine.containers.list(all=True, filters={"label": self.label})
        return {container.labels["com.docker.compose.service"]: container for container in found}

    @property
    def label(self) -> str:
        """What all that is of this project is labelled with."""
        return f"com.docker.compose.project={self.project}"

    def address(self, service: str, network: str) -> str:
        """Return a container's address on one of the networks."""
        networks = self.containers()[service].attrs["NetworkSettings"]["Networks"]
        return str(networks[f"{self.project}_{network}"]["IPAddress"])

    def get(self, service: str, port: int, path: str) -> Any:
        """Ask a service over HTTP, through its published port; returns the parsed JSON."""
        where = self.compose("port", service, str(port)).strip()
        with urllib.request.urlopen(f"http://{where}{path}", timeout=10) as response:
            return json.load(response)

    def ask(self, promql: str) -> list[dict[str, Any]]:
        """Ask Prometheus; returns the series."""
        query = urllib.parse.urlencode({"query": promql})
        result: list[dict[str, Any]] = self.get("prometheus", 9090, f"/api/v1/query?{query}")[
            "data"
        ]["result"]
        return result

    def label_values(self, series: str, label: str) -> list[str]:
        """Ask Prometheus which values a label has on series."""
        match = urllib.parse.urlencode({"match[]": series})
        path = f"/api/v1/label/{label}/values?{match}"
        values: list[str] = self.get("prometheus", 9090, path)["data"]
        return values

    def logs(self) -> str:
        """Return the end of what every service said."""
        return self.compose("logs", "--no-color", "--tail", "20")


@contextlib.contextmanager
def running(tag: str) -> Iterator[Stack]:
    """Have the stack up; what fails shows the logs, and nothing is left behind."""
    stack = Stack(tag)
    try:
        try:
            stack.up()
            yield stack
        except BaseException as error:
            with contextlib.suppress(AssertionError):
                error.add_note(stack.logs())
            raise
    finally:
        stack.down()
        stack.engine.close()


@pytest.fixture(scope="session")
def tag(images: dict[str, str]) -> str:
    """Give the images' tag, once compose and Prometheus are known to be there."""
    compose = ["docker", "compose", "version"]
    if subprocess.run(compose, capture_output=True, check=False).returncode:
        lacking("docker compose (v2) is missing")
    need_image()
    return images["server"].partition(":")[2]


@pytest.fixture(scope="module")
def stack(tag: str) -> Iterator[Stack]:
    """Give the stack, just started."""
    with running(tag) as stack:
        yield stack


@pytest.fixture(scope="module")
def measured(stack: Stack) -> Stack:
    """Give the stack once Prometheus knows how fast everything rises, also by its slow rules."""
    eventually(
        lambda: stack.ask("rate(twocans_server_exchanges_total[20s]) > 0"),
        f"Prometheus has a rate of the exchanges\n{stack.logs()}",
        UP_WITHIN_S,
    )
    # The group twocans-segments is evaluated once a minute, at first perhaps before there are two
    # scrapes to see a rise between.
    eventually(
        lambda: stack.ask("node_pair:twocans_segments_sent:increase10m"),
        "the rules of each minute have found what was sent",
        2 * UP_WITHIN_S,
    )
    return stack


def test_within_a_minute_both_cans_are_scraped_and_good_probes_rise(stack):
    def left_s():
        return max(0.0, stack.begun + UP_WITHIN_S - time.monotonic())

    up = 'sum(up{job=~"twocans-(server|client)"}) == 2'
    eventually(lambda: stack.ask(up), "both targets are up", left_s())
    good = 'rate(twocans_client_probes_total{outcome="ok"}[20s]) > 0'
    eventually(lambda: stack.ask(good), "good probes rise", left_s())
    assert stack.ask('twocans_client_probes_total{outcome="fail"} > 0') == []


def test_every_container_becomes_healthy(stack):
    def unhealthy() -> dict[str, str]:
        return {
            service: container.attrs["State"]["Health"]["Status"]
            for service, container in stack.containers().items()
            if container.attrs["State"]["Health"]["Status"] != "healthy"
        }

    eventually(lambda: not unhealthy(), "every container is healthy", UP_WITHIN_S)
    expected = {"server", "client", "prometheus"} | ({"grafana"} if stack.with_grafana else set())
    assert stack.containers().keys() == expected


def test_the_measured_connections_are_on_the_network_path_and_no_other(measured):
    server, client = (measured.address(service, "path") for service in ("server", "client"))
    containers = measured.containers()
    events = map(json.loads, containers["client"].logs(stderr=False).splitlines())
    (added,) = (event for event in events if event["event.name"] == "path_added")
    assert added["server.address"] == server
    peers = containers["server"].exec_run(["python", "-c", PEERS]).output.decode().split()
    assert set(peers) == {client}


def test_only_the_two_cans_are_on_the_network_path(stack):
    (network,) = stack.engine.networks.list(names=[f"{stack.project}_path"])
    network.reload()
    assert {container.labels["com.docker.compose.service"] for container in network.containers} == {
        "server",
        "client",
    }


def test_every_port_is_open_to_this_machine_only(stack):
    published = [port for service in stack.config().values() for port in service["ports"]]
    assert sorted(port["target"] for port in published) == [3000, 5000, 5001, 5002, 9090]
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}
    for container in stack.containers().values():
        for bindings in container.attrs["NetworkSettings"]["Ports"].values():
            assert {binding["HostIp"] for binding in bindings or []} <= {"127.0.0.1"}


def test_every_service_is_confined(stack):
    for name, service in stack.config().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert re.fullmatch(r"[1-9]\d*:\d+", service["user"]), name
        assert 0 < service["pids_limit"] <= 128, name
        assert 0 < int(service["mem_limit"]) <= 512 * 2**20, name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
        assert not {"privileged", "cap_add", "devices", "network_mode", "pid"} & service.keys(), (
            name
        )


def test_no_service_has_a_cpu_limit_to_measure(stack):
    for name, service in stack.config().items():
        limits = {"cpus", "cpu_quota", "cpu_period", "cpu_count", "cpu_percent"}
        assert not limits & service.keys(), name
        assert "cpus" not in service.get("deploy", {}).get("resources", {}).get("limits", {}), name


def test_no_password_is_in_the_file(stack):
    for name, service in stack.config().items():
        for key, value in (service.get("environment") or {}).items():
            assert not re.search("(?i)password|secret|token", key), f"{name}: {key}={value}"


def test_the_server_is_given_more_time_than_its_drain_takes(stack):
    server = stack.config()["server"]
    drain_s = sum(
        float(server["environment"][f"TWOCANS_{key}_S"]) for key in ("DRAIN_ACCEPT", "DRAIN")
    )
    assert float(server["stop_grace_period"].removesuffix("s")) > drain_s


def test_every_image_is_of_a_fixed_version(stack):
    for name, service in stack.config().items():
        assert re.search(r":[\w.-]+$", service["image"]), name
        assert not service["image"].endswith(":latest"), name


def test_prometheus_finds_no_fault_in_its_configuration(stack):
    command = ["promtool", "check", "config", "/etc/prometheus/prometheus.yml"]
    checked = stack.containers()["prometheus"].exec_run(command)
    assert checked.exit_code == 0, checked.output.decode()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_panel_has_data_or_is_known_to_have_none_in_health(measured, file):
    dashboard = load(file)
    asked = queries(dashboard, choose(dashboard, measured.label_values).values)
    known = EMPTY_IN_HEALTH[file.stem]
    assert {query.panel for query in asked} >= known
    empty = [query for query in asked if query.panel not in known]

    def all_have_data() -> bool:
        empty[:] = [query for query in empty if not measured.ask(query.text)]
        return not empty

    with contextlib.suppress(AssertionError):
        eventually(all_have_data, "every query has data")
    assert empty == []
    for query in asked:
        measured.ask(query.text)  # an HTTP error if it does not parse


def test_grafana_shows_the_dashboard_to_whoever_asks(stack):
    if not stack.with_grafana:
        pytest.skip(f"{GRAFANA_IMAGE} is missing")
    for file in FILES:
        path = f"/api/dashboards/uid/{load(file)['uid']}"
        look = functools.partial(stack.get, "grafana", 3000, path)
        found = eventually(look, path, UP_WITHIN_S)
        assert found["meta"]["provisioned"] is True
    home = stack.get("grafana", 3000, "/api/dashboards/home")
    assert home["dashboard"]["uid"] == "twocans-paths"
    health = stack.get("grafana", 3000, "/api/datasources/uid/twocans-prometheus/health")
    assert health["status"] == "OK"


def test_the_pair_needs_no_image_but_those_that_are_built_here(tag):
    stack = Stack(tag)
    own = stack.project  # a tag that no registry has, nor this machine
    nowhere = {f"{name}_IMAGE": f"registry.invalid/{name.lower()}:1" for name in NOT_OURS}
    try:
        said = stack.run("up", "--detach", TWOCANS_TAG=own, **nowhere).stderr
        assert "Pull" not in said
        assert stack.containers().keys() == {"server", "client"}
    finally:
        stack.down()
        for can in ("server", "client"):
            with contextlib.suppress(docker.errors.ImageNotFound):
                stack.engine.images.remove(f"twocans-{can}:{own}")
        stack.engine.close()


def test_down_leaves_nothing_behind(tag):
    with running(tag) as stack:
        stack.up("--wait")
        assert stack.containers()
        stack.down()
        filters = {"label": stack.label}
        assert stack.engine.containers.list(all=True, filters=filters) == []
        assert stack.engine.networks.list(filters=filters) == []
        assert stack.engine.volumes.list(filters=filters) == []
