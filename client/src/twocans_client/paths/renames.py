"""How often the server of one path may be called anew. No I/O.

A server says itself what it is called and where it is, and each name and zone is a set of series.
One that is called anew again and again is called ``other``, and stays so.
"""

from twocans_client.discovery.specs import Who

__all__ = ["OTHER", "Renames"]

OTHER = Who("other", "", "other", "")
# So many at once: a rollout, another zone. Then one in each ten minutes.
_AT_ONCE = 3
_EVERY_NS = 600 * 1_000_000_000


class Renames:
    """What the server of one path was called, kept beyond the path: it may come and go.

    Attributes:
        is_over: It was called anew too often.
        used_ns: When it was called last, CLOCK_MONOTONIC.
    """

    def __init__(self) -> None:
        self.is_over = False
        self.used_ns = 0
        self._newest = Who()
        self._next_ns = -_AT_ONCE * _EVERY_NS

    def call(self, names: Who, now_ns: int) -> Who:
        """Return what to call it: these names, or ``OTHER``."""
        self.used_ns = now_ns
        if self.is_over:
            return OTHER
        # What was not known before is no other name.
        is_other = any(was not in ("", said) for was, said in zip(self._newest, names, strict=True))
        self._newest = names.or_else(self._newest)
        if is_other:
            # A leaky bucket in one number: when the next would be due, had they come evenly. It may
            # lag by three, which are those at once.
            self._next_ns = max(self._next_ns, now_ns - _AT_ONCE * _EVERY_NS) + _EVERY_NS
            self.is_over = self._next_ns > now_ns
        return OTHER if self.is_over else names
