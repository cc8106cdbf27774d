"""The HTTP side of a process: /metrics, /healthz and /readyz, on a port and threads of its own.

Nothing else is served: no path takes a parameter, nothing is written, GET and HEAD only. A
scrape runs in its own thread and never on the loop. It is Python's own server and what that one
lacks, which cannot be taken apart: bounds, deadlines, and a head that is read as RFC 9112 has it.
"""

import contextlib
import functools
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

from twocans_core.net import sockets
from twocans_core.net.listener import listen

from .health import HttpPlace, signpost
from .telemetry import NO_COLLECTION

__all__ = ["HttpServer"]

MAX_HEAD = 8 * 1024
# Connections whose request is not whole. One more, and the oldest makes way: who says nothing
# must not keep health from being asked.
MAX_HEADS = 32
MAX_SCRAPES = 8
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
# RFC 9110, 4.2.3 and 7.2: a name or an address, and maybe a port; it may be empty.
_HOST = re.compile(r"(?:[0-9A-Za-z._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")

Answer = tuple[int, str | bytes, str]
"""A status, a body and its content type."""

_BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class HttpServer(http.server.ThreadingHTTPServer):
    """Serve metrics and health until closed.

    At most 8 scrapes at a time, then 503; health is answered whatever else goes on. A request's
    head is at most 8 KiB and whole within 5 s; of 32 that are not whole, the oldest makes way
    for the next. The connection closes after each request.

    Args:
        host: Address to bind, as ``Listener``.
        port: 0 lets the kernel choose; see ``address``.
        registry: What /metrics renders. This server's own metrics are added to it. None: there
            is no /metrics.
        role: ``server`` or ``client``, for the names of those.
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
        role: str,
        is_healthy: Callable[[], bool],
        is_ready: Callable[[], bool],
    ) -> None:
        listening = listen(host, port, backlog=64)
        # The base makes a socket of IPv4 and binds it in one go. So it makes one that is never
        # bound, and ours takes its place.
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.address = sockets.address_of(listening.getsockname())
        self.routes: dict[str, Callable[[str], Answer]] = {}
        """What is served at a path, from what the request accepts."""
        if registry is not None:
            self.routes["/metrics"] = functools.partial(self._scrape, registry)
        for path, is_good in (("/healthz", is_healthy), ("/readyz", is_ready)):
            self.routes[path] = functools.partial(_tell, is_good)
        self.rendered_s = 0.0
        """How long the last scrape took to render."""
        self.refused = 0
        """Requests answered with 503: scrapes beyond 8, and heads that made way."""
        self.scrapes = threading.BoundedSemaphore(MAX_SCRAPES)
        self._lock = threading.Lock()
        # In the order in which they came.
        self._heads: dict[Any, None] = {}
        self._prog = f"twocans-{role}"
        self._close_sign: Callable[[], None] = lambda: None
        self._thread = threading.Thread(
            target=self.serve_forever, args=[_POLL_S], name="http", daemon=True
        )
        if registry is not None:
            registry.register(_HttpCollector(f"twocans_{role}", self))

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()
        sign = signpost(self._prog, HttpPlace(*self.address))
        self._close_sign = sockets.open_named(sign)

    def close(self) -> None:
        """Serve no more. May be called without ``start``."""
        self._close_sign()
        if self._thread.is_alive():
            sockets.stop_reading(self.socket)  # which wakes the thread
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
        with self._lock:
            if len(self._heads) >= MAX_HEADS:
                self._give_way(next(iter(self._heads)))
            # Before its thread begins: that may end the head at once.
            self._heads[request] = None
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self.end_head(request)
            raise

    def end_head(self, request: Any) -> bool:
        """Its head is read, or will not be; returns False when it had to make way."""
        with self._lock:
            # What is kept of each is None; of one that made way nothing is.
            return self._heads.pop(request, self) is None

    def _give_way(self, request: Any) -> None:
        del self._heads[request]
        self.refused += 1
        with contextlib.suppress(OSError):
            # Nothing was sent on it before, so the send buffer has room, and the lock is not held
            # for long. Nor is it closed here: its thread still has the descriptor, whose number
            # would be reused.
            request.sendall(_BUSY)
            sockets.stop_reading(request)  # which wakes its thread

    def _scrape(self, registry: CollectorRegistry, accept: str) -> Answer:
        encode, content_type = _choose_encoder(accept)
        started = time.monotonic()
        try:
            with NO_COLLECTION:
                data = encode(registry)
        except TimeoutError:  # what is on the loop could not be had
            return (503, "the metrics could not be gathered in time: the loop is busy\n", _TEXT)
        self.rendered_s = time.monotonic() - started
        return (200, data, content_type)

    def refuse_scrape(self) -> None:
        """Count a scrape for which there is no place."""
        with self._lock:
            self.refused += 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours; anything else is."""
        if not isinstance(sys.exc_info()[1], OSError):
            self.report_bug()

    def report_bug(self) -> None:
        """Give the exception that is being handled to the hook."""
        kind, error, trace = sys.exc_info()
        if kind is not None:
            thread = threading.current_thread()
            threading.excepthook(threading.ExceptHookArgs((kind, error, trace, thread)))


