import asyncio
import contextlib
import itertools
import json
import os
import threading
import time
from typing import Any

import pytest

from client.far_end import SERVER, SPLIT
from fakes import FakeResolver
from integration.harness import eventually, running
from integration.pair import (
    Running,
    books_on_the_page,
    closed_port,
    parse_samples,
    probing,
    serving,
    sum_of,
)
from twocans_client.config import ClientConfig
from twocans_client.discovery.resolver import Resolver
from twocans_client.evidence.results import Outcome, Reason
from twocans_client.paths.path import PathState
from twocans_client.probes.probe import Attempt
from twocans_client.service import monitor
from twocans_client.service.client import Client
from twocans_core.clock import Clock
from twocans_core.protocol.messages import Identity


async def silence(reader, writer):
    await reader.read()


def more_than(client: Running, count: int) -> bool:
    return len(client.results) > count


class MovedClock:
    """The machine's clocks, two of which a test may move."""

    def __init__(self) -> None:
        self.real_offset_ns = self.boot_offset_ns = 0

    def clock(self) -> Clock:
        return Clock(
            time.monotonic_ns,
            lambda: time.time_ns() + self.real_offset_ns,
            lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self.boot_offset_ns,
        )


def test_our_own_stalls_are_watched_closely_while_anything_is_waited_for():
    async def main():
        async with serving(silence) as mute, probing(mute, timeout_s=0.2, held=True) as client:
            attention = client.client._stalls.attention
            await eventually(lambda: more_than(client, 10))
            assert attention._waiting > 0, "time-outs, so there is always one"
            await client.stop()
            assert attention._waiting == 0

    asyncio.run(main())


# --- the books, in every ending ------------------------------------------------------------


def test_the_books_add_up_over_good_bad_and_unknown_targets():
    async def main():
        async with running() as server, serving(silence) as mute:
            resolver = Resolver(FakeResolver({}))
            targets = (str(server.address), mute, f"127.0.0.1:{closed_port()}", "nowhere:1")
            async with probing(*targets, resolver=resolver, timeout_s=0.2) as client:
                wanted = {"ok", "greeting_timeout", "refused", "dns_failure"}
                await eventually(lambda: wanted <= client.reasons)
                totals = await client.stop()
                assert min(totals["ok"], totals["fail"]) > 0

    asyncio.run(main())


@pytest.mark.slow
def test_a_path_that_left_has_no_series_left(tmp_path):
    async def main():
        file = tmp_path / "targets.json"
        async with running() as server:
            kept, gone = f"127.0.0.1:{server.address.port}", f"localhost:{server.address.port}"
            file.write_text(json.dumps([{"targets": [gone]}]))
            async with probing(kept, targets_file=str(file)) as client:
                await eventually(
                    lambda: sum(p.outcomes[Outcome.OK] > 0 for p in client.client.paths) == 2
                )
                assert gone in (await client.get("/metrics"))[1]
                file.write_text("[]")
                await eventually(lambda: len(client.client.paths) == 1)
                text = (await client.get("/metrics"))[1]
                assert gone not in text
                assert kept in text

    asyncio.run(main())


def test_a_look_up_that_ends_while_we_stop_opens_no_path():
    async def main():
        async with probing("127.0.0.1:1") as client:
            await eventually(lambda: client.results)
            stopping = asyncio.create_task(client.stop())
            await asyncio.sleep(0)
            client.client._targets._announce()
            await stopping
            assert client.client.paths == []

    asyncio.run(main())


# --- life ----------------------------------------------------------------------------------


def test_a_client_is_ready_once_its_names_were_looked_up():
    lookup = FakeResolver({"name": ["127.0.0.1"]})
    lookup.gate.clear()

    async def main():
        async with running() as server:
            target = f"name:{server.address.port}"
            async with probing(target, resolver=Resolver(lookup)) as client:
                assert (await client.get("/healthz"))[0] == 200
                assert (await client.get("/readyz"))[0] == 503
                lookup.gate.set()
                await eventually(lambda: client.results)
                assert (await client.get("/readyz"))[0] == 200

    asyncio.run(main())


