"""Whether the two ends of a path are of one TCP connection. No I/O.

A proxy (a sidecar, a load balancer, an older container engine's) answers our TCP itself and
opens another connection to the server. Then each end counts a connection of its own, and to
subtract one's counters from the other's means nothing.

Other boxes leave the connection whole and meddle with its handshake. They are named, and loss is
counted on.
"""

from collections import deque

from twocans_core.kernel.tcpinfo import Counters

from .loss import Fates, Segments
from .results import ProbeResult

__all__ = ["Proxy", "breaks"]

# TCPI_OPT_TIMESTAMPS, _SACK, _WSCALE: agreed by both ends of a connection, or by neither.
_AGREED = 1 | 2 | 4
_ROUND = 10
_STRIKES = 2
# Connections. Behind a proxy a loss of one in a hundred contradicts itself about as rarely.
_MEMORY = 100
_NOISE_US = 200
_FAR_SOONER, _LITTLE_NOISE_US = 3, 50


class Proxy:
    """Signs that there is a proxy on a path. Loss is not to be claimed while there are.

    What was found stands until a hundred connections went by without it.

    Attributes:
        sign: Empty, or what the oldest sign is that stands: ``options`` (we agreed on options
            that the server did not agree on), ``segments`` (twice in a hundred connections the
            counts contradicted each other: see ``breaks``) or ``nearer`` (in ten connections the
            handshakes' round trips are not the exchange's, and the server sees us at another
            address). A receiving network card that merges segments (LRO) looks like ``segments``,
            and its counts are of no use either. Two legs of less than some 200 us look like one,
            unless ours is much the shorter, or something is lost on the far one.
        boxes: What else was found on the way, of a connection that is one: ``options_rewritten``
            (the server agreed on options of which its answer to us says nothing) and
            ``handshake_answered`` (in most of ten connections somebody answered our SYN in the
            server's stead, as SYNPROXY does).
    """

    def __init__(self) -> None:
        self.sign = ""
        self.boxes: frozenset[str] = frozenset()
        self._boxes_at: dict[str, int] = {}
        self._connections = 0
        self._found_at = 0
        self._strikes: deque[int] = deque(maxlen=_STRIKES)
        self._begin()

    def probe(self, result: ProbeResult) -> Segments | None:
        """Take in one probe.

        Returns:
            What became of its segments, whether or not that can be claimed; None where it is
            not known.
        """
        segments = result.segments
        connected, greeted = result.connected, result.server_greeted
        if connected is None or greeted is None:
            return segments
        # By the kernels' clocks only. By ours the wake-ups of both processes would be in it, and a
        # busy server would look as if it were behind a proxy.
        networks_ns = [each.split.network_ns for each in result.exchanges if each.split]
        self.connection(
            connected,
            greeted,
            moved=result.seen_as != result.local,
            network_ns=min(networks_ns, default=None),
        )
        # A network card may join the segments of a long message and count one (LRO): that is no
        # proxy. ``Path`` leaves such an account out all the same.
        if segments is not None and not result.is_sized:
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
        if ours is not None and theirs is not None:
            # Who strips options strips them from a SYN, so that neither end has them, or from
            # the SYN-ACK, so that the server alone has.
            if ours & ~theirs & _AGREED:
                self._find("options")
            elif theirs & ~ours & _AGREED:
                self._find_box("options_rewritten")
        # NAT moves the address as well, so this is no sign by itself: see ``_is_nearer``.
        self._moved += moved
        # A server's kernel says nothing but SYN-ACK before it has heard a HELLO.
        if connected.segs_in is not None and greeted.total_retrans == 0:
            self._answered += connected.segs_in > 1
        # After a segment of the handshake was lost, its time is no round trip.
        if connected.total_retrans == 0 and connected.rtt_us is not None:
            self._ours_us.append(connected.rtt_us)
        if greeted.total_retrans == 0 and greeted.rtt_us is not None:
            self._theirs_us.append(greeted.rtt_us)
        if network_ns is not None:
            self._network_us.append(network_ns / 1000)
        if self._connections % _ROUND == 0:
            if self._is_nearer():
                self._find("nearer")
            if self._answered > _ROUND // 2:
                self._find_box("handshake_answered")
            self._begin()
        oldest = self._connections - _MEMORY
        if self._found_at <= oldest:
            self.sign = ""
        self.boxes = frozenset(box for box, at in self._boxes_at.items() if at > oldest)

    def segments(self, segments: Segments) -> None:
        """Take in one account, of a fresh connection or of a held one."""
        if not breaks(segments):
            return
        self._strikes.append(self._connections)
        if len(self._strikes) == _STRIKES and self._connections - self._strikes[0] < _MEMORY:
            self._find("segments")

    def _find(self, sign: str) -> None:
        self.sign = self.sign or sign
        self._found_at = self._connections

    def _find_box(self, box: str) -> None:
        self._boxes_at[box] = self._connections

    def _begin(self) -> None:
        self._moved = 0
        self._answered = 0
        self._ours_us: list[float] = []
        self._theirs_us: list[float] = []
        self._network_us: list[float] = []

    def _is_nearer(self) -> bool:
        """Whether the handshakes went another distance than the exchanges.

        Both ends of one connection see the same round trip, and so does the exchange. With a
        proxy each end sees its own leg, and the exchange the sum of both. A box that is slow to
        let the first packet of a connection pass (NAT) makes our handshake longer, but no more.
        """
        if self._moved < _ROUND or not self._ours_us or not self._theirs_us:
            return False
        # The least of each: queues, NAT and delayed work make a round trip longer, nothing makes it
        # shorter.
        ours, theirs = min(self._ours_us), min(self._theirs_us)
        # Without the exchange's own time only a proxy that is much nearer to us than to the server
        # shows.
        if not self._network_us:
            return theirs > 2 * ours + _NOISE_US
        # Nobody but a proxy (a sidecar) answers us so much sooner than we answer the server.
        noise_us = _LITTLE_NOISE_US if theirs > _FAR_SOONER * ours else _NOISE_US
        # Of one connection the exchange takes as long as either handshake, half of their sum. Over
        # two legs it takes the whole sum. This is the middle.
        return min(self._network_us) > 0.75 * (ours + theirs) + noise_us


def breaks(segments: Segments) -> bool:
    """Whether no single TCP connection can have counted so."""
    return _breaks(segments.forward) or _breaks(segments.reverse)


def _breaks(fates: Fates) -> bool:
    # What is sent again makes up for a loss, or is reported as received twice.
    made_up = fates.lost + (fates.dsacks or 0) if fates.lost else 0
    # The second: a receiver that has agreed on SACK reports what it got twice at once (RFC 2883,
    # 4). Where it has not, ``dsacks`` is None, and more arrivals prove nothing.
    return made_up > fates.resent or (fates.duplicated > 0 and fates.dsacks == 0)
