"""Logs: one JSON object a line, on one descriptor, never in the loop's way.

Keys of every line: timestamp, level, logger, event.name, service.name, service.version. The
event is a constant snake_case name, so that it can be counted; whatever varies is a field:

    log.info("path_failing", extra={"twocans.target": "server:5000", "error.type": "refused"})

A field has OpenTelemetry's name where there is one, else one of ours that begins with
``twocans.``. None is the beginning of another (``a`` beside ``a.b``): stores that index JSON
refuse such lines. docs/logs.md has them all.

A record waits in a bounded queue for a thread that writes. When the reader of our output
stops reading, or the disk is full, lines are lost and counted, and no probe is late. A line that
was cut off is ended before the next begins, and the log says how many are missing.
"""

import asyncio
import atexit
import logging
import logging.handlers
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from twocans_core.errors import ConfigError

from .output import write_some

__all__ = ["LogPipe", "RateLimit", "configure", "install_excepthooks", "report_bug"]

_QUEUE_LINES = 1_000
_DRAIN_S = 2.0
_LOST_EVERY_S = 10.0

log = logging.getLogger(__name__)


class LogPipe:
    """The way from a log call to the descriptor. Made by ``configure``.

    Why not logging's own: ``QueueListener.stop`` waits for a stuck reader without a deadline, and
    ``QueueHandler`` writes a traceback to stderr for each line that finds the queue full.

    Args:
        formatter: Makes a line of a record.
        fd: Where lines go, unless there is a file.
        file: Path of a file that lines are appended to.

    Attributes:
        dropped: Lines lost so far: the queue was full, or they could not be written.

    Raises:
        ConfigError: The file cannot be opened.
    """

    def __init__(self, formatter: logging.Formatter, fd: int = 1, file: str = "") -> None:
        self.dropped = 0
        self._formatter = formatter
        self._file = file
        self._fd = _open(file) if file else fd
        self._torn = False
        self._said = 0
        self._say_after_s = 0.0
        self._lines: queue.Queue[bytes | None] = queue.Queue(_QUEUE_LINES)
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def put(self, record: logging.LogRecord) -> None:
        """Format a record and queue its line; drop and count it when the queue is full."""
        try:
            # A line is made here and not in the thread: what a record refers to may change
            # meanwhile.
            self._lines.put_nowait(self._line(record))
        except queue.Full:
            self.dropped += 1

    def reopen(self) -> None:
        """Open the file anew, if lines go to one: it may have been moved away.

        Raises:
            ConfigError: It cannot be opened; lines go on to where they went.
        """
        if self._file:
            new = _open(self._file)
            # The number stays and gets another file behind it, in one step (dup(2)). So the thread
            # that writes to it needs no lock.
            os.dup2(new, self._fd, inheritable=False)
            os.close(new)
            self._torn = False

    def close(self) -> None:
        """Write what is queued, for 2 s at most: a reader that stopped must not hold us.

        Safe to call twice; called at exit.
        """
        deadline = time.monotonic() + _DRAIN_S
        try:
            self._lines.put(None, timeout=_DRAIN_S)
        except queue.Full:
            return
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _line(self, record: logging.LogRecord) -> bytes:
        return self._formatter.format(record).encode("ascii", "backslashreplace") + b"\n"

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            if self._put_out(line):
                self._say_lost()
            else:
                self.dropped += 1

    def _put_out(self, line: bytes) -> bool:
        """Write a line, on a line of its own; returns whether all of it was."""
        rest = b"\n" + line if self._torn else line
        # Straight to the descriptor: sys.stdout's lock, held by a blocked daemon thread,
        # would abort the interpreter at exit.
        try:
            while rest:
                count = write_some(self._fd, rest)
                self._torn = rest[count - 1 : count] != b"\n"
                rest = rest[count:]
        except OSError:
            return False
        return True

    def _say_lost(self) -> None:
        """Write how many lines are missing, where that was not said."""
        lost, now_s = self.dropped - self._said, time.monotonic()
        if not lost or now_s < self._say_after_s:
            return
        fields = {"twocans.log.lost": lost}
        record = log.makeRecord(
            log.name, logging.WARNING, "", 0, "log_lines_lost", (), None, extra=fields
        )
        if self._put_out(self._line(record)):
            self._said += lost
            self._say_after_s = now_s + _LOST_EVERY_S