class _Handler(http.server.BaseHTTPRequestHandler):
    server: HttpServer
    protocol_version = "HTTP/1.1"
    server_version = "twocans"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        try:
            head = self._read_head()
        finally:
            is_ours = self.server.end_head(self.request)
        self._head = head if is_ours else b""
        # Python's parser reads this and nothing else. So it never meets a body, or a pipelined
        # request (RFC 9112, 9.3.2).
        self.rfile = io.BytesIO(self._head)

    def parse_request(self) -> bool:
        if _HEAD.fullmatch(self._head):
            if not super().parse_request():
                return False
            wrong = self._find_fault()
            if not wrong:
                return True
            self._answer(400, wrong)
            return False
        # What an answer is made with, though nothing was parsed.
        self.requestline, self.command, self.request_version = "", "GET", "HTTP/1.1"
        if len(self._head) < MAX_HEAD:
            self._answer(400, "not an HTTP/1 request\n")
        else:
            self._answer(431, f"a request's head is at most {MAX_HEAD} bytes here\n")
        return False

    def do_GET(self) -> None:
        if self.path != "/metrics" or self.path not in self.server.routes:
            self._answer(*self._find())
        elif self.server.scrapes.acquire(blocking=False):
            try:
                self._answer(*self._find())
            finally:
                self.server.scrapes.release()
        else:
            self.server.refuse_scrape()
            self._answer(503, f"{MAX_SCRAPES} scrapes are being answered already\n")

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
            # settimeout() bounds one recv(). A byte now and then would go on forever, so each gets
            # what is left of the whole.
            self.connection.settimeout(remaining_s)
            data = self.connection.recv(MAX_HEAD - len(head))
            if not data:
                return b""
            head += data
        # For the answer: of sendall() it bounds the whole. A scraper that does not read holds one
        # of the 8 places no longer than this.
        self.connection.settimeout(MAX_REQUEST_S)
        end = _END.search(head)
        return head[: end.end()] if end else head

    def _find_fault(self) -> str:
        """Return what is wrong with a head that can be read; "" where nothing is."""
        hosts = self.headers.get_all("Host", [])
        # RFC 9112, 3.2: exactly one; HTTP/1.0 knew none.
        if len(hosts) > 1 or (not hosts and self.request_version != "HTTP/1.0"):
            return f"a request has one Host, this one has {len(hosts)}\n"
        if hosts and not _HOST.fullmatch(hosts[0].strip()):
            return "this Host is none\n"
        if self.headers.get_all("Content-Length", ["0"]) != ["0"] or (
            "Transfer-Encoding" in self.headers
        ):
            return "no body is taken here\n"
        return ""

    def _find(self) -> Answer:
        """Return what is asked for."""
        routes = self.server.routes
        if self.path not in routes:
            *others, last = routes
            return (404, f"try {', '.join(others)} or {last}\n", _TEXT)
        try:
            return routes[self.path](self.headers.get("Accept", ""))
        except Exception:
            self.server.report_bug()
            return (500, "a bug of ours: it is in the log\n", _TEXT)

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


def _tell(is_good: Callable[[], bool], _: str) -> Answer:
    return (200, "ok\n", _TEXT) if is_good() else (503, "no\n", _TEXT)


class _HttpCollector(Collector):
    def __init__(self, prefix: str, server: HttpServer) -> None:
        self._prefix = prefix
        self._server = server

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(
            f"{self._prefix}_http_refused",
            "HTTP requests refused: scrapes beyond 8 at once, and the oldest of more than 32 "
            "incomplete requests.",
            value=self._server.refused,
        )
        yield GaugeMetricFamily(
            f"{self._prefix}_scrape_render_seconds",
            "Time that it took to render the previous scrape; 0 before the first.",
            value=self._server.rendered_s,
        )
