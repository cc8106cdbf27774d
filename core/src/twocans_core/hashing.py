"""Numbers by which processes that do not know each other choose alike, or apart. No I/O."""

import hashlib

__all__ = ["hash_of"]


def hash_of(text: str) -> int:
    """Return 64 evenly spread bits of a text: the same ones in every process and version.

    Python's own ``hash`` is another one in each process. What was chosen by these must not change
    at an upgrade, or every path would get another slot and every client other servers.
    """
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
