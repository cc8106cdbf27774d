"""The wire between the router and the server, which does to packets what it is told.

``wire.c`` carries them; it is compiled at first use.
"""

import fcntl
import functools
import hashlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import LabError
from .namespaces import Namespace
from .packets import DIRECTIONS, RECORD_SIZE, Fate, Packet, parse

__all__ = ["HOP", "SETTINGS", "Emulator", "Fate", "Packet", "Wire", "compiled"]

HOP = "10.80.9.9"
"""Who sends the ICMP messages of the wire: a router on the way."""

SETTINGS = {
    "delay_s": "seconds that a packet takes",
    "jitter_s": "up to so many seconds more, drawn for each; packets keep their order",
    "rate": "bits per second; 0 is no limit",
    "queue_bytes": "so many may wait for the rate, the next is dropped; 0 is no limit",
    "queue_s": "the same in seconds of waiting",
    "police": "bits per second; what is more is dropped, and nothing waits; 0 is no limit",
    "police_bytes": "depth of its token bucket: so many may come at once",
    "loss": "share of packets dropped, one by one",
    "burst_enter": "probability, at each packet, that a burst of losses begins",
    "burst_leave": "probability, at each packet of a burst, that it is over: 1/4 for four in a row",
    "ack_loss": "share of lone acknowledgements dropped",
    "reorder": "share of packets held back",
    "reorder_s": "for so many seconds",
    "duplicate": "share of packets that arrive twice",
    "corrupt": "share of segments with data that get a wrong bit and a right checksum",
    "damage": "share of segments that get a wrong bit, and a checksum that shows it",
    "mtu": "larger packets are dropped, in bytes with the IP header; 0 is no limit",
    "icmp": "1: the sender of such a packet is told",
    "blackout": "1: everything is dropped",
    "syn_loss": "share of SYNs dropped",
    "syn_ack_loss": "share of SYN-ACKs dropped",
    "port_loss": "share of packets dropped of the connections with such a client's port:",
    "port_mask": "these bits of it",
    "port_value": "are these",
    "reset": "share of segments with data that get an RST to both ends instead",
    "idle_s": "a connection silent for longer is forgotten: its segments are dropped; 0 is never",
    "idle_reset": "1: and answered with an RST to both ends",
    "connections": "so many are remembered, and a SYN of one more is dropped; 0 is no limit",
    "linger_s": "and each for so many seconds after its end",
    "strip_mss": "1: SYNs lose this option",
    "strip_wscale": "1: SYNs lose this option",
    "strip_sack": "1: SYNs lose this option",
    "strip_timestamps": "1: SYNs lose this option",
}
"""What each direction of a wire can be told. All begin as 0."""

_SOURCE = Path(__file__).with_name("wire.c")
_TUN = Path("/dev/net/tun")
# linux/if_tun.h
_TUNSETIFF = 0x4004_54CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000


