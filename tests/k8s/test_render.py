"""Every overlay renders with every component, and an API server takes what comes of it."""

import argparse
import functools
import json
import re
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import pytest

from k8s.manifests import (
    COMPONENT,
    COMPONENTS,
    DASHBOARDS,
    ITEM,
    K8S,
    OVERLAYS,
    PLATFORMS,
    ROOT,
    Manifest,
    add_components,
    build,
    by_key,
    cans,
    copied,
    key,
    rendered,
    uncomment,
)
from k8s.rules import SETTINGS, problems
from twocans_client.config import ClientConfig
from twocans_core.process.settings import load
from twocans_server.config import ServerConfig

# The oldest and the newest Kubernetes of which it has the schemas.
VERSIONS = (
    kubernetes_validate.utils.all_versions()[0],
    kubernetes_validate.latest_version(),
)
# No schema comes with Kubernetes for what the Prometheus operator adds: crds/ has them.
CUSTOM = {"PodMonitor", "PrometheusRule"}
CRDS = sorted((ROOT / "tests/k8s/crds").glob("*.json"))

CHOICES = [(), *((component,) for component in COMPONENTS), COMPONENTS]

BOTH = {"twocans-client", "twocans-server"}
OF_AN_OVERLAY = {
    overlay: {
        "Namespace/twocans",
        "Service/twocans-server",
        *(f"{kind}/{name}" for kind in (workload, "ConfigMap", *others) for name in BOTH),
    }
    for overlay, workload, *others in (
        ("mesh", "DaemonSet"),
        ("pair", "Deployment"),
        ("zones", "Deployment", "PodDisruptionBudget"),
    )
}
OF_A_COMPONENT = {
    "podmonitor": {f"PodMonitor/{name}" for name in BOTH},
    "alerts": {"PrometheusRule/twocans"},
    "dashboards": {
        f"ConfigMap/twocans-dashboard-{path.stem}" for path in DASHBOARDS.glob("*.json")
    },
    "networkpolicy": {
        f"NetworkPolicy/twocans-{name}"
        for name in (
            "deny",
            "scrape",
            "server-data",
            "client-data",
            "client-dns",
            "client-apiserver",
        )
    },
    "endpointslices": {
        f"{kind}/twocans-client" for kind in ("ServiceAccount", "Role", "RoleBinding")
    },
}


@pytest.mark.parametrize("components", CHOICES, ids="+".join)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_rendering_has_its_objects_and_no_other(overlay, components):
    wanted = OF_AN_OVERLAY[overlay].union(*(OF_A_COMPONENT[name] for name in components))
    assert set(by_key(rendered(overlay, components))) == wanted


@pytest.mark.parametrize("components", CHOICES, ids="+".join)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_rendering_follows_every_rule(overlay, components):
    assert problems(rendered(overlay, components)) == {}


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_component_changes_no_object_of_the_overlay(overlay, component):
    before, after = by_key(rendered(overlay)), by_key(rendered(overlay, (component,)))
    changed = {name for name in before if before[name] != after[name]}
    clients = {
        name for name in before if name.endswith(("Set/twocans-client", "ment/twocans-client"))
    }
    # The one that has another way to find servers.
    assert changed == (clients if component == "endpointslices" else set())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_components_may_be_listed_in_any_order(overlay):
    # Of any two, each comes first once.
    backwards = rendered(overlay, COMPONENTS[::-1])
    assert by_key(backwards) == by_key(rendered(overlay, COMPONENTS))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_components_may_be_added_within_the_overlay_or_around_it(overlay, tmp_path):
    folder = copied(tmp_path) / "overlays" / overlay
    add_components(folder)
    assert by_key(build(folder)) == by_key(rendered(overlay, COMPONENTS + PLATFORMS))


def test_the_dashboards_can_be_applied_alone():
    alone = {name: manifest["data"] for name, manifest in by_key(build(DASHBOARDS)).items()}
    within = by_key(rendered("mesh", ("dashboards",)))
    assert alone == {name: within[name]["data"] for name in OF_A_COMPONENT["dashboards"]}


