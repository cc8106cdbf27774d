"""Every rule finds the manifest that breaks it; test_render applies all of them."""

import urllib.request
from typing import Any, NamedTuple

import pytest
from prometheus_client import CollectorRegistry

from k8s.manifests import COMPONENTS, Manifest, by_key, rendered
from k8s.rules import RULES, problems
from twocans_core.process.http import HttpServer


def test_the_paths_that_the_rules_demand_are_served():
    yes = {"is_healthy": lambda: True, "is_ready": lambda: True}
    server = HttpServer("127.0.0.1", 0, CollectorRegistry(), role="server", **yes)
    server.start()
    try:
        for path in ("/metrics", "/healthz", "/readyz"):
            with urllib.request.urlopen(f"http://{server.address}{path}", timeout=30) as page:
                assert page.status == 200
    finally:
        server.close()


# --- each rule, broken ----------------------------------------------------------------------

GONE = object()
CLIENT, SERVER = "DaemonSet/twocans-client", "DaemonSet/twocans-server"
ONE_CLIENT, A_CLIENT = "pair Deployment/twocans-client", "zones Deployment/twocans-client"
POD = "spec/template/spec"
CAN = f"{POD}/containers/0"
SECURITY = f"{CAN}/securityContext"
POD_SECURITY = f"{POD}/securityContext"
LABELS = "metadata/labels"
NAME, PART_OF = "app.kubernetes.io~1name", "app.kubernetes.io~1part-of"
SETTINGS = "ConfigMap/twocans-client"
POD_MONITOR = "PodMonitor/twocans-client"