@pytest.mark.slow
def test_it_says_when_a_path_comes_changes_and_goes(caplog):
    caplog.set_level("INFO")

    async def main():
        port = closed_port()
        async with probing(f"127.0.0.1:{port}", drain_grace_s=0) as client:
            await eventually(lambda: client.reasons == {"refused"})
            async with running(port=port, drain_s=0.1):
                await eventually(lambda: client.client.paths[0].state is PathState.OK)
                tasks = len(client.results)
                await eventually(lambda: len(client.results) > tasks + 3)

    asyncio.run(main())
    events = [record.msg for record in caplog.records if record.name.startswith("twocans_client")]
    ours = [event for event in events if event.startswith("path_")]
    assert ours[:3] == ["path_added", "path_failing", "path_ok"]
    failing = next(record for record in caplog.records if record.msg == "path_failing")
    assert vars(failing)["error.type"] == "refused"
    assert vars(failing)["twocans.path.before"] == "unknown"


@pytest.mark.slow
def test_a_server_that_drains_and_goes_fails_no_probe():
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(running(drain_accept_s=0.5))
            client = await stack.enter_async_context(probing(str(server.address)))
            await eventually(lambda: len(client.results) >= 3)
            await server.stop()
            await eventually(lambda: client.results[-1].reason is Reason.DRAINING)
            assert client.client.paths[0].state is PathState.DRAINING
            totals = await client.stop()
            assert totals["fail"] == 0
            stack.pop_all()  # both have been stopped

    asyncio.run(main())


def test_nothing_is_left_behind_after_a_stop():
    async def main():
        def open_descriptors():
            return set(os.listdir("/proc/self/fd"))

        async with running() as server, serving(silence) as mute:
            await asyncio.to_thread(lambda: None)  # the executor's thread is not the client's
            before = open_descriptors(), len(asyncio.all_tasks())
            targets = (str(server.address), mute, f"127.0.0.1:{closed_port()}")
            async with probing(*targets, timeout_s=0.2) as client:
                await eventually(lambda: len(client.results) >= 20)
                await client.get("/metrics")
            await eventually(lambda: server.open_connections == 0)
            # What the far ends hold of the last probes goes with them.
            await eventually(lambda: (open_descriptors(), len(asyncio.all_tasks())) == before)
            names = {thread.name for thread in threading.enumerate()}
            assert "resolve" not in names

    asyncio.run(main())


def test_a_stop_before_the_first_probe_is_a_stop():
    async def main():
        async with probing("127.0.0.1:1", interval_s=60.0) as client:
            totals = await client.stop()
            assert set(totals.values()) == {0}

    asyncio.run(main())


def test_a_target_that_is_not_written_right_is_refused_at_once():
    async def main():
        with pytest.raises(ValueError, match="write HOST:PORT"):
            Client(ClientConfig(targets=("http://x",), http_port=0))

    asyncio.run(main())


def test_addresses_that_come_and_go_are_probed_and_then_not():
    lookup = FakeResolver({"name": ["127.0.0.1", "127.0.0.2"]})

    async def main():
        async with running(host="0.0.0.0") as server:
            target = f"dns:name:{server.address.port}"
            resolver = Resolver(lookup)
            async with probing(target, resolver=resolver, resolve_interval_s=0.1) as client:

                def hosts():
                    return [
                        str(path.target.address).partition(":")[0] for path in client.client.paths
                    ]

                await eventually(lambda: hosts() == ["127.0.0.1", "127.0.0.2"])
                lookup.names["name"] = ["127.0.0.2", "127.0.0.3"]
                await eventually(lambda: hosts() == ["127.0.0.2", "127.0.0.3"])
                await eventually(
                    lambda: all(path.outcomes[Outcome.OK] for path in client.client.paths)
                )
                totals = await client.stop()
                assert totals["fail"] == 0

    asyncio.run(main())


