import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fakes import full_pipe
from twocans_core.process import jsonlog
from twocans_core.process.jsonlog import LogPipe, RateLimit

hostile = st.text(st.characters(), max_size=60) | st.sampled_from(
    [
        "\x1b[2J",
        "\x7f\x7f",
        '"}\n{"event.name": "forged"}',
        "\r\n\0",
        "\ud800",
        "\u2028\u2029",
        "\x9b31m",
    ]
)


class Capture:
    """Logging configured as a can's, into a pipe that the test reads."""

    def __init__(self, level: str = "debug") -> None:
        self.read_fd, self._write_fd = os.pipe()
        self.pipe = jsonlog.configure(level, service="can", version="1.2.3", fd=self._write_fd)

    def end(self) -> bytes:
        """Write what is queued; return all that was written."""
        self.pipe.close()
        os.close(self._write_fd)
        with os.fdopen(self.read_fd, "rb") as reader:
            return reader.read()

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.end().splitlines()]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


log = logging.getLogger("twocans_core.test")


def test_a_line_has_the_fields_that_every_line_has_and_its_own():
    capture = Capture()
    log.warning("path_failing", extra={"twocans.target": "server:5000", "twocans.lost_ns": 5})
    (line,) = capture.lines()
    timestamp = line.pop("timestamp")
    assert line == {
        "level": "WARNING",
        "logger": "twocans_core.test",
        "event.name": "path_failing",
        "service.name": "can",
        "service.version": "1.2.3",
        "twocans.target": "server:5000",
        "twocans.lost_ns": 5,
    }
    assert isinstance(timestamp, str)
    assert timestamp.endswith("+00:00")


def test_an_exception_is_a_field_of_its_line():
    capture = Capture()
    try:
        raise RuntimeError("no \x1b way")
    except RuntimeError:
        log.exception("bug")
    (line,) = capture.lines()
    assert "RuntimeError: no \x1b way" in str(line["exception.stacktrace"])
    assert line["exception.type"] == "RuntimeError"
    assert line["exception.message"] == "no \x1b way"


def test_lines_below_the_level_are_not_written():
    capture = Capture("warning")
    log.info("quiet")
    log.warning("loud")
    assert [line["event.name"] for line in capture.lines()] == ["loud"]


@given(hostile, hostile, hostile)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_logged_is_one_json_object_of_printable_ascii(event, key, value):
    capture = Capture()
    extra = {f"x{key}": value, "nested": {value: [value]}, "object": Hostile(value)}
    log.error(event.replace("%", ""), extra=extra)
    written = capture.end()
    assert written.count(b"\n") == 1
    assert written.endswith(b"\n")
    assert all(0x20 <= byte <= 0x7E for byte in written[:-1])
    line = json.loads(written)
    assert (line["event.name"], line[f"x{key}"]) == (event.replace("%", ""), value)


