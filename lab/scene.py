"""Client, router and server as namespaces, with a wire before the server."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .errors import LabError
from .guardian import Guardian, guardian
from .namespaces import Namespace, command
from .netem import NetemWire
from .wire import Emulator, Wire

__all__ = ["BACKENDS", "CLIENT", "DEVICE", "ROUTER_FAR", "SERVER", "WIRE", "Base", "Scene", "scene"]

CLIENT, SERVER = "10.80.1.2", "10.80.2.2"
_ROUTER_NEAR, ROUTER_FAR = "10.80.1.1", "10.80.2.1"
_FAR_NET = "10.80.2.0/24"
DEVICE = "eth0"
"""Of the client, and of the router towards it."""
WIRE = "wire0"
"""Of the router towards the server, and of the server."""
BACKENDS = ("wire", "netem")

# Under BBR loss hardly shows. The sysctl would need cubic to be allowed for the whole machine.
_CUBIC = "congctl cubic"
_NOBODY = "65534"
_AS_NOBODY = (
    *("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"),
    *("--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"),
)


class Base(NamedTuple):
    """The path as it is while it is healthy.

    Attributes:
        rtt_s: Seconds there and back, half in each direction.
        jitter: By how much it varies, as a share of ``rtt_s``.
        loss: Share of packets lost in each direction.
    """

    rtt_s: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0


class Scene:
    """client --veth-- router --wire-- server; all IPv4, the router forwards.

    Attributes:
        client: Its namespace.
        router: Its namespace.
        server: Its namespace.
        wire: Between router and server.
        folder: For whatever a case has to write; removed in the end. Everybody may read it.
        guard: Is told of whatever else has to be removed.
        server_program: Python's arguments that are the server, before its flags.
        client_module: The one that is the client.
        server_process: The server of the pair, set by who starts it.
        client_process: The client of the pair, set by who starts it.
    """

    def __init__(
        self,
        client: Namespace,
        router: Namespace,
        server: Namespace,
        wire: Wire,
        folder: Path,
        guard: Guardian,
    ) -> None:
        self.client = client
        self.router = router
        self.server = server
        self.wire = wire
        self.folder = folder
        self.guard = guard
        self.server_program: tuple[str, ...] = ("-m", "twocans_server")
        self.client_module = "twocans_client"
        self._restarted: list[subprocess.Popen[Any]] = []
        self.server_process: subprocess.Popen[Any] | None = None
        self.client_process: subprocess.Popen[Any] | None = None

    def as_nobody(
        self, namespace: Namespace, *command: str, **popen: Any
    ) -> "subprocess.Popen[Any]":
        """Start a command in a namespace as a deployment has it: uid nobody, no capabilities.

        It has a process group of its own; the variable LAB_FOLDER is the scene's folder, unless
        ``popen`` has an ``env``.
        """
        # `ip netns exec` would hide /sys/fs/cgroup, where a process learns of its CPU quota.
        inside = ["unshare", "--mount", "nsenter", f"--net=/run/netns/{namespace.name}"]
        etc = self.etc(namespace)
        if etc.exists():
            bind = f'for f in {etc}/*; do mount --bind "$f" "/etc/${{f##*/}}"; done; exec "$@"'
            inside += ["sh", "-c", bind, "sh"]
        words = [*inside, *_AS_NOBODY, *command]
        popen.setdefault("env", self._env())
        return subprocess.Popen(words, start_new_session=True, **popen)

    def link_server(self) -> None:
        """Set the server's link up again after it was set down; its routes went with it."""
        _link_server(self.server)

    def restart_server(self) -> None:
        """Start the server's command again after it has ended; nobody reads what it says."""
        assert self.server_process is not None
        self.server_process.wait(10)
        words, quiet = self.server_process.args, subprocess.DEVNULL
        self.server_process = subprocess.Popen(
            words, start_new_session=True, env=self._env(), stdout=quiet, stderr=quiet
        )
        # Who started the first one knows nothing of this one.
        self._restarted.append(self.server_process)

    def close(self) -> None:
        """End what was started here and nobody else ends."""
        for process in self._restarted:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def running(self, namespace: Namespace, *command: str) -> Iterator["subprocess.Popen[str]"]:
        """Run a helper in a namespace, as root, until the block ends.

        Raises:
            LabError: It ended before it said in one line that it is ready.
        """
        words = [*namespace.wrapper, *command]
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, text=True, start_new_session=True, env=self._env()
        )
        with process:
            try:
                assert process.stdout is not None
                if not process.stdout.readline():
                    raise LabError(f"{' '.join(command)}: it did not start")
                yield process
            finally:
                process.kill()

    def _env(self) -> dict[str, str]:
        """Return the variables of who runs here; the lab's programs find the lab by them."""
        lab = str(Path(__file__).parent.parent)
        return {**os.environ, "PYTHONPATH": lab, "LAB_FOLDER": str(self.folder)}

    def etc(self, namespace: Namespace) -> Path:
        """Return the folder whose files are those of /etc, in this namespace."""
        return Path("/etc/netns", namespace.name)

    def write_etc(self, namespace: Namespace, file: str, text: str) -> None:
        """Give who is started in this namespace from now on a file of its own in /etc."""
        folder = self.etc(namespace)
        self.guard.watch("folder", str(folder))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)


