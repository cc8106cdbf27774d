"""What a Prometheus makes of the PodMonitors: who is scraped, and what the series are labelled."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from k8s.manifests import K8S, OVERLAYS, Can, Manifest, by_key, cans, rendered
from needs import need

POD, ADDRESS, NODE = "twocans-can-x7x9q", "10.0.0.9:5001", "node-a"
# What the operator writes before a monitor's own relabelings, from its documentation.
OPERATORS: list[Manifest] = [
    {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
    {"source_labels": ["__meta_kubernetes_pod_container_name"], "target_label": "container"},
    {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
    {"target_label": "job", "replacement": "the-namespace/the-monitor"},
]
SCRAPE_CONFIGS = K8S / "scrape_configs.yml"
JOBS = {
    job["job_name"]: job for job in yaml.safe_load(SCRAPE_CONFIGS.read_text())["scrape_configs"]
}
SNAKE = {"sourceLabels": "source_labels", "targetLabel": "target_label"}


def labels_of(can: Can, relabel: list[Manifest], job: str, tmp_path: Path) -> dict[str, str]:
    """Give promtool one port of a can's pod; returns what its series are labelled."""
    need("promtool")
    owner = "DaemonSet" if can.workload["kind"] == "DaemonSet" else "ReplicaSet"
    facts = {
        "name": POD,
        "node_name": NODE,
        "controller_kind": owner,
        "container_name": can.name,
        "container_port_name": "http",
    }
    labels = {_meta(name): text for name, text in facts.items()}
    labels |= {
        _meta("label", name): text for name, text in can.template["metadata"]["labels"].items()
    }
    labels["__meta_kubernetes_namespace"] = can.workload["metadata"]["namespace"]
    static = {"targets": [ADDRESS], "labels": labels}
    scrape = {"job_name": job, "static_configs": [static], "relabel_configs": relabel}
    page = tmp_path / "prometheus.yml"
    page.write_text(json.dumps({"scrape_configs": [scrape]}))
    command = ["promtool", "check", "service-discovery", "--timeout=200ms", str(page), job]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    kept = found["labels"] or {}
    return {name: text for name, text in kept.items() if not name.startswith("__")}


def operators(monitor: Manifest) -> list[Manifest]:
    """Return a PodMonitor's relabelings as the operator writes them into Prometheus' file."""
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    job = {
        "source_labels": [_meta("label", monitor["spec"]["jobLabel"])],
        "target_label": "job",
        "regex": "(.+)",
    }
    own = [
        {SNAKE.get(name, name): value for name, value in r.items()} for r in endpoint["relabelings"]
    ]
    return [*OPERATORS, job, *own]


def wanted(can: Can) -> dict[str, str]:
    who = {"instance": NODE} if can.workload["kind"] == "DaemonSet" else {"instance": POD}
    return {"job": f"twocans-{can.name}", "namespace": "twocans", **who}


def _meta(*parts: str) -> str:
    name = "_".join(parts).replace(".", "_").replace("/", "_").replace("-", "_")
    return f"__meta_kubernetes_pod_{name}"


@pytest.mark.parametrize("which", ["server", "client"])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_series_are_a_nodes_in_a_daemonset_and_otherwise_a_pods(overlay, which, tmp_path):
    manifests = rendered(overlay, ("podmonitor",))
    (can,) = (can for can in cans(manifests) if can.name == which)
    monitor = by_key(manifests)[f"PodMonitor/twocans-{which}"]
    also = {"container": which} if overlay == "mesh" else {"container": which, "pod": POD}
    found = labels_of(can, operators(monitor), "the-monitor", tmp_path)
    assert found == wanted(can) | also


@pytest.mark.parametrize("which", ["server", "client"])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_without_the_operator_series_are_labelled_the_same(overlay, which, tmp_path):
    (can,) = (can for can in cans(rendered(overlay)) if can.name == which)
    for job in JOBS.values():
        found = labels_of(can, job["relabel_configs"], job["job_name"], tmp_path)
        # A job takes its own can only.
        assert found == (wanted(can) if job["job_name"] == f"twocans-{which}" else {})


def test_without_the_operator_the_limits_are_the_same():
    monitors = {
        manifest["metadata"]["name"]: manifest["spec"]
        for manifest in rendered("mesh", ("podmonitor",))
        if manifest["kind"] == "PodMonitor"
    }
    assert set(JOBS) == set(monitors)
    for name, spec in monitors.items():
        (endpoint,) = spec["podMetricsEndpoints"]
        job = JOBS[name]
        assert job["scrape_interval"] == endpoint["interval"]
        assert job["honor_labels"] is endpoint["honorLabels"] is True
        assert job["kubernetes_sd_configs"][0]["namespaces"] == {"names": ["twocans"]}
        for limit in ("sampleLimit", "labelLimit", "labelValueLengthLimit"):
            assert job[re.sub("([A-Z])", r"_\1", limit).lower()] == spec[limit]


def test_promtool_takes_the_scrape_configs():
    need("promtool")
    command = ["promtool", "check", "config", "--syntax-only", str(SCRAPE_CONFIGS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_monitor_selects_the_pods_of_its_can_and_no_other(overlay):
    manifests = rendered(overlay, ("podmonitor",))
    for name in ("twocans-server", "twocans-client"):
        wanted = by_key(manifests)[f"PodMonitor/{name}"]["spec"]["selector"]["matchLabels"]
        selected = [
            f"twocans-{can.name}"
            for can in cans(manifests)
            if wanted.items() <= can.template["metadata"]["labels"].items()
        ]
        assert selected == [name]