def test_the_binding_names_the_account_in_its_namespace_wherever_that_is(tmp_path):
    folder = copied(tmp_path) / "overlays" / "mesh"
    page = folder / "kustomization.yaml"
    text = page.read_text().replace("namespace: twocans\n", "namespace: elsewhere\n")
    page.write_text(text)
    add_components(folder, "endpointslices")
    manifests = by_key(build(folder))
    assert manifests["RoleBinding/twocans-client"]["subjects"][0]["namespace"] == "elsewhere"
    found = {m["metadata"].get("namespace", "elsewhere") for m in manifests.values()}
    assert found == {"elsewhere"}
    assert "Namespace/elsewhere" in manifests


@pytest.mark.parametrize("where", ["within", "around"])
@pytest.mark.parametrize("components", [(), COMPONENTS], ids="+".join)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_prefix_and_a_suffix_reach_every_name(overlay, components, where, tmp_path):
    affixes = {"namePrefix": "blue-", "nameSuffix": "-1"}
    if where == "around":
        manifests = rendered(overlay, components, **affixes)
    else:
        folder = copied(tmp_path) / "overlays" / overlay
        if components:
            add_components(folder)
        page = folder / "kustomization.yaml"
        page.write_text(
            page.read_text() + "".join(f"{k}: {json.dumps(v)}\n" for k, v in affixes.items())
        )
        manifests = build(folder)
    # What kustomize gives no other name: it is the overlay's `namespace`.
    named = [m["metadata"]["name"] for m in manifests if m["kind"] != "Namespace"]
    assert [name for name in named if not re.match(r"blue-twocans.*-1(-\w+)?$", name)] == []
    (service,) = (m["metadata"]["name"] for m in manifests if m["kind"] == "Service")
    discovery = "endpointslices" if components else "dns"
    for can in cans(manifests):
        for source in can.container["envFrom"]:
            assert source["configMapRef"]["name"] in named
        if "TWOCANS_TARGETS" in can.env:
            assert can.env["TWOCANS_TARGETS"] == f"{discovery}:{service}:5000"
    assert sum("TWOCANS_TARGETS" in can.env for can in cans(manifests)) == 1
    assert invalid(manifests, VERSIONS[-1]) == {}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_on_openshift_no_pod_asks_for_a_user(overlay):
    """Its restricted-v2 takes a user of the namespace's range, or puts one in where there is none.

    Everything else that it demands is of Pod Security restricted, for which there are rules.
    """
    manifests = rendered(overlay, PLATFORMS)
    ids = ("runAsUser", "runAsGroup", "fsGroup", "supplementalGroups")
    assert [name for name in ids if f'"{name}"' in json.dumps(manifests)] == []
    assert set(problems(manifests)) == {"user_is_the_images"}
    before, after = by_key(rendered(overlay)), by_key(manifests)
    for can in cans([*before.values()]):
        for name in ids[:2]:
            can.pod["securityContext"].pop(name)
    assert after == before


def test_an_image_of_ones_own_registry_is_one_line(tmp_path):
    folder = copied(tmp_path) / "overlays" / "mesh"
    page = folder / "kustomization.yaml"
    own = "registry.example.com/team/twocans-"
    page.write_text(page.read_text().replace("newName: twocans-", f"newName: {own}"))
    images = {can.container["image"].rpartition(":")[0] for can in cans(build(folder))}
    assert images == {f"{own}server", f"{own}client"}


# What Kubernetes puts in for a field; no zone, as in a cluster that labels no pod with one.
FIELDS = {
    "spec.nodeName": "node-a",
    "status.podIP": "2001:db8::9",
    "metadata.namespace": "twocans",
    "metadata.name": "twocans-client-x7x9q",
    "metadata.labels['topology.kubernetes.io/zone']": "",
}