def _open(file: str) -> int:
    try:
        return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise ConfigError(f"--log-file {file}: {error.strerror}") from None


class _Handler(logging.Handler):
    def __init__(self, pipe: LogPipe) -> None:
        super().__init__()
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._pipe.put(record)
        except Exception:  # as logging's own handlers do: report, never raise
            self.handleError(record)


class _Formatter(JsonFormatter):
    """A record as one JSON object. What libraries say is no event's name: it is the ``body``."""

    def add_fields(
        self,
        log_data: dict[str, Any],
        record: logging.LogRecord,
        message_dict: dict[str, Any],
    ) -> None:
        super().add_fields(log_data, record, message_dict)
        if not record.name.startswith("twocans_"):
            log_data["body"] = log_data["event.name"]
            log_data["event.name"] = "library_message"
        if record.exc_info and record.exc_info[0] is not None:
            log_data["exception.type"] = record.exc_info[0].__qualname__
            log_data["exception.message"] = str(record.exc_info[1])


class RateLimit(logging.Filter):
    """Let one record through for each (event, target or limit) in a period; count the others.

    The next one through has ``twocans.suppressed``: how many were held back since. Only records
    logged with ``extra={"limited": True}`` are subject to it: changes of state never are.

    Args:
        period_s: Seconds between two records of one kind.
        now: Clock in seconds.
    """

    _KINDS_KEPT = 10_000

    def __init__(self, period_s: float = 10.0, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._period_s = period_s
        self._now = now
        self._kinds: dict[tuple[str, object], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(record, "limited", False):
            return True
        fields = vars(record)
        kind = (str(record.msg), fields.get("twocans.target", fields.get("twocans.limit")))
        now = self._now()
        last, suppressed = self._kinds.get(kind, (-self._period_s, 0))
        if now - last < self._period_s:
            self._kinds[kind] = (last, suppressed + 1)
            return False
        if len(self._kinds) >= self._KINDS_KEPT:
            # To forget all of them lets through one record more of each. To keep an order would
            # cost more.
            self._kinds.clear()
        self._kinds[kind] = (now, 0)
        if suppressed:
            fields["twocans.suppressed"] = suppressed
        return True


def configure(level: str, *, service: str, version: str, fd: int = 1, file: str = "") -> LogPipe:
    """Send the whole process's logs through one JSON formatter. Call once, from main.

    Args:
        level: Lowest level written, such as ``info``.
        service: ``service.name`` of every line.
        version: ``service.version`` of every line.
        fd: Where lines go; 1 is stdout.
        file: Path of a file that they are appended to instead.
    """
    formatter = _Formatter(
        ["levelname", "name", "message"],
        timestamp=True,
        rename_fields={
            "levelname": "level",
            "name": "logger",
            "message": "event.name",
            "exc_info": "exception.stacktrace",
        },
        static_fields={"service.name": service, "service.version": version},
        reserved_attrs=[*_RESERVED, "limited"],
        json_ensure_ascii=True,  # which leaves nothing outside of 20 to 7E
    )
    pipe = LogPipe(formatter, fd, file)
    # The writer's thread is a daemon: without this the last lines of a crash are lost.
    atexit.register(pipe.close)
    handler = _Handler(pipe)
    handler.addFilter(RateLimit())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    return pipe


def install_excepthooks(loop: asyncio.AbstractEventLoop) -> None:
    """Send exceptions that nobody caught, in any thread or callback, to the log.

    One that ends the main thread is logged as ``crashed``, the others as ``bug``: the process
    goes on. Each is a bug of ours.
    """

    def on_main(kind: type[BaseException], error: BaseException, tb: TracebackType | None) -> None:
        log.critical("crashed", exc_info=(kind, error, tb))

    def on_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            trace = (args.exc_type, args.exc_value, args.exc_traceback)
            log.error("bug", exc_info=trace, extra={"limited": True})

    def on_loop(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        fields = {"error.message": str(context.get("message", "")), "limited": True}
        log.error("bug", exc_info=context.get("exception"), extra=fields)

    sys.excepthook = on_main
    threading.excepthook = on_thread
    loop.set_exception_handler(on_loop)


def report_bug(task: "asyncio.Task[None]") -> None:
    """Log what ended a task that should have gone on until cancelled; a done-callback."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("bug", exc_info=error, extra={"limited": True})


# Attributes of every LogRecord, which are no fields of ours.
_RESERVED = [*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"]
