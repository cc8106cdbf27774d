"""The first moments of a process, and the check that must cost nothing."""

import signal
import subprocess
import sys

import pytest

EARLY = """
import os, signal, sys, time
from twocans_core.process.entry import become_service, begin
begin()
become_service()
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


INTERRUPTED = """
import builtins, os, signal, sys
module, name, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
find = builtins.__import__
def interrupted(wanted, *args, **kwargs):
    if wanted == name:
        os.kill(os.getpid(), number)
    return find(wanted, *args, **kwargs)
builtins.__import__ = interrupted
sys.argv = [module, *sys.argv[4:]]
import runpy
runpy.run_module(module, run_name="__main__")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("module", "during"),
    [
        ("twocans_server", "argparse"),
        ("twocans_client", "argparse"),
        ("twocans_server", "asyncio"),
        ("twocans_client", "asyncio"),
    ],
)
def test_a_signal_while_a_command_still_imports_ends_it_without_a_word(module, during, number):
    code = {signal.SIGINT: 130, signal.SIGTERM: 143 if during == "argparse" else 0}[number]
    command = ["run", "--http-port=0", *(["--target=a:1"] if "client" in module else [])]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module, during, str(int(number)), *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.parametrize("module", ["twocans_server", "twocans_client"])
def test_a_health_check_imports_nothing_slow(module):
    code = HEALTH.format(module=module)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr.strip() == "exit code 1, imported set()"
