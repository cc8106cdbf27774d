"""What the client's own machine lacks is void, and never the path's fault."""

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from integration.harness import ServerProcess, eventually, limited, running, until
from integration.netns import Pair, namespaces
from integration.pair import ClientProcess, probing, serving
from twocans_client.evidence.results import Reason


@pytest.mark.slow
def test_no_descriptor_left_is_void():
    async def main():
        async with running() as server, probing(str(server.address)) as client:
            await eventually(lambda: len(client.results) >= 3)
            hoard = []
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
            try:
                with contextlib.suppress(OSError):
                    while True:
                        hoard.append(os.open("/dev/null", os.O_RDONLY))
                before = len(client.results)
                await eventually(lambda: len(client.results) >= before + 10)
                while_full = client.results[before + 1 :]
            finally:
                for fd in hoard:
                    os.close(fd)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert {result.reason for result in while_full} == {Reason.NO_DESCRIPTORS}
            count = len(client.results)
            await eventually(lambda: len(client.results) >= count + 5)
            assert client.results[-1].reason is Reason.OK, "and it recovers"
            totals = await client.stop()
            assert totals["fail"] == 0

    asyncio.run(main())


@pytest.mark.slow
def test_a_client_with_few_descriptors_misses_slots_instead_of_failing_paths():
    program = (
        "import resource, runpy, sys;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (140, 140));"
        "sys.argv[0] = 'twocans-client';"
        "runpy.run_module('twocans_client', run_name='__main__')"
    )

    async def mute(reader, writer):
        await reader.read()

    async def main():
        async with serving(mute) as target:
            command = [sys.executable, "-c", program, "run", f"--target={target}", "--output=json"]
            command += ["--interval-s=0.02", "--timeout-s=2", "--duration-s=3", "--http-port=0"]
            command += ["--budget=1GB"]
            process = await asyncio.create_subprocess_exec(
                *command,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            out, _ = await process.communicate()
            assert process.returncode == 2, "no probe was answered"
            return out.decode()

    out = asyncio.run(main())
    assert "in_flight_limit_reached" in out
    assert "no_descriptors" not in out
    assert '"event.name": "bug"' not in out


@pytest.mark.slow
def test_more_paths_than_descriptors_measure_nothing_of_ourselves(tmp_path):
    """128 are put by: of 60 paths some have no held connection, and none is void for that."""
    with ServerProcess() as server:
        file = tmp_path / "targets.json"
        names = [f"127.0.1.{number}:{server.port}" for number in range(1, 61)]
        file.write_text(json.dumps([{"targets": names}]))
        flags = [f"--targets-file={file}", "--interval-s=0.5", "--timeout-s=2"]
        with ClientProcess(*flags, wrapper=limited(150, 160)) as client:
            client.probed(2 * len(names))
            (few,) = client.events("few_descriptors")
            stopped = client.stop()
    assert few["twocans.descriptors.limit"] == 160, "the hard one"
    assert few["twocans.held.max"] + few["twocans.probes.max_in_flight"] == 160 - 128
    assert stopped["twocans.probes.fail"] == 0
    assert "no_descriptors" not in {line.get("error.type") for line in client.lines}
    assert client.events("probes_void") == []


def test_enough_descriptors_are_taken_and_nothing_is_said():
    with ServerProcess(wrapper=limited(300, 20_000)) as server:
        assert server.events("listening")[0]["twocans.max_connections"] == 16_384
        assert server.events("few_descriptors") == []
        with ClientProcess(f"--target=127.0.0.1:{server.port}", wrapper=limited(64, 20_000)) as can:
            can.probed(1)
            assert can.stop()["twocans.probes.fail"] == 0
            assert can.events("few_descriptors") == []


def test_a_server_says_once_that_it_has_few_descriptors():
    with ServerProcess(wrapper=limited(300, 300)) as server:
        until(lambda: server.events("few_descriptors"))
        (few,) = server.events("few_descriptors")
    assert few["twocans.max_connections"] == 300 - 256
    assert few["twocans.descriptors.wanted"] == 16_384 + 256


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Give two machines, of which the client's has four local ports."""
    with namespaces() as pair:
        pair.client.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40003")
        yield pair


# As the command runs it, but counted: 300 probes, one after the other, 4 local ports.
MANY = """
import asyncio, json, sys
from collections import Counter
from twocans_client.oneshot import make_probes
from twocans_client.probes.plain import PlainAttempt
from twocans_client.probes.probe import Attempt, Plan
from twocans_client.discovery.specs import parse_spec
kind = {"framed": Attempt, "plain": PlainAttempt}[sys.argv[1]]
plan = Plan(2_000_000_000, 1, 64, b"Hello" if kind is PlainAttempt else None)
async def main():
    target = parse_spec("10.77.0.2:5000")
    work = make_probes(target, plan, name="", count=300, interval_s=0.02, attempt_type=kind)
    print(json.dumps(Counter(result.reason for result in await work)))
asyncio.run(main())
"""


def count_reasons(pair: Pair, kind: str) -> dict[str, int]:
    command = [*pair.client.wrapper, sys.executable, "-c", MANY, kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_four_local_ports_are_enough_for_our_server_closes_first(pair):
    with ServerProcess(port=5000, wrapper=pair.server.wrapper):
        assert count_reasons(pair, "framed") == {"ok": 300}


# RFC 862 has the client close first, so its ports are what runs out.
ECHO = """
import asyncio
async def serve(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "10.77.0.2", 5000)
    print("listening", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@pytest.mark.slow
def test_a_port_that_is_not_left_is_void_and_not_the_paths_fault(pair):
    command = [*pair.server.wrapper, sys.executable, "-c", ECHO]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as echo:
        try:
            assert echo.stdout is not None
            assert echo.stdout.readline(), "it did not start"
            found = count_reasons(pair, "plain")
        finally:
            echo.kill()
    assert found.keys() == {"ok", "no_ports"}
    assert found["ok"] == 4