class Wire:
    """A wire, whatever it is made of."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a fault may heal by itself, in a thread
        self._settings = {direction: dict.fromkeys(SETTINGS, 0.0) for direction in DIRECTIONS}

    def set(self, direction: str, **settings: float) -> None:
        """Change settings from now on; it returns when they hold.

        Args:
            direction: "forward", "reverse" or "both".
            settings: By name; what is not named stays as it is.

        Raises:
            UnsupportedError: This wire cannot do that.
        """
        for one in DIRECTIONS if direction == "both" else (direction,):
            if unknown := settings.keys() - self._settings[one].keys():
                raise ValueError(f"a wire has no setting {', '.join(sorted(unknown))}")
            with self._lock:
                changed = self._settings[one] | settings
                self.apply(one, changed, settings)
                self._settings[one] = changed

    def setting(self, direction: str, name: str) -> float:
        """Return how something is set."""
        return self._settings[direction][name]

    @contextmanager
    def fault(self, direction: str, **settings: float) -> Iterator[None]:
        """Change settings until the block ends; then they are again what they were."""
        before = {one: {name: at[name] for name in settings} for one, at in self._settings.items()}
        self.set(direction, **settings)
        try:
            yield
        finally:
            for one in DIRECTIONS if direction == "both" else (direction,):
                self.set(one, **before[one])

    def apply(self, direction: str, settings: dict[str, float], changed: dict[str, float]) -> None:
        """Make settings true, of which some have changed."""
        raise NotImplementedError

    def log(self) -> list[Packet]:
        """Return every packet's fate so far, in the order in which it was settled.

        Raises:
            UnsupportedError: This wire keeps no log.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Cut it."""
        raise NotImplementedError


class Emulator(Wire):
    """A program that carries packets between two TUN devices.

    Args:
        near: The router.
        far: The server.
        device: The name that both devices get.
        seed: Of its random numbers.

    Raises:
        LabError: There is no C compiler, or no TUN device.
    """

    def __init__(self, near: Namespace, far: Namespace, device: str, seed: int = 0) -> None:
        super().__init__()
        program = compiled()
        self._log = os.open(tempfile.gettempdir(), os.O_RDWR | os.O_TMPFILE, 0o600)
        self._rest: bytes | None = None  # of the log, once it is closed
        self._packets: list[Packet] = []
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(10)
        ends = [_open_tun(near, device), _open_tun(far, device)]
        with theirs:
            fds = (theirs.fileno(), *ends, self._log)
            words = [str(program), *map(str, fds), HOP, str(seed)]
            # Ctrl-C is for who runs the lab; the wire ends when its control is closed.
            self._process = subprocess.Popen(words, pass_fds=fds, start_new_session=True)
        for end in ends:
            os.close(end)

    def apply(self, direction: str, settings: dict[str, float], changed: dict[str, float]) -> None:
        """Tell the program what has changed."""
        del settings
        words = [f"{name}={float(value)!r}" for name, value in changed.items()]
        self._ask(" ".join([direction, *words]))

    def log(self) -> list[Packet]:
        """Return every packet's fate so far, in the order in which it was settled."""
        if self._rest is None:
            self._ask("sync")
        while block := self._next_block():
            self._packets += parse(block)
        return list(self._packets)

    def close(self) -> None:
        """Cut it; the log can be read all the same."""
        self._control.close()
        self._process.wait(10)
        done = len(self._packets) * RECORD_SIZE
        self._rest = os.pread(self._log, os.fstat(self._log).st_size, done)
        os.close(self._log)

    def _next_block(self) -> bytes:
        if self._rest is not None:
            block, self._rest = self._rest, b""
            return block
        return os.pread(self._log, RECORD_SIZE * 10_000, len(self._packets) * RECORD_SIZE)

    def _ask(self, words: str) -> None:
        with self._lock:
            self._control.send(words.encode())
            answer = self._control.recv(4096).decode()
        if answer != "ok":
            raise LabError(f"the wire: {answer or 'it has ended'}: {words}")


def _open_tun(namespace: Namespace, device: str) -> int:
    if not _TUN.exists():
        raise LabError(f"there is no {_TUN} here: load the module tun, or take --backend netem")
    request = struct.pack("16sH22x", device.encode(), _IFF_TUN | _IFF_NO_PI)
    with namespace.entered():
        fd = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.ioctl(fd, _TUNSETIFF, request)
        except OSError:
            os.close(fd)
            raise
    return fd


@functools.cache
def compiled() -> Path:
    """Return the program; compiles it unless that was done before.

    It lies in the user's cache directory, under a name that has the hash of its source.

    Raises:
        LabError: There is no C compiler.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "twocans-lab")
    program = cache / f"wire-{hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]}"
    if program.exists():
        return program
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise LabError("the wire is a C program, and there is no compiler: install gcc")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        new = Path(folder, "wire")
        words = [compiler, "-O2", "-Wall", "-Wextra", "-o", str(new), str(_SOURCE)]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode:
            raise LabError(f"the wire does not compile: {done.stderr.strip()}")
        new.rename(program)
    return program
