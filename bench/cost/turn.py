"""One turn: a server and one prober of it, started, warmed up, measured and stopped."""

import asyncio
import contextlib
import gzip
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.accuracy.namespaces import running

from .scrapes import Address, get, scrape_all
from .usage import Used, children, memory_bytes, used

__all__ = [
    "BLACKBOX",
    "CLIENT",
    "EXPORTER",
    "SCRAPE_EVERY_S",
    "SERVER",
    "Load",
    "Measured",
    "TooFewError",
    "turn",
]

CLIENT, SERVER, BLACKBOX = "client", "server", "blackbox"
EXPORTER = "prometheus-blackbox-exporter"
SCRAPE_EVERY_S = 15.0
_START_S = 20.0
_WARM_S = 3.0

_EXPORTER_CONFIG = """
modules:
  tcp_connect:
    prober: tcp
    timeout: 5s
    tcp:
      preferred_ip_protocol: ip4
"""
Process = subprocess.Popen[bytes]


class Load(NamedTuple):
    """What is probed, and how often.

    Attributes:
        paths: Addresses, all of the one server.
        interval_s: Between two probes of one path.
        seconds: For how long it is measured.
    """

    paths: int
    interval_s: float
    seconds: float

    def targets(self, port: int) -> list[str]:
        """Return the addresses; the whole of 127.0.0.0/8 is this host."""
        return [f"127.0.{n // 200}.{n % 200 + 1}:{port}" for n in range(self.paths)]


class Measured(NamedTuple):
    """What one turn found.

    Attributes:
        probes: Made while it was measured.
        used: CPU time meanwhile, of the prober and of the server.
        memory: Resident memory at the end, in bytes, likewise.
    """

    probes: float
    used: dict[str, Used]
    memory: dict[str, int]


class TooFewError(Exception):
    """The machine was too busy for the rate: what was measured is of another load."""


def turn(prober: str, load: Load, settings: Sequence[str]) -> Measured:
    """Measure one prober and the server that it probes.

    Args:
        prober: CLIENT or BLACKBOX.
        load: What it is to do.
        settings: Variables of both programs, as ``NAME=VALUE``: some have no flag.

    Raises:
        TooFewError: Not all probes were made.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        server = stack.enter_context(_process(SERVER, Path(folder), settings))
        targets = load.targets(server.told["server.port"])
        has_metrics = "TWOCANS_METRICS=no" not in settings
        scraped = [server.http] if has_metrics else []
        if prober == BLACKBOX:
            return asyncio.run(_measure_blackbox(stack, Path(folder), server, targets, load))
        file = Path(folder) / "targets.json"
        file.write_text(json.dumps([{"targets": targets}]))
        flags = [f"--targets-file={file}", f"--interval-s={load.interval_s}", "--output=json"]
        client = stack.enter_context(_process(CLIENT, Path(folder), settings, *flags))
        scraped += [client.http] if has_metrics else []
        pids = {CLIENT: client.process.pid, SERVER: server.process.pid}
        measured = asyncio.run(_measure(pids, scraped, load))
        return measured._replace(probes=_made(client, load))


class _Process(NamedTuple):
    process: Process
    told: dict[str, Any]
    output: Path

    @property
    def http(self) -> Address:
        """Where its metrics are."""
        return Address("127.0.0.1", self.told["twocans.http.port"])


@contextlib.contextmanager
def _process(role: str, folder: Path, settings: Sequence[str], *flags: str) -> Iterator[_Process]:
    """Run a program, as the command that a user would type."""
    path = folder / f"{role}.log"
    errors = path.with_suffix(".err")
    stop = ["--drain-accept-s=0", "--drain-s=0"] if role == SERVER else []
    ports = [*(["--port=0"] if role == SERVER else []), "--http-port=0"]
    command = ["env", *settings, sys.executable, "-m", f"twocans_{role}", "run"]
    command += [*ports, *stop, *flags]
    with (
        path.open("wb") as output,
        errors.open("wb") as trouble,
        running(command, stdout=output, stderr=trouble) as process,
    ):
        told = _first_line(process, path)
        if told is None:
            raise SystemExit(f"cost: {command} does not start:\n{errors.read_text()}")
        yield _Process(process, told, path)


def _first_line(process: Process, path: Path) -> dict[str, Any] | None:
    """Wait for the line that names its ports; paths may have been added before it."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n") and '"twocans.http.port"' in line:
                told: dict[str, Any] = json.loads(line)
                return told
        time.sleep(0.05)
    return None


