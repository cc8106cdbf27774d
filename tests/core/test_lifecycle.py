import asyncio
import os
import signal
import subprocess
import sys

import pytest

from twocans_core.lifecycle import stop_signal

PROGRAM = """
import asyncio, sys
from twocans_core.lifecycle import stop_signal
async def main():
    async with stop_signal() as stop:
        print("ready", flush=True)
        await stop.wait()
        print("stopping", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_event_and_the_process_goes_on(number):
    async def run() -> bool:
        async with stop_signal() as stop:
            assert not stop.is_set()
            os.kill(os.getpid(), number)
            await asyncio.wait_for(stop.wait(), 30)
            return True

    assert asyncio.run(run())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_exits_at_once(number):
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    with program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        program.send_signal(signal.SIGTERM)
        assert program.stdout.readline() == "stopping\n"
        program.send_signal(number)
        assert program.wait(30) == 128 + number


def test_afterwards_signals_are_as_before():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    async def run() -> None:
        async with stop_signal():
            pass
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    asyncio.run(run())
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
