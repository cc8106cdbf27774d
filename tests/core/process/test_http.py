import contextlib
import errno
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from twocans_core.process import http
from twocans_core.process.health import HttpPlace, check_health
from twocans_core.process.http import MAX_HEAD, MAX_HEADS, MAX_SCRAPES, HttpServer
from twocans_core.process.telemetry import make_registry

METRICS, HEALTHZ, READYZ = (
    f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in ("metrics", "healthz", "readyz")
)


class Site:
    """A server under test, and what its can says of itself.

    Attributes:
        healthy: What /healthz is told.
        ready: What /readyz is told.
        gate: While it is cleared, /healthz takes its time.
        inside: Requests for /healthz that are being answered.
    """

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self.registry = registry
        self.gate = threading.Event()
        self.reset()
        self.server = HttpServer(
            "127.0.0.1",
            0,
            registry,
            role="client",
            is_healthy=lambda: self.is_healthy(),
            is_ready=lambda: self.is_ready(),
        )
        self.server.start()

    def reset(self) -> None:
        """Be as a new one, but for what the server counted."""
        self.healthy = self.ready = True
        self.gate.set()
        self.inside = threading.Semaphore(0)
        self.is_healthy: Callable[[], bool] = self._is_healthy
        self.is_ready: Callable[[], bool] = lambda: self.ready

    def close(self) -> None:
        self.gate.set()
        self.server.close()

    def _is_healthy(self) -> bool:
        self.inside.release()
        assert self.gate.wait(30)
        return self.healthy

    def connect(self) -> socket.socket:
        return socket.create_connection(
            (self.server.address.host, self.server.address.port), timeout=30
        )

    def ask(self, request: bytes) -> bytes:
        """Send a request as it is; return all that comes back until the end."""
        with self.connect() as sock:
            sock.sendall(request)
            return read_to_end(sock)

    def get(self, path: str, head: str = "") -> tuple[int, str, str]:
        return parse(self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode()))


def read_to_end(sock: socket.socket) -> bytes:
    answer = b""
    while data := sock.recv(65_536):
        answer += data
    return answer


def parse(answer: bytes) -> tuple[int, str, str]:
    """Status, head and body."""
    head, _, body = answer.decode().partition("\r\n\r\n")
    match = re.match(r"HTTP/1\.1 ([0-9]{3}) ", head)
    assert match, answer
    return int(match[1]), head, body


@pytest.fixture
def fresh() -> Iterator[Site]:
    site = Site(make_registry())
    yield site
    site.close()


@pytest.fixture(scope="module")
def kept() -> Iterator[Site]:
    site = Site(make_registry())
    yield site
    site.close()


@pytest.fixture
def site(kept: Site) -> Site:
    kept.reset()
    return kept


def test_without_a_registry_there_is_health_and_no_metrics():
    site = Site(None)
    try:
        assert [site.get(path)[0] for path in ("/healthz", "/readyz", "/metrics")] == [
            200,
            200,
            404,
        ]
        assert site.get("/metrics")[2] == "try /healthz or /readyz\n"
    finally:
        site.close()


def test_metrics_are_served_as_prometheus_text(fresh):
    site = fresh
    status, head, body = site.get("/metrics")
    assert status == 200
    assert "Content-Type: text/plain; version=" in head
    assert "\ntwocans_client_http_refused_total 0.0\n" in body
    assert "\ntwocans_client_scrape_render_seconds 0.0\n" in body
    assert "\nprocess_cpu_seconds_total " in body


def test_metrics_are_served_as_openmetrics_to_who_accepts_it(site):
    _, head, body = site.get("/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n")
    assert "Content-Type: application/openmetrics-text" in head
    assert body.endswith("# EOF\n")


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/openmetrics-text; version=x",
        "application/openmetrics-text;version=",
        "text/plain; version=1.0.0; escaping=nonsense",
        ",;=;,",
        "text/plain;;q=",
        "a" * 4000,
    ],
)
def test_any_accept_header_gets_the_metrics(site, accept):
    assert site.get("/metrics", f"Accept: {accept}\r\n")[0] == 200


