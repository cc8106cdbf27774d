"""What the dashboards ask, asked: a real Prometheus that scrapes a real mesh in trouble.

Three nodes in three zones, each with a server and a client; the clients find the servers behind
one name, and each probes those on the other nodes. One server is killed half-way, its address
stays. What the dashboards look for beyond that happens as well: a name that does not resolve, a
server that stops, one that nobody probes, a limit that is reached, a protocol that is broken, a
host that has no time for its can.
"""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from system.cans import PYTHON_IMAGE, Can, Holder, Site, eventually
from system.dashboards import FILES, ROOT, Query, choose, load, panels, queries
from system.prometheus import Prometheus, need_image

pytestmark = [pytest.mark.docker, pytest.mark.timeout(240)]

RULES = ROOT / "observability/prometheus/rules/twocans.yml"
NODES = ("a", "b", "c")
KILLED = "c"
HEALTHY_S = 20.0
BROKEN_S = 20.0

# What is rightly empty here: dashboard, panel and query, and what Prometheus says if it is. All
# other trouble that a panel looks for is made below.
EMPTY_IF = {
    # This machine is too busy, and every client left out for it.
    ("paths", "How far is it from zone to zone?", "A"): """
        count(last_over_time(instance:twocans_host_stalled:info{process="client"}[5m]))
          == count(twocans_client_info)
    """,
    # Losses are counted, so nobody needs that.
    ("path", "Which end retransmits segments?", "A"): """
        count(twocans_client_path_segments_total{instance="client-a:5002"})
    """,
    # Nobody knows how much was lost at most where probes failed.
    ("path", "How much is lost in which direction?", "E"): """
        sum(increase(twocans_client_probes_total{instance="client-a:5002", outcome="fail"}[1m])) > 0
    """,
}

# An alert has the labels of its own kind only, and not every fault has a direction.
SHOWS_WHAT_MAY_BE_MISSING = {
    "Which alerts are there?",
    "Which faults have a name?",
    "Which faults have a name now?",
}

# Keeps more connections open than a server allows, and breaks the protocol, twice a second.
NUISANCE = """
import socket, struct, time, zlib
header = struct.pack("!2sBBIII", b"\\xfc\\x2c", 1, 99, 0, 0, 0)  # no kind of frame, undamaged
frame = header + struct.pack("!I", zlib.crc32(header))
while True:
    held = []
    for _ in range(6):
        client = socket.create_connection(("lonely", 5000), timeout=5)
        client.sendall(frame)
        held.append(client)
    time.sleep(0.5)
    for client in held:
        client.close()
"""


class Scene(NamedTuple):
    """The mesh, and who watches it."""

    prometheus: Prometheus
    clients: dict[str, Can]


