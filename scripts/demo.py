"""The pair on one machine: start both ends, show what they see, stop them, report.

Run by ``make demo``. Exit 0 only if probes were made and none failed.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(".demo")
START_S = 10.0
STOP_S = 30.0


def main() -> int:
    """Run the demo; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="How long to probe.")
    seconds = parser.parse_args().seconds
    if seconds < 1:
        parser.error("DEMO_SECONDS must be 1 or more")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    with _server() as server:
        listening = _wait_for_line(server, FOLDER / "server.log", "listening")
        port, server_http = listening["server.port"], listening["twocans.http.port"]
        with _client(f"localhost:{port}", seconds) as client:
            started = _wait_for_line(client, FOLDER / "client.log", "started")
            pages = {"server": server_http, "client": started["twocans.http.port"]}
            time.sleep(max(0.0, seconds - 1.0))
            series = {role: _count_series(number) for role, number in pages.items()}
            client.wait(seconds + STOP_S)
    stopped = _read_line(FOLDER / "client.log", "stopped")
    served = _read_line(FOLDER / "server.log", "stopped")
    if stopped is None or served is None:
        print("demo: one end did not stop cleanly; see", FOLDER, file=sys.stderr)
        return 1
    print()
    for role, number in pages.items():
        print(f"{role} metrics were at http://localhost:{number}/metrics, {series[role]}")
        print(f"{role} logs are in {FOLDER / role}.log")
    sessions, exchanges = served["twocans.sessions.done"], served["twocans.exchanges"]
    print(f"server saw {sessions} sessions, {exchanges} exchanges:")
    print("  one of each probe, and those of the connection that is kept open beside them")
    ok, fail, void = (
        int(str(stopped[f"twocans.probes.{name}"])) for name in ("ok", "fail", "void")
    )
    print(f"demo: {ok + fail + void} probes, {ok} ok, {fail} fail, {void} void")
    return 0 if ok + fail + void > 0 and fail == 0 else 1


def _server() -> "contextlib.AbstractContextManager[subprocess.Popen[bytes]]":
    ports = ["--port", _port(5000), "--http-port", _port(5001)]
    return _program("server", *ports, "--drain-accept-s", "0.1", stdout=FOLDER / "server.log")


def _client(
    target: str, seconds: float
) -> "contextlib.AbstractContextManager[subprocess.Popen[bytes]]":
    arguments = ["run", "--target", target, "--interval-s", "0.1", "--duration-s", str(seconds)]
    arguments += ["--output", "table", "--log-file", str(FOLDER / "client.log")]
    arguments += ["--http-port", _port(5002)]
    return _program("client", *arguments, stdout=None)


@contextlib.contextmanager
def _program(
    name: str, *arguments: str, stdout: Path | None
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a program; end it as an orchestrator would, by SIGTERM."""
    command = [sys.executable, "-m", f"twocans_{name}", *arguments]
    errors = (FOLDER / f"{name}.err").open("wb")
    output = stdout.open("wb") if stdout else None
    # What the user has set for processes of their own is not for these two.
    own = {name: text for name, text in os.environ.items() if not name.startswith("TWOCANS_")}
    process = subprocess.Popen(command, stdout=output, stderr=errors, env=own)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _port(wanted: int) -> str:
    """Return a port, or 0 for any and say so when somebody has it."""
    with socket.socket(socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("", wanted))
        except OSError as error:
            print(f"port {wanted}: {error.strerror}; taking a free one instead")
            return "0"
    return str(wanted)


def _wait_for_line(process: "subprocess.Popen[bytes]", log: Path, event: str) -> dict[str, object]:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        line = _read_line(log, event)
        if line is not None:
            return line
        time.sleep(0.02)
    said = (FOLDER / f"{log.stem}.err").read_text(errors="replace").strip()
    raise SystemExit(f"demo: the {log.stem} did not start: {said or 'no reason given'}")


def _read_line(log: Path, event: str) -> dict[str, object] | None:
    if log.exists():
        for text in log.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                line: dict[str, object] = json.loads(text)
                if line.get("event.name") == event:
                    return line
    return None


def _count_series(port: object) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
            return f"{sum(not line.startswith(b'#') for line in page)} series"
    except OSError as error:
        return f"which could not be read: {getattr(error, 'reason', error)}"


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SystemExit(f"demo: {error}") from None
