"""ping, mtr, curl, iperf3 and blackbox_exporter on the same path, for comparison.

They run where the client runs, as root, for as long as they are given, while the pair runs as well.
Their whole output is read (``symptoms``), and each may conclude what it likes from it (``rules``).
Debian has them as iputils-ping, mtr-tiny, curl, iperf3 and prometheus-blackbox-exporter.
"""

import contextlib
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .attempts import Attempt, curl_attempt, exporter_attempt, of_attempts
from .faults.middleboxes import VIRTUAL
from .namespaces import Namespace
from .outcome import Said
from .rules import RULES, TOGETHER, conclude, conclude_together
from .scene import Base, Scene
from .symptoms import Symptoms, of_iperf3, of_mtr, of_ping

__all__ = ["PROGRAMS", "Verdicts", "fill", "missing", "said_by", "watch"]

PROGRAMS = {
    "ping": "iputils-ping",
    "mtr": "mtr-tiny",
    "curl": "curl",
    "iperf3": "iperf3",
    "prometheus-blackbox-exporter": "prometheus-blackbox-exporter",
}
"""What is run, and the Debian package that has it."""
Verdicts = dict[str, tuple[Said, ...]]

_EXPORTER_PORT = 9115
_IPERF_PORT = 5201
_GIVE_UP_S = 3
_BIG = 60_000
_MODULE = f"""
modules:
  exchange:
    prober: tcp
    timeout: {_GIVE_UP_S}s
    tcp:
      preferred_ip_protocol: ip4
      query_response:
        - send: "0123456789"
        - expect: "^0123"
"""


def missing() -> list[str]:
    """Return the Debian packages that are not installed here."""
    return [package for tool, package in PROGRAMS.items() if shutil.which(tool) is None]


def watch(its: Scene, target: str, base: Base, lasts_s: float) -> dict[str, Symptoms]:
    """Let every tool but iperf3, which fills the path, watch at the same time.

    Args:
        its: Where.
        target: Host and port, as the client has it.
        base: The healthy path, which the rules know.
        lasts_s: How long.
    """
    host = reachable(its, target)
    port = target.rpartition(":")[2]
    tools: dict[str, Callable[[], Symptoms]] = {
        "ping": lambda: _ping(its, host, base, lasts_s),
        "mtr": lambda: _mtr(its, host, port, base, lasts_s),
        "curl": lambda: of_attempts(_curl(its, target, lasts_s), base),
        "blackbox_exporter": lambda: of_attempts(_exporter(its, target, lasts_s), base),
    }
    with ThreadPoolExecutor(len(tools)) as pool:
        watching = {tool: pool.submit(see) for tool, see in tools.items()}
        return {tool: seen.result() for tool, seen in watching.items()}


def fill(its: Scene, target: str, base: Base, lasts_s: float) -> Symptoms:
    """Let iperf3 fill the path for a while, four times a quarter of it."""
    return of_iperf3(_iperf3(its, reachable(its, target), lasts_s / 4), base)


def said_by(symptoms: dict[str, Symptoms], healthy: dict[str, Symptoms], at_s: float) -> Verdicts:
    """Return what each tool says, and a script that reads all of them.

    Args:
        symptoms: By tool.
        healthy: Those that it had while all was well, which do not count.
        at_s: When it is said.
    """
    new = {
        tool: {k: v for k, v in symptoms.get(tool, {}).items() if k not in healthy.get(tool, {})}
        for tool in RULES
    }
    said = {tool: conclude(tool, new[tool], at_s) for tool in RULES}
    return {**said, TOGETHER: conclude_together(new, at_s)}


def reachable(its: Scene, target: str) -> str:
    """Return the host that answers more than one port: no balancer's address does."""
    host = target.rpartition(":")[0]
    return its.server.address if host == VIRTUAL else host


def _output(inside: Namespace, *words: str, lasts_s: float) -> str:
    """Run a tool; what it printed until it ended, or was ended."""
    command = [*inside.wrapper, *words]
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=lasts_s,
        )
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode(errors="replace")
    return done.stdout.decode(errors="replace")