@pytest.mark.slow
def test_the_books_add_up_at_every_scrape():
    async def main():
        async with running() as server, serving(silence) as mute:
            targets = (str(server.address), mute, f"127.0.0.1:{closed_port()}")
            async with probing(*targets, timeout_s=0.3, interval_s=0.02) as client:
                for _ in range(20):
                    samples = parse_samples((await client.get("/metrics"))[1])
                    scheduled, settled = books_on_the_page(samples)
                    assert scheduled == settled
                    ok = sum_of(samples, "twocans_client_probes_total", "outcome=ok")
                    reasons = sum_of(samples, "twocans_client_probe_reasons_total")
                    assert sum_of(samples, "twocans_client_probes_total") == ok + reasons
                    await asyncio.sleep(0.05)

    asyncio.run(main())


# --- names with many servers ----------------------------------------------------------------


async def servers_of_nodes(stack, *nodes, **config):
    """Start a server on an address of its own for each node, all on one port."""

    servers: list[Any] = []
    for number, node in enumerate(nodes, 1):
        about = {"name": node, "node": node, "zone": f"zone-{number}"}
        port = servers[0].address.port if servers else 0
        server = running(host=f"127.0.0.{number}", port=port, **about, **config)
        servers.append(await stack.enter_async_context(server))
    return servers


async def probing_name(stack, servers, hosts=(1, 2, 3), **config):
    """Probe a name with these of the servers' addresses; returns the client and its look-up."""
    lookup = FakeResolver({"name": [f"127.0.0.{n}" for n in hosts]})
    target = f"dns:name:{servers[0].address.port}"
    client = probing(target, resolver=Resolver(lookup), explore_per_s=20.0, **config)
    return await stack.enter_async_context(client), lookup


def test_every_server_but_that_of_our_own_node_is_probed_and_named_from_the_first_series():
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            servers = await servers_of_nodes(stack, "node-1", "node-2", "node-3")
            client, _ = await probing_name(stack, servers, node="node-2")
            names = set()
            while len(client.results) < 12:
                names |= {path.label for path in client.client.paths}
                await asyncio.sleep(0.01)
            assert names == {"node-1", "node-3"}
            page = parse_samples((await client.get("/metrics"))[1])
            assert sum_of(page, "twocans_client_introductions_total", "outcome=ok") == 3
            assert servers[1].tally.exchanges == 0, "our own was greeted, and no more"
            assert sum_of(page, "twocans_client_discovered_addresses") == 3
            assert sum_of(page, "twocans_client_zones", "state=known") == 2
            assert sum_of(page, "twocans_client_zones", "state=probed") == 2
            # Nobody told us our zone, so it is that of our node's server.
            assert sum_of(page, "twocans_client_info", "zone=zone-2", "node=node-2") == 1
            assert client.client.identity.zone == "zone-2"

    asyncio.run(main())


def test_no_more_servers_are_probed_than_we_were_told_and_our_zone_is_what_we_were_told():
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            servers = await servers_of_nodes(stack, "node-1", "node-2", "node-3")
            client, _ = await probing_name(stack, servers, node="node-1", zone="mine", neighbours=1)
            await eventually(lambda: client.client.tally.introductions["ok"] == 3)
            await eventually(lambda: len(client.results) > 3)
            assert len(client.client.paths) == 1
            page = parse_samples((await client.get("/metrics"))[1])
            assert sum_of(page, "twocans_client_info", "zone=mine") == 1

    asyncio.run(main())


def test_our_zone_is_learned_though_nothing_else_changes():
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            servers = await servers_of_nodes(stack, "node-1", "node-2")
            client, lookup = await probing_name(
                stack, servers, [2], node="node-1", resolve_interval_s=0.1
            )
            await eventually(lambda: client.results)
            lookup.names["name"] = ["127.0.0.1", "127.0.0.2"]
            await eventually(lambda: client.client.tally.introductions["ok"] == 2)
            await client.get("/metrics")
            page = parse_samples((await client.get("/metrics"))[1])
            assert sum_of(page, "twocans_client_info", "zone=zone-1") == 1

    asyncio.run(main())


def test_our_own_nodes_server_is_probed_where_that_is_wanted():
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            servers = await servers_of_nodes(stack, "node-1")
            client, _ = await probing_name(stack, servers, [1], node="node-1", probe_self=True)
            await eventually(lambda: client.results)

    asyncio.run(main())


