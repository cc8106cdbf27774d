"""What came to this host and went nowhere, and what never left it. For a client, mostly."""

import contextlib
from pathlib import Path

from .procfs import Columns, read_table

__all__ = ["NO_OWN_COUNTS", "OwnCounts", "OwnReader"]

_SNMP = Path("/proc/net/snmp")


class OwnCounts:
    """What our own host counted of what came to it, at one moment.

    Worked out when it is asked for, for of a good probe nobody asks. Only differences mean
    something.

    Args:
        reader: Knows where the numbers are.
        table: In this.
    """

    __slots__ = ("_reader", "_table")

    def __init__(self, reader: "OwnReader | None" = None, table: bytes = b"") -> None:
        self._reader = reader
        self._table = table

    @property
    def csum_errors(self) -> int | None:
        """As in ``HostCounts``, but not modulo anything."""
        return self._reader.errors.of(self._table)[0] if self._reader else None

    @property
    def undelivered(self) -> int | None:
        """IPv4 packets that reached our network namespace and that went nowhere from there.

        They were neither delivered nor passed on: a firewall of this host, mostly, or its
        reverse-path filter.
        """
        counts = self._reader.packets.of(self._table) if self._reader else []
        known = [count for count in counts if count is not None]
        if not known or len(known) < len(counts):
            return None
        received, delivered, forwarded, fragments, whole = known
        # Fragments are received one by one, and what they make is delivered once.
        return received - delivered - forwarded - (fragments - whole)

    @property
    def unsent(self) -> int | None:
        """IPv4 packets that our network namespace made and that never left for a device.

        A firewall of this host dropped or rejected them. Kernels before 6.7 do not say.
        """
        counts = self._reader.sent.of(self._table) if self._reader else []
        known = [count for count in counts if count is not None]
        if not known or len(known) < len(counts):
            return None
        made, forwarded, left = known
        return made + forwarded - left


NO_OWN_COUNTS = OwnCounts()


class OwnReader:
    """Reads ``OwnCounts`` of our network namespace.

    Args:
        snmp: Where they are counted.

    Attributes:
        errors, packets, sent: Where in it.
    """

    def __init__(self, snmp: Path = _SNMP) -> None:
        self._snmp = snmp
        self.errors = Columns("Tcp", ("InCsumErrors",), snmp)
        names = ("InReceives", "InDelivers", "ForwDatagrams", "ReasmReqds", "ReasmOKs")
        self.packets = Columns("Ip", names, snmp)
        self.sent = Columns("Ip", ("OutRequests", "ForwDatagrams", "OutTransmits"), snmp)

    def __call__(self) -> OwnCounts:
        with contextlib.suppress(OSError):
            return OwnCounts(self, read_table(self._snmp))
        return NO_OWN_COUNTS
