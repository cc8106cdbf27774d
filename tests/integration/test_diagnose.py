"""The battery against real servers on loopback, for a shorter time than a person would."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time

import pytest

from integration.harness import PATIENCE_S, running
from integration.pair import closed_port, serving
from twocans_client.config import DiagnoseConfig
from twocans_client.diagnosis.battery import Battery
from twocans_client.discovery.specs import parse_spec
from twocans_client.evidence.results import Outcome
from twocans_client.report.diagnosis import Diagnosis
from twocans_client.report.diagnosis_document import diagnosis_json
from twocans_client.report.page import diagnosis_text
from twocans_core.net.sockets import Address

QUICK = DiagnoseConfig(watch_s=2.0, timeout_s=1.0)


async def diagnosed(target: str, **how) -> Diagnosis:
    battery = Battery(parse_spec(target), QUICK, **how)
    await battery.run()
    return battery.diagnosis


def names(found: Diagnosis) -> set[str]:
    # A test machine may be short of CPU, and then it says so.
    return {verdict.finding.kind.name for _, verdict in found.faults} - {"cpu_starved"}


def test_a_healthy_server_is_measured_in_every_way():
    said = []

    async def main():
        async with running() as server:
            target = f"127.0.0.1:{server.address.port}"
            return await diagnosed(target, progress=lambda *doing: said.append(doing))

    found = asyncio.run(main())
    assert names(found) == set()
    assert found.speaks
    assert found.is_whole
    assert found.counts[Outcome.FAIL] == 0
    assert found.counts[Outcome.OK] >= 10
    assert len({port % 16 for port in found.ports}) >= 8
    assert None not in (found.mtu(0), found.mtu(1)), "no sized exchange"
    assert found.load is not None, found.no_load
    assert found.load.problem == ""
    assert found.load.exchanges > 10
    assert found.load.sustained_bits_per_s is not None
    assert found.load.segments is not None
    assert {"large exchanges", "a short load"} <= {doing for doing, _ in said}
    assert json.loads(diagnosis_json(found))["whole"]


def test_each_address_of_a_name_is_a_path_of_its_own():
    async def main():
        async with running() as server:
            port = server.address.port
            here, elsewhere = Address("127.0.0.1", port), Address("127.0.0.2", port)
            return await diagnosed(f"name:{port}", lookup=lambda *_: [here, elsewhere])

    found = asyncio.run(main())
    assert [path.address and path.address.host for path in found.paths] == [
        "127.0.0.1",
        "127.0.0.2",
    ]
    first, second = found.paths
    assert first.report.outcomes[Outcome.OK] > 5
    assert second.report.outcomes[Outcome.FAIL] > 5, "the server listens on one address only"
    assert found.look_ups
    assert found.exit_code == 1
    assert "refused_by_server" in names(found)


def test_where_nobody_listens_it_says_who_refuses():
    found = asyncio.run(diagnosed(f"127.0.0.1:{closed_port()}"))
    assert names(found) == {"refused_by_server"}
    assert found.exit_code == 2
    assert found.load is None


def test_a_name_that_does_not_resolve_is_named():
    def lookup(*_):
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    found = asyncio.run(diagnosed("name:5000", lookup=lookup))
    assert names(found) == {"dns_failing"}
    assert found.exit_code == 2
    assert "dns_failing" in diagnosis_text(found)


def test_of_a_server_of_another_protocol_only_connections_are_measured():
    async def web(reader, writer):
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def main():
        async with serving(web) as target:
            return await diagnosed(target)

    found = asyncio.run(main())
    assert found.speaks is False
    assert found.exit_code == 0
    assert found.counts[Outcome.OK] >= 10
    assert all(result.bytes_sent == 0 for result in found.results)
    assert "another protocol" in diagnosis_text(found)


def test_connect_only_says_nothing_to_anybody():
    heard = []

    async def listener(reader, writer):
        heard.append(await reader.read())
        writer.close()

    async def main():
        async with serving(listener) as target:
            return await diagnosed(target, connect_only=True)

    found = asyncio.run(main())
    assert found.counts[Outcome.OK] >= 10
    assert set(heard) == {b""}


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["text", "json"])
def test_ctrl_c_gives_what_was_done_so_far(flags):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        command = [sys.executable, "-m", "twocans_client", "diagnose", *flags]
        command += [f"127.0.0.1:{silent.getsockname()[1]}", "--timeout-s", "0.5"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, err
    assert "cut off after" in err
    if flags:
        document = json.loads(out)
        assert not document["whole"]
        assert document["addresses"][0]["report"]["reasons"]["greeting_timeout"] > 0
    else:
        assert "it was cut off" in " ".join(out.split())
        assert "greeting_timeout" in out