@contextlib.contextmanager
def scene(base: Base, *, backend: str = "wire", seed: int = 0) -> Iterator[Scene]:
    """Set the scene, and remove it, whatever happens.

    Args:
        base: The healthy path.
        backend: "wire" carries packets in a program; "netem" leaves that to the kernel.
        seed: Of the wire's random numbers.

    Raises:
        LabError: It cannot be set here; the message says what is missing.
    """
    _check()
    prefix = f"twocans-lab-{os.getpid()}-{os.urandom(3).hex()}"
    client = Namespace(f"{prefix}-client", CLIENT)
    router = Namespace(f"{prefix}-router", _ROUTER_NEAR)
    server = Namespace(f"{prefix}-server", SERVER)
    with guardian() as guard, contextlib.ExitStack() as undo:
        folder = Path(tempfile.gettempdir(), prefix)
        guard.watch("folder", str(folder))
        folder.mkdir()
        for namespace in (client, router, server):
            guard.watch("netns", namespace.name)
            command("ip", "netns", "add", namespace.name)
        _connect_client(client, router)
        is_ours = backend == "wire"
        wire = Emulator(router, server, WIRE, seed) if is_ours else _netem(router, server)
        undo.callback(wire.close)
        _connect_server(router, server)
        half = base.rtt_s / 2
        wire.set("both", delay_s=half, jitter_s=base.jitter * half, loss=base.loss)
        its = Scene(client, router, server, wire, folder, guard)
        undo.callback(its.close)
        yield its


def _check() -> None:
    if os.geteuid() != 0:
        raise LabError("the lab makes network namespaces: run it as root")
    for tool in ("ip", "tc", "iptables", "nsenter", "unshare", "setpriv"):
        if shutil.which(tool) is None:
            raise LabError(f"there is no {tool} here: install iproute2, iptables and util-linux")


def _connect_client(client: Namespace, router: Namespace) -> None:
    client.ip(
        f"link add {DEVICE} type veth peer name {DEVICE} netns {router.name}",
        f"address add {CLIENT}/24 dev {DEVICE}",
    )
    router.ip(f"address add {_ROUTER_NEAR}/24 dev {DEVICE}")
    for namespace in (client, router):
        # One packet is one segment, for the rules of iptables as for the wire.
        namespace.ip("link set lo up", f"link set {DEVICE} gso_max_segs 1 up")
    client.ip(f"route add default via {_ROUTER_NEAR} {_CUBIC}")
    # A namespace begins with the machine's own settings, whatever they are.
    client.sysctl("net.ipv4.ip_forward", "0")
    router.sysctl("net.ipv4.ip_forward", "1")


def _connect_server(router: Namespace, server: Namespace) -> None:
    router.ip(f"address add {ROUTER_FAR} peer {SERVER} dev {WIRE}")
    server.ip("link set lo up", f"address add {SERVER} peer {ROUTER_FAR} dev {WIRE}")
    server.sysctl("net.ipv4.ip_forward", "0")
    for namespace in (router, server):
        namespace.sysctl(f"net.ipv6.conf.{WIRE}.disable_ipv6", "1")
        # The device is not to be what loses packets in silence.
        namespace.ip(f"link set {WIRE} txqueuelen 20000 gso_max_segs 1")
    # Also towards addresses that nobody has.
    router.ip(f"link set {WIRE} up", f"route add {_FAR_NET} dev {WIRE}")
    _link_server(server)


def _link_server(server: Namespace) -> None:
    server.ip(f"link set {WIRE} up", f"route add default via {ROUTER_FAR} {_CUBIC}")


def _netem(router: Namespace, server: Namespace) -> NetemWire:
    router.ip(f"link add {WIRE} type veth peer name {WIRE} netns {server.name}")
    return NetemWire(router, server, WIRE)
