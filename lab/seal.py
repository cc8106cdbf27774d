"""The truth of a run, written down before it begins and opened when all verdicts are in.

The seal is a hash of the file. It is published before the run, so that nobody can change the truth
afterwards; a nonce in the file keeps anyone from guessing what was hashed.
"""

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

__all__ = ["BrokenSealError", "open_sealed", "seal"]


class BrokenSealError(ValueError):
    """A truth file is not the one that was sealed."""


def seal(path: Path, truth: dict[str, Any]) -> str:
    """Write the truth to a new file that only we can read; returns its SHA-256.

    Raises:
        FileExistsError: There is one already.
    """
    content = json.dumps({**truth, "nonce": secrets.token_hex(16)}).encode()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


def open_sealed(path: Path, digest: str) -> dict[str, Any]:
    """Return the truth that was sealed.

    Raises:
        BrokenSealError: The file is another one.
    """
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise BrokenSealError(f"{path.name} is not what was sealed")
    truth: dict[str, Any] = json.loads(content)
    del truth["nonce"]
    return truth