# As good as our own, except for one field.
INIT = {
    "name": "init",
    "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"memory": "1Mi"}},
    "securityContext": {
        "privileged": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
}


class Break(NamedTuple):
    """One field of a good rendering, changed, and the one rule that must complain.

    ``where`` is ``Kind/name`` in the overlay mesh with every component, or another overlay's
    name and a blank before it. ``path`` is a JSON pointer, but for ``name=X``, the item of a
    list that is called so, and ``-``, a new item at its end.
    """

    rule: str
    where: str
    path: str
    value: Any
    components: tuple[str, ...] = COMPONENTS

    def __str__(self) -> str:
        return f"{self.rule}-{self.where.rpartition('/')[2]}-{self.path.rpartition('/')[2]}"


BROKEN: dict[str, list[tuple[Any, ...]]] = {
    "no_namespace_of_the_host": [
        (CLIENT, f"{POD}/hostNetwork", True),
        (SERVER, f"{POD}/hostPID", True),
        (ONE_CLIENT, f"{POD}/hostIPC", True),
    ],
    "not_privileged": [
        (CLIENT, f"{SECURITY}/privileged", True),
        (CLIENT, f"{POD}/initContainers", [INIT]),
    ],
    "no_capability": [
        (CLIENT, f"{SECURITY}/capabilities", GONE),
        (SERVER, f"{SECURITY}/capabilities/drop", []),
        (A_CLIENT, f"{SECURITY}/capabilities/add", ["NET_RAW"]),
    ],
    "no_more_privileges": [
        (CLIENT, f"{SECURITY}/allowPrivilegeEscalation", GONE),
        (SERVER, f"{SECURITY}/allowPrivilegeEscalation", True),
    ],
    "never_root": [
        (CLIENT, f"{POD_SECURITY}/runAsNonRoot", GONE),
        (SERVER, f"{SECURITY}/runAsNonRoot", False),
    ],
    "user_is_the_images": [
        (CLIENT, f"{POD_SECURITY}/runAsUser", GONE),
        (SERVER, f"{SECURITY}/runAsUser", 0),
        (SERVER, f"{POD_SECURITY}/runAsGroup", 0),
    ],
    "seccomp_is_the_runtimes": [
        (CLIENT, f"{POD_SECURITY}/seccompProfile", GONE),
        (SERVER, f"{SECURITY}/seccompProfile", {"type": "Unconfined"}),
    ],
    "nothing_else_of_the_kernel": [
        (CLIENT, f"{POD_SECURITY}/sysctls", [{"name": "x"}]),
        (CLIENT, f"{POD_SECURITY}/seLinuxOptions", {"user": "x"}),
        (SERVER, f"{SECURITY}/procMount", "Unmasked"),
        (SERVER, f"{SECURITY}/appArmorProfile", {"type": "x"}),
        (SERVER, f"{SECURITY}/windowsOptions", {"hostProcess": True}),
        (
            SERVER,
            "spec/template/metadata/annotations",
            {"container.apparmor.security.beta.kubernetes.io/server": "unconfined"},
        ),
    ],
    "no_port_of_the_host": [(SERVER, f"{CAN}/ports/name=data/hostPort", 5000)],
    "no_volume": [(CLIENT, f"{POD}/volumes", [{"name": "x", "hostPath": {"path": "/"}}])],
    "no_probe_of_another_host": [(CLIENT, f"{CAN}/lifecycle", {"httpGet": {"host": "x"}})],
    "namespace_enforces_restricted": [
        ("Namespace/twocans", f"{LABELS}/pod-security.kubernetes.io~1{mode}", "baseline")
        for mode in ("enforce", "audit", "warn")
    ],
    "everything_is_in_the_one_namespace": [
        (CLIENT, "metadata/namespace", "default"),
        (POD_MONITOR, "metadata/namespace", GONE),
        ("Namespace/twocans", "metadata/name", "x"),
    ],
    "root_is_read_only": [(CLIENT, f"{SECURITY}/readOnlyRootFilesystem", GONE)],
    "a_token_only_for_a_client_that_asks_the_api": [
        (SERVER, f"{POD}/automountServiceAccountToken", GONE),
        (ONE_CLIENT, f"{POD}/automountServiceAccountToken", False),
        ("ServiceAccount/twocans-client", "automountServiceAccountToken", GONE),
    ],
    "permissions_are_endpointslices_and_no_more": [
        ("Role/twocans-client", "rules/0/verbs/-", "create"),
        ("Role/twocans-client", "rules/0/resources", ["*"]),
        ("Role/twocans-client", "kind", "ClusterRole"),
        ("RoleBinding/twocans-client", "subjects/0/namespace", GONE),
    ],
    "no_variables_of_services": [(CLIENT, f"{POD}/enableServiceLinks", GONE)],
    "resources_are_bounded_but_the_cpu_is_not": [
        (CLIENT, f"{CAN}/resources/limits/cpu", "1"),
        (SERVER, f"{CAN}/resources/limits", GONE),
        (SERVER, f"{CAN}/resources/requests", GONE),
        (CLIENT, f"{CAN}/resources/limits/memory", "32Mi"),
    ],
    "probes_ask_http_and_never_the_measured_port": [
        (SERVER, f"{CAN}/readinessProbe/httpGet/port", "data"),
        (SERVER, f"{CAN}/livenessProbe/httpGet/path", "/readyz"),
        (CLIENT, f"{CAN}/startupProbe/tcpSocket", {"port": "http"}),
        (SERVER, f"{CAN}/readinessProbe/httpGet/path", "/readyz"),
    ],
    "probes_are_patient": [
        (CLIENT, f"{CAN}/livenessProbe/failureThreshold", 1),
        (SERVER, f"{CAN}/livenessProbe/timeoutSeconds", GONE),
        (SERVER, f"{CAN}/startupProbe/failureThreshold", GONE),
        (SERVER, f"{CAN}/readinessProbe/periodSeconds", 60),
    ],
    "no_probe_comes_before_a_can_listens": [
        (CLIENT, f"{CAN}/startupProbe/initialDelaySeconds", GONE),
        (SERVER, f"{CAN}/startupProbe/initialDelaySeconds", 60),
    ],
    "grace_is_longer_than_the_drain": [
        (SERVER, f"{POD}/terminationGracePeriodSeconds", 25),
        (SERVER, f"{POD}/terminationGracePeriodSeconds", GONE),
        (CLIENT, f"{POD}/terminationGracePeriodSeconds", 6),
        (SETTINGS, "data/TWOCANS_TIMEOUT_S", "30"),
        ("ConfigMap/twocans-server", "data/TWOCANS_DRAIN_S", "1m"),
    ],
    "every_path_hears_of_a_stop": [(SETTINGS, "data/TWOCANS_INTERVAL_S", "5")],
    "settings_exist_and_parse": [
        (SETTINGS, "data/TWOCANS_NEIGHBOUR", "10"),
        (SETTINGS, "data/TWOCANS_NEIGHBOURS", "many"),
        (SERVER, f"{CAN}/env/-", {"name": "TWOCANS_TARGETS"}),
    ],
    "settings_come_from_a_map_that_is_there": [
        (SERVER, f"{CAN}/envFrom", GONE),
        (SETTINGS, "metadata/name", "twocans-client-x"),
    ],
    "the_image_says_what_to_run": [(CLIENT, f"{CAN}/args", ["run", "--no-such-flag"])],
    "image_is_what_make_images_builds": [
        (SERVER, f"{CAN}/image", "twocans-server:latest"),
        (CLIENT, f"{CAN}/image", "twocans-server:0.1.0"),
        (CLIENT, f"{CAN}/name", "can"),
    ],
    "ports_are_the_programs": [
        (SERVER, f"{CAN}/ports/name=data/containerPort", 5003),
        (CLIENT, f"{CAN}/ports/name=http/name", "metrics"),
        (SETTINGS, "data/TWOCANS_HTTP_PORT", "5003"),
    ],
    "who_it_is_comes_from_kubernetes": [
        *(
            (can, f"{CAN}/env/name=TWOCANS_{name}", GONE)
            for can in (CLIENT, SERVER)
            for name in ("NODE", "ADDRESS", "NAMESPACE", "ZONE")
        ),
        (CLIENT, f"{CAN}/env/name=TWOCANS_NODE/valueFrom/fieldRef/fieldPath", "status.hostIP"),
    ],
    "name_outlives_the_pod_where_it_can": [
        (CLIENT, f"{CAN}/env/name=TWOCANS_NAME", GONE),
        (A_CLIENT, f"{CAN}/env/name=TWOCANS_NAME/valueFrom/fieldRef/fieldPath", "spec.nodeName"),
        ("pair ConfigMap/twocans-client", "data/TWOCANS_NAME", "server"),
    ],
    "targets_are_the_servers": [
        (CLIENT, f"{CAN}/env/name=TWOCANS_TARGETS/value", "endpointslices:twocans-servers:5000"),
        *(
            (CLIENT, f"{CAN}/env/name=TWOCANS_TARGETS/value", target, ())
            for target in (
                "$(SERVICE):5000",
                "$(DISCOVERY):$(SERVICE):5001",
                "$(DISCOVERY):$(SERVICE):",
            )
        ),
        (CLIENT, f"{CAN}/env/name=SERVICE", GONE),
        (CLIENT, f"{CAN}/env/name=SERVICE/value", "pre-twocans-server"),
        (SETTINGS, "data/TWOCANS_TARGETS", "server.example.com:5000"),
    ],
    "the_service_is_headless_on_every_family": [
        ("Service/twocans-server", "spec/clusterIP", 0),
        ("Service/twocans-server", "spec/ipFamilyPolicy", GONE),
        ("Service/twocans-server", "spec/selector", {PART_OF: "twocans"}),
    ],
    "no_family_is_left_out": [
        (SETTINGS, "data/TWOCANS_HTTP_HOST", ""),
        (SETTINGS, "data/TWOCANS_TARGETS_FILE", "10.0.0.1"),
    ],
    "a_daemonset_is_replaced_a_tenth_at_a_time": [
        (CLIENT, "spec/updateStrategy", GONE),
        (SERVER, "spec/updateStrategy/rollingUpdate/maxUnavailable", "100%"),
    ],
    "a_deployment_says_how_many": [(ONE_CLIENT, "spec/replicas", GONE)],
    "no_two_clients_have_one_name": [(ONE_CLIENT, "spec/strategy", GONE)],
    "several_are_spread": [
        (A_CLIENT, f"{POD}/topologySpreadConstraints/0", GONE),
        (A_CLIENT, f"{POD}/topologySpreadConstraints", GONE),
    ],
    "several_are_not_drained_at_once": [
        ("zones PodDisruptionBudget/twocans-client", "spec/maxUnavailable", 3),
        (
            "zones PodDisruptionBudget/twocans-client",
            "spec/selector/matchLabels",
            {"app.kubernetes.io/name": "twocans-server"},
        ),
    ],
    "only_linux_and_where_a_pod_may_go_anyway": [
        (CLIENT, f"{POD}/nodeSelector", GONE),
        (CLIENT, f"{POD}/tolerations", []),
        (CLIENT, f"{POD}/priorityClassName", "x"),
    ],
    "pods_have_stable_labels_only": [
        (CLIENT, "spec/template/metadata/labels/app.kubernetes.io~1version", "0.1.0"),
        (CLIENT, "spec/template/metadata/labels/twocans-discovery", GONE),
    ],
    "selectors_never_change": [(CLIENT, f"spec/selector/matchLabels/{PART_OF}", "twocans")],
    "objects_have_the_recommended_labels": [
        (CLIENT, f"{LABELS}/{NAME}", GONE),
        ("Namespace/twocans", f"{LABELS}/{PART_OF}", "x"),
    ],
    "pod_monitors_select_and_limit": [
        (POD_MONITOR, "spec/sampleLimit", GONE),
        (POD_MONITOR, "spec/jobLabel", GONE),
        (POD_MONITOR, "spec/podMetricsEndpoints/0/port", "data"),
        (POD_MONITOR, "apiVersion", "v1"),
        (POD_MONITOR, "spec/podMetricsEndpoints/0/interval", GONE),
    ],
    "alerting_rules_are_whole": [
        ("PrometheusRule/twocans", "spec/groups/0/rules/0/expr", ""),
        ("PrometheusRule/twocans", "spec/groups/0/rules/0/fro", "5m"),
        ("PrometheusRule/twocans", "spec/groups", []),
    ],
    "dashboards_are_the_files_for_the_sidecar": [
        ("ConfigMap/twocans-dashboard-paths", f"{LABELS}/grafana_dashboard", GONE),
        ("ConfigMap/twocans-dashboard-paths", "metadata/annotations", GONE),
        ("ConfigMap/twocans-dashboard-paths", "data/twocans-paths.json", "{}"),
        ("ConfigMap/twocans-dashboard-paths", "data", {}),
    ],
}
BREAKS = [Break(rule, *row) for rule, rows in BROKEN.items() for row in rows]


def broken(case: Break) -> list[Manifest]:
    """Render what the case starts from, and change its field."""
    overlay, _, name = f"mesh {case.where}".rpartition(" ")
    manifests = rendered(overlay.rpartition(" ")[2], case.components)
    parent: Any = by_key(manifests)[name]
    *steps, last = case.path.split("/")
    for step in steps:
        parent = parent[_index(parent, step)]
    if case.value is GONE:
        del parent[_index(parent, last)]
    elif last == "-":
        parent.append(case.value)
    else:
        parent[_index(parent, last)] = case.value
    return manifests


def _index(parent: Any, step: str) -> Any:
    if isinstance(parent, dict):
        return step.replace("~1", "/")
    name = step.removeprefix("name=")
    names = [item.get("name") if isinstance(item, dict) else None for item in parent]
    return names.index(name) if name != step else int(step)


@pytest.mark.parametrize("case", BREAKS, ids=str)
def test_a_rule_finds_what_breaks_it_and_no_other_complains(case):
    assert list(problems(broken(case))) == [case.rule]


def test_every_rule_has_a_manifest_that_breaks_it():
    assert set(BROKEN) == set(RULES)
