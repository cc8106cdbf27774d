"""One condition's run: servers, captures, the tools that probe, and what they found."""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import errors
from .capture import connections, read_pcap
from .grid import Grid
from .namespaces import CLIENT, DEVICE, SERVER, SERVER_HOST, Quota, enter, running
from .report import condition
from .rivals import CONFIG, EXPORTER_PORT, read_log

__all__ = ["EXPORTER", "GRID", "SOCKPERF", "Run"]

ROOT = Path(__file__).parents[2]
PORT, HTTP_PORT, SOCKPERF_PORT = 5000, 5001, 11111
EXPORTER, SOCKPERF = "prometheus-blackbox-exporter", "sockperf"

# Each program makes 100 probes a second: blackbox_exporter 50 of each module. Nothing starts at the
# same time as anything else.
_MS = 1_000_000
BURST_NS, PAUSE_NS = 10_500 * _MS, 2_500 * _MS
GRIDS = {
    "twocans": Grid(0, 4, BURST_NS + PAUSE_NS, 1_050, 10 * _MS),
    "connect": Grid(0, 4, BURST_NS + PAUSE_NS, 525, 20 * _MS, 3 * _MS),
    "exchange": Grid(0, 4, BURST_NS + PAUSE_NS, 525, 20 * _MS, 13 * _MS),
}
GRID = GRIDS["twocans"]
# sockperf waits for two seconds between its connection and its first message.
_SOCKPERF_EARLY_NS = 2_000 * _MS
_END_S = 60.0
"""For the last probes, which may time out, and for what has to start or stop."""

Process = subprocess.Popen[bytes]


