"""What every rendering must be: for each rule a function that lists what offends it.

``test_render`` applies each to every rendering; ``test_rules`` proves each by a manifest that
breaks it.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from k8s.manifests import DASHBOARDS, ROOT, Can, Manifest, by_key, cans, key
from twocans_client.config import ClientConfig
from twocans_client.discovery.specs import parse_spec
from twocans_core.process.settings import rows
from twocans_server.config import ServerConfig

Rule = Callable[[Sequence[Manifest]], Iterator[str]]
CanRule = Callable[[Can], Iterator[str]]

RULES: dict[str, Rule] = {}

SETTINGS = {
    can: {row.variable: row for row in rows(config)}
    for can, config in (("server", ServerConfig), ("client", ClientConfig))
}
VERSION = tomllib.loads((ROOT / "core/pyproject.toml").read_text())["project"]["version"]
LABELS = {
    f"app.kubernetes.io/{name}": text
    for name, text in (("name", "twocans-{}"), ("component", "{}"), ("part-of", "twocans"))
}
DISCOVERY = {"twocans-discovery": "endpointslices"}
CLUSTER_WIDE = {"Namespace"}


def problems(manifests: Sequence[Manifest]) -> dict[str, list[str]]:
    """Return what each rule that is broken says."""
    found = {name: list(check(manifests)) for name, check in RULES.items()}
    return {name: lines for name, lines in found.items() if lines}


def rule(function: Rule) -> Rule:
    """Add a rule about a whole rendering to the table."""
    RULES[function.__name__] = function
    return function


def can_rule(function: CanRule) -> CanRule:
    """Add a rule about one can, which both must follow."""

    def each(manifests: Sequence[Manifest]) -> Iterator[str]:
        for can in cans(manifests):
            for problem in function(can):
                yield f"{can}: {problem}"

    RULES[function.__name__] = each
    return function


def of_kind(manifests: Sequence[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def at(tree: Any, path: str, default: Any = None) -> Any:
    """Return what is at a path like ``spec/template``; the default where nothing is."""
    for step in path.split("/"):
        if not isinstance(tree, dict) or step not in tree:
            return default
        tree = tree[step]
    return tree


def containers(can: Can) -> Iterator[Manifest]:
    for group in ("initContainers", "containers", "ephemeralContainers"):
        yield from can.pod.get(group, [])


def contexts(can: Can) -> Iterator[tuple[str, Manifest]]:
    """The security contexts of the pod and of each container."""
    yield "pod", can.pod.get("securityContext", {})
    for container in containers(can):
        yield container["name"], container.get("securityContext", {})


def expect_of_each(can: Can, option: str, wanted: Any) -> Iterator[str]:
    """Expect this of each container's own security context, whatever the pod's says."""
    for container in containers(can):
        found = at(container, f"securityContext/{option}")
        yield from expect(f"{container['name']}: {option}", found, wanted)


def expect(what: str, found: Any, wanted: Any) -> Iterator[str]:
    if found != wanted:
        yield f"{what} is {found!r} and not {wanted!r}"


# --- Pod Security, profile restricted: every control of it ----------------------------------


@can_rule
def no_namespace_of_the_host(can: Can) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        yield from expect(name, can.pod.get(name, False), False)


@can_rule
def not_privileged(can: Can) -> Iterator[str]:
    for name, context in contexts(can):
        yield from expect(f"{name}: privileged", context.get("privileged", False), False)


@can_rule
def no_capability(can: Can) -> Iterator[str]:
    yield from expect_of_each(can, "capabilities", {"drop": ["ALL"]})


@can_rule
def no_more_privileges(can: Can) -> Iterator[str]:
    yield from expect_of_each(can, "allowPrivilegeEscalation", False)


@can_rule
def never_root(can: Can) -> Iterator[str]:
    yield from expect("pod: runAsNonRoot", at(can.pod, "securityContext/runAsNonRoot"), True)
    for name, context in contexts(can):
        yield from expect(f"{name}: runAsNonRoot", context.get("runAsNonRoot", True), True)


@can_rule
def user_is_the_images(can: Can) -> Iterator[str]:
    """A number: the kubelet cannot tell whether a name is root's."""
    for name, context in contexts(can):
        for number in ("runAsUser", "runAsGroup"):
            absent = None if name == "pod" else 65532
            yield from expect(f"{name}: {number}", context.get(number, absent), 65532)