def _ping(its: Scene, host: str, base: Base, lasts_s: float) -> Symptoms:
    words = ("-4", "-n", "-i", "0.01", "-W", "1", "-w", f"{lasts_s:.0f}")
    big: list[str] = []

    def ping_big() -> None:
        more = ("-M", "do", "-s", "1472", "-i", "0.5", *words[4:])
        big.append(_output(its.client, "ping", "-4", "-n", *more, host, lasts_s=lasts_s + 5))

    thread = threading.Thread(target=ping_big)
    thread.start()
    small = _output(its.client, "ping", *words, host, lasts_s=lasts_s + 5)
    thread.join()
    return of_ping(small, big[0], base)


def _mtr(its: Scene, host: str, port: str, base: Base, lasts_s: float) -> Symptoms:
    # It waits for answers to its last packets, whether any is due or not: long enough for a SYN
    # that is sent again after a second.
    wait = ("-G", "2")
    count = str(int(lasts_s * 5))
    words = ("mtr", "-4", "--tcp", "-P", port, "-n", "--json", "-i", "0.2", "-c", count, *wait)
    return of_mtr(_output(its.client, *words, host, lasts_s=lasts_s + 10), base)


def _curl(its: Scene, target: str, lasts_s: float) -> list[Attempt]:
    body = its.folder / "body"
    body.write_bytes(b"0" * _BIG)
    upload = ("--header", "Expect:", "--data-binary", f"@{body}")
    attempts: list[Attempt] = []

    def repeat(more: tuple[str, ...]) -> None:
        ends = time.monotonic() + lasts_s
        limit: float = _GIVE_UP_S
        while time.monotonic() < ends:
            words = (
                "curl",
                "-4",
                "--silent",
                "--verbose",
                "--http0.9",
                "--output",
                "/dev/null",
                *more,
            )
            ask = ("--max-time", str(limit), "--write-out", "\n%{json}\n", f"http://{target}/")
            output = _output(its.client, *words, *ask, lasts_s=_GIVE_UP_S + 5)
            with contextlib.suppress(ValueError, KeyError):
                attempt = curl_attempt(output, is_big=bool(more))
                attempts.append(attempt)
                # The server keeps echoing connections open, so curl waits for more until the limit.
                limit = _GIVE_UP_S if attempt.first_s is None else 0.6
            time.sleep(0.05)

    threads = [threading.Thread(target=repeat, args=(more,)) for more in ((), upload)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return attempts


def _exporter(its: Scene, target: str, lasts_s: float) -> list[Attempt]:
    config = its.folder / "blackbox.yml"
    config.write_text(_MODULE)
    listen = f"127.0.0.1:{_EXPORTER_PORT}"
    program = ("prometheus-blackbox-exporter", f"--config.file={config}")
    url = f"http://{listen}/probe?module=exchange&target={target}&debug=true"
    ask = ("curl", "--silent", "--max-time", str(_GIVE_UP_S + 2), url)
    attempts = []
    with _background(its.client, *program, f"--web.listen-address={listen}"):
        ends = time.monotonic() + lasts_s
        while time.monotonic() < ends:
            page = _output(its.client, *ask, lasts_s=_GIVE_UP_S + 5)
            if page:
                attempts.append(exporter_attempt(page))
            time.sleep(0.05)
    return attempts


def _iperf3(its: Scene, host: str, lasts_s: float) -> dict[str, dict[str, Any]]:
    runs = {}
    seconds = f"{max(1, lasts_s):.0f}"
    common = ("iperf3", "-4", "-J", "-c", host, "-p", str(_IPERF_PORT), "-t", seconds)
    limits = ("--connect-timeout", "2000")
    with _background(its.server, "iperf3", "-s", "-p", str(_IPERF_PORT)):
        for protocol, more in (
            ("tcp", ("-C", "cubic", "-b", "80M")),
            ("udp", ("-u", "-b", "4M", "-l", "1200")),
        ):
            for direction, reverse in (("forward", ()), ("reverse", ("-R",))):
                words = (*common, *limits, *more, *reverse)
                output = _output(its.client, *words, lasts_s=2 * lasts_s + 4)
                with contextlib.suppress(ValueError):
                    runs[f"{protocol}_{direction}"] = json.loads(output)
                if not output:  # it hung: its connection was made, and nothing arrived
                    runs[f"{protocol}_{direction}"] = {"error": "hung", "end": {}}
    return runs


@contextlib.contextmanager
def _background(inside: Namespace, *words: str) -> Iterator[None]:
    command = [*inside.wrapper, *words]
    null = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=null, stdout=null, stderr=null) as process:
        time.sleep(0.5)
        try:
            yield
        finally:
            process.kill()
