"""What our own host did to us, as a verdict asks for it: under a real CPU limit, and paused."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from integration.test_stalls import limits

__all__ = ["limits"]

S = 1_000_000_000

WATCHED = """
import asyncio, json, sys, threading, time
from twocans_core.clock import SYSTEM_CLOCK
from twocans_core.host.stalls import StallWatch

async def main():
    watch = StallWatch(say=False)
    watch.start()
    await asyncio.sleep(1.2)
    mark = SYSTEM_CLOCK.mono_ns()  # before it can be stopped
    print("ready", flush=True)
    busy = await asyncio.to_thread(sys.stdin.readline)
    until = time.monotonic() + 2
    while time.monotonic() < until:
        if busy.strip() == "busy":
            for _ in range(20_000):
                pass
        await asyncio.sleep(0)
    await asyncio.sleep(0.3)
    found = watch.own_host_since(mark)
    print(json.dumps([found.throttled_ns, found.run_delay_ns, found.stalled]), flush=True)
    watch.stop()

asyncio.run(main())
"""


@contextmanager
def watched() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WATCHED]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def told(process: subprocess.Popen[str], how: str) -> Any:
    out, _ = process.communicate(f"{how}\n", timeout=60)
    return json.loads(out)


@pytest.mark.slow
def test_a_cpu_limit_is_in_the_throttled_time(limits):
    with watched() as process:
        limit = limits(process.pid)
        if limit is None:
            process.communicate("\n")
            pytest.skip("no CPU limit can be had here")
        limit.set(20)
        throttled_ns, run_delay_ns, _ = told(process, "busy")
    # Of 100 ms it may run 20. How much it wants to on a busy machine nobody knows.
    assert throttled_ns
    assert run_delay_ns


@pytest.mark.slow
def test_a_pause_is_a_stop_and_no_cpu_limit():
    with watched() as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        process.send_signal(signal.SIGCONT)
        throttled_ns, _, (total_ns, worst_ns, cause, _) = told(process, "idle")
    assert cause == "stopped"
    assert total_ns >= worst_ns > 0.4 * S
    assert not throttled_ns
