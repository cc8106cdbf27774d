"""What may be at once, by settings and descriptors, and whether settings fit a path's budget."""

import math

from twocans_client.config import ClientConfig
from twocans_client.paths.purse import AT_ONCE, held_bytes, probe_bytes
from twocans_core.errors import ConfigError
from twocans_core.host import procfs

__all__ = ["RESERVED_DESCRIPTORS", "Budget", "Places", "check_budget"]

RESERVED_DESCRIPTORS = 128
"""What neither probes nor held connections may take: HTTP, logs, look-ups, the watch."""


class Places:
    """How many probes, held and idle connections there may be at once.

    A probe that finds no descriptor left measures nothing; one that is not begun is at least known
    to be missed; and a path without a held connection is probed like any other. So held
    connections get at most half of the descriptors.

    Attributes:
        probes: Probes under way.
        held: Held connections.
        idle: Idle connections: they get what the others leave.
        wanted: The same three by the settings alone.
        limit: Descriptors of this process, RLIMIT_NOFILE.
    """

    def __init__(self, config: ClientConfig) -> None:
        self.limit = procfs.descriptor_limit()
        paths = config.max_paths
        self.wanted = (
            config.max_in_flight,
            paths if config.held else 0,
            paths * config.idle_connections,
        )
        probes, held, idle = self.wanted
        left = max(2, self.limit - RESERVED_DESCRIPTORS)
        # What probes cannot use they do not need: then held connections may have more than half.
        self.held = min(held, max(left // 2, left - probes))
        self.probes = min(probes, left - self.held)
        self.idle = min(idle, max(0, left - self.held - self.probes))

    @property
    def are_few(self) -> bool:
        """Whether there are fewer than the settings want."""
        return (self.probes, self.held, self.idle) != self.wanted


class Budget:
    """The probes under way, of all paths: a dead path must not blind the others.

    Args:
        most: How many there may be.

    Attributes:
        in_flight: How many there are.
    """

    def __init__(self, most: int) -> None:
        self.in_flight = 0
        self._most = most

    def allows(self, of_path: int, paths: int) -> bool:
        """Whether a path may begin another probe.

        Up to half of the budget anyone may. Beyond it each path has its share, two at least.

        Args:
            of_path: How many of its probes are under way.
            paths: How many paths there are.
        """
        if self.in_flight < self._most // 2:
            return True
        # Two at least, as a probe that waits for its time-out must not cost its path the next slot.
        return of_path < max(2, self._most // paths) and self.in_flight < self._most


def check_budget(config: ClientConfig) -> None:
    """See that the ordinary probes of a path, and its held connection, are within the budget.

    Raises:
        ConfigError: They are not, and what to change.
    """
    each = probe_bytes(config.exchanges, config.payload_bytes)
    hourly = each * 3_600 / config.interval_s
    held = 0.0
    if config.held:
        held = held_bytes(config.payload_bytes) * 3_600 / config.held_interval_s
    needed = max((hourly + held) / (1 - AT_ONCE), each / AT_ONCE)
    if needed <= config.budget:
        return
    fields = "interval_s, exchanges, payload_bytes"
    fields += " and held_interval_s" if config.held else ""
    problem = (
        f"by {fields} the probes of one path cost {_mb(hourly + held)} MB an hour, and one at "
        f"least {_mb(each)} MB; with --budget {_mb(config.budget)} MB an hour "
        f"{_mb(config.budget * (1 - AT_ONCE))} MB may be spent evenly and "
        f"{_mb(config.budget * AT_ONCE)} MB at once: give --budget {math.ceil(needed / 1e6)}MB"
    )
    left = config.budget * (1 - AT_ONCE) - held
    if left > 0 and each <= config.budget * AT_ONCE:
        problem += f", or --interval-s {math.ceil(each * 3_600 / left * 1_000) / 1_000:g}"
    raise ConfigError(f"{problem} or more")


def _mb(count: float) -> str:
    return f"{count / 1e6:.3g}"
