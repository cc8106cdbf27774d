"""What a test needs and a machine may lack: it is skipped, or fails where that is said to be there.

With TWOCANS_REQUIRE_DOCKER=1 everything is said to be there, and not Docker alone.
"""

import os
import shutil
from typing import NoReturn

import pytest


def lacking(problem: str) -> NoReturn:
    """End this test, which cannot run here."""
    if os.environ.get("TWOCANS_REQUIRE_DOCKER") == "1":
        pytest.fail(f"{problem}, and TWOCANS_REQUIRE_DOCKER=1", pytrace=False)
    pytest.skip(problem)


def need(program: str) -> str:
    """Return where a program is."""
    return shutil.which(program) or lacking(f"there is no {program} here")
