"""What the lines of one path have in common: its names, and how many there may be. No I/O."""

from twocans_client.discovery.specs import Target

__all__ = ["LINE_NS", "Allowance", "names_of"]

LINE_NS = 10_000_000_000
"""So much time for each line, on average; it is logged at once while the allowance lasts."""
_LINES_AT_ONCE = 6


class Allowance:
    """Six lines at once, then one each ten seconds."""

    def __init__(self) -> None:
        # A leaky bucket in one number: when a line was due, had they come evenly. It lags by six at
        # most, which are the lines at once.
        self._due_ns = 0

    def take(self, now_ns: int) -> bool:
        """Whether there may be a line now, which is then counted.

        Args:
            now_ns: CLOCK_MONOTONIC.
        """
        self._due_ns = max(self._due_ns, now_ns - _LINES_AT_ONCE * LINE_NS)
        if self._due_ns > now_ns - LINE_NS:
            return False
        self._due_ns += LINE_NS
        return True


def names_of(target: Target) -> dict[str, object]:
    """Return the log fields that say which path it is about."""
    fields: dict[str, object] = {"twocans.target": target.spec.text}
    if target.address is not None:
        fields |= {"server.address": target.address.host, "server.port": target.address.port}
    return fields