@can_rule
def seccomp_is_the_runtimes(can: Can) -> Iterator[str]:
    wanted = {"type": "RuntimeDefault"}
    for name, context in contexts(can):
        absent = None if name == "pod" else wanted
        yield from expect(f"{name}: seccompProfile", context.get("seccompProfile", absent), wanted)


@can_rule
def nothing_else_of_the_kernel(can: Can) -> Iterator[str]:
    refused = ("appArmorProfile", "procMount", "seLinuxOptions", "sysctls", "windowsOptions")
    for name, context in contexts(can):
        yield from (f"{name}: sets {option}" for option in refused if option in context)
    for annotation in can.template["metadata"].get("annotations", ()):
        if "alpha.kubernetes.io" in annotation or "beta.kubernetes.io" in annotation:
            yield f"annotation {annotation}"


@can_rule
def no_port_of_the_host(can: Can) -> Iterator[str]:
    for container in containers(can):
        for port in container.get("ports", []):
            yield from expect(f"port {port['name']}: hostPort", port.get("hostPort", 0), 0)


@can_rule
def no_volume(can: Can) -> Iterator[str]:
    """Stricter than restricted, which refuses volumes by their type: a can writes nothing."""
    yield from (f"volume {volume['name']}" for volume in can.pod.get("volumes", []))


@can_rule
def no_probe_of_another_host(can: Can) -> Iterator[str]:
    for container in containers(can):
        for name in ("startupProbe", "livenessProbe", "readinessProbe", "lifecycle"):
            if '"host"' in json.dumps(container.get(name, {})):
                yield f"{container['name']}: {name} names a host"


# --- hardening beyond it --------------------------------------------------------------------


@rule
def namespace_enforces_restricted(manifests: Sequence[Manifest]) -> Iterator[str]:
    (namespace,) = of_kind(manifests, "Namespace")
    for mode in ("enforce", "audit", "warn"):
        label = f"pod-security.kubernetes.io/{mode}"
        yield from expect(label, namespace["metadata"]["labels"].get(label), "restricted")


@rule
def everything_is_in_the_one_namespace(manifests: Sequence[Manifest]) -> Iterator[str]:
    (namespace,) = of_kind(manifests, "Namespace")
    yield from expect("the namespace", namespace["metadata"]["name"], "twocans")
    for name, manifest in by_key(manifests).items():
        absent = "twocans" if manifest["kind"] in CLUSTER_WIDE else None
        found = manifest["metadata"].get("namespace", absent)
        yield from expect(f"{name}: namespace", found, "twocans")


@can_rule
def root_is_read_only(can: Can) -> Iterator[str]:
    yield from expect_of_each(can, "readOnlyRootFilesystem", True)


@rule
def a_token_only_for_a_client_that_asks_the_api(manifests: Sequence[Manifest]) -> Iterator[str]:
    for can in cans(manifests):
        asks = str(can.env.get("TWOCANS_TARGETS")).startswith("endpointslices:")
        found = can.pod.get("automountServiceAccountToken")
        yield from expect(f"{can}: automountServiceAccountToken", found, asks)
        account = can.pod.get("serviceAccountName")
        yield from expect(f"{can}: serviceAccountName", account, "twocans-client" if asks else None)
    for account in of_kind(manifests, "ServiceAccount"):
        found = account.get("automountServiceAccountToken")
        yield from expect("the account's automountServiceAccountToken", found, False)


