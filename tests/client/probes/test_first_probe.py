"""Nothing is done for the first time inside a phase: it would be measured as somebody's time."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from integration.harness import PATIENCE_S, ServerProcess
from integration.pair import closed_port

ONE_SHOT = """
import asyncio, sys
from twocans_client import commands, oneshot
from twocans_client.probes.plain import PlainAttempt
from twocans_client.probes.probe import Attempt, Plan
from twocans_client.discovery.specs import parse_spec

target, plain = sys.argv[1:]
within = oneshot._probe_once

async def watched(*arguments):
    before = set(sys.modules)
    await within(*arguments)
    print(*sorted(set(sys.modules) - before))

oneshot._probe_once = watched
attempt_type = PlainAttempt if plain == "plain" else Attempt
plan = Plan(5_000_000_000, payload=b"Hello")
asyncio.run(oneshot.make_probes(parse_spec(target), plan, name="", attempt_type=attempt_type))
"""

SERVICE = """
import asyncio, sys
from twocans_client import commands
from twocans_client.config import ClientConfig
from twocans_client.service.client import Client

async def main():
    done = asyncio.Event()
    config = ClientConfig(targets=(sys.argv[1],), http_port=0, interval_s=0.05)
    client = Client(config, observer=lambda _: done.set())
    client.start()
    before = set(sys.modules)
    await done.wait()
    print(*sorted(set(sys.modules) - before))
    await client.stop()

asyncio.run(main())
"""


def imported(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with ServerProcess() as process:
        yield process.port


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ours", "plain", "service", "refused", "no such name"])
def test_no_module_is_imported_inside_a_phase(server, how):
    port = closed_port() if how == "refused" else server
    target = "name.invalid:5000" if how == "no such name" else f"localhost:{port}"
    program, *rest = (SERVICE,) if how == "service" else (ONE_SHOT, how)
    assert imported(program, target, *rest) == ""
