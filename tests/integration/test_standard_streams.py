"""Whatever descriptors 0 to 2 are, output is whole or its loss is told, and nothing dies of it."""

import contextlib
import fcntl
import http.client
import json
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest

from fakes import full_pipe
from integration.harness import PATIENCE_S, ServerProcess, until
from integration.pair import closed_port

# Far more than a pipe holds.
PROBES = 300
LOST = 3


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with ServerProcess() as server:
        yield f"127.0.0.1:{server.port}"


PROBE = ["twocans_client", "probe", "TARGET"]
COMMANDS = {
    "probe --json": [*PROBE, "--json", "--interval-s=0.001", f"--count={PROBES}"],
    "probe": [*PROBE, "--count=1"],
    "send": ["twocans_client", "send", "TARGET", "Grüße €"],
    "print-config": ["twocans_client", "run", "--target=TARGET", "--print-config"],
    "version": ["twocans_server", "--version"],
    "table": ["twocans_client", "run", "--target=TARGET", "--output=table", "--duration-s=1.5"],
    "health": ["twocans_server", "health", "--http-port=PORT"],
}

Popen = subprocess.Popen[bytes]


class Stage:
    """Starts one command, with its streams as they are to be."""

    def __init__(self, name: str, target: str) -> None:
        port = "0" if name == "table" else "1"
        self._command = [
            part.replace("TARGET", target).replace("PORT", port) for part in COMMANDS[name]
        ]
        if name == "table":
            self._command.append("--http-port=0")

    def start(
        self,
        redirect: str = "",
        encoding: str = "utf-8",
        stdout: int = subprocess.DEVNULL,
        stderr: int = subprocess.DEVNULL,
    ) -> Popen:
        return subprocess.Popen(
            ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-m", *self._command],
            env={**os.environ, "PYTHONIOENCODING": encoding},
            stdout=stdout,
            stderr=stderr,
        )


def left_pipe() -> int:
    """A pipe whose reader has gone."""
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    return write_fd


def waiting(fd: int) -> int:
    """How many bytes of a pipe nobody has read yet."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


def said(stage: Stage, *, blocking: bool, encoding: str = "utf-8") -> tuple[int, bytes]:
    """What it writes into a pipe that is read when it is full, or all has been said."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, blocking)
    process = stage.start(stdout=write_fd, encoding=encoding)
    os.close(write_fd)
    until(lambda: waiting(read_fd) > 60_000 or process.poll() is not None)
    with os.fdopen(read_fd, "rb") as reader:
        text = reader.read()
    return process.wait(PATIENCE_S), text


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"probe --json"}))
def test_output_that_cannot_be_written_is_told_by_the_exit_code(name, target):
    stage = Stage(name, target)
    left = left_pipe()
    processes = {
        "closed": stage.start(">&-"),
        "full": stage.start(">/dev/full"),
        "left": stage.start(stdout=left),
    }
    os.close(left)
    codes = {state: process.wait(PATIENCE_S) for state, process in processes.items()}
    # Whoever asks for health is told by the exit code, and reads nothing.
    expected = {"closed": LOST, "full": LOST, "left": 128 + signal.SIGPIPE}
    assert codes == (dict.fromkeys(codes, 1) if name == "health" else expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["send", "table"])
def test_nothing_depends_on_stderr_or_stdin(name, target):
    stage = Stage(name, target)
    left = left_pipe()
    reader, stuck = full_pipe(blocking=True)
    other_reader, deaf = full_pipe(blocking=False)
    processes = {
        "well": stage.start(),
        "closed": stage.start("2>&-"),
        "full": stage.start("2>/dev/full"),
        "left": stage.start(stderr=left),
        "stuck": stage.start(stderr=stuck),
        "deaf": stage.start(stderr=deaf),
        "no stdin": stage.start("<&- 2>&-"),
    }
    codes = {state: process.wait(PATIENCE_S) for state, process in processes.items()}
    for fd in (left, reader, stuck, other_reader, deaf):
        os.close(fd)
    assert codes == dict.fromkeys(codes, 0)


@pytest.mark.slow
@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "non-blocking"])
def test_a_slow_reader_gets_every_byte(blocking, target):
    code, text = said(Stage("probe --json", target), blocking=blocking)
    assert len(text) > 100_000, "more than the pipe holds"
    assert code in (0, 1), "some are void on a busy machine"
    assert len(json.loads(text)["probes"]) == PROBES


def test_what_an_encoding_lacks_is_written_as_an_escape(target):
    code, text = said(Stage("send", target), blocking=True, encoding="ascii")
    assert (code, text) == (0, b"Gr\\xfc\\xdfe \\u20ac\n")


# --- services -----------------------------------------------------------------------------


SERVICES = {
    "server": ["twocans_server", "--port=0", "--drain-accept-s=0"],
    "client": ["twocans_client", "run", "--target=TARGET", "--output=json"],
}
STATES: dict[str, str] = {
    "closed": "<&- >&- 2>&-",
    "full": ">/dev/full 2>/dev/full",
    "stderr closed": "2>&-",
}


def is_well(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    with contextlib.closing(connection), contextlib.suppress(OSError):
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    return False


@contextlib.contextmanager
def service(
    name: str,
    target: str,
    redirect: str = "",
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
) -> Iterator[Popen]:
    """A can that answers at its port until the block ends; then it stops, with exit code 0."""
    port = closed_port()
    command = [part.replace("TARGET", target) for part in SERVICES[name]]
    command += [f"--http-port={port}", "--http-host=127.0.0.1"]
    process = subprocess.Popen(
        ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-m", *command],
        stdout=stdout,
        stderr=stderr,
    )
    try:
        until(lambda: is_well(port) or process.poll() is not None)
        assert process.poll() is None, "it died at its start"
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", SERVICES)
def test_a_service_lives_with_its_streams_as_they_are(name, state, target):
    with service(name, target, STATES[state]) as process:
        opened = [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in range(3)]
    assert [path for path in opened if not path.startswith(("/dev/", "pipe:"))] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVICES)
def test_a_service_does_not_wait_for_whoever_reads_its_stderr(name, target):
    reader, stuck = full_pipe(blocking=True)
    with service(name, target, stderr=stuck):
        pass
    os.close(reader)
    os.close(stuck)


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVICES)
def test_a_containers_log_is_json_from_its_first_line_on(name, target):
    read_fd, write_fd = os.pipe()
    with service(name, target, stdout=write_fd, stderr=write_fd):
        os.close(write_fd)
    with os.fdopen(read_fd, "rb") as reader:
        lines = [json.loads(line) for line in reader]
    assert lines[0]["event.name"] in ("listening", "started", "path_added")
