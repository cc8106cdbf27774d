"""What the client's own machine lacks is void, and never the path's fault."""

import asyncio
import contextlib
import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from integration.harness import ServerProcess, eventually, limited, running, until
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


class Namespace:
    """A network of its own on this machine: one interface pair, and four local ports."""

    def __init__(self) -> None:
        self.name = f"twocans-c-{os.getpid()}"
        self.far = f"{self.name}-far"

    def __enter__(self) -> "Namespace":
        near, far = f"tc{os.getpid()}a"[:15], f"tc{os.getpid()}b"[:15]
        try:
            run("ip", "netns", "add", self.name)
            run("ip", "netns", "add", self.far)
            one, other = ("name", near, "netns", self.name), ("name", far, "netns", self.far)
            run("ip", "link", "add", *one, "type", "veth", "peer", *other)
            for name, link, address in (
                (self.name, near, "10.77.0.1/24"),
                (self.far, far, "10.77.0.2/24"),
            ):
                run("ip", "-n", name, "address", "add", address, "dev", link)
                run("ip", "-n", name, "link", "set", link, "up")
                run("ip", "-n", name, "link", "set", "lo", "up")
            ports = "net.ipv4.ip_local_port_range=40000 40003"
            run("ip", "netns", "exec", self.name, "sysctl", "-qw", ports)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in (self.name, self.far):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)

    def exec(self, *command: str, far: bool = False) -> list[str]:
        return ["ip", "netns", "exec", self.far if far else self.name, *command]


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(errno.EPERM, f"{' '.join(command)}: {done.stderr.strip()}")


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and ip, for a network namespace")
    try:
        namespace = Namespace().__enter__()
    except OSError as error:
        pytest.skip(f"no network namespace can be had here: {error.strerror}")
    try:
        yield namespace
    finally:
        namespace.__exit__()


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


def count_reasons(namespace: Namespace, kind: str) -> dict[str, int]:
    done = subprocess.run(
        namespace.exec(sys.executable, "-c", MANY, kind),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_four_local_ports_are_enough_for_our_server_closes_first(namespace):
    with FarServer(namespace, sys.executable, "-m", "twocans_server", "--http-port=0"):
        assert count_reasons(namespace, "framed") == {"ok": 300}


@pytest.mark.slow
def test_a_port_that_is_not_left_is_void_and_not_the_paths_fault(namespace):
    # A plain echo: RFC 862 has the client close first, so its ports are what runs out.
    echo = """
import asyncio, sys
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
    with FarServer(namespace, sys.executable, "-c", echo):
        found = count_reasons(namespace, "plain")
    assert found.keys() == {"ok", "no_ports"}
    assert found["ok"] == 4


class FarServer:
    """A server in the far namespace, which listens once it says anything."""

    def __init__(self, namespace: Namespace, *command: str) -> None:
        self.process = subprocess.Popen(
            namespace.exec(*command, far=True),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> "FarServer":
        assert self.process.stdout is not None
        assert self.process.stdout.readline(), "it did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
