"""Ask the Kubernetes API server, from within a pod. Blocks: for a thread of its own.

Every request is a connection of its own, for which the service account's token and the CA are
read again, because both rotate: a client that keeps its first token is refused within the hour.
"""

import contextlib
import http.client
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from twocans_core import __version__
from twocans_core.net.sockets import keep_alive

from .slices import BadAnswer, Expired, parse_status

__all__ = ["ACCOUNT", "ApiServer", "Problem", "describe", "read", "read_lines"]

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_MAX_ERROR_BYTES = 64 * 1024
_MAX_ACCOUNT_BYTES = 1024 * 1024
_READ_BYTES = 64 * 1024
# socket.SHUT_RDWR. The module itself is ``net``'s to import.
_SHUT_RDWR = 2

_ROLE = "apply the component k8s/components/endpointslices"
_WHAT_TO_DO = {
    401: "the API server does not take our token, which is read again for each try; if this goes "
    "on, the service account was deleted: restart the pod",
    403: f"the service account may not do this; {_ROLE}",
    404: "the API server has no discovery.k8s.io/v1, which Kubernetes 1.21 and later have",
}


class Problem(Exception):
    """We cannot go on now; the text says why, and what to do about it."""


class _Cluster(NamedTuple):
    """What one request needs to know. Holds a secret: never log it."""

    host: str
    port: int
    namespace: str
    token: str
    tls: ssl.SSLContext


class ApiServer:
    """The API server of the cluster that we run in.

    Args:
        account: The folder of the service account's token, ca.crt and namespace.
        environ: Has KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT.
        timeout_s: For connecting, and for the answer's beginning, each.
    """

    def __init__(self, account: Path, environ: Mapping[str, str], timeout_s: float) -> None:
        self._account = account
        self._environ = environ
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._sock: ssl.SSLSocket | None = None
        self._stopped = False

    def stop(self) -> None:
        """End the request under way, and every later one. From any thread; does not wait.

        A request that still connects ends by its time-out, and is not sent.
        """
        with self._lock:
            self._stopped = True
            if self._sock is not None:
                # Not close(): that does not wake who reads.
                with contextlib.suppress(OSError):
                    self._sock.shutdown(_SHUT_RDWR)

    @contextlib.contextmanager
    def get_slices(
        self, namespace: str, query: Mapping[str, str], read_s: float
    ) -> Iterator[http.client.HTTPResponse]:
        """Ask for EndpointSlices; gives a response whose status is 200, and closes it.

        Args:
            namespace: Theirs; ``""`` for our own.
            query: What to ask for.
            read_s: How long the server may be silent once it has answered.

        Raises:
            Problem: We do not know how to ask, or the API server refuses.
            Expired: It says 410.
            OSError: It cannot be reached, or the connection broke.
            http.client.HTTPException: What it says is no HTTP.
        """
        cluster = self._find_cluster(namespace)
        folder = urllib.parse.quote(cluster.namespace, safe="")
        path = f"/apis/discovery.k8s.io/v1/namespaces/{folder}/endpointslices"
        headers = {
            "Accept": "application/json",
            "Authorization": f"Bearer {cluster.token}",
            "User-Agent": f"twocans-client/{__version__}",
        }
        # Knows of no proxy, and follows no redirect: either would be shown our token.
        connection = http.client.HTTPSConnection(
            cluster.host, cluster.port, timeout=self._timeout_s, context=cluster.tls
        )
        response = None
        try:
            connection.connect()
            sock = connection.sock  # which is no more the connection's once the answer ends it
            self._hold(sock)
            keep_alive(sock)  # a watch is silent for minutes
            connection.request("GET", f"{path}?{urllib.parse.urlencode(query)}", headers=headers)
            # The head comes at once, of a watch too: who does not even say 200 is not there.
            response = connection.getresponse()
            sock.settimeout(read_s)
            if response.status == http.client.GONE:
                raise Expired
            if response.status != http.client.OK:
                raise Problem(self._refusal(response, cluster.namespace))
            yield response
        finally:
            self._hold(None)  # first: once it is closed, its number may be another's
            if response is not None:
                response.close()
            connection.close()

    def _hold(self, sock: ssl.SSLSocket | None) -> None:
        """Say which socket ``stop`` shall shut."""
        with self._lock:
            # ``stop`` may have come while we connected, and then had nothing to shut.
            if sock is not None and self._stopped:
                raise Problem("stopped")
            self._sock = sock

    def _refusal(self, response: http.client.HTTPResponse, namespace: str) -> str:
        try:
            said = parse_status(read(response, _MAX_ERROR_BYTES, self._timeout_s))
        except (BadAnswer, OSError, http.client.HTTPException):
            said = ""
        what = f"HTTP {response.status} for the endpointslices of namespace {namespace}"
        why = _WHAT_TO_DO.get(response.status, "")
        return "; ".join(filter(None, (what, why, said and f"the API server says: {said}")))

    def _find_cluster(self, namespace: str) -> _Cluster:
        """Read where the API server is and who we are, as every pod is told."""
        host = self._environ.get("KUBERNETES_SERVICE_HOST", "")
        port = self._environ.get("KUBERNETES_SERVICE_PORT", "")
        if not host:
            raise Problem(
                "not in a Kubernetes cluster: KUBERNETES_SERVICE_HOST is not set; outside of one "
                "use a dns: target"
            )
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65_536):
            raise Problem("KUBERNETES_SERVICE_PORT is no port")
        token = self._read_account("token")
        if not (token.isascii() and token.isprintable()):
            raise Problem(f"{self._account / 'token'} holds no token")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and host name
        # Not create_default_context(): from Python 3.13 it wants extensions that the CAs of
        # many clusters, made years ago, do not have.
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        authority = self._account / "ca.crt"
        try:
            tls.load_verify_locations(authority)
        except ssl.SSLError:
            raise Problem(f"{authority} holds no certificate") from None
        except OSError as error:
            raise _missing(authority, error) from None
        return _Cluster(host, int(port), namespace or self._read_account("namespace"), token, tls)

    def _read_account(self, name: str) -> str:
        file = self._account / name
        try:
            with file.open("rb") as stream:
                text = stream.read(_MAX_ACCOUNT_BYTES).decode("utf-8").strip()
        except OSError as error:
            raise _missing(file, error) from None
        except UnicodeDecodeError:
            raise Problem(f"{file} is no text") from None
        if not text:
            raise Problem(f"{file} is empty")
        return text


