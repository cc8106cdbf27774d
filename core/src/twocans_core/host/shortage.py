"""For how long a CPU limit, or other programs, kept this process from running lately."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["KEPT_NS", "CpuSums", "CpuWatch"]

KEPT_NS = 120 * 1_000_000_000
"""How long what was seen is kept."""
_EVERY_NS = 1_000_000_000
# Whoever asks, and however many do, files are read no more often.
_FRESH_NS = 100_000_000


class CpuSums(NamedTuple):
    """What the kernel has added up so far, ns each; None where it does not say.

    Attributes:
        throttled_ns: Time that a CPU limit stopped our cgroup (``cpu.stat``).
        run_delay_ns: Time that the loop's thread was ready to run and had no CPU (``schedstat``);
            a throttled thread waits as well.
    """

    throttled_ns: int | None
    run_delay_ns: int | None

    def since(self, before: "CpuSums") -> "CpuSums":
        """Return by how much they have grown."""
        return CpuSums(*map(_less, self, before))


class CpuWatch:
    """Sums of the last two minutes, one a second: both windows and memory are bounded.

    Args:
        read: Reads them.

    Attributes:
        newest: As read last.
    """

    def __init__(self, read: Callable[[], CpuSums]) -> None:
        self._read = read
        self._past: deque[tuple[int, CpuSums]] = deque()  # oldest first
        self._newest_ns = 0
        self.newest = CpuSums(None, None)

    def read(self, now_ns: int) -> CpuSums:
        """Read them now. Call it once a second at least, for windows to begin where they should."""
        self._newest_ns, self.newest = now_ns, self._read()
        if not self._past or now_ns - self._past[-1][0] >= _EVERY_NS:
            self._past.append((now_ns, self.newest))
            while self._past[0][0] < now_ns - KEPT_NS:
                self._past.popleft()
        return self.newest

    def since(self, since_ns: int, now_ns: int) -> CpuSums:
        """Return what came to the sums since a moment, or since up to a second before it.

        What came in the last 100 ms may be missing.
        """
        if not self._past or now_ns - self._newest_ns >= _FRESH_NS:
            self.read(now_ns)
        before = self._past[0][1]
        for at_ns, sums in reversed(self._past):
            before = sums
            if at_ns <= since_ns:
                break
        return self.newest.since(before)


def _less(now: int | None, before: int | None) -> int | None:
    return None if now is None or before is None else now - before