@rule
def permissions_are_endpointslices_and_no_more(manifests: Sequence[Manifest]) -> Iterator[str]:
    asks = any("serviceAccountName" in can.pod for can in cans(manifests))
    kinds = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    index = by_key(of_kind(manifests, *kinds))
    wanted = {f"{kind}/twocans-client" for kind in kinds[:3]} if asks else set()
    yield from expect("about permissions", set(index), wanted)
    may = {
        "apiGroups": ["discovery.k8s.io"],
        "resources": ["endpointslices"],
        "verbs": ["get", "list", "watch"],
    }
    who = {"kind": "ServiceAccount", "name": "twocans-client", "namespace": "twocans"}
    which = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "twocans-client"}
    for name, manifest in index.items():
        for part, value in (("rules", [may]), ("subjects", [who]), ("roleRef", which)):
            yield from expect(f"{name}: {part}", manifest.get(part, value), value)


@can_rule
def no_variables_of_services(can: Can) -> Iterator[str]:
    yield from expect("enableServiceLinks", can.pod.get("enableServiceLinks"), False)


@can_rule
def resources_are_bounded_but_the_cpu_is_not(can: Can) -> Iterator[str]:
    for container in containers(can):
        limits, requests = (
            at(container, f"resources/{part}", {}) for part in ("limits", "requests")
        )
        yield from expect("limited", sorted(limits), ["memory"])
        yield from expect("requested", sorted(requests), ["cpu", "memory"])
        if _mebibytes(limits.get("memory")) < _mebibytes(requests.get("memory")):
            yield "memory is limited below what is requested"


def _mebibytes(text: str | None) -> int:
    return int(str(text or "0Mi").removesuffix("Mi"))


@can_rule
def probes_ask_http_and_never_the_measured_port(can: Can) -> Iterator[str]:
    # A server that is being deleted leaves the Service anyway; a 503 would only be an event.
    readiness = {"server": "healthz", "client": "readyz"}[can.name]
    for name, path in (("startup", "healthz"), ("liveness", "healthz"), ("readiness", readiness)):
        probe = can.container.get(f"{name}Probe", {})
        yield from expect(
            f"{name}Probe", probe.get("httpGet"), {"path": f"/{path}", "port": "http"}
        )
        for other in ("tcpSocket", "exec", "grpc"):
            yield from (f"{name}Probe: {other}" for _ in range(other in probe))


@can_rule
def probes_are_patient(can: Can) -> Iterator[str]:
    # Seconds until the kubelet acts, at least; and at most, where somebody waits for it.
    for name, least_s, most_s in (
        ("startup", 30, 120),
        ("liveness", 60, 300),
        ("readiness", 5, 15),
    ):
        probe = can.container.get(f"{name}Probe", {})
        patience_s = probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
        if not least_s <= patience_s <= most_s:
            yield f"{name}Probe acts after {patience_s} s, not {least_s} to {most_s}"
        if probe.get("timeoutSeconds", 1) < 5:
            yield f"{name}Probe waits less than 5 s for an answer"


@can_rule
def no_probe_comes_before_a_can_listens(can: Can) -> Iterator[str]:
    """Each that is refused leaves a warning event, at every start of every pod."""
    delay_s = at(can.container, "startupProbe/initialDelaySeconds", 0)
    if not 5 <= delay_s <= 10:
        yield f"startupProbe begins after {delay_s} s"


@can_rule
def grace_is_longer_than_the_drain(can: Can) -> Iterator[str]:
    drains = {"server": ("DRAIN_ACCEPT_S", "DRAIN_S"), "client": ("TIMEOUT_S",)}[can.name]
    drain_s = sum(_setting(can, f"TWOCANS_{name}") for name in drains)
    grace_s = can.pod.get("terminationGracePeriodSeconds", 0)
    if grace_s <= drain_s + 1:
        yield f"terminationGracePeriodSeconds {grace_s} for a drain of {drain_s:g} s"


@rule
def every_path_hears_of_a_stop(manifests: Sequence[Manifest]) -> Iterator[str]:
    settings = {can.name: can for can in cans(manifests)}
    accept_s = _setting(settings["server"], "TWOCANS_DRAIN_ACCEPT_S")
    interval_s = _setting(settings["client"], "TWOCANS_INTERVAL_S")
    if accept_s <= interval_s:
        yield f"a stopping server serves for {accept_s:g} s, and probes come every {interval_s:g} s"


def _setting(can: Can, variable: str) -> float:
    row = SETTINGS[can.name][variable]
    return float(row.metadata["parse"](can.env.get(variable, row.default)))


