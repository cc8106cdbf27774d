"""The images in containers: how the system tests start them, read them and wait for them."""

import contextlib
import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, TypeVar

from docker.errors import APIError, NotFound
from prometheus_client.parser import text_string_to_metric_families
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import HttpWaitStrategy

PYTHON_IMAGE = os.environ.get("PYTHON_IMAGE", "python:3.13-slim-trixie")
PATIENCE_S = 30.0
"""Longer than anything here may take: what hangs fails, and what is slow does not."""

HARDENED: Mapping[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "pids_limit": 64,
    "mem_limit": "128m",
}
"""As docker-compose.yml runs them: every test here is a test of this as well."""

_METRICS_PORTS = {"server": 5001, "client": 5002}

ResultT = TypeVar("ResultT")


def eventually(look: Callable[[], ResultT], what: str, within_s: float = PATIENCE_S) -> ResultT:
    """Ask until the answer is true, and return it; ``what`` is what did not happen.

    A can that is not there to be asked is an answer too: not yet.
    """
    deadline = time.monotonic() + within_s
    while True:
        answer: Any = None
        try:
            answer = look()
        except OSError as error:  # URLError is one
            answer, told = None, f"; {error}"
        else:
            told = f"; the last answer was {answer!r}"
        if answer:
            return answer  # type: ignore[no-any-return]
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}{told}"
        time.sleep(0.1)


class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def sum(self, name: str, **labels: str) -> float:
        """Add up all series of this name with these labels; 0 where there is none."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def values(self, name: str, label: str) -> set[str]:
        """Return the values that a label has on series of this name that are not 0."""
        return {
            sample.labels[label] for sample in self.samples if sample.name == name and sample.value
        }


class Holder(DockerContainer):
    """A network namespace that outlives the can in it, as a pod's does.

    A container of its own would take its address along when it dies, and nobody would be left
    to refuse a connection.
    """

    def __init__(self, network: Network, alias: str) -> None:
        command = ["python", "-c", "import signal; signal.pause()"]
        super().__init__(PYTHON_IMAGE, command=command)  # type: ignore[arg-type]
        self.with_network(network).with_network_aliases(alias).with_exposed_ports(5001)


class Can(DockerContainer):
    """One of the two images, running.

    Args:
        image: Its name.
        kind: ``server`` or ``client``.
        name: What it says that it is called.
        holder: Whose network namespace it lives in; None for one of its own.
        settings: As ``TWOCANS_*`` without the prefix, in lower case.
    """

    def __init__(
        self, image: str, kind: str, name: str, holder: Holder | None = None, **settings: str
    ) -> None:
        super().__init__(image, **HARDENED)
        self.kind = kind
        self.name = name
        self._port = _METRICS_PORTS[kind]
        self._reached_at: DockerContainer = holder or self
        for key, value in {"name": name, **settings}.items():
            self.with_env(f"TWOCANS_{key.upper()}", value)
        if holder is not None:
            self._kwargs["network_mode"] = f"container:{holder.get_container_id()}"

    def reachable(self, network: Network, alias: str) -> None:
        """Give it an address of its own, and a name on the network."""
        self.with_network(network).with_network_aliases(alias).with_exposed_ports(self._port)
        ready = HttpWaitStrategy(self._port, "/readyz").with_startup_timeout(int(PATIENCE_S))
        self.waiting_for(ready.with_poll_interval(0.1))

    def metrics(self) -> Metrics:
        """Scrape it."""
        # Asked anew each time: a container that was started again has another port.
        port = self._reached_at.get_exposed_port(self._port)
        url = f"http://{self.get_container_host_ip()}:{port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as response:
            return Metrics(response.read().decode())

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """Return its log so far, parsed: all of it, or the events of one name."""
        lines = self.get_wrapped_container().logs(stderr=False).decode().splitlines()
        return [
            event for event in map(json.loads, lines) if not name or event["event.name"] == name
        ]

    def last(self, name: str) -> dict[str, Any]:
        """Wait for an event and return its newest."""
        return eventually(lambda: self.events(name), f"{self.name} logs {name}")[-1]

    def end(self, signal: str = "SIGTERM") -> int:
        """Send it a signal and wait until it is gone; returns its exit code."""
        container = self.get_wrapped_container()
        container.kill(signal)
        return int(container.wait(timeout=PATIENCE_S)["StatusCode"])

    def start_again(self) -> None:
        """Start the process in the same container."""
        self.get_wrapped_container().start()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Freeze its processes, while the kernel goes on answering for them."""
        self.get_wrapped_container().pause()
        try:
            yield
        finally:
            self.get_wrapped_container().unpause()

    def stop(self, force: bool = True, delete_volume: bool = True) -> None:
        """Remove it, whether or not the test did so already."""
        with contextlib.suppress(NotFound):
            super().stop(force, delete_volume)

    def tail(self, lines: int = 30) -> str:
        """Return the end of what it printed, for a person to read."""
        try:
            return str(self.get_wrapped_container().logs(tail=lines).decode(errors="replace"))
        except (APIError, OSError) as error:
            return f"no logs: {error}"


class Site:
    """Containers on one Docker network, removed when the test or the session is over.

    Args:
        images: By kind.
        network: The network.
        stack: Closes what was started.
        started: Holds every can while it is there.
    """

    def __init__(
        self,
        images: Mapping[str, str],
        network: Network,
        stack: contextlib.ExitStack,
        started: list[Can],
    ) -> None:
        self._images = images
        self._network = network
        self._stack = stack
        self._started = started

    def holder(self, alias: str) -> Holder:
        """Hold a network namespace."""
        return self._stack.enter_context(Holder(self._network, alias))

    def server(
        self, name: str, *, alias: str = "", holder: Holder | None = None, **settings: str
    ) -> Can:
        """Start a server that stops soon when it is told to; ``alias`` if not its name."""
        soon = {"drain_accept_s": "0.5", "drain_s": "2", **settings}
        return self._start("server", name, alias or name, holder, **soon)

    def client(self, name: str, targets: str, **settings: str) -> Can:
        """Start a client that probes often and gives up soon."""
        often = {"interval_s": "0.2", "timeout_s": "1", "resolve_interval_s": "0.5", **settings}
        return self._start("client", name, name, None, targets=targets, **often)

    def _start(
        self, kind: str, name: str, alias: str, holder: Holder | None, **settings: str
    ) -> Can:
        can = Can(self._images[kind], kind, name, holder, **settings)
        if holder is None:
            can.reachable(self._network, alias)
        self._started.append(can)
        self._stack.callback(self._started.remove, can)
        return self._stack.enter_context(can)

    def run(self, image: str, *command: str) -> tuple[int, str, str]:
        """Run a container to its end; returns its exit code, stdout and stderr."""
        container = DockerContainer(image, command=list(command))  # type: ignore[arg-type]
        with container.with_network(self._network):
            wrapped = container.get_wrapped_container()
            code = int(wrapped.wait(timeout=PATIENCE_S)["StatusCode"])
            stdout, stderr = container.get_logs()
        return code, stdout.decode(), stderr.decode()

    def python(self, script: str) -> str:
        """Run a script in a container of plain Python; returns what it printed."""
        code, stdout, stderr = self.run(PYTHON_IMAGE, "python", "-c", script)
        assert code == 0, stderr
        return stdout


def moment(event: Mapping[str, Any]) -> float:
    """Return when an event was logged, Unix time."""
    return datetime.fromisoformat(event["timestamp"]).timestamp()