def test_the_last_scrape_was_timed(site):
    site.get("/metrics")
    _, _, body = site.get("/metrics")
    (seconds,) = re.findall(r"^twocans_client_scrape_render_seconds (.*)$", body, re.MULTILINE)
    assert float(seconds) > 0


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest.mark.parametrize(("good", "status", "body"), [(True, 200, "ok\n"), (False, 503, "no\n")])
def test_each_of_health_and_readiness_is_its_own(site, path, good, status, body):
    site.healthy, site.ready = (good, not good) if path == "/healthz" else (not good, good)
    assert site.get(path)[::2] == (status, body)


@pytest.mark.parametrize(
    "path", ["/", "/metrics/", "/metrics?name[]=up", "http://x/metrics", "/%6detrics"]
)
def test_nothing_else_is_there(site, path):
    status, _, body = site.get(path)
    assert (status, body) == (404, "try /metrics, /healthz or /readyz\n")


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/nothing"])
def test_head_is_get_without_the_body(site, path):
    head = site.ask(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    status, fields, body = parse(head)
    assert (status, body) == (site.get(path)[0], "")
    assert re.search(r"^Content-Length: [1-9]", fields, re.MULTILINE)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"])
def test_other_methods_are_refused(site, method):
    assert parse(site.ask(f"{method} /metrics HTTP/1.1\r\nHost: x\r\n\r\n".encode()))[0] == 501


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
        b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
        b"Content-Length: 00\r\n\r\n",
        b"Content-Length:\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"transfer-encoding: identity\r\n\r\n",
    ],
)
def test_a_body_is_refused(site, head):
    status, fields, body = parse(site.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + head))
    assert (status, body) == (400, "no body is taken here\n")
    assert "Connection: close" in fields


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /metrics HTTP/1.1\n\n",
        b"GET /metrics HTTP/1.1\r\n\n",
        b"GET /metrics HTTP/1.1\nHost: x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\nContent-Length: 5\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\0\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET /metrics HTTP/2.0\r\n\r\n",
        b"GET  /metrics HTTP/1.1\r\n\r\n",
        b"get /metrics HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
        b"\x16\x03\x01\0\r\n\r\n",
    ],
)
def test_what_is_not_quite_http_is_refused(site, request_bytes):
    status, _, body = parse(site.ask(request_bytes))
    assert (status, body) == (400, "not an HTTP/1 request\n")


@pytest.mark.parametrize("start", [b"GET /metrics HTTP/1.1\r\nX: ", b"GET /", b"\xff"])
def test_a_head_over_8_kib_is_refused(site, start):
    status, _, _ = parse(site.ask(start + b"a" * (MAX_HEAD - len(start))))
    assert status == 431


def test_a_head_of_just_8_kib_is_taken(site):
    start, end = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ", b"\r\n\r\n"
    request = start + b"a" * (MAX_HEAD - len(start) - len(end)) + end
    assert parse(site.ask(request))[0] == 200


def test_too_many_headers_are_refused(site):
    request = b"GET /healthz HTTP/1.1\r\n" + b"A:\r\n" * 200 + b"\r\n"
    assert parse(site.ask(request))[0] == 431


def test_a_second_request_on_the_connection_is_not_answered(site):
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"
    assert site.ask(request + request).count(b"HTTP/1.1") == 1


def test_a_request_may_come_byte_by_byte(site):
    with site.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in HEALTHZ:
            sock.sendall(bytes([byte]))
        assert parse(read_to_end(sock))[0] == 200


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost"])
def test_a_client_that_ends_early_gets_no_answer_and_no_place_is_lost(site, sent):
    for _ in range(MAX_HEADS + 1):
        with site.connect() as sock:
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
    assert site.get("/healthz")[0] == 200


def test_a_head_that_is_too_slow_is_closed(site, monkeypatch):
    monkeypatch.setattr(http, "MAX_REQUEST_S", 0.05)
    with site.connect() as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert sock.recv(1) == b""  # would wait for 30 s, and fail


