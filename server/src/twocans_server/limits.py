"""The server's limits: one table, from which flags, documents and tests are made.

Every limit has a name, a default, what happens beyond it, and is counted in
``twocans_server_limit_hits_total{limit="<name>"}``. tests/server/test_limits.py fails when a
limit has no test of its own.
"""

import dataclasses

from twocans_core.process.settings import option
from twocans_core.process.values import count, positive, timespan

__all__ = [
    "CONNECTION_BYTES",
    "LOBBY_PLACES",
    "RESERVED_BYTES",
    "RESERVED_DESCRIPTORS",
    "Limits",
    "fitting_connections",
]

# Descriptors kept free for /metrics, health, the drain and the lobby below.
RESERVED_DESCRIPTORS = 256

# What a held connection costs of a cgroup's memory limit: 3.5 KiB of ours were measured
# (bench/held_connections.py) and 4.0 KiB that the kernel charges. Buffers come on top.
CONNECTION_BYTES = 8 * 1024
# What the process needs without any connection (20 MiB), a scrape, some buffers, and what is
# remembered of as many ended connections as by default (connections/witness.py).
RESERVED_BYTES = 40 * 1024 * 1024
_REMEMBERED = 4_096
_REMEMBERED_BYTES = 768
_FEWEST = 64

# Connections over the cap that may wait for a moment to be told so.
LOBBY_PLACES = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What a client may ask of the server."""

    max_connections: int = option(
        positive,
        "Connections open at once. Lowered to the descriptor limit minus 256, and to one for each "
        "8 KiB of the cgroup's memory limit minus 40 MiB.",
        default=16_384,
        beyond="a framed client receives BUSY, a plain one is closed",
    )
    max_connections_per_source: int = option(
        count,
        "Connections open at once from one IPv4 address or IPv6 /64. 0: no limit.",
        default=8_192,
        beyond="as for max_connections",
    )
    max_greeting_bytes: int = option(
        positive,
        "Bytes of one frame's body before the client's HELLO; 1024 at most.",
        default=1_024,
        beyond="ERROR too_big, then close",
    )
    max_payload_bytes: int = option(
        positive,
        "Bytes of payload in one request.",
        default=65_536,
        beyond="ERROR too_big, then close",
    )
    max_buffered_bytes: int = option(
        positive,
        "Bytes of output waiting for a client that does not read.",
        default=65_536,
        beyond="the server reads no more from that client until it reads",
    )
    greeting_s: float = option(
        timespan,
        "Seconds from a framed client's first byte to its complete HELLO.",
        default=5.0,
        beyond="ERROR too_slow, then close",
    )
    frame_s: float = option(
        timespan,
        "Seconds to complete a frame, plus one for each 64 KiB that it declares.",
        default=5.0,
        beyond="ERROR too_slow, then close",
    )
    idle_s: float = option(
        timespan,
        "Seconds without a byte in either direction.",
        default=300.0,
        beyond="a framed client receives GOODBYE idle; then close",
    )
    frames_per_turn: int = option(
        positive,
        "Reads and frames of one connection, or 8 KiB pieces of plain echo, served in one turn.",
        default=8,
        beyond="the rest waits until all other connections had a turn",
    )
    witness_connections: int = option(
        positive,
        "Ended connections that the server remembers, to tell their clients what it saw of them. "
        "Each takes 0.75 KiB; beyond the default that is taken off max_connections' memory.",
        default=_REMEMBERED,
        beyond="the oldest that ended done is forgotten, or else the oldest",
    )
    witness_s: float = option(
        timespan,
        "Seconds for which it remembers them.",
        default=300.0,
        beyond="it is forgotten",
    )
    accepts_per_turn: int = option(
        positive,
        "Connections accepted before open connections get their turn.",
        default=64,
        beyond="the rest waits for the next turn of the loop",
    )


def fitting_connections(
    memory_limit: int | None, descriptor_limit: int, remembered: int = _REMEMBERED
) -> int:
    """Return how many connections fit into what the machine gives us.

    Args:
        memory_limit: Of the cgroup, in bytes; None: none.
        descriptor_limit: Of the process.
        remembered: How many ended connections are remembered beside them.
    """
    fitting = max(1, descriptor_limit - RESERVED_DESCRIPTORS)
    if memory_limit is not None:
        reserved_bytes = RESERVED_BYTES + max(0, remembered - _REMEMBERED) * _REMEMBERED_BYTES
        by_memory = (memory_limit - reserved_bytes) // CONNECTION_BYTES
        fitting = min(fitting, max(_FEWEST, by_memory))
    return fitting