# --- what the programs know -----------------------------------------------------------------


@can_rule
def settings_exist_and_parse(can: Can) -> Iterator[str]:
    for variable, value in can.env.items():
        row = SETTINGS[can.name].get(variable)
        if row is None and not variable.startswith("TWOCANS_"):
            continue  # of use to other variables alone
        if row is None:
            yield f"{variable} is no setting"
        elif isinstance(value, str):
            try:
                row.metadata["parse"](value)
            except ValueError as error:
                yield f"{variable} {value!r}: {error}"


@can_rule
def settings_come_from_a_map_that_is_there(can: Can) -> Iterator[str]:
    wanted = [{"configMapRef": {"name": f"twocans-{can.name}"}}]
    found = [
        {"configMapRef": {"name": at(source, "configMapRef/name", "").rpartition("-")[0]}}
        for source in can.container.get("envFrom", [])
    ]
    yield from expect("envFrom", found, wanted)
    # cans() finds no setting in a map that is not there.
    needed = {"server": "TWOCANS_DRAIN_S", "client": "TWOCANS_INTERVAL_S"}[can.name]
    if needed not in can.env:
        yield f"no {needed}"


@can_rule
def the_image_says_what_to_run(can: Can) -> Iterator[str]:
    yield from (
        f"sets {part}" for part in ("command", "args", "workingDir") if part in can.container
    )


@can_rule
def image_is_what_make_images_builds(can: Can) -> Iterator[str]:
    assert "--tag $(REGISTRY)twocans-$(1):$(TAG)" in (ROOT / "Makefile").read_text()
    yield from expect("image", can.container["image"], f"twocans-{can.name}:{VERSION}")
    yield from expect("the container's name", can.container["name"], can.name)


@can_rule
def ports_are_the_programs(can: Can) -> Iterator[str]:
    names = {"data": "TWOCANS_PORT", "http": "TWOCANS_HTTP_PORT"}
    known = SETTINGS[can.name]
    wanted = {
        name: int(known[variable].default) for name, variable in names.items() if variable in known
    }
    found = {port.get("name"): port["containerPort"] for port in can.container.get("ports", [])}
    yield from expect("ports", found, wanted)
    yield from (f"{variable} is set" for variable in names.values() if variable in can.env)


@can_rule
def who_it_is_comes_from_kubernetes(can: Can) -> Iterator[str]:
    fields = {
        "TWOCANS_NODE": "spec.nodeName",
        "TWOCANS_ADDRESS": "status.podIP",
        "TWOCANS_NAMESPACE": "metadata.namespace",
        "TWOCANS_ZONE": "metadata.labels['topology.kubernetes.io/zone']",
    }
    for variable, path in fields.items():
        found = at(can.env.get(variable), "fieldRef/fieldPath")
        yield from expect(variable, found, path)


@can_rule
def name_outlives_the_pod_where_it_can(can: Can) -> Iterator[str]:
    """A node's name in a DaemonSet; a word where there is one pod; a pod's where there are more."""
    path = "metadata.name" if can.workload["kind"] == "Deployment" else "spec.nodeName"
    wanted = can.name if can.only_one else {"fieldRef": {"fieldPath": path}}
    yield from expect("TWOCANS_NAME", can.env.get("TWOCANS_NAME"), wanted)


@rule
def targets_are_the_servers(manifests: Sequence[Manifest]) -> Iterator[str]:
    (service,) = of_kind(manifests, "Service")
    port = service["spec"]["ports"][0]["port"]
    at_service = f"{service['metadata']['name']}:{port}"
    for can in cans(manifests):
        if can.name == "server":
            continue
        kind = "endpointslices:" if "serviceAccountName" in can.pod else "dns:"
        text = can.env.get("TWOCANS_TARGETS", "")
        yield from expect("TWOCANS_TARGETS", text, f"{kind}{at_service}")
        if can.only_one:  # which may be on the same node
            yield from expect("TWOCANS_PROBE_SELF", can.env.get("TWOCANS_PROBE_SELF"), "yes")
        for source in of_kind(manifests, "ConfigMap"):
            if "TWOCANS_TARGETS" in source["data"]:
                yield f"TWOCANS_TARGETS in {key(source)} has no effect"
        for spec in text.split():
            try:
                parse_spec(spec)
            except ValueError as error:
                yield f"target {spec}: {error}"