class Run:
    """One condition: ``start``, ``go`` and ``close``, then ``compare``.

    Args:
        folder: For its files; exists.
        quota: Where the servers shall be, if anywhere.
        burners: How many processes shall only count, in the same place.
    """

    def __init__(self, folder: Path, quota: Quota | None, burners: int) -> None:
        self._folder = folder
        self._quota = quota
        self._burners = burners
        self._stack = contextlib.ExitStack()
        self._captures: list[Process] = []
        self._workers: dict[str, Process] = {}
        self._logs: list[list[tuple[int, int]]] = []
        self._throttled: tuple[int, int] | None = None

    def close(self) -> None:
        """End every process, the captures so that their files are whole."""
        self._stack.close()

    def start(self) -> None:
        """Start everything and wait until it can be used; no probe is made yet."""
        servers = self._start_servers()
        self._start_captures()
        self._start_workers()
        for _ in range(self._burners):
            servers.append(self._run(["sh", "-c", "while :; do :; done"]))
        if self._quota is not None:
            for process in servers:
                self._quota.add(process.pid)

    def _run(self, command: list[str], **more: Any) -> Process:
        return self._stack.enter_context(running(command, **more))

    def _start_servers(self) -> list[Process]:
        ports = ["--port", str(PORT), "--http-port", str(HTTP_PORT)]
        limits = ["--max-connections-per-source=0", "--drain-accept-s=0", "--drain-s=1"]
        command = [sys.executable, "-m", "twocans_server", *ports, *limits]
        server = self._run(enter(SERVER, command), stdout=subprocess.PIPE)
        assert server.stdout is not None
        json.loads(server.stdout.readline())  # it listens
        found = [server]
        if shutil.which(SOCKPERF):
            command = [SOCKPERF, "server", "--tcp", "-i", SERVER_HOST, "-p", str(SOCKPERF_PORT)]
            found.append(self._run(enter(SERVER, command)))
        return found

    def _start_captures(self) -> None:
        for end in (CLIENT, SERVER):
            command = [
                *("tcpdump", "-Z", "root", "-i", DEVICE, "--time-stamp-precision=nano"),
                *("-s", "128", "-B", "196608", "-w", str(self._folder / f"{end}.pcap"), "tcp"),
            ]
            told = self._stack.enter_context((self._folder / f"{end}.err").open("wb"))
            self._captures.append(self._run(enter(end, command), stderr=told))
        for end in (CLIENT, SERVER):
            self._wait_for(f"{end}.err", "listening on")

    def _start_workers(self) -> None:
        modules = {"twocans": ["probes", SERVER_HOST, str(PORT)]}
        if shutil.which(EXPORTER):
            config = self._folder / "blackbox.yml"
            config.write_text(CONFIG)
            listen = f"--web.listen-address=127.0.0.1:{EXPORTER_PORT}"
            command = [EXPORTER, f"--config.file={config}", listen, "--log.level=error"]
            self._run(enter(CLIENT, command))
            for kind in errors.FIGURES:
                modules[kind] = ["rivals", kind, str(PORT)]
        for name, (module, *arguments) in modules.items():
            command = [sys.executable, "-m", f"bench.accuracy.{module}", *arguments]
            out = self._stack.enter_context((self._folder / name).open("wb"))
            self._workers[name] = self._run(
                enter(CLIENT, command), stdin=subprocess.PIPE, stdout=out, stderr=None, cwd=ROOT
            )
        for name in modules:
            self._wait_for(name, "ready")

    def _wait_for(self, file: str, text: str) -> None:
        deadline = time.monotonic() + _END_S
        while text not in (self._folder / file).read_text():
            if time.monotonic() > deadline:
                raise SystemExit(f"accuracy: {file} says no {text!r} within {_END_S:.0f} s")
            time.sleep(0.05)

    def go(self) -> None:
        """Have all probes made.

        Meanwhile the captures' readers are stopped and their packets wait in the kernel, so that
        no packet is late because it wakes a reader, and no reader takes a CPU.
        """
        for capture in self._captures:
            capture.send_signal(signal.SIGSTOP)
        start_ns = time.monotonic_ns() + 500 * _MS
        for name, worker in self._workers.items():
            assert worker.stdin is not None
            told = GRIDS[name]._replace(start_ns=start_ns)
            worker.stdin.write(json.dumps(told).encode() + b"\n")
            worker.stdin.flush()
        grid = GRID._replace(start_ns=start_ns)
        if shutil.which(SOCKPERF):
            for burst in range(grid.bursts):
                due_ns = grid.burst_end_ns(burst) - _SOCKPERF_EARLY_NS
                time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
                self._logs.append(self._sockperf())
        deadline_ns = grid.burst_end_ns(grid.bursts - 1) + int(_END_S * 1e9)
        for name, worker in self._workers.items():
            code = worker.wait(max(1.0, (deadline_ns - time.monotonic_ns()) / 1e9))
            if code:
                raise SystemExit(f"accuracy: the worker {name} ended with {code}")
        if self._quota is not None:
            self._throttled = self._quota.throttled()
        for capture in self._captures:
            capture.send_signal(signal.SIGCONT)
        time.sleep(1)  # they write what waited

    def _sockperf(self) -> list[tuple[int, int]]:
        log = self._folder / "sockperf.csv"
        log.unlink(missing_ok=True)
        command = [
            *(SOCKPERF, "ping-pong", "--tcp", "-i", SERVER_HOST, "-p", str(SOCKPERF_PORT)),
            *("-m", "64", "-t", "1", "--full-log", str(log)),
        ]
        with running(enter(CLIENT, command)) as process:
            process.wait(_END_S)
        return read_log(log.read_text()) if log.exists() else []

    def compare(self) -> dict[str, Any]:
        """Return everybody's errors against the captures."""
        near, far = (
            connections(read_pcap((self._folder / f"{end}.pcap").read_bytes()))
            for end in (CLIENT, SERVER)
        )
        captures = errors.Captures(near, far)
        answers = {name: self._answers(name) for name in self._workers}
        probes = answers["twocans"]
        found, stamped = errors.twocans(probes, captures, (SERVER_HOST, PORT))
        for kind in errors.FIGURES:
            if kind in answers:
                found |= errors.blackbox(kind, answers[kind], captures, PORT)
        if self._logs:
            found |= errors.sockperf(self._logs, captures, (SERVER_HOST, SOCKPERF_PORT))
        return condition(found, stamped, counts=self._counts(probes))

    def _answers(self, worker: str) -> list[Any]:
        lines = (self._folder / worker).read_text().splitlines()
        return [json.loads(line) for line in lines[1:]]  # after "ready"

    def _counts(self, probes: list[Mapping[str, Any]]) -> dict[str, int]:
        counts = {"probes": len(probes)}
        for probe in probes:
            outcome, reason = probe["outcome"], probe["reason"]
            name = f"of them {outcome}" + (f" ({reason})" if reason != outcome else "")
            counts[name] = counts.get(name, 0) + 1
        said = "".join((self._folder / f"{end}.err").read_text() for end in (CLIENT, SERVER))
        dropped = re.findall(r"(\d+) packets? dropped by kernel", said)
        counts["packets not captured"] = sum(map(int, dropped))
        if self._throttled is not None:
            counts["periods stopped by the quota"], counts["periods"] = self._throttled
        return counts