def test_a_head_that_drips_is_closed_all_the_same(site, monkeypatch):
    monkeypatch.setattr(http, "MAX_REQUEST_S", 0.1)
    with site.connect() as sock:
        sock.settimeout(0.01)
        for _ in range(3_000):
            with contextlib.suppress(TimeoutError):
                assert sock.recv(1) == b""
                return
            sock.sendall(b"a")
    pytest.fail("it goes on reading")


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"])
def test_whoever_says_nothing_makes_way_for_whoever_asks(fresh, sent):
    site = fresh
    silent = [site.connect() for _ in range(MAX_HEADS + 8)]
    for sock in silent:
        sock.sendall(sent)
    for path in ("/healthz", "/readyz", "/metrics"):
        assert site.get(path)[0] == 200
    assert site.server.refused >= 8
    for sock in silent[:8]:  # in the order in which they came
        assert parse(read_to_end(sock))[0] == 503
    newest = silent[-1]
    newest.sendall(HEALTHZ[len(sent) :])
    assert parse(read_to_end(newest))[0] == 200
    for sock in silent:
        sock.close()


def hold_scrapes(site: Site, count: int) -> list[socket.socket]:
    """Begin to scrape, so often; whoever scrapes waits for the gate."""

    class Gate(Collector):
        def collect(self) -> Iterator[Metric]:
            site.inside.release()
            assert site.gate.wait(30)
            return iter(())

        describe = collect

    assert site.registry is not None
    site.registry.register(Gate())
    assert site.inside.acquire(timeout=30)  # asked when it was registered
    site.gate.clear()
    scrapers = [site.connect() for _ in range(count)]
    for sock in scrapers:
        sock.sendall(METRICS)
        assert site.inside.acquire(timeout=30)
    return scrapers


def test_the_ninth_scrape_is_told_to_come_back_and_health_is_answered(fresh):
    site = fresh
    waiting = hold_scrapes(site, MAX_SCRAPES)
    status, _, body = site.get("/metrics")
    assert (status, body) == (503, "8 scrapes are being answered already\n")
    assert site.server.refused == 1
    site.is_healthy = lambda: True
    assert [site.get(path)[0] for path in ("/healthz", "/readyz")] == [200, 200]
    site.gate.set()
    for sock in waiting:
        assert parse(read_to_end(sock))[0] == 200
        sock.close()
    _, _, body = site.get("/metrics")
    assert "\ntwocans_client_http_refused_total 1.0\n" in body


@pytest.mark.parametrize(
    ("error", "status", "bugs"), [(TimeoutError, 503, 0), (OSError, 500, 1), (KeyError, 500, 1)]
)
def test_metrics_that_cannot_be_gathered_are_answered_with_a_reason(
    fresh, monkeypatch, error, status, bugs
):
    seen: list[object] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)

    class Broken(Collector):
        def collect(self) -> Iterator[Metric]:
            raise error

    fresh.registry.register(Broken())
    answered, _, body = fresh.get("/metrics")
    assert answered == status
    assert re.fullmatch(r"the metrics .* the loop is busy\n|a bug of ours.*\n", body)
    assert len(seen) == bugs
    assert fresh.get("/healthz")[0] == 200


@pytest.mark.parametrize(
    ("hosts", "version", "status"),
    [
        (["x"], "1.1", 200),
        ([""], "1.1", 200),
        (["[::1]:5001"], "1.1", 200),
        (["node-1.example:5001"], "1.1", 200),
        ([], "1.0", 200),
        ([], "1.1", 400),
        (["x", "x"], "1.1", 400),
        (["x", "y"], "1.1", 400),
        (["x", "y"], "1.0", 400),
        (["x y"], "1.1", 400),
        (["x/y"], "1.1", 400),
        (["x:y"], "1.1", 400),
    ],
)
@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/nothing"])
def test_a_request_has_one_host(site, hosts, version, status, path):
    lines = "".join(f"Host: {host}\r\n" for host in hosts)
    answered, _, body = parse(site.ask(f"GET {path} HTTP/{version}\r\n{lines}\r\n".encode()))
    if status == 200 and path == "/nothing":
        status = 404
    assert answered == status
    assert ("Host" in body) == (status == 400)