# --- finding, spreading, replacing ----------------------------------------------------------


@rule
def the_service_is_headless_on_every_family(manifests: Sequence[Manifest]) -> Iterator[str]:
    (service,) = of_kind(manifests, "Service")
    wanted = {
        "clusterIP": "None",
        "ipFamilyPolicy": "PreferDualStack",
        "ports": [{"name": "data", "port": 5000, "targetPort": "data"}],
        "selector": {"app.kubernetes.io/name": "twocans-server"},
    }
    yield from expect("the Service", service["spec"], wanted)


@can_rule
def no_family_is_left_out(can: Can) -> Iterator[str]:
    for variable in ("TWOCANS_HOST", "TWOCANS_HTTP_HOST"):
        yield from (f"{variable} binds one family" for _ in range(variable in can.env))
    for variable, value in can.env.items():
        if isinstance(value, str) and re.search(r"\d+\.\d+\.\d+\.\d+|\[|::", value):
            yield f"{variable} {value!r} is an address"


@can_rule
def a_daemonset_is_replaced_a_tenth_at_a_time(can: Can) -> Iterator[str]:
    wanted = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}}
    if can.workload["kind"] == "DaemonSet":
        yield from expect("updateStrategy", can.workload["spec"].get("updateStrategy"), wanted)


@can_rule
def a_deployment_says_how_many(can: Can) -> Iterator[str]:
    if can.workload["kind"] == "Deployment" and "replicas" not in can.workload["spec"]:
        yield "no replicas"


@can_rule
def no_two_clients_have_one_name(can: Can) -> Iterator[str]:
    constant = isinstance(can.env.get("TWOCANS_NAME"), str)
    if can.name == "client" and can.workload["kind"] == "Deployment" and constant:
        yield from expect("strategy", can.workload["spec"].get("strategy"), {"type": "Recreate"})


@can_rule
def several_are_spread(can: Can) -> Iterator[str]:
    if can.workload["spec"].get("replicas", 1) == 1:
        return
    each = {
        "maxSkew": 1,
        "labelSelector": {"matchLabels": {"app.kubernetes.io/part-of": "twocans"}},
        "matchLabelKeys": ["app.kubernetes.io/name", "pod-template-hash"],
    }
    wanted = [
        {
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule",
            **each,
        },
        {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway", **each},
    ]
    yield from expect("spread", can.pod.get("topologySpreadConstraints"), wanted)


@rule
def several_are_not_drained_at_once(manifests: Sequence[Manifest]) -> Iterator[str]:
    budgets = by_key(of_kind(manifests, "PodDisruptionBudget"))
    wanted = {
        f"PodDisruptionBudget/twocans-{can.name}": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": {"app.kubernetes.io/name": f"twocans-{can.name}"}},
        }
        for can in cans(manifests)
        if can.workload["spec"].get("replicas", 1) > 1
    }
    found = {name: budget["spec"] for name, budget in budgets.items()}
    yield from expect("budgets", found, wanted)


@can_rule
def only_linux_and_where_a_pod_may_go_anyway(can: Can) -> Iterator[str]:
    """Tolerations and a priority are commented out, for whoever wants them."""
    wanted = {"kubernetes.io/os": "linux"}
    yield from expect("nodeSelector", can.pod.get("nodeSelector"), wanted)
    yield from (f"sets {name}" for name in ("tolerations", "priorityClassName") if name in can.pod)


# --- labels and scraping --------------------------------------------------------------------


@can_rule
def pods_have_stable_labels_only(can: Can) -> Iterator[str]:
    labels = {name: value.format(can.name) for name, value in LABELS.items()}
    found = can.template["metadata"]["labels"]
    asks = DISCOVERY if "serviceAccountName" in can.pod else {}
    yield from expect("labels of the pods", found, labels | asks)


