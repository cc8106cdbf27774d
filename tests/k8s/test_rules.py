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
    server = HttpServer("127.0.0.1", 0, CollectorRegistry(), can="server", **yes)
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


# As good as the cans' own, but for one field.
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


BREAKS = [
    Break("no_namespace_of_the_host", CLIENT, f"{POD}/hostNetwork", True),
    Break("no_namespace_of_the_host", SERVER, f"{POD}/hostPID", True),
    Break("no_namespace_of_the_host", ONE_CLIENT, f"{POD}/hostIPC", True),
    Break("not_privileged", CLIENT, f"{SECURITY}/privileged", True),
    Break("not_privileged", CLIENT, f"{POD}/initContainers", [INIT]),
    Break("no_capability", CLIENT, f"{SECURITY}/capabilities", GONE),
    Break("no_capability", SERVER, f"{SECURITY}/capabilities/drop", []),
    Break("no_capability", A_CLIENT, f"{SECURITY}/capabilities/add", ["NET_RAW"]),
    Break("no_more_privileges", CLIENT, f"{SECURITY}/allowPrivilegeEscalation", GONE),
    Break("no_more_privileges", SERVER, f"{SECURITY}/allowPrivilegeEscalation", True),
    Break("never_root", CLIENT, f"{POD_SECURITY}/runAsNonRoot", GONE),
    Break("never_root", SERVER, f"{SECURITY}/runAsNonRoot", False),
    Break("user_is_the_images", CLIENT, f"{POD_SECURITY}/runAsUser", GONE),
    Break("user_is_the_images", SERVER, f"{SECURITY}/runAsUser", 0),
    Break("user_is_the_images", SERVER, f"{POD_SECURITY}/runAsGroup", 0),
    Break("seccomp_is_the_runtimes", CLIENT, f"{POD_SECURITY}/seccompProfile", GONE),
    Break("seccomp_is_the_runtimes", SERVER, f"{SECURITY}/seccompProfile", {"type": "Unconfined"}),
    Break("nothing_else_of_the_kernel", CLIENT, f"{POD_SECURITY}/sysctls", [{"name": "x"}]),
    Break("nothing_else_of_the_kernel", CLIENT, f"{POD_SECURITY}/seLinuxOptions", {"user": "x"}),
    Break("nothing_else_of_the_kernel", SERVER, f"{SECURITY}/procMount", "Unmasked"),
    Break("nothing_else_of_the_kernel", SERVER, f"{SECURITY}/appArmorProfile", {"type": "x"}),
    Break(
        "nothing_else_of_the_kernel", SERVER, f"{SECURITY}/windowsOptions", {"hostProcess": True}
    ),
    Break(
        "nothing_else_of_the_kernel",
        SERVER,
        "spec/template/metadata/annotations",
        {"container.apparmor.security.beta.kubernetes.io/server": "unconfined"},
    ),
    Break("no_port_of_the_host", SERVER, f"{CAN}/ports/name=data/hostPort", 5000),
    Break("no_volume", CLIENT, f"{POD}/volumes", [{"name": "x", "hostPath": {"path": "/"}}]),
    Break("no_probe_of_another_host", CLIENT, f"{CAN}/lifecycle", {"httpGet": {"host": "x"}}),
    *(
        Break("namespace_enforces_restricted", "Namespace/twocans", f"{LABELS}/{name}", "baseline")
        for name in (f"pod-security.kubernetes.io~1{mode}" for mode in ("enforce", "audit", "warn"))
    ),
    Break("everything_is_in_the_one_namespace", CLIENT, "metadata/namespace", "default"),
    Break("everything_is_in_the_one_namespace", POD_MONITOR, "metadata/namespace", GONE),
    Break("everything_is_in_the_one_namespace", "Namespace/twocans", "metadata/name", "x"),
    Break("root_is_read_only", CLIENT, f"{SECURITY}/readOnlyRootFilesystem", GONE),
    Break(
        "a_token_only_for_a_client_that_asks_the_api",
        SERVER,
        f"{POD}/automountServiceAccountToken",
        GONE,
    ),
    Break(
        "a_token_only_for_a_client_that_asks_the_api",
        ONE_CLIENT,
        f"{POD}/automountServiceAccountToken",
        False,
    ),
    Break(
        "a_token_only_for_a_client_that_asks_the_api",
        "ServiceAccount/twocans-client",
        "automountServiceAccountToken",
        GONE,
    ),
    Break(
        "permissions_are_endpointslices_and_no_more",
        "Role/twocans-client",
        "rules/0/verbs/-",
        "create",
    ),
    Break(
        "permissions_are_endpointslices_and_no_more",
        "Role/twocans-client",
        "rules/0/resources",
        ["*"],
    ),
    Break(
        "permissions_are_endpointslices_and_no_more", "Role/twocans-client", "kind", "ClusterRole"
    ),
    Break(
        "permissions_are_endpointslices_and_no_more",
        "RoleBinding/twocans-client",
        "subjects/0/namespace",
        GONE,
    ),
    Break("no_variables_of_services", CLIENT, f"{POD}/enableServiceLinks", GONE),
    Break("resources_are_bounded_but_the_cpu_is_not", CLIENT, f"{CAN}/resources/limits/cpu", "1"),
    Break("resources_are_bounded_but_the_cpu_is_not", SERVER, f"{CAN}/resources/limits", GONE),
    Break("resources_are_bounded_but_the_cpu_is_not", SERVER, f"{CAN}/resources/requests", GONE),
    Break(
        "resources_are_bounded_but_the_cpu_is_not",
        CLIENT,
        f"{CAN}/resources/limits/memory",
        "32Mi",
    ),
    Break(
        "probes_ask_http_and_never_the_measured_port",
        SERVER,
        f"{CAN}/readinessProbe/httpGet/port",
        "data",
    ),
    Break(
        "probes_ask_http_and_never_the_measured_port",
        SERVER,
        f"{CAN}/livenessProbe/httpGet/path",
        "/readyz",
    ),
    Break(
        "probes_ask_http_and_never_the_measured_port",
        CLIENT,
        f"{CAN}/startupProbe/tcpSocket",
        {"port": "http"},
    ),
    Break("probes_are_patient", CLIENT, f"{CAN}/livenessProbe/failureThreshold", 1),
    Break("probes_are_patient", SERVER, f"{CAN}/livenessProbe/timeoutSeconds", GONE),
    Break("probes_are_patient", SERVER, f"{CAN}/startupProbe/failureThreshold", GONE),
    Break("probes_are_patient", SERVER, f"{CAN}/readinessProbe/periodSeconds", 60),
    Break(
        "no_probe_comes_before_a_can_listens",
        CLIENT,
        f"{CAN}/startupProbe/initialDelaySeconds",
        GONE,
    ),
    Break(
        "no_probe_comes_before_a_can_listens", SERVER, f"{CAN}/startupProbe/initialDelaySeconds", 60
    ),
    Break(
        "probes_ask_http_and_never_the_measured_port",
        SERVER,
        f"{CAN}/readinessProbe/httpGet/path",
        "/readyz",
    ),
    Break("grace_is_longer_than_the_drain", SERVER, f"{POD}/terminationGracePeriodSeconds", 25),
    Break("grace_is_longer_than_the_drain", SERVER, f"{POD}/terminationGracePeriodSeconds", GONE),
    Break("grace_is_longer_than_the_drain", CLIENT, f"{POD}/terminationGracePeriodSeconds", 6),
    Break("grace_is_longer_than_the_drain", SETTINGS, "data/TWOCANS_TIMEOUT_S", "30"),
    Break(
        "grace_is_longer_than_the_drain", "ConfigMap/twocans-server", "data/TWOCANS_DRAIN_S", "1m"
    ),
    Break("every_path_hears_of_a_stop", SETTINGS, "data/TWOCANS_INTERVAL_S", "5"),
    Break("settings_exist_and_parse", SETTINGS, "data/TWOCANS_NEIGHBOUR", "10"),
    Break("settings_exist_and_parse", SETTINGS, "data/TWOCANS_NEIGHBOURS", "many"),
    Break("settings_exist_and_parse", SERVER, f"{CAN}/env/-", {"name": "TWOCANS_TARGETS"}),
    Break("settings_come_from_a_map_that_is_there", SERVER, f"{CAN}/envFrom", GONE),
    Break("settings_come_from_a_map_that_is_there", SETTINGS, "metadata/name", "twocans-client-x"),
    Break("the_image_says_what_to_run", CLIENT, f"{CAN}/args", ["run", "--no-such-flag"]),
    Break("image_is_what_make_images_builds", SERVER, f"{CAN}/image", "twocans-server:latest"),
    Break("image_is_what_make_images_builds", CLIENT, f"{CAN}/image", "twocans-server:0.1.0"),
    Break("image_is_what_make_images_builds", CLIENT, f"{CAN}/name", "can"),
    Break("ports_are_the_programs", SERVER, f"{CAN}/ports/name=data/containerPort", 5003),
    Break("ports_are_the_programs", CLIENT, f"{CAN}/ports/name=http/name", "metrics"),
    Break("ports_are_the_programs", SETTINGS, "data/TWOCANS_HTTP_PORT", "5003"),
    *(
        Break("who_it_is_comes_from_kubernetes", can, f"{CAN}/env/name=TWOCANS_{name}", GONE)
        for can in (CLIENT, SERVER)
        for name in ("NODE", "ADDRESS", "NAMESPACE", "ZONE")
    ),
    Break(
        "who_it_is_comes_from_kubernetes",
        CLIENT,
        f"{CAN}/env/name=TWOCANS_NODE/valueFrom/fieldRef/fieldPath",
        "status.hostIP",
    ),
    Break("name_outlives_the_pod_where_it_can", CLIENT, f"{CAN}/env/name=TWOCANS_NAME", GONE),
    Break(
        "name_outlives_the_pod_where_it_can",
        A_CLIENT,
        f"{CAN}/env/name=TWOCANS_NAME/valueFrom/fieldRef/fieldPath",
        "spec.nodeName",
    ),
    Break(
        "name_outlives_the_pod_where_it_can",
        "pair ConfigMap/twocans-client",
        "data/TWOCANS_NAME",
        "server",
    ),
    Break(
        "targets_are_the_servers",
        CLIENT,
        f"{CAN}/env/name=TWOCANS_TARGETS/value",
        "endpointslices:twocans-servers:5000",
    ),
    *(
        Break(
            "targets_are_the_servers", CLIENT, f"{CAN}/env/name=TWOCANS_TARGETS/value", target, ()
        )
        for target in (
            "$(SERVICE):5000",
            "$(DISCOVERY):$(SERVICE):5001",
            "$(DISCOVERY):$(SERVICE):",
        )
    ),
    Break("targets_are_the_servers", CLIENT, f"{CAN}/env/name=SERVICE", GONE),
    Break("targets_are_the_servers", CLIENT, f"{CAN}/env/name=SERVICE/value", "pre-twocans-server"),
    Break("targets_are_the_servers", SETTINGS, "data/TWOCANS_TARGETS", "server.example.com:5000"),
    Break("the_service_is_headless_on_every_family", "Service/twocans-server", "spec/clusterIP", 0),
    Break(
        "the_service_is_headless_on_every_family",
        "Service/twocans-server",
        "spec/ipFamilyPolicy",
        GONE,
    ),
    Break(
        "the_service_is_headless_on_every_family",
        "Service/twocans-server",
        "spec/selector",
        {PART_OF: "twocans"},
    ),
    Break("no_family_is_left_out", SETTINGS, "data/TWOCANS_HTTP_HOST", ""),
    Break("no_family_is_left_out", SETTINGS, "data/TWOCANS_TARGETS_FILE", "10.0.0.1"),
    Break("a_daemonset_is_replaced_a_tenth_at_a_time", CLIENT, "spec/updateStrategy", GONE),
    Break(
        "a_daemonset_is_replaced_a_tenth_at_a_time",
        SERVER,
        "spec/updateStrategy/rollingUpdate/maxUnavailable",
        "100%",
    ),
    Break("a_deployment_says_how_many", ONE_CLIENT, "spec/replicas", GONE),
    Break("no_two_clients_have_one_name", ONE_CLIENT, "spec/strategy", GONE),
    Break("several_are_spread", A_CLIENT, f"{POD}/topologySpreadConstraints/0", GONE),
    Break("several_are_spread", A_CLIENT, f"{POD}/topologySpreadConstraints", GONE),
    Break(
        "several_are_not_drained_at_once",
        "zones PodDisruptionBudget/twocans-client",
        "spec/maxUnavailable",
        3,
    ),
    Break(
        "several_are_not_drained_at_once",
        "zones PodDisruptionBudget/twocans-client",
        "spec/selector/matchLabels",
        {"app.kubernetes.io/name": "twocans-server"},
    ),
    Break("only_linux_and_where_a_pod_may_go_anyway", CLIENT, f"{POD}/nodeSelector", GONE),
    Break("only_linux_and_where_a_pod_may_go_anyway", CLIENT, f"{POD}/tolerations", []),
    Break("only_linux_and_where_a_pod_may_go_anyway", CLIENT, f"{POD}/priorityClassName", "x"),
    Break(
        "pods_have_stable_labels_only",
        CLIENT,
        "spec/template/metadata/labels/app.kubernetes.io~1version",
        "0.1.0",
    ),
    Break(
        "pods_have_stable_labels_only",
        CLIENT,
        "spec/template/metadata/labels/twocans-discovery",
        GONE,
    ),
    Break("selectors_never_change", CLIENT, f"spec/selector/matchLabels/{PART_OF}", "twocans"),
    Break("objects_have_the_recommended_labels", CLIENT, f"{LABELS}/{NAME}", GONE),
    Break("objects_have_the_recommended_labels", "Namespace/twocans", f"{LABELS}/{PART_OF}", "x"),
    Break("pod_monitors_select_and_limit", POD_MONITOR, "spec/sampleLimit", GONE),
    Break("pod_monitors_select_and_limit", POD_MONITOR, "spec/jobLabel", GONE),
    Break("pod_monitors_select_and_limit", POD_MONITOR, "spec/podMetricsEndpoints/0/port", "data"),
    Break("pod_monitors_select_and_limit", POD_MONITOR, "apiVersion", "v1"),
    Break(
        "pod_monitors_select_and_limit", POD_MONITOR, "spec/podMetricsEndpoints/0/interval", GONE
    ),
    Break("alerting_rules_are_whole", "PrometheusRule/twocans", "spec/groups/0/rules/0/expr", ""),
    Break("alerting_rules_are_whole", "PrometheusRule/twocans", "spec/groups/0/rules/0/fro", "5m"),
    Break("alerting_rules_are_whole", "PrometheusRule/twocans", "spec/groups", []),
    Break(
        "dashboards_are_the_files_for_the_sidecar",
        "ConfigMap/twocans-dashboard-paths",
        f"{LABELS}/grafana_dashboard",
        GONE,
    ),
    Break(
        "dashboards_are_the_files_for_the_sidecar",
        "ConfigMap/twocans-dashboard-paths",
        "metadata/annotations",
        GONE,
    ),
    Break(
        "dashboards_are_the_files_for_the_sidecar",
        "ConfigMap/twocans-dashboard-paths",
        "data/twocans-paths.json",
        "{}",
    ),
    Break(
        "dashboards_are_the_files_for_the_sidecar",
        "ConfigMap/twocans-dashboard-paths",
        "data",
        {},
    ),
]


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
    assert {case.rule for case in BREAKS} == set(RULES)
