"""A wire that the kernel makes: netem on both ends of a veth pair.

For machines whose kernel has it, and users who want no program in the path. It keeps no log, and
knows nothing of connections: what needs either says that it is not supported.
"""

import subprocess

from .errors import LabError, UnsupportedError
from .namespaces import Namespace
from .wire import Packet, Wire

__all__ = ["NetemWire", "netem_words"]

_CAN = {
    *("delay_s", "jitter_s", "rate", "queue_s", "loss", "burst_enter", "burst_leave"),
    *("reorder", "reorder_s", "duplicate", "damage", "blackout"),
}
# netem counts its queue in packets; of full ones.
_PACKET_BYTES = 1500
_QUEUE_PACKETS = 20_000


class NetemWire(Wire):
    """netem before each direction of a veth pair.

    Args:
        near: The router.
        far: The server.
        device: Of both.
    """

    def __init__(self, near: Namespace, far: Namespace, device: str) -> None:
        super().__init__()
        self._from = {"forward": near, "reverse": far}
        self._device = device

    def apply(self, direction: str, settings: dict[str, float], changed: dict[str, float]) -> None:
        """Replace the qdisc of this direction."""
        del changed
        qdisc = ["tc", "qdisc", "replace", "dev", self._device, "root", "netem"]
        words = netem_words(settings)
        try:
            self._from[direction].run(*qdisc, *words)
        except subprocess.CalledProcessError as error:
            raise LabError(f"netem: {error.stderr.strip()}: take --backend wire") from None

    def log(self) -> list[Packet]:
        """Raise UnsupportedError."""
        raise UnsupportedError("netem keeps no log of its packets: take --backend wire")

    def close(self) -> None:
        """Leave it to the namespaces, which take it with them."""


def netem_words(settings: dict[str, float]) -> list[str]:
    """Return what netem is to be told (tc-netem(8)).

    Raises:
        UnsupportedError: It cannot do that.
    """
    asked = {name: value for name, value in settings.items() if value}
    if missing := asked.keys() - _CAN:
        raise UnsupportedError(f"netem has no {', '.join(sorted(missing))}: take --backend wire")
    delay, jitter = asked.get("delay_s", 0.0), asked.get("jitter_s", 0.0)
    loss = 1.0 if asked.get("blackout") else asked.get("loss", 0.0)
    limit = _QUEUE_PACKETS
    words: list[str] = []
    if "reorder" in asked:
        # netem lets the chosen ones go at once, past those that wait: it needs some that wait.
        words += ["delay", _us(max(delay, asked.get("reorder_s", 0.0)))]
        words += ["reorder", _percent(asked["reorder"])]
    elif delay or jitter:
        # It draws around the middle, and lets packets overtake each other.
        words += ["delay", _us(delay + jitter / 2), *([_us(jitter / 2)] if jitter else [])]
    if "burst_enter" in asked and loss < 1:
        words += ["loss", "gemodel", _percent(asked["burst_enter"])]
        words += [_percent(asked.get("burst_leave", 1.0)), "100%", _percent(loss)]
    elif loss:
        words += ["loss", "random", _percent(loss)]
    for name, word in (("duplicate", "duplicate"), ("damage", "corrupt")):
        if name in asked:
            words += [word, _percent(asked[name])]
    if "rate" in asked:
        words += ["rate", f"{asked['rate']:.0f}bit"]
        if "queue_s" in asked:
            seconds = delay + asked["queue_s"]
            limit = max(1, round(seconds * asked["rate"] / 8 / _PACKET_BYTES))
    return ["limit", str(limit), *words]


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.0f}us"


def _percent(share: float) -> str:
    return f"{share * 100:.6g}%"