def _missing(file: Path, error: OSError) -> Problem:
    return Problem(f"{file}: {error.strerror}; the pod has no service account's token: {_ROLE}")


def describe(error: Exception) -> str | None:
    """Return what to say about an error of a request or of its answer; None of a bug of ours."""
    if isinstance(error, Problem):
        return str(error)
    if isinstance(error, BadAnswer):
        return f"the API server's answer is wrong: {error}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the API server's certificate is not good by our ca.crt: {error.verify_message}"
    if isinstance(error, OSError | http.client.HTTPException):
        detail = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return f"the API server: {detail}"
    return None


def read(response: http.client.HTTPResponse, most: int, longest_s: float) -> bytes:
    """Read a whole body.

    Raises:
        BadAnswer: It has more than so many bytes.
        TimeoutError: It takes longer than so many seconds.
    """
    data = bytearray()
    deadline = time.monotonic() + longest_s
    # read1() returns what has come; read() would wait until it has as much as it was asked for. The
    # socket's time-out bounds one such wait, the deadline all of them.
    while part := response.read1(_READ_BYTES):
        data += part
        if len(data) > most:
            raise BadAnswer("too many bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("the answer takes too long")
    return bytes(data)


def read_lines(
    response: http.client.HTTPResponse, most: int, longest_s: float
) -> Iterator[list[bytes]]:
    """Give the lines that each read completes, until the end or for so many seconds.

    Raises:
        BadAnswer: A line has more than so many bytes, or has no end.
    """
    rest = bytearray()
    deadline = time.monotonic() + longest_s
    # As in ``read``: of a watch whatever comes is to be told at once.
    while time.monotonic() < deadline and (part := response.read1(_READ_BYTES)):
        rest += part
        if b"\n" in part:
            *lines, end = bytes(rest).split(b"\n")
            rest = bytearray(end)
            yield lines
        if len(rest) > most:
            raise BadAnswer("too long a line")
    if rest:
        raise BadAnswer("the watch was cut off within a line")
