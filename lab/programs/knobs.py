"""A few numbers in a file, shared by who turns them and who obeys; no library but Python's."""

import mmap
import os
import struct
from pathlib import Path

__all__ = ["NAMES", "Knobs"]

_NUMBER = struct.Struct("=d")

NAMES = (
    "answer_cpu_s",  # odd_server: computes so long over each reply
    "answer_wait_s",  # odd_server: waits so long before each reply
    "accept_s",  # odd_server: accepts one connection in so many seconds
    "receive_bytes",  # odd_server: receive buffer of the connections to come; 0: the system's
    "hang",  # odd_server: 1: stands still at the next request
    "close_share",  # odd_server: closes this share of connections instead of a reply
    "clock_s",  # odd_server: its CLOCK_REALTIME is so far ahead
    "spin_s",  # odd_client: computes so long, twice a second
    "dns_delay_s",  # dns_stub: answers so late
    "dns_drop",  # dns_stub: leaves this share of the queries unanswered
    "dns_rcode",  # dns_stub: answers every query with this code
)


class Knobs:
    """The numbers.

    Args:
        path: Of the file, which is there.
        write: Whether they may be turned; else they are only read.
    """

    def __init__(self, path: Path, *, write: bool = False) -> None:
        fd = os.open(path, os.O_RDWR if write else os.O_RDONLY)
        try:
            access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
            self._memory = mmap.mmap(fd, _NUMBER.size * len(NAMES), access=access)
        finally:
            os.close(fd)

    @staticmethod
    def make(path: Path) -> None:
        """Make the file, unless it is there; all numbers are 0."""
        if not path.exists():
            path.write_bytes(bytes(_NUMBER.size * len(NAMES)))
            path.chmod(0o644)

    def __getitem__(self, name: str) -> float:
        value: float = _NUMBER.unpack_from(self._memory, _NUMBER.size * NAMES.index(name))[0]
        return value

    def __setitem__(self, name: str, value: float) -> None:
        _NUMBER.pack_into(self._memory, _NUMBER.size * NAMES.index(name), value)
