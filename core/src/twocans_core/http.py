"""The HTTP side of a can: /metrics, /healthz and /readyz, on a port and threads of its own.

Nothing else is served: no path takes a parameter, nothing is written, GET and HEAD only. A
scrape runs in its own thread and never on the loop.
"""

import contextlib
import gc
import http.server
import io
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from . import sockets
from .health import HttpPlace, signpost

__all__ = ["HttpServer"]

MAX_HEAD = 8 * 1024
MAX_IN_FLIGHT = 8
MAX_REQUEST_S = 5.0
# How soon the thread looks round, should a kernel not wake it when it is to stop. Each waking of
# an idle process is dear.
_POLL_S = 5.0

_TEXT = "text/plain; charset=utf-8"

_END = re.compile(rb"\r?\n\r?\n")
# A whole head as RFC 9112 has it: with no bare line feed, no folded line, no control character,
# and not of HTTP/0.9. Python's own parser bears them all.
_HEAD = re.compile(
    rb"[A-Z]+ [\x21-\x7e]+ HTTP/1\.[01]\r\n"
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n"
)


class HttpServer(http.server.ThreadingHTTPServer):
    """Serve metrics and health until closed.

    At most 8 requests at a time, then 503; a request's head is at most 8 KiB and whole
    within 5 s; the connection closes after each.

    Args:
        host: Address to bind, as ``sockets.Listener``.
        port: 0 lets the kernel choose; see ``address``.
        registry: What /metrics renders. This server's own metrics are added to it. None: there
            is no /metrics.
        can: ``server`` or ``client``, for the names of those.
        is_healthy: /healthz: whether the loop turns. Called from other threads, as ``is_ready``.
        is_ready: /readyz: whether to send work here.

    Raises:
        ListenError: The address cannot be had.
    """

    daemon_threads = True

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry | None,
        *,
        can: str,
        is_healthy: Callable[[], bool],
        is_ready: Callable[[], bool],
    ) -> None:
        listening = sockets.listen(host, port, backlog=64)
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.address = sockets.address_of(listening.getsockname())
        self.registry = registry
        self.rendered_s = 0.0
        """How long the last scrape took to render."""
        self.is_healthy = is_healthy
        self.is_ready = is_ready
        self.refused = 0
        """Requests answered with 503 because 8 were in flight."""
        self._places = threading.BoundedSemaphore(MAX_IN_FLIGHT)
        self._prog = f"twocans-{can}"
        self._close_sign: Callable[[], None] = lambda: None
        self._thread = threading.Thread(
            target=self.serve_forever, args=[_POLL_S], name="http", daemon=True
        )
        if registry is not None:
            registry.register(_HttpCollector(f"twocans_{can}", self))

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()
        sign = signpost(self._prog, HttpPlace(*self.address))
        self._close_sign = sockets.open_named(sign)

    def close(self) -> None:
        """Serve no more. May be called without ``start``."""
        self._close_sign()
        if self._thread.is_alive():
            sockets.stop_listening(self.socket)  # which wakes the thread
            self.shutdown()
            self._thread.join()
        self.server_close()

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in sockets.CAPACITY_ERRNOS:
                time.sleep(0.1)  # the connection stays in the queue: without this we spin
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            try:
                super().process_request(request, client_address)
            except BaseException:  # no thread could be started
                self._places.release()
                raise
            return
        self.refused += 1
        with contextlib.suppress(OSError):
            request.settimeout(0.05)
            request.recv(MAX_HEAD)  # unread bytes would turn our answer into a reset
        with contextlib.suppress(OSError):
            request.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours; anything else goes to the hook."""
        kind, error, trace = sys.exc_info()
        if kind is not None and not isinstance(error, OSError):
            thread = threading.current_thread()
            threading.excepthook(threading.ExceptHookArgs((kind, error, trace, thread)))


class _NoCollection:
    """Keep the cycle collector from running while somebody is inside.

    Rendering makes ten thousand small objects and no cycles. The collector would walk them
    again and again with the GIL held, some milliseconds each time, and the loop would wait.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            gc.disable()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                gc.enable()


_NO_COLLECTION = _NoCollection()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: HttpServer
    protocol_version = "HTTP/1.1"
    server_version = "twocans"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self._head = self._read_head()
        self.rfile = io.BytesIO(self._head)

    def parse_request(self) -> bool:
        if _HEAD.fullmatch(self._head):
            return super().parse_request()
        self.requestline, self.command, self.request_version = "", "GET", "HTTP/1.1"
        if len(self._head) < MAX_HEAD:
            self._answer(400, "not an HTTP/1 request\n")
        else:
            self._answer(431, f"a request's head is at most {MAX_HEAD} bytes here\n")
        return False

    def do_GET(self) -> None:
        lengths = self.headers.get_all("Content-Length", [])
        if any(length != "0" for length in lengths) or "Transfer-Encoding" in self.headers:
            self._answer(400, "no body is taken here\n")
        elif self.path == "/metrics" and self.server.registry is not None:
            encode, content_type = _choose_encoder(self.headers.get("Accept", ""))
            started = time.monotonic()
            with _NO_COLLECTION:
                data = encode(self.server.registry)
            self.server.rendered_s = time.monotonic() - started
            self._answer(200, data, content_type)
        elif self.path == "/healthz":
            self._say(self.server.is_healthy())
        elif self.path == "/readyz":
            self._say(self.server.is_ready())
        else:
            metrics = "" if self.server.registry is None else "/metrics, "
            self._answer(404, f"try {metrics}/healthz or /readyz\n")

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        """Requests are not logged: a scrape every few seconds is no change of state."""

    def _read_head(self) -> bytes:
        deadline = time.monotonic() + MAX_REQUEST_S
        head = b""
        while not _END.search(head) and len(head) < MAX_HEAD:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                return b""
            self.connection.settimeout(remaining_s)
            data = self.connection.recv(MAX_HEAD - len(head))
            if not data:
                return b""
            head += data
        self.connection.settimeout(MAX_REQUEST_S)
        end = _END.search(head)
        return head[: end.end()] if end else head

    def _say(self, good: bool) -> None:
        self._answer(200 if good else 503, "ok\n" if good else "no\n")

    def _answer(self, code: int, body: str | bytes, content_type: str = _TEXT) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _choose_encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # the version it asks for is none
        return choose_encoder("")


class _HttpCollector(Collector):
    def __init__(self, prefix: str, server: HttpServer) -> None:
        self._prefix = prefix
        self._server = server

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(
            f"{self._prefix}_http_refused",
            "HTTP requests refused because 8 were being answered already.",
            value=self._server.refused,
        )
        yield GaugeMetricFamily(
            f"{self._prefix}_scrape_render_seconds",
            "How long the previous scrape took to render; 0 before the first.",
            value=self._server.rendered_s,
        )