def _made(client: _Process, load: Load) -> float:
    """Stop a client; returns how many probes it made in the time of a load.

    Slots come at a fixed rate. Of them, as many as of all its life had a probe in them, and a few
    probes may fail for want of a CPU; more, and the figure would be of something else.
    """
    client.process.send_signal(signal.SIGTERM)
    client.process.wait(_START_S)
    total = json.loads(client.output.read_text().splitlines()[-1])
    good: float = total["twocans.probes.ok"] / total["twocans.probes.scheduled"]
    if good < 0.98:
        raise TooFewError(f"only {good:.1%} of the probes were made and good")
    return good * load.paths * load.seconds / load.interval_s


async def _measure(pids: Mapping[str, int], scraped: Sequence[Address], load: Load) -> Measured:
    await asyncio.sleep(_WARM_S)
    before = {role: used(pid) for role, pid in pids.items()}
    end_s = asyncio.get_running_loop().time() + load.seconds
    scrapes = [scrape_all(http, ["/metrics"], SCRAPE_EVERY_S, end_s) for http in scraped]
    await asyncio.gather(asyncio.sleep(load.seconds), *scrapes)
    return _read(0, pids, before)


async def _measure_blackbox(
    stack: contextlib.ExitStack,
    folder: Path,
    server: _Process,
    targets: Sequence[str],
    load: Load,
) -> Measured:
    config = folder / "blackbox.yml"
    config.write_text(_EXPORTER_CONFIG)
    exporter = Address("127.0.0.1", 9115)
    listen = f"--web.listen-address={exporter.host}:{exporter.port}"
    command = [EXPORTER, f"--config.file={config}", listen, "--log.level=error"]
    process = stack.enter_context(running(command))
    await _wait_for(exporter)
    paths = [f"/probe?target={target}&module=tcp_connect" for target in targets]
    for path in paths[:20]:
        page = await get(exporter, path)
        page = gzip.decompress(page) if page.startswith(b"\x1f\x8b") else page
        if b"\nprobe_success 1\n" not in page:
            raise SystemExit(f"cost: blackbox_exporter says of {path}:\n{page.decode()}")
    pids = {BLACKBOX: process.pid, SERVER: server.process.pid}
    loop = asyncio.get_running_loop()
    await scrape_all(exporter, paths, load.interval_s, loop.time() + _WARM_S)
    before = {role: used(pid) for role, pid in pids.items()}
    end_s = loop.time() + load.seconds
    answers, _ = await asyncio.gather(
        scrape_all(exporter, paths, load.interval_s, end_s),
        scrape_all(server.http, ["/metrics"], SCRAPE_EVERY_S, end_s),
    )
    wanted = load.paths * load.seconds / load.interval_s
    if answers < 0.98 * wanted:
        raise TooFewError(f"blackbox_exporter made {answers} of {wanted:.0f} probes")
    return _read(answers, pids, before)


async def _wait_for(exporter: Address) -> None:
    if shutil.which(EXPORTER) is None:
        raise SystemExit(f"cost: apt install {EXPORTER}")
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            await get(exporter, "/-/healthy")
            return
        await asyncio.sleep(0.05)
    raise SystemExit("cost: blackbox_exporter does not listen")


def _read(probes: float, pids: Mapping[str, int], before: Mapping[str, Used]) -> Measured:
    spent = {role: used(pid).since(before[role]) for role, pid in pids.items()}
    for role, pid in pids.items():
        if children(pid):
            raise SystemExit(f"cost: {role} has child processes, which are not counted")
    memory = {
        role: memory_bytes(Path(f"/proc/{pid}/status").read_text()) for role, pid in pids.items()
    }
    return Measured(probes, spent, memory)
