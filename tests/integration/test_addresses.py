"""Addresses that are of one interface, and families that a machine does not have."""

import json
import subprocess
import sys

import pytest

from integration.harness import PATIENCE_S, ServerProcess
from integration.netns import SERVER_ADDRESS, namespaces
from twocans_core.net.sockets import Address, has_route

LINK_LOCAL = "fe80::77"


def cli(*arguments: str, wrapper: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*wrapper, sys.executable, "-m", "twocans_client", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


@pytest.mark.slow
def test_link_local_addresses_work_from_end_to_end():
    with namespaces() as pair:
        device = pair.server.device
        add = ("ip", "address", "add", f"{LINK_LOCAL}/64", "dev", device, "nodad")
        try:
            pair.server.run(*add)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no IPv6 here: {error.stderr.strip()}")
        pair.client.run("sysctl", "-qw", f"net.ipv6.conf.{device}.accept_dad=0")
        pair.client.run(*(part.replace("::77", "::78") for part in add))
        host = f"{LINK_LOCAL}%{device}"
        flags = (f"--host={host}", f"--http-host={host}")
        with ServerProcess(*flags, wrapper=pair.server.wrapper) as server:
            assert server.events("listening")[0]["server.address"] == host
            forward = pair.client.wrapper
            target = f"[{host}]:{server.port}"
            done = cli("probe", target, "--count=2", "--json", wrapper=forward)
            assert done.returncode == 0, done.stdout + done.stderr
            assert json.loads(done.stdout)["target"] == target
            number = f"[{LINK_LOCAL}%{_index(pair.client.run('ip', '-o', 'link'), device)}]"
            assert cli("probe", f"{number}:{server.port}", wrapper=forward).returncode == 0
            done = cli("probe", f"[{LINK_LOCAL}%nope]:{server.port}", wrapper=forward)
            assert (done.returncode, "ENODEV" in done.stdout) == (2, True)
            port = f"--http-port={server.http_port}"
            health = cli("health", f"--http-host={host}", port, wrapper=pair.server.wrapper)
            assert (health.returncode, health.stdout) == (0, "ok\n")


def test_a_machine_without_a_route_knows_it():
    with namespaces() as pair, pair.client.entered():
        assert has_route(Address(SERVER_ADDRESS, 7))
        assert not has_route(Address("192.0.2.1", 7))
        assert not has_route(Address("2001:db8::1", 7))


def _index(links: str, device: str) -> str:
    (line,) = (line for line in links.splitlines() if f" {device}@" in line)
    return line.partition(":")[0]