@can_rule
def selectors_never_change(can: Can) -> Iterator[str]:
    wanted = {"matchLabels": {"app.kubernetes.io/name": f"twocans-{can.name}"}}
    yield from expect("selector", can.workload["spec"].get("selector"), wanted)


@rule
def objects_have_the_recommended_labels(manifests: Sequence[Manifest]) -> Iterator[str]:
    for name, manifest in by_key(manifests).items():
        labels = manifest["metadata"].get("labels", {})
        can = manifest["metadata"]["name"].removeprefix("twocans-").partition("-")[0]
        # What belongs to one can says to which.
        of_one = name.partition("/")[0] not in ("Namespace", "NetworkPolicy", "PrometheusRule")
        of_one = of_one and "dashboard" not in name
        for label, wanted in LABELS.items():
            if of_one or label.endswith("part-of"):
                yield from expect(f"{name}: {label}", labels.get(label), wanted.format(can))


@rule
def pod_monitors_select_and_limit(manifests: Sequence[Manifest]) -> Iterator[str]:
    limits = {"twocans-client": 50_000, "twocans-server": 2_000}
    monitors = of_kind(manifests, "PodMonitor")
    if monitors:
        yield from expect("monitors", {m["metadata"]["name"] for m in monitors}, set(limits))
    for monitor in monitors:
        name = monitor["metadata"]["name"]
        spec = {
            part: value for part, value in monitor["spec"].items() if part != "podMetricsEndpoints"
        }
        wanted = {
            "jobLabel": "app.kubernetes.io/name",
            "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
            "sampleLimit": limits.get(name),
            "labelLimit": 30,
            "labelValueLengthLimit": 256,
        }
        yield from expect(f"{name}: spec", spec, wanted)
        yield from expect(f"{name}: apiVersion", monitor["apiVersion"], "monitoring.coreos.com/v1")
        endpoints = monitor["spec"].get("podMetricsEndpoints", [])
        found = [{part: e[part] for part in e if part != "relabelings"} for e in endpoints]
        once = {"port": "http", "path": "/metrics", "interval": "30s", "honorLabels": True}
        yield from expect(f"{name}: endpoints", found, [once])


@rule
def alerting_rules_are_whole(manifests: Sequence[Manifest]) -> Iterator[str]:
    for manifest in of_kind(manifests, "PrometheusRule"):
        yield from expect("apiVersion", manifest["apiVersion"], "monitoring.coreos.com/v1")
        groups = at(manifest, "spec/groups", [])
        names = [group.get("name") for group in groups]
        if not names or len(set(names)) < len(names):
            yield f"groups are called {names}"
        for group in groups:
            for each in group.get("rules") or [{}]:
                if not each.get("expr") or ("alert" in each) == ("record" in each):
                    yield f"{group.get('name')}: {each} is neither an alert nor a record"
                extra = set(each) - {"alert", "record", "expr", "for", "keep_firing_for"}
                if extra - {"labels", "annotations"}:
                    yield f"{group.get('name')}: unknown {sorted(extra)}"


@rule
def dashboards_are_the_files_for_the_sidecar(manifests: Sequence[Manifest]) -> Iterator[str]:
    maps = [m for m in of_kind(manifests, "ConfigMap") if "dashboard" in m["metadata"]["name"]]
    if not maps:
        return
    files = {f"twocans-{path.name}": path.read_text() for path in DASHBOARDS.glob("*.json")}
    found: dict[str, str] = {}
    for manifest in maps:
        name = manifest["metadata"]["name"]
        found |= manifest["data"]
        labels, annotations = (manifest["metadata"].get(m, {}) for m in ("labels", "annotations"))
        yield from expect(f"{name}: grafana_dashboard", labels.get("grafana_dashboard"), "1")
        yield from expect(f"{name}: folder", annotations.get("grafana_folder"), "twocans")
        # kubectl apply keeps a copy in an annotation, which may have 256 KiB.
        if len(json.dumps(manifest)) >= 250_000:
            yield f"{name} is too big for kubectl apply"
    yield from expect("dashboards", sorted(found), sorted(files))
    yield from (f"{name} is not the file" for name in found if found[name] != files.get(name))
