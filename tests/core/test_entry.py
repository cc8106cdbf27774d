"""The first moments of a process, and the check that must cost nothing."""

import subprocess
import sys

import pytest

EARLY = """
import os, signal, sys, time
from twocans_core.entry import leave_on_sigterm
leave_on_sigterm()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(30)
sys.exit(9)
"""

HEALTH = """
import sys
from {module}.__main__ import main
code = main(["health", "--http-port", "1"])
slow = {{"asyncio", "prometheus_client", "pythonjsonlogger", "rich"}} & sys.modules.keys()
sys.exit(f"exit code {{code}}, imported {{slow}}")
"""


def test_sigterm_while_a_can_still_starts_ends_it_with_0():
    done = subprocess.run([sys.executable, "-c", EARLY], timeout=60, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("module", ["twocans_server", "twocans_client"])
def test_a_health_check_imports_nothing_slow(module):
    code = HEALTH.format(module=module)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr.strip() == "exit code 1, imported set()"