@pytest.fixture(scope="module")
def scene(
    images: dict[str, str], network: Network, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """Give the mesh when it has been in trouble for a while."""
    need_image()
    folder = tmp_path_factory.mktemp("prometheus")
    with contextlib.ExitStack() as stack:
        site = Site(images, network, stack, [])
        servers = {node: serve(site, stack, network, node) for node in NODES}
        told: dict[str, Any] = {**place("d"), "namespace": "here", "address": "192.0.2.1"}
        lonely = site.server("lonely", max_connections="4", **told)
        # A CPU limit, 3 ms of every 100: each scrape alone takes more than that.
        lonely.get_wrapped_container().update(cpu_period=100_000, cpu_quota=3_000)
        leaving = site.server("leaving", **told, drain_accept_s="1")
        clients = {
            node: site.client(f"client-{node}", "dns:mesh:5000", **place(node), explore_per_s="10")
            for node in NODES
        }
        # Nobody told it its zone.
        clients["d"] = site.client("client-d", "leaving:5000,nowhere.invalid:5000", node="node-d")
        command = ["python", "-c", NUISANCE]
        nuisance = DockerContainer(PYTHON_IMAGE, command=command)  # type: ignore[arg-type]
        stack.enter_context(nuisance.with_network(network))
        targets = {
            "twocans-server": [f"{name}:5001" for name in (*servers, lonely.name, leaving.name)],
            "twocans-client": [f"{client.name}:5002" for client in clients.values()],
        }
        prometheus = stack.enter_context(Prometheus(network, folder, targets, [RULES]))
        good = 'count(rate(twocans_client_probes_total{outcome="ok"}[5s]) > 0) >= 7'
        eventually(lambda: prometheus.ask(good), "all seven paths are good")
        time.sleep(HEALTHY_S)
        assert servers[KILLED].end("SIGKILL") == 137
        leaving.get_wrapped_container().kill("SIGTERM")
        time.sleep(BROKEN_S)
        yield Scene(prometheus, clients)


def serve(site: Site, stack: contextlib.ExitStack, network: Network, node: str) -> Can:
    """Start a server at an address that stays when it goes."""
    holder = Holder(network, node)
    stack.enter_context(holder.with_network_aliases(node, "mesh"))
    return site.server(f"server-{node}", holder=holder, **place(node))


def place(node: str) -> dict[str, Any]:
    """Return the settings that say where a can is."""
    return {"node": f"node-{node}", "zone": f"zone-{node}"}


def choice(scene: Scene, dashboard: dict[str, Any]) -> dict[str, str]:
    """Return what is chosen when somebody opens a dashboard."""
    return choose(dashboard, scene.prometheus.label_values).values


def answer(scene: Scene, query: Query) -> list[dict[str, Any]]:
    """Ask what a panel asks; a refusal says which panel it was."""
    try:
        return scene.prometheus.ask(query.text)
    except ValueError as refusal:
        refusal.add_note(f"{query.panel} {query.ref}: {query.text}")
        raise


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_variable_has_values(scene, file):
    chosen = choose(load(file), scene.prometheus.label_values)
    assert [name for name, found in chosen.found.items() if not found] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_query_parses_and_gives_data_but_those_of_which_we_know_why_not(scene, file):
    dashboard = load(file)
    asked = queries(dashboard, choice(scene, dashboard))
    listed = {
        (panel, ref): why for (name, panel, ref), why in EMPTY_IF.items() if name == file.stem
    }
    assert listed.keys() <= {(query.panel, query.ref) for query in asked}
    known = {where for where, why in listed.items() if scene.prometheus.ask(why)}
    empty = list(asked)

    def only_the_known_are_empty() -> bool:
        empty[:] = [query for query in empty if not answer(scene, query)]
        return {(query.panel, query.ref) for query in empty} <= known

    with contextlib.suppress(AssertionError):
        eventually(only_the_known_are_empty, "every query has data", 10)
    without = [query for query in empty if (query.panel, query.ref) not in known]
    assert not without, "\n".join(map(str, ["without data:", *without]))
    assert {(query.panel, query.ref) for query in empty} == known, "it has data: unlist it"
    count = len(list(panels(dashboard)))
    print(f"{file.stem}: {count} panels, {len(asked)} queries, {len(asked) - len(empty)} with data")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_label_that_a_panel_names_is_on_what_it_shows(scene, file):
    dashboard = load(file)
    asked = queries(dashboard, choice(scene, dashboard))
    for panel in panels(dashboard):
        found = [
            scene.prometheus.ask(query.text) for query in asked if query.panel == panel["title"]
        ]
        labels = {label for result in found for series in result for label in series["metric"]}
        if labels and panel["title"] not in SHOWS_WHAT_MAY_BE_MISSING:
            assert labels_shown(panel) <= labels, panel["title"]


def labels_shown(panel: dict[str, Any]) -> set[str]:
    """Return the labels that a panel's legends, columns and links name."""
    legends = " ".join(target["legendFormat"] for target in panel["targets"])
    named = set(re.findall(r"\{\{(\w+)\}\}", legends))
    named |= set(re.findall(r"__data\.fields\.(\w+)", json.dumps(panel)))
    for step in panel.get("transformations", []):
        if step["id"] == "filterFieldsByName":
            names = step["options"]["include"]["names"]
            named |= {name for name in names if not name.startswith("Value")}
        if step["id"] == "groupingToMatrix":
            named |= {step["options"]["rowField"], step["options"]["columnField"]}
    return named


def the_query(file_name: str, panel: str, scene: Scene) -> Query:
    (file,) = [file for file in FILES if file.stem == file_name]
    dashboard = load(file)
    found = [q for q in queries(dashboard, choice(scene, dashboard)) if q.panel == panel]
    return found[0]


def test_the_matrix_shows_the_killed_server_as_a_column_and_no_node_to_itself(scene):
    query = the_query("paths", "Which nodes lose probes to which?", scene)
    cells = {
        (series["metric"]["source_node"], series["metric"]["target_node"]): float(
            series["value"][1]
        )
        for series in scene.prometheus.ask(query.text)
    }
    nodes = [f"node-{node}" for node in NODES]
    mesh = {pair: loss for pair, loss in cells.items() if set(pair) <= set(nodes)}
    assert mesh.keys() == {(a, b) for a in nodes for b in nodes if a != b}
    for (_, target), loss in mesh.items():
        assert (loss > 0.1) == (target == f"node-{KILLED}")


def test_a_cell_of_the_worst_paths_leads_to_that_path(scene):
    worst = scene.prometheus.ask(the_query("paths", "These paths are the worst now", scene).text)
    killed = [path for path in worst if path["metric"].get("server") == f"server-{KILLED}"]
    labels = killed[0]["metric"]
    (file,) = [file for file in FILES if file.stem == "path"]
    link = {name: labels[name] for name in ("client", "target", "server", "family")}
    values = choose(load(file), scene.prometheus.label_values, link).values
    ((ends,), (loss,)) = (
        scene.prometheus.ask(query.text)
        for query in queries(load(file), values)
        if query.panel in ("What is at its ends?", "How much does it lose?")
    )
    assert ends["metric"]["name"] == labels["client"]
    assert ends["metric"]["source_node"] == labels["source_node"]
    assert ends["metric"]["node"] == labels["target_node"]
    assert float(loss["value"][1]) > 0.1


def test_only_the_server_that_nobody_probes_is_said_to_be_so(scene):
    query = the_query("paths", "Which servers are not probed?", scene)

    def said() -> list[str]:
        return [series["metric"]["name"] for series in scene.prometheus.ask(query.text)]

    # It has so little time that a scrape of it may fail, and then it is not there until the next.
    eventually(lambda: said() == ["lonely"], "it is the only one")
