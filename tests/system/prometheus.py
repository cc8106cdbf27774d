"""A real Prometheus, for what only it can tell: what a query, a rule or a scrape really gives."""

import contextlib
import json
import os
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import HttpWaitStrategy

from needs import lacking
from system.cans import PATIENCE_S

IMAGE = os.environ.get("PROMETHEUS_IMAGE", "prom/prometheus:v3.5.0")

_PORT = 9090


def has_image(name: str) -> bool:
    """Whether the engine has an image."""
    return _docker("image", "inspect", name)


def need_image() -> None:
    """End this test where Prometheus is neither here nor to be pulled."""
    if not has_image(IMAGE) and not _docker("pull", "--quiet", IMAGE):
        lacking(f"{IMAGE} is missing and cannot be pulled")


def _docker(*command: str) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(["docker", *command], capture_output=True, timeout=90, check=False)
        return done.returncode == 0
    return False


class Prometheus(DockerContainer):
    """Prometheus, scraping and evaluating rules once a second.

    Args:
        network: Where the cans are.
        folder: For its configuration; it must stay while this runs.
        targets: Of each job.
        rules: Files of rules.
    """

    def __init__(
        self,
        network: Network,
        folder: Path,
        targets: Mapping[str, Sequence[str]],
        rules: Sequence[Path],
    ) -> None:
        every_s = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        configuration = {
            "global": every_s,
            "rule_files": ["rules/*"],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": list(addresses)}]}
                for job, addresses in targets.items()
            ],
        }
        # JSON is YAML. The process is nobody, and must be able to read it.
        (folder / "rules").mkdir()
        for number, file in enumerate(rules):
            # A group with an interval of its own would have data up to a minute after the rest.
            groups = yaml.safe_load(file.read_text())["groups"]
            for group in groups:
                group.pop("interval", None)
            (folder / f"rules/{number}.yml").write_text(json.dumps({"groups": groups}))
        (folder / "prometheus.yml").write_text(json.dumps(configuration))
        for each in (folder, *folder.rglob("*")):
            each.chmod(0o755 if each.is_dir() else 0o644)
        command = [
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
        ]
        super().__init__(IMAGE, command=command)  # type: ignore[arg-type]
        self.with_network(network).with_exposed_ports(_PORT)
        self.with_volume_mapping(str(folder), "/etc/prometheus", "ro")
        ready = HttpWaitStrategy(_PORT, "/-/ready").with_startup_timeout(int(PATIENCE_S))
        self.waiting_for(ready.with_poll_interval(0.1))

    def get(self, path: str, **parameters: str) -> Any:
        """Return what the API gives.

        Raises:
            ValueError: Prometheus refuses what it was asked, and says why.
        """
        host, port = self.get_container_host_ip(), self.get_exposed_port(_PORT)
        url = f"http://{host}:{port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as refusal:
            with refusal:
                raise ValueError(refusal.read().decode()) from None

    def ask(self, promql: str) -> list[dict[str, Any]]:
        """Return the series that a query gives now."""
        series: list[dict[str, Any]] = self.get("query", query=promql)["result"]
        return series

    def label_values(self, series: str, label: str) -> list[str]:
        """Return the values that a label has on series, as Grafana asks for them."""
        values: list[str] = self.get(f"label/{label}/values", **{"match[]": series})
        return values
