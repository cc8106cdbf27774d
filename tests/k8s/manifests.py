"""The manifests as `kubectl apply -k` would send them."""

import copy
import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
K8S = ROOT / "k8s"
DASHBOARDS = ROOT / "observability" / "grafana" / "dashboards"

OVERLAYS = ("mesh", "pair", "zones")
COMPONENTS = ("podmonitor", "alerts", "dashboards", "networkpolicy", "endpointslices")
# Not among those that everybody may add: it takes something away.
PLATFORMS = ("openshift",)
COMPONENT = "../../components/"
# A list item that is commented out and ready. At the top it may go on for some lines; a setting
# is one line.
ITEM = re.compile(r"^#  - .*\n(?:#    .*\n)*|^#      - .*\n", re.MULTILINE)
WORKLOADS = ("DaemonSet", "Deployment")

Manifest = dict[str, Any]


def build(folder: Path) -> list[Manifest]:
    """Render one kustomization; a failure shows what kustomize says."""
    command = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # it warns of what it will not do much longer
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def rendered(overlay: str, components: Sequence[str] = (), **more: str) -> list[Manifest]:
    """Render an overlay as it is, or around it a kustomization with components and more fields."""
    return copy.deepcopy(_rendered(overlay, tuple(components), **more))


@functools.cache
def _rendered(overlay: str, components: tuple[str, ...], **more: str) -> list[Manifest]:
    if not components and not more:
        return build(K8S / "overlays" / overlay)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # An absolute path is refused.
        k8s = Path(os.path.relpath(K8S, folder.resolve()))
        kustomization = {
            "namespace": "twocans",
            "resources": [str(k8s / "overlays" / overlay)],
            "components": [str(k8s / "components" / component) for component in components],
            **more,
        }
        (folder / "kustomization.yaml").write_text(json.dumps(kustomization))
        return build(folder)


def copied(folder: Path) -> Path:
    """Copy what kustomize needs, so that a test may edit it; returns the copy's k8s."""
    shutil.copytree(K8S, folder / "k8s")
    shutil.copytree(DASHBOARDS, folder / DASHBOARDS.relative_to(ROOT))
    return folder / "k8s"


def add_components(overlay: Path, only: str = "") -> None:
    """Take the # away from an overlay's components, or from those that begin with ``only``."""
    page = overlay / "kustomization.yaml"
    page.write_text(uncomment(page.read_text(), f"{COMPONENT}{only}"))


def uncomment(text: str, only: str) -> str:
    """Take the # away from those items of lists that are ready and contain ``only``."""
    return ITEM.sub(lambda match: _bare(match[0]) if only in match[0] else match[0], text)


def _bare(item: str) -> str:
    return re.sub("^#", "", item, flags=re.MULTILINE)


def key(manifest: Manifest) -> str:
    """Name an object: ``Kind/name``, without the hash of a generated name."""
    name = str(manifest["metadata"]["name"])
    if manifest["kind"] == "ConfigMap" and not name.startswith("twocans-dashboard-"):
        name = name.rpartition("-")[0]
    return f"{manifest['kind']}/{name}"


def by_key(manifests: Sequence[Manifest]) -> dict[str, Manifest]:
    """Index objects by their names, of which no two are the same."""
    index = {key(manifest): manifest for manifest in manifests}
    assert len(index) == len(manifests)
    return index


@dataclass
class Can:
    """One workload, its pod, its only container, and what the program in it is told."""

    workload: Manifest
    name: str
    """``server`` or ``client``"""
    env: dict[str, Any] = field(default_factory=dict)
    """Variable to its text, or to the ``valueFrom`` that gives it."""

    @property
    def template(self) -> Manifest:
        template: Manifest = self.workload["spec"]["template"]
        return template

    @property
    def pod(self) -> Manifest:
        pod: Manifest = self.template["spec"]
        return pod

    @property
    def container(self) -> Manifest:
        container: Manifest = self.pod["containers"][0]
        return container

    @property
    def only_one(self) -> bool:
        """Whether there is one pod of it in the whole cluster."""
        spec = self.workload["spec"]
        return self.workload["kind"] == "Deployment" and bool(spec.get("replicas", 1) == 1)

    def __str__(self) -> str:
        return f"{self.workload['kind']} {self.workload['metadata']['name']}"


def cans(manifests: Sequence[Manifest]) -> Iterator[Can]:
    """Find both cans; an ``env`` goes before an ``envFrom``, as in Kubernetes."""
    maps = {m["metadata"]["name"]: m["data"] for m in manifests if m["kind"] == "ConfigMap"}
    for workload in manifests:
        if workload["kind"] not in WORKLOADS:
            continue
        can = Can(workload, workload["metadata"]["name"].removeprefix("twocans-"))
        for source in can.container.get("envFrom", []):
            can.env |= maps.get(source["configMapRef"]["name"], {})
        for variable in can.container.get("env", []):
            value = variable.get("valueFrom") or _expanded(variable.get("value", ""), can.env)
            can.env[variable["name"]] = value
        yield can


def _expanded(text: str, before: Mapping[str, Any]) -> str:
    """Put variables in for ``$(NAME)`` as Kubernetes does: those that stand before, no others."""
    return re.sub(r"\$\(([\w.-]+)\)", lambda match: str(before.get(match[1], match[0])), text)
