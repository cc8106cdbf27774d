"""A small Kubernetes API server: EndpointSlices of one namespace, by TLS, with lists and watches.

It keeps every change it ever made, so that a watch goes on from any version; it forgets them
when a test says so.
"""

import http.server
import json
import socket
import ssl
import sys
import threading
import urllib.parse
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["NAMESPACE", "SERVICE", "TOKEN", "ApiServer", "Request", "endpoint", "slice_of"]

NAMESPACE = "twocans"
SERVICE = "twocans-server"
TOKEN = "token-1"

_CERTIFICATES = Path(__file__).with_name("certificates")
_PATH = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
_WAIT_S = 30.0

Step = Callable[["Handler"], None]


class Request(NamedTuple):
    """What a client asked for.

    Attributes:
        query: The parameters, each once.
        token: From the header; None without.
    """

    path: str
    query: Mapping[str, str]
    token: str | None
    headers: Mapping[str, str]

    @property
    def verb(self) -> str:
        return "watch" if "watch" in self.query else "list"


class ApiServer(http.server.ThreadingHTTPServer):
    """Serves until its ``with`` block ends, and looks after a service account's folder.

    Args:
        folder: For the service account.
        host: Address to bind.
        certificate: See ``present``.

    Attributes:
        account: The service account's folder, with token, ca.crt and namespace.
        requests: Every request so far.
        token: The only one that is taken; None takes none.
        page_slices: Slices on a page of a list, at most; the client may want fewer.
        steps: What to do with the next requests, instead of answering them.
        handshakes_failed: Connections whose client did not like our certificate.
        connected: Connections that are open now.
        watches: Watches under way now.
    """

    daemon_threads = False
    block_on_close = True

    def __init__(self, folder: Path, host: str = "127.0.0.1", certificate: str = "cluster") -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, 0), Handler)
        self.host = host
        self.account = folder
        self.requests: list[Request] = []
        self.token: str | None = TOKEN
        self.page_slices = 1_000
        self.steps: deque[Step] = deque()
        self.handshakes_failed = 0
        self.connected = 0
        self.watches = 0
        self.closed = threading.Event()
        self.news = threading.Condition()
        self.slices: dict[str, dict[str, Any]] = {}
        self.history: list[tuple[int, bytes]] = []
        self.version = 100
        self.oldest = 0
        self.generation = 0
        self.cut = False
        self._problems: list[BaseException] = []
        folder.mkdir(exist_ok=True)
        (folder / "token").write_text(f"{self.token}\n")
        (folder / "namespace").write_text(f"{NAMESPACE}\n")
        self.present(certificate)
        self.trust(certificate)

    @property
    def environ(self) -> dict[str, str]:
        """What a pod's environment says."""
        return {
            "KUBERNETES_SERVICE_HOST": self.host,
            "KUBERNETES_SERVICE_PORT": str(self.server_address[1]),
        }

    def __enter__(self) -> "ApiServer":
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.news:
            self.closed.set()
            self.news.notify_all()
        self.shutdown()
        self.server_close()
        self._thread.join()
        assert self._problems == []

    # --- what a test does to it -----------------------------------------------------------

    def present(self, certificate: str) -> None:
        """Show another certificate from the next connection on: a file's name, without .pem."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(_CERTIFICATES / f"{certificate}.pem")
        self._context = context

    def trust(self, certificate: str) -> None:
        """Put that certificate's CA into the service account."""
        text = (_CERTIFICATES / f"{certificate}.pem").read_text()
        begin = text.rindex("-----BEGIN CERTIFICATE-----")
        (self.account / "ca.crt").write_text(text[begin:])

    def put(self, item: dict[str, Any]) -> None:
        """Create a slice, or write it again."""
        name = item["metadata"]["name"]
        self._change("MODIFIED" if name in self.slices else "ADDED", item)

    def delete(self, name: str) -> None:
        """Delete a slice."""
        self._change("DELETED", self.slices[name])

    def bookmark(self, version: int) -> None:
        """Tell who watches that nothing happened up to a version."""
        with self.news:
            self.version = version
            item = {"kind": "EndpointSlice", "metadata": {"resourceVersion": str(version)}}
            self._say(_event("BOOKMARK", item))

    def say(self, data: bytes) -> None:
        """Send everybody who watches now these bytes, as they are."""
        with self.news:
            self._say(data)

    def forget(self) -> None:
        """No longer know anything of what happened so far, and end all watches."""
        with self.news:
            self.version += 1
            self.oldest = self.version
        self.end_watches()

    def end_watches(self, *, cut: bool = False) -> None:
        """End all watches, as if their time were over; or cut them off."""
        with self.news:
            self.generation += 1
            self.cut = cut
            self.news.notify_all()

    def _change(self, kind: str, item: dict[str, Any]) -> None:
        with self.news:
            self.version += 1
            name = item["metadata"]["name"]
            metadata = {**item["metadata"], "resourceVersion": str(self.version)}
            item = {**item, "metadata": metadata}
            if kind == "DELETED":
                del self.slices[name]
            else:
                self.slices[name] = item
            self._say(_event(kind, item))

    def _say(self, data: bytes) -> None:
        self.history.append((self.version, data))
        self.news.notify_all()

    # --- how it serves --------------------------------------------------------------------

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the connection's own thread. The client ends whatever hangs.
        request.settimeout(_WAIT_S)
        try:
            stream = self._context.wrap_socket(request, server_side=True)
        except OSError:
            with self.news:
                self.handshakes_failed += 1
            return
        with self.news:
            self.connected += 1
        with stream:
            try:
                Handler(stream, client_address, self)
            except (OSError, ValueError):
                pass  # the client is gone, or a step has closed the connection
            finally:
                with self.news:
                    self.connected -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        assert error is not None
        self._problems.append(error)


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection, one request."""

    protocol_version = "HTTP/1.1"
    server: ApiServer

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, strict_parsing=True))
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        token_shown = token if kind == "Bearer" else None
        self.request_seen = Request(url.path, query, token_shown, dict(self.headers))
        self.server.requests.append(self.request_seen)
        self.close_connection = True
        if self.server.steps:
            self.server.steps.popleft()(self)
        elif self.server.token is None or token_shown != self.server.token:
            self.refuse(401, "Unauthorized")
        elif url.path != _PATH:
            self.refuse(404, "404 page not found")
        elif self.request_seen.verb == "watch":
            self.watch()
        else:
            self.list()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def refuse(self, code: int, message: str = "") -> None:
        """Answer with an error, as Kubernetes words it."""
        status = {"kind": "Status", "status": "Failure", "message": message, "code": code}
        self.answer(json.dumps(status).encode(), code)

    def answer(self, data: bytes, code: int = 200, **headers: str) -> None:
        """Answer with a body."""
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def hang(self) -> None:
        """Say no more until the client or the test is over."""
        self.connection.settimeout(0.01)
        while not self.server.closed.is_set():
            try:
                if not self.connection.recv(1):
                    return
            except TimeoutError:
                pass

    def list(self) -> None:
        with self.server.news:
            names = sorted(self.server.slices)
            version = self.server.version
            items = [self.server.slices[name] for name in names]
        begin = int(self.request_seen.query.get("continue", "0"))
        end = begin + min(self.server.page_slices, int(self.request_seen.query["limit"]))
        metadata = {"resourceVersion": str(version)}
        if end < len(items):
            metadata["continue"] = str(end)
        page = {"kind": "EndpointSliceList", "metadata": metadata, "items": items[begin:end]}
        self.answer(json.dumps(page).encode())

    def watch(self) -> None:
        version = int(self.request_seen.query["resourceVersion"])
        if version < self.server.oldest:
            self.refuse(410, "too old resource version")
            return
        self.begin_watch()
        for data in self._events(version):
            self.send_chunk(data)
        if self.server.cut:
            self.connection.close()
        else:
            self.wfile.write(b"0\r\n\r\n")

    def begin_watch(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

    def send_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _events(self, version: int) -> Iterator[bytes]:
        server = self.server
        with server.news:
            generation = server.generation
            done = sum(at <= version for at, _ in server.history)
            server.watches += 1
        try:
            while True:
                with server.news:
                    while not (
                        len(server.history) > done
                        or server.generation > generation
                        or server.closed.is_set()
                    ):
                        server.news.wait(_WAIT_S)
                    fresh = server.history[done:]
                    done += len(fresh)
                    is_over = server.generation > generation or server.closed.is_set()
                for _, data in fresh:
                    yield data
                if is_over:
                    return
        finally:
            with server.news:
                server.watches -= 1


def endpoint(address: str, node: str | None = None, **more: Any) -> dict[str, Any]:
    """Return an endpoint that is ready; ``more`` are further fields of it."""
    found: dict[str, Any] = {"addresses": [address], "conditions": {"ready": True}}
    if node is not None:
        found["nodeName"] = node
    return found | more


def slice_of(name: str, *endpoints: dict[str, Any], family: str = "IPv4") -> dict[str, Any]:
    """Return an EndpointSlice."""
    return {
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": SERVICE}},
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": [{"name": "data", "port": 5000, "protocol": "TCP"}],
    }


def _event(kind: str, item: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"
