"""The pair in a scene: a server and a client as a deployment runs them, and what the client says.

Both are real processes of uid nobody without capabilities. They get an address, and nothing that
says what will be done to the path.
"""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from .case import Case
from .outcome import Name, Said
from .scene import Scene

__all__ = ["INTERVAL_S", "PORT", "Event", "Pair", "pair", "said_in", "target_of"]

INTERVAL_S = 0.1
"""Seconds between two probes."""
PORT = 5000
_ABLATED = Path(__file__).with_name("ablated_client.py")
_NOTED = ("-m", "lab.programs.noted_client")
_HTTP_PORT = 5002
_START_S = 20.0
_STOP_S = 10.0


class Event(NamedTuple):
    """A line that a process logged.

    Attributes:
        at_s: When it was read, seconds since the run began (CLOCK_MONOTONIC).
        fields: As it was logged.
    """

    at_s: float
    fields: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.fields.get("event.name", ""))


class Pair:
    """The two processes while they run.

    Args:
        scene: Where they run.
        begun_ns: CLOCK_MONOTONIC of the beginning of the run.
    """

    def __init__(self, scene: Scene, begun_ns: int) -> None:
        self._scene = scene
        self._begun_ns = begun_ns
        self.client_events: list[Event] = []
        self.server_events: list[Event] = []

    def now_s(self) -> float:
        """Return seconds since the run began."""
        return (time.monotonic_ns() - self._begun_ns) / 1e9

    def metrics(self) -> str:
        """Return the client's page of metrics.

        Raises:
            OSError: It does not answer.
        """
        with self._scene.client.entered():
            url = f"http://127.0.0.1:{_HTTP_PORT}/metrics"
            with urllib.request.urlopen(url, timeout=5) as answer:
                page: bytes = answer.read()
        return page.decode()

    def listen(self, stream: IO[bytes], events: list[Event]) -> threading.Thread:
        """Keep what a process logs, until it ends."""

        def read() -> None:
            for line in stream:
                try:
                    fields = dict(json.loads(line))
                except (ValueError, TypeError):  # what a process cries out when it dies
                    fields = {"line": line.decode(errors="replace").strip()}
                events.append(Event(self.now_s(), fields))

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread


def target_of(scene: Scene, case: Case) -> str:
    """Return what the client of a case probes."""
    return case.target or f"{scene.server.address}:{PORT}"


@contextlib.contextmanager
def pair(scene: Scene, case: Case, *, ablation: str = "") -> Iterator[Pair]:
    """Run server and client in a scene; both have ended when the block has.

    Args:
        scene: Where.
        case: Says what the client probes, and has more flags of both.
        ablation: Evidence that the client is to do without; see ``ablated_client``.

    Raises:
        RuntimeError: One of them did not start.
    """
    both = Pair(scene, time.monotonic_ns())
    # The client stops first, so nobody has to be waited for.
    drain = ["--drain-accept-s", "0.1"]
    server = [*scene.server_program, "--port", str(PORT), *drain, *case.server_flags]
    client = [
        *([str(_ABLATED), ablation] if ablation else [*_NOTED, scene.client_module]),
        *("run", "--output", "json", "--interval-s", str(INTERVAL_S)),
        *("--http-host", "127.0.0.1", "--http-port", str(_HTTP_PORT)),
        *("--target", target_of(scene, case), *case.client_flags),
    ]
    with contextlib.ExitStack() as stack:
        scene.server_process = stack.enter_context(_running(scene, both, "server", server))
        _wait_for("listening", both.server_events, scene.server_process)
        scene.client_process = stack.enter_context(_running(scene, both, "client", client))
        _wait_for("started", both.client_events, scene.client_process)
        yield both


@contextlib.contextmanager
def _running(
    scene: Scene, both: Pair, end: str, words: Sequence[str]
) -> Iterator[subprocess.Popen[bytes]]:
    namespace = scene.server if end == "server" else scene.client
    events = both.server_events if end == "server" else both.client_events
    process = scene.as_nobody(
        namespace,
        sys.executable,
        *words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    stdout = cast("IO[bytes]", process.stdout)
    listener = both.listen(stdout, events)
    try:
        yield process
    finally:
        if end == "server":
            process.kill()  # nobody is left for whom it should drain
        process.terminate()
        process.send_signal(signal.SIGCONT)  # one that is stopped hears nothing else
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        listener.join(_STOP_S)
        stdout.close()


def _wait_for(name: str, events: Sequence[Event], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_S
    while not any(event.name == name for event in list(events)):
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"no {name}: {[event.fields for event in events][-3:]}")
        time.sleep(0.05)


def said_in(events: Iterable[Event]) -> tuple[Said, ...]:
    """Return the verdicts among what a client logged, each with what became of it."""
    verdicts: list[Said] = []
    for event in events:
        if not event.name.startswith("verdict_"):
            continue
        new = _said(event)
        if event.name == "verdict_began":
            verdicts.append(new)
            continue
        at = next((at for at in reversed(range(len(verdicts))) if verdicts[at].name == new.name), 0)
        if event.name == "verdict_confirmed" and verdicts:
            verdicts[at] = new._replace(at_s=verdicts[at].at_s)
        elif event.fields.get("twocans.verdict.withdrawn") and verdicts:
            verdicts[at] = verdicts[at]._replace(is_withdrawn=True)
    return tuple(verdicts)


def _said(event: Event) -> Said:
    fields = {name.removeprefix("twocans.verdict."): value for name, value in event.fields.items()}
    figures = fields.get("figures") or {}
    return Said(
        Name(str(fields.get("name")), str(fields.get("culprit")), fields.get("direction") or ""),
        event.at_s,
        str(fields.get("confidence") or ""),
        is_info=event.fields.get("level") == "INFO",
        figures={k: float(v) for k, v in figures.items() if isinstance(v, int | float)},
        proof=str(fields.get("proof") or ""),
    )