@pytest.mark.parametrize("components", [(), COMPONENTS], ids="+".join)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_programs_take_what_they_are_told(overlay, components):
    for can in cans(rendered(overlay, components)):
        environ = {
            name: value if isinstance(value, str) else FIELDS[value["fieldRef"]["fieldPath"]]
            for name, value in can.env.items()
        }
        flags = argparse.Namespace(config=None)
        kind: type[ServerConfig | ClientConfig] = {"server": ServerConfig, "client": ClientConfig}[
            can.name
        ]
        config, _ = load(kind, flags, environ)
        name = {"mesh": "node-a", "pair": can.name, "zones": "twocans-client-x7x9q"}[overlay]
        assert config.about() == {
            "name": name,
            "node": "node-a",
            "zone": "",
            "namespace": "twocans",
            "address": "2001:db8::9",
        }


# --- schemas --------------------------------------------------------------------------------


@functools.cache
def refused(text: str, version: str) -> str:
    """What the strict schema has against a manifest; empty where nothing."""
    try:
        kubernetes_validate.validate(json.loads(text), version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error.message)
    except kubernetes_validate.SchemaNotFoundError as error:
        return f"no schema of {error.kind}"
    return ""


def invalid(manifests: list[Manifest], version: str) -> dict[str, str]:
    found = {key(m): refused(json.dumps(m, sort_keys=True), version) for m in manifests}
    custom = {f"no schema of {kind}" for kind in CUSTOM}
    return {name: problem for name, problem in found.items() if problem and problem not in custom}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("components", CHOICES, ids="+".join)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_takes_a_rendering(overlay, components, version):
    assert invalid(rendered(overlay, components), version) == {}


def stored(value: Any, schema: Manifest) -> Any:
    """Return what the API server keeps: without unknown fields, and with the schema's defaults."""
    if isinstance(value, list):
        return [stored(item, schema["items"]) for item in value]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    known = schema["properties"]
    defaults = {name: known[name]["default"] for name in known if "default" in known[name]}
    return defaults | {name: stored(value[name], known[name]) for name in value if name in known}


@pytest.mark.parametrize("page", CRDS, ids=lambda page: page.stem)
def test_the_operators_schema_takes_our_resources_and_fills_nothing_in(page):
    kind, schema = page.stem.partition("-")[0], json.loads(page.read_text())
    specs = [m["spec"] for m in rendered("mesh", ("podmonitor", "alerts")) if m["kind"] == kind]
    assert specs
    for spec in specs:
        # Without a look at the schema itself: its patterns are in Go's syntax.
        jsonschema.Draft202012Validator(schema).validate(spec)
        assert stored(spec, schema) == spec


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_mistyped_field_of_any_object_is_found(overlay, version):
    manifests = [m for m in rendered(overlay, COMPONENTS) if m["kind"] not in CUSTOM]
    for manifest in manifests:
        manifest["metadata"]["lables"] = {}
    assert len(invalid(manifests, version)) == len(manifests)


def test_the_oldest_and_the_newest_kubernetes_are_years_apart():
    oldest, newest = (int(version.split(".")[1]) for version in VERSIONS)
    assert newest - oldest >= 6


# --- bases ----------------------------------------------------------------------------------


def too_much_for_a_base(manifests: list[Manifest]) -> set[str]:
    found = set()
    for manifest in manifests:
        found |= {"namespace"} & manifest["metadata"].keys()
        found |= {"replicas", "strategy", "updateStrategy"} & manifest.get("spec", {}).keys()
    for can in cans(manifests):
        if ":" in can.container["image"]:
            found.add("tag")
        found |= {"TWOCANS_NAME"} & can.env.keys()
        if "kubernetes.io/hostname" in can.pod["nodeSelector"]:
            found.add("host")
    return found


@pytest.mark.parametrize("base", ["server", "client", "namespace"])
def test_a_base_leaves_namespace_tag_replicas_and_hosts_to_the_overlay(base):
    assert too_much_for_a_base(build(K8S / "base" / base)) == set()


def test_an_overlay_would_be_too_much_for_a_base():
    assert too_much_for_a_base(rendered("pair")) == {
        "namespace",
        "replicas",
        "strategy",
        "tag",
        "TWOCANS_NAME",
    }