class Hostile:
    """Something that JSON has no form for."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__


def test_a_warning_is_a_line():
    capture = Capture()
    # As the warnings module calls it; pytest has put its own in the place of showwarning.
    logging.getLogger("py.warnings").warning("%s", "careful")
    (line,) = capture.lines()
    assert (line["event.name"], line["body"]) == ("library_message", "careful")


# --- a reader that does not read ----------------------------------------------------------


def stuck_pipe() -> tuple[LogPipe, int, int]:
    """A log pipe into a pipe that nobody reads and that is full."""
    read_fd, write_fd = full_pipe(blocking=True)
    return LogPipe(logging.Formatter("%(message)s"), write_fd), read_fd, write_fd


@pytest.mark.slow
def test_a_reader_that_stopped_blocks_nobody_and_drops_are_counted():
    pipe, read_fd, write_fd = stuck_pipe()
    record = logging.makeLogRecord({"msg": "x"})
    for _ in range(3_000):
        pipe.put(record)  # would hang here, until pytest's time-out
    # One line is in the writer's hands at most, 1,000 are queued.
    assert 1_999 <= pipe.dropped <= 2_000
    pipe.close()  # gives up after its 2 s
    os.close(read_fd)  # the writer gets EPIPE for the line in its hands, and for all others
    pipe.close()
    os.close(write_fd)
    assert pipe.dropped == 3_000


def test_when_the_reader_reads_again_the_queued_lines_come_in_order():
    pipe, read_fd, write_fd = stuck_pipe()
    for number in range(100):
        pipe.put(logging.makeLogRecord({"msg": f"line {number}"}))
    with os.fdopen(read_fd, "rb") as reader:
        reader.read(65_536)
        pipe.close()
        os.close(write_fd)
        rest = reader.read()
    assert rest.lstrip(b"\0").splitlines() == [b"line %d" % number for number in range(100)]
    assert pipe.dropped == 0


def test_lines_that_nobody_will_ever_read_are_counted():
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    pipe = LogPipe(logging.Formatter("%(message)s"), write_fd)
    for _ in range(3):
        pipe.put(logging.makeLogRecord({"msg": "x"}))
    pipe.close()
    os.close(write_fd)
    assert pipe.dropped == 3


def test_a_record_that_cannot_be_formatted_is_reported_and_raises_nothing(capsys):
    capture = Capture()
    log.error("%d and more", "no number")
    log.error("after")
    assert [line["event.name"] for line in capture.lines()] == ["after"]
    assert "no number" in capsys.readouterr().err


# --- a disk that is full ------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of one page."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "twocans", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_after_a_full_disk_every_line_is_whole_and_the_lost_ones_are_told(small_disk):
    file = small_disk / "log"
    pipe = jsonlog.configure("debug", service="can", version="1.2.3", file=str(file))
    for number in range(40):
        log.warning("path_ok", extra={"twocans.path.changes": number})
    while file.read_bytes().count(b"\n") + pipe.dropped < 40:
        time.sleep(0.01)
    written = file.read_bytes().count(b"\n")
    assert not file.read_bytes().endswith(b"\n"), "the last one is cut off"
    subprocess.run(["mount", "-o", "remount,size=64k", str(small_disk)], check=True)
    log.warning("path_ok", extra={"twocans.path.changes": 40})
    pipe.close()
    lines = file.read_bytes().splitlines()
    with pytest.raises(ValueError, match="line 1 column"):
        json.loads(lines.pop(written))
    *before, after, said = map(json.loads, lines)
    assert [line["twocans.path.changes"] for line in before] == list(range(written))
    assert after["twocans.path.changes"] == 40
    assert said["event.name"] == "log_lines_lost"
    assert said["twocans.log.lost"] == pipe.dropped == 40 - written


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path):
    file = tmp_path / "log"
    pipe = jsonlog.configure("debug", service="can", version="1.2.3", file=str(file))
    log.warning("before")
    while not file.stat().st_size:
        time.sleep(0.01)
    file.rename(tmp_path / "log.1")
    pipe.reopen()
    log.warning("after")
    pipe.close()
    assert json.loads(file.read_text())["event.name"] == "after"
    assert json.loads((tmp_path / "log.1").read_text())["event.name"] == "before"


def test_a_pipe_that_was_made_non_blocking_gets_every_line():
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    pipe = LogPipe(logging.Formatter("%(message)s"), write_fd)
    for number in range(900):
        pipe.put(logging.makeLogRecord({"msg": f"{number} {'x' * 200}"}))
    found = b""
    while found.count(b"\n") < 900:
        found += os.read(read_fd, 4_096)
    pipe.close()
    assert pipe.dropped == 0
    assert [int(line.split()[0]) for line in found.splitlines()] == list(range(900))


# --- the rate limit -----------------------------------------------------------------------


class Limited:
    """A rate limit with a clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.limit = RateLimit(10.0, lambda: self.now_s)

    def passes(self, event: str, **fields: object) -> logging.LogRecord | None:
        record = logging.makeLogRecord({"msg": event, **fields})
        return record if self.limit.filter(record) else None


def test_one_of_each_kind_passes_in_a_period_and_counts_the_others():
    limited = Limited()
    first = limited.passes("reset", limited=True)
    assert first is not None
    assert not hasattr(first, "twocans.suppressed")
    for _ in range(7):
        limited.now_s += 1
        assert limited.passes("reset", limited=True) is None
    limited.now_s = 10.0
    next_one = limited.passes("reset", limited=True)
    assert next_one is not None
    assert getattr(next_one, "twocans.suppressed", None) == 7
    limited.now_s = 20.0
    later = limited.passes("reset", limited=True)
    assert later is not None
    assert not hasattr(later, "twocans.suppressed")


