import asyncio
import os
import signal
import subprocess
import sys

import pytest

from twocans_core.process.lifecycle import stop_signal

PROGRAM = """
import asyncio, sys
from twocans_core.process.lifecycle import stop_signal
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


def test_signals_that_nobody_uses_are_said_and_end_nothing(caplog):
    caplog.set_level("INFO")

    async def run() -> bool:
        async with stop_signal() as stop:
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                os.kill(os.getpid(), number)
            while len(caplog.records) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            return stop.is_set()

    assert not asyncio.run(run())
    said = [(record.msg, vars(record)["twocans.signal"]) for record in caplog.records]
    assert said == [("signal_ignored", "SIGUSR1"), ("signal_ignored", "SIGUSR2")]


def test_sighup_reloads_a_service_and_stops_what_is_on_a_terminal(monkeypatch):
    async def stopped(reload) -> bool:
        async with stop_signal(reload) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            while not (stop.is_set() or reloads):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            return stop.is_set()

    reloads: list[bool] = []
    monkeypatch.setattr(os, "isatty", lambda _: False)
    assert not asyncio.run(stopped(lambda: reloads.append(True)))
    assert reloads == [True]
    reloads.clear()
    monkeypatch.setattr(os, "isatty", lambda _: True)
    assert asyncio.run(stopped(lambda: reloads.append(True)))


def test_ctrl_c_says_what_is_waited_for(capfd):
    async def run() -> None:
        async with stop_signal(leaving="can: the last one may finish") as stop:
            os.kill(os.getpid(), signal.SIGINT)
            await stop.wait()

    asyncio.run(run())
    said = capfd.readouterr().err
    assert said == "can: the last one may finish; Ctrl-C again ends it at once\n"
