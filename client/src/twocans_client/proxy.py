"""Whether the two ends of a path are of one TCP connection. No I/O.

A proxy (a sidecar, a load balancer, an older container engine's) answers our TCP itself and
opens another connection to the server. Then each end counts a connection of its own, and to
subtract one's counters from the other's means nothing.
"""

from twocans_core.tcpinfo import Counters

from .conservation import Segments, Way
from .results import ProbeResult

__all__ = ["Proxy", "breaks"]

# TCPI_OPT_TIMESTAMPS, _SACK, _WSCALE: agreed by both ends of a connection, or by neither.
_AGREED = 1 | 2 | 4
_ROUND = 10
_STRIKES = 2
_NOISE_US = 200


class Proxy:
    """Signs that there is a proxy on a path. Loss is not to be claimed while there are.

    A path is looked at in rounds of ten connections. What was found stands until a whole round
    went by without it.

    Attributes:
        sign: Empty, or what the newest sign is: ``options`` (the ends have agreed on different
            options), ``segments`` (twice in a round, more was lost than ever sent again, or more
            arrived than was sent and the receiver noticed nothing twice) or ``nearer`` (the
            handshakes' round trips are not the exchange's, and the server sees us at another
            address). A receiving network card that merges segments (LRO) looks like ``segments``,
            and its counts are of no use either. Two legs of less than some 200 us look like one.
    """

    def __init__(self) -> None:
        self.sign = ""
        self._begin()

    def probe(self, result: ProbeResult) -> Segments | None:
        """Take in one probe.

        Returns:
            What became of its segments, whether or not that can be claimed; None where it is
            not known.
        """
        connected, greeted = result.connected, result.server_greeted
        if connected is None or greeted is None:
            return None
        networks_ns = [each.split.network_ns for each in result.exchanges if each.split]
        self.connection(
            connected,
            greeted,
            moved=result.seen_as != result.local,
            network_ns=min(networks_ns, default=None),
        )
        segments = result.segments
        if segments is not None:
            self.segments(segments)
        return segments

    def connection(
        self,
        connected: Counters,
        greeted: Counters,
        *,
        moved: bool,
        network_ns: int | None,
    ) -> None:
        """Take in one fresh connection.

        Args:
            connected: Ours, right after connect.
            greeted: Theirs, in the WELCOME.
            moved: Whether the server saw another address or port than ours.
            network_ns: The smallest network round trip of its exchanges.
        """
        self._connections += 1
        ours, theirs = connected.options, greeted.options
        if ours is not None and theirs is not None and (ours ^ theirs) & _AGREED:
            self._found = self.sign = "options"
        self._moved += moved
        # After a segment of the handshake was lost, its time is no round trip.
        if connected.total_retrans == 0 and connected.rtt_us is not None:
            self._ours_us.append(connected.rtt_us)
        if greeted.total_retrans == 0 and greeted.rtt_us is not None:
            self._theirs_us.append(greeted.rtt_us)
        if network_ns is not None:
            self._network_us.append(network_ns / 1000)
        if self._connections == _ROUND:
            self.sign = self._found or ("nearer" if self._is_nearer() else "")
            self._begin()

    def segments(self, segments: Segments) -> None:
        """Take in one account, of a fresh connection or of a held one."""
        if breaks(segments):
            self._strikes += 1
        if self._strikes >= _STRIKES and not self._found:
            self._found = self.sign = "segments"

    def _begin(self) -> None:
        self._connections = 0
        self._strikes = 0
        self._found = ""
        self._moved = 0
        self._ours_us: list[float] = []
        self._theirs_us: list[float] = []
        self._network_us: list[float] = []

    def _is_nearer(self) -> bool:
        """Whether the handshakes went another distance than the exchanges.

        Both ends of one connection see the same round trip, and so does the exchange. With a
        proxy each end sees its own leg, and the exchange the sum of both.
        """
        if self._moved < _ROUND or not self._ours_us or not self._theirs_us:
            return False
        ours, theirs = min(self._ours_us), min(self._theirs_us)
        if max(ours, theirs) > 2 * min(ours, theirs) + _NOISE_US:
            return True
        both = 0.75 * (ours + theirs) + _NOISE_US
        return bool(self._network_us) and min(self._network_us) > both


def breaks(segments: Segments) -> bool:
    """Whether no single TCP connection can have counted so."""
    return _breaks(segments.there) or _breaks(segments.back)


def _breaks(way: Way) -> bool:
    return way.lost > way.resent or (way.duplicated > 0 and way.dsacks == 0)