def test_each_event_and_each_target_has_its_own_limit():
    limited = Limited()
    assert limited.passes("reset", limited=True, **{"twocans.target": "a"})
    assert limited.passes("reset", limited=True, **{"twocans.target": "b"})
    assert limited.passes("refused", limited=True, **{"twocans.target": "a"})
    assert limited.passes("reset", limited=True, **{"twocans.target": "a"}) is None


def test_a_change_of_state_is_never_held_back():
    limited = Limited()
    assert all(limited.passes("path_failing") for _ in range(5))


def test_the_memory_of_kinds_is_bounded():
    limited = Limited()
    for number in range(25_000):
        limited.passes("reset", limited=True, **{"twocans.target": number})
        assert len(limited.limit._kinds) <= 10_000


def test_a_configured_log_is_limited_and_does_not_show_the_mark():
    capture = Capture()
    for _ in range(3):
        log.error("bug", extra={"limited": True})
    (line,) = capture.lines()
    assert "limited" not in line


# --- what nobody caught -------------------------------------------------------------------


def test_each_hook_writes_one_line(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    loop = asyncio.new_event_loop()
    capture = Capture()
    jsonlog.install_excepthooks(loop)
    error = RuntimeError("no way")
    sys.excepthook(RuntimeError, error, None)
    threading.excepthook(threading.ExceptHookArgs((RuntimeError, error, None, None)))
    threading.excepthook(threading.ExceptHookArgs((RuntimeError, None, None, None)))
    loop.call_exception_handler({"message": "unheard of", "future": "x"})
    loop.close()
    lines = capture.lines()
    found = [(line["event.name"], line["level"], line.get("error.message")) for line in lines]
    # The loop's line is one more "bug" in the same period, so the limit holds it back.
    assert found == [("crashed", "CRITICAL", None), ("bug", "ERROR", None)]


PROGRAM = """
import asyncio, sys, threading, warnings
from twocans_core.process.jsonlog import configure, install_excepthooks
pipe = configure("info", service="can", version="1")
def bad(where):
    raise RuntimeError("in the " + where + " \\x1b")
async def main():
    loop = asyncio.get_running_loop()
    install_excepthooks(loop)
    thread = threading.Thread(target=bad, args=["thread"])
    thread.start()
    thread.join()
    await asyncio.sleep(0)
    if "loop" in sys.argv:
        loop.call_soon(bad, "loop")
        await asyncio.sleep(0.01)
    warnings.warn("careful")
asyncio.run(main())
try:
    if "main" in sys.argv:
        bad("main")
except RuntimeError as error:
    sys.excepthook(type(error), error, error.__traceback__)
pipe.close()
"""


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("thread", [("bug", "thread")]),
        ("main", [("bug", "thread"), ("crashed", "main")]),
    ],
)
def test_an_exception_that_nobody_caught_is_a_line_of_json(argument, expected):
    lines = run_program(PROGRAM, argument)
    found = [line for line in lines if line["logger"] == "twocans_core.process.jsonlog"]
    assert [line["event.name"] for line in found] == [event for event, _ in expected]
    for line, (_, where) in zip(found, expected, strict=True):
        assert f"RuntimeError: in the {where} \x1b" in line["exception.stacktrace"]
    assert any("careful" in line["body"] for line in lines if line["logger"] == "py.warnings")


def test_an_exception_in_a_callback_of_the_loop_is_a_line_of_json():
    lines = run_program(PROGRAM.replace("thread.start()\n    thread.join()", "pass"), "loop")
    (line,) = [line for line in lines if line["logger"] == "twocans_core.process.jsonlog"]
    assert line["event.name"] == "bug"
    assert "RuntimeError: in the loop" in line["exception.stacktrace"]
    assert line["error.message"].startswith("Exception in callback bad(")


def test_an_exception_that_leaves_the_main_thread_is_a_line_of_json():
    program = PROGRAM.partition("try:")[0] + 'bad("main")'
    lines = run_program(program, "main", code=1)
    assert lines[-1]["event.name"] == "crashed"
    assert "in the main" in lines[-1]["exception.stacktrace"]


def run_program(program: str, argument: str, code: int = 0) -> list[dict[str, str]]:
    done = subprocess.run(
        [sys.executable, "-c", program, argument], capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (code, b"")
    return [json.loads(line) for line in done.stdout.splitlines()]