def test_a_server_that_says_goodbye_is_no_path_any_longer_and_fails_nothing():
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            servers = await servers_of_nodes(stack, "node-1", "node-2", drain_accept_s=0.5)
            client, _ = await probing_name(stack, servers, [1, 2])
            await eventually(lambda: len(client.client.paths) == 2)
            count = len(client.results)
            await eventually(lambda: len(client.results) > count + 4)
            await servers[0].stop()
            assert [path.label for path in client.client.paths] == ["node-2"]
            page = (await client.get("/metrics"))[1]
            assert 'server="node-1"' not in page
            count = len(client.results)
            await eventually(lambda: len(client.results) > count + 10)
            assert client.reasons <= {"ok", "draining"}
            totals = await client.stop()
            assert totals["fail"] == 0
            await servers[1].stop()
            stack.pop_all()

    asyncio.run(main())


def test_more_paths_than_there_may_be_are_left_out_and_counted(caplog):
    async def main():
        targets = [f"127.0.0.1:{port}" for port in range(1, 8)]
        async with probing(*targets, max_paths=4, interval_s=60.0) as client:
            await eventually(lambda: len(client.client.paths) == 4)
            page = parse_samples((await client.get("/metrics"))[1])
            assert sum_of(page, "twocans_client_paths_left_out") == 3

    asyncio.run(main())
    assert "too_many_paths" in {record.msg for record in caplog.records}


def test_a_watch_that_is_not_in_a_cluster_says_what_to_do(caplog, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    async def main():
        async with probing("endpointslices:servers") as client:
            await eventually(lambda: client.client.tally.resolutions["watch_failure"])
            assert (await client.get("/readyz"))[0] == 200

    asyncio.run(main())
    (record, *_) = [record for record in caplog.records if record.msg == "watch_failed"]
    assert "not in a Kubernetes cluster" in vars(record)["error.message"]


def renames_itself(number: int) -> Identity:
    return SERVER._replace(node=f"node-{number}", zone=f"zone-{number}")


def gives_way_to_another(number: int) -> Identity:
    name = f"server-{number // 10}"
    return SERVER._replace(name=name, node=name, zone=f"zone-{number // 10}")


def rolls_over(number: int) -> Identity:
    return renames_itself(number // 150)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("server", "zones"), [(renames_itself, 5), (gives_way_to_another, 5), (rolls_over, 3)]
)
def test_a_server_that_is_called_anew_at_will_does_not_grow_the_page(
    monkeypatch, caplog, server, zones
):
    numbers = itertools.count()

    async def renamed(address, plan, tools, *, attempt_type, result):
        assert attempt_type is Attempt
        result.reason, result.connect_ns, result.exchanges = Reason.OK, 5, [SPLIT]
        result.server = server(next(numbers))

    monkeypatch.setattr(monitor, "probe", renamed)

    async def main():
        async with probing("192.0.2.1:1", interval_s=0.005, grid_s=0.005) as client:
            await eventually(lambda: len(client.results) > 400)
            _, text = await client.get("/metrics")
            page = parse_samples(text)
            found = {label for key in page for label in key if label.startswith("target_zone=zone")}
            is_over = zones == 5
            assert len(found) <= zones - is_over
            assert ("target_zone=other" in text.replace('"', "")) is is_over
            info = [key for key in page if key[0] == "twocans_client_path_info"]
            assert len(info) == 1
            assert ("zone=other" in info[0]) is is_over
            warned = [record for record in caplog.records if record.msg == "server_renamed_often"]
            assert len(warned) == is_over
            totals = await client.stop()
            assert totals["fail"] == 0

    asyncio.run(main())


def test_32_probes_in_a_row_have_local_ports_of_all_16_classes():
    """By the kernel's choice alone they would all be even: see ``probes/ports.py``."""

    async def main():
        async with running() as server, probing(str(server.address), interval_s=0.01) as client:
            await eventually(lambda: more_than(client, 40))
            await client.stop()
            results = sorted(client.results, key=lambda result: result.started_ns)
            ports = [result.local[1] for result in results if result.local is not None]
            for first in range(len(ports) - 31):
                assert {port % 16 for port in ports[first : first + 32]} == set(range(16))
            assert client.reasons == {"ok"}

    asyncio.run(main())