@pytest.mark.parametrize(("number", "pauses"), [(errno.EMFILE, [0.1]), (errno.ECONNABORTED, [])])
def test_a_machine_without_descriptors_is_given_time(monkeypatch, number, pauses):
    seen: list[float] = []
    server = HttpServer("127.0.0.1", 0, make_registry(), role="x", is_healthy=bool, is_ready=bool)

    def no_descriptor(*_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(time, "sleep", seen.append)
    monkeypatch.setattr(socket.socket, "accept", no_descriptor)
    with pytest.raises(OSError, match="no"):
        server.get_request()
    assert seen == pauses
    server.close()


def test_a_client_that_went_away_is_no_error(site, monkeypatch):
    seen: list[object] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    site.gate.clear()
    sock = site.connect()
    # A reset instead of an end.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.sendall(HEALTHZ)
    assert site.inside.acquire(timeout=30)
    sock.close()
    site.gate.set()
    assert site.get("/readyz")[0] == 200
    assert seen == []


def test_a_bug_of_ours_goes_to_the_hook(site, monkeypatch):
    seen: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)

    def bug() -> bool:
        raise ZeroDivisionError

    site.is_ready = bug
    assert parse(site.ask(READYZ))[::2] == (500, "a bug of ours: it is in the log\n")
    assert [args.exc_type for args in seen] == [ZeroDivisionError]
    assert site.get("/healthz")[0] == 200


@given(
    st.binary(max_size=300)
    | st.binary(max_size=100).map(lambda noise: b"GET /metrics HTTP/1.1\r\n" + noise)
)
@hypothesis_settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_is_answered_or_closed_and_never_raises(site, noise):
    with site.connect() as sock:
        sock.sendall(noise)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            answer = read_to_end(sock)
        except ConnectionResetError:
            return
    assert re.match(rb"|HTTP/1\.1 (200|400|404|431|501|505) ", answer)


def test_both_families_are_served_by_one_socket():
    site = HttpServer(
        "", 0, make_registry(), role="server", is_healthy=lambda: True, is_ready=lambda: True
    )
    site.start()
    try:
        assert check_health(HttpPlace(*site.address)) is None
        if site.address.host == "::":
            with socket.create_connection(("::1", site.address.port), timeout=30) as sock:
                sock.sendall(READYZ)
                assert parse(read_to_end(sock))[0] == 200
    finally:
        site.close()


def test_while_nobody_asks_its_thread_sleeps(fresh):
    def wakings() -> int:
        status = Path(f"/proc/self/task/{fresh.server._thread.native_id}/status").read_text()
        return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    fresh.get("/healthz")
    time.sleep(0.1)
    before = wakings()
    time.sleep(0.3)
    assert wakings() == before
    fresh.server.close()
    assert not fresh.server._thread.is_alive()


def test_a_server_that_never_started_closes_too():
    HttpServer(
        "127.0.0.1", 0, make_registry(), role="x", is_healthy=bool, is_ready=bool
    ).close()  # would hang here


def test_a_port_that_is_taken_is_an_error(site):
    port = site.server.address.port
    with pytest.raises(OSError, match="in use"):
        HttpServer(
            "127.0.0.1",
            port,
            make_registry(),
            role="x",
            is_healthy=lambda: True,
            is_ready=lambda: True,
        )


def test_health_is_asked_for_on_this_machine(site):
    port = site.server.address.port
    assert check_health(HttpPlace("127.0.0.1", port)) is None
    site.healthy = False
    assert check_health(HttpPlace("127.0.0.1", port)) == f"port {port}: /healthz says 503"


def test_health_of_nobody_says_so():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        problem = check_health(HttpPlace("127.0.0.1", port))
    assert problem is not None
    assert "refused" in problem


def test_health_of_something_else_says_so():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(1000)
                sock.sendall(b"SSH-2.0-x\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        problem = check_health(HttpPlace("127.0.0.1", port))
        thread.join()
    assert problem is not None
    assert problem.startswith(f"port {port}: ")