# --- what is commented out ------------------------------------------------------------------

# prometheusrule.yaml is generated.
PAGES = sorted(page for page in K8S.rglob("*.yaml") if page.name != "prometheusrule.yaml")
# A text of an item to the rules that are meant to complain of it.
ON_PURPOSE = {
    "TWOCANS_PROBE_SELF": set(),
    "/spec/template/spec/imagePullSecrets": set(),
    "/spec/template/spec/tolerations": {"only_linux_and_where_a_pod_may_go_anyway"},
    "/spec/template/spec/priorityClassName": {"only_linux_and_where_a_pod_may_go_anyway"},
    "/spec/template/spec/nodeSelector": {"only_linux_and_where_a_pod_may_go_anyway"},
    "$patch: delete": set(),
    "server.example.com:5000": {"targets_are_the_servers"},
    "/metadata/labels/release": set(),
    "/spec/ingress/0/from/0/namespaceSelector": set(),
    "/spec/egress/0/to/-": set(),
}


READY = [
    pytest.param(page, match[0], id=f"{page.parent.relative_to(K8S)}-{number}")
    for page in PAGES
    for number, match in enumerate(ITEM.finditer(page.read_text()))
    if COMPONENT not in match[0]
]


@pytest.mark.parametrize(("page", "item"), READY)
def test_what_is_commented_out_works_without_its_number_sign(page, item, tmp_path):
    k8s = copied(tmp_path)
    mine = k8s / page.relative_to(K8S)
    overlay = mine.parent
    if overlay.parent.name == "components":
        overlay = k8s / "overlays" / "mesh"
        add_components(overlay, mine.parent.name)
    mine.write_text(uncomment(mine.read_text(), item))
    after = build(overlay)

    assert after != rendered(overlay.name, [mine.parent.name] if overlay != mine.parent else [])
    for version in VERSIONS:
        assert invalid(after, version) == {}
    (rules,) = (rules for text, rules in ON_PURPOSE.items() if text in item)
    if "$patch: delete" in item:
        assert [name for name in by_key(after) if "server" in name] == []
    else:
        assert set(problems(after)) == rules


def test_every_list_item_behind_a_number_sign_is_found():
    lines = [line for page in PAGES for line in page.read_text().splitlines()]
    found = [line for each in READY for line in str(each.values[1]).splitlines()]
    behind = [line for line in lines if re.match(r"\s*#\s*- ", line)]
    assert [line for line in behind if COMPONENT not in line and line not in found] == []
    assert sum(COMPONENT in line for line in behind) == len(OVERLAYS) * len(COMPONENTS + PLATFORMS)
    for text in ON_PURPOSE:
        assert any(text in line for line in found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(K8S)))
def test_every_path_in_a_comment_leads_somewhere(page):
    comments = re.findall(r"#(.*)", page.read_text())
    paths = re.findall(r"\b((?:k8s|docs|observability|components)/[\w./-]*\w)", " ".join(comments))
    roots = (ROOT, K8S)
    assert [path for path in paths if not any((root / path).exists() for root in roots)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(K8S)))
def test_every_setting_that_is_named_exists(page):
    named = set(re.findall(r"TWOCANS_[A-Z_]+", page.read_text()))
    # What Kubernetes would set, if it were let.
    assert named - {"TWOCANS_SERVER_PORT"} <= {*SETTINGS["server"], *SETTINGS["client"]}


def test_kustomize_reads_nothing_but_what_is_in_the_repository():
    remote = [
        page for page in PAGES if re.search(r"^\s*- +(https?|git|ssh)", page.read_text(), re.M)
    ]
    assert remote == []


def test_a_page_fits_on_a_screen_and_begins_with_what_it_is_about():
    for page in [*PAGES, DASHBOARDS / "kustomization.yaml"]:
        lines = page.read_text().splitlines()
        assert "\t" not in page.read_text()
        assert max(map(len, lines)) <= 100
        assert lines[0].startswith(("#", "apiVersion"))
