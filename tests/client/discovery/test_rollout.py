"""Rollouts of servers, watched by a client that finds them through a resolver with a cache.

Time is virtual. What is real is ``Targets`` with all that it holds, and each ``Path``; what is
simulated is the servers, what DNS says of them, and probes: where nobody is they are refused.
"""

import asyncio
from random import Random
from typing import NamedTuple

import pytest

from client.timeless import TimelessLoop, run_timeless
from twocans_client.config import ClientConfig
from twocans_client.discovery.explorer import Greeting
from twocans_client.discovery.resolver import Resolution, Resolver
from twocans_client.discovery.slices import Endpoint
from twocans_client.discovery.specs import Target, Who, parse_spec
from twocans_client.discovery.targets import Found, Targets
from twocans_client.evidence.blame import judge_probe
from twocans_client.evidence.results import Outcome, ProbeResult, Reason
from twocans_client.paths.path import Path
from twocans_client.service.client import policy_of
from twocans_client.service.fleet import grace_ns_of
from twocans_core.net.sockets import Address
from twocans_core.protocol.messages import Identity

CACHE_S = 30.0
# A server goes from the API to the resolver within so long, and listens for so long meanwhile.
TOLD_S = 1.0
ACCEPTS_S = 5.0
# The pod's successor is ready so long after its end.
SUCCESSOR_S = 8.0


class Pod(NamedTuple):
    """One server: from when it is ready to when it is told to stop."""

    node: int
    address: Address
    ready_s: float
    stop_s: float


class Cluster:
    """Nodes with one server each, that a rollout replaces a few at a time."""

    def __init__(self, loop: TimelessLoop, nodes: int, *, rollout_s: float, at_once: int) -> None:
        self._loop = loop
        self.begun_s = loop.time()
        self.pods: list[Pod] = []
        self.dead: set[Address] = set()
        never = float("inf")
        for node in range(nodes):
            turn = node // at_once
            stop_s = self.begun_s + rollout_s + turn * (ACCEPTS_S + SUCCESSOR_S)
            ready_s = stop_s + ACCEPTS_S + SUCCESSOR_S
            old, new = (Address(f"10.0.{life}.{node}", 5000) for life in (1, 2))
            self.pods += [Pod(node, old, 0.0, stop_s), Pod(node, new, ready_s, never)]
        self.over_s = self.pods[-1].ready_s

    def announced(self, at_s: float) -> tuple[Address, ...]:
        """What the cluster's DNS would say, had it no cache."""
        at_s -= TOLD_S
        return tuple(pod.address for pod in self.pods if pod.ready_s <= at_s < pod.stop_s)

    def endpoints(self, at_s: float) -> list[Endpoint]:
        """What the API server would say."""
        return [
            Endpoint(pod.address, f"node-{pod.node}", f"zone-{pod.node % 3}")
            for pod in self.pods
            if pod.ready_s <= at_s < pod.stop_s
        ]

    def ask(self, address: Address) -> Greeting:
        """What a connection to an address comes to now."""
        now_s = self._loop.time()
        pod = next(pod for pod in self.pods if pod.address == address)
        if address in self.dead or not pod.ready_s - 1 <= now_s < pod.stop_s + ACCEPTS_S:
            return Greeting(Outcome.FAIL)
        name = f"node-{pod.node}"
        who = Who(name, name, f"zone-{pod.node % 3}")
        return Greeting(Outcome.OK, who, draining=now_s >= pod.stop_s)

    def kill(self, node: int) -> Address:
        """A server dies now, and nobody takes it off the list."""
        dead = next(pod.address for pod in self.pods if pod.node == node)
        self.dead.add(dead)
        return dead


class CachedNames(Resolver):
    """Resolvers, each with a cache of its own, one of which answers.

    Args:
        replicas: How many.
        rng: Which of them, and when each cache was filled first.
    """

    def __init__(self, loop: TimelessLoop, cluster: Cluster, rng: Random, replicas: int) -> None:
        super().__init__()
        self._loop, self._cluster, self._rng = loop, cluster, rng
        self._filled_s = [loop.time() - rng.uniform(0, CACHE_S) for _ in range(replicas)]
        self._answers = [cluster.announced(loop.time())] * replicas
        self.is_down = False

    async def resolve(
        self, host: str, port: int, *, slow: bool = False, timeout_s: float = 5.0
    ) -> Resolution:
        await asyncio.sleep(0.01)
        if self.is_down:
            return Resolution((), 1_000, Reason.DNS_FAILURE, "down")
        now_s, replica = self._loop.time(), self._rng.randrange(len(self._answers))
        if now_s - self._filled_s[replica] >= CACHE_S:
            self._filled_s[replica] = now_s
            self._answers[replica] = self._cluster.announced(now_s)
        return Resolution(self._answers[replica], 1_000)


class Watch:
    """Tells of every change until it is cut off."""

    def __init__(self, loop, cluster, service, *, port, on_change, on_problem):
        self.loop, self.cluster = loop, cluster
        self.on_change, self.on_problem = on_change, on_problem
        self.is_cut = False

    async def run(self):
        told = None
        while True:
            await asyncio.sleep(0.5)
            now = self.cluster.endpoints(self.loop.time())
            if self.is_cut:
                self.on_problem("away")
                told = None
            elif now != told:
                told = now
                self.on_change(now)


class Client:
    """Targets, and a probe a second of each.

    Attributes:
        probed: Probes of each address.
        failed: When an address was probed at which nobody was.
    """

    def __init__(
        self,
        loop: TimelessLoop,
        cluster: Cluster,
        text: str = "dns:servers",
        *,
        seed: int = 1,
        replicas: int = 1,
        node: int = 3,
    ) -> None:
        rng = Random(seed)
        self._loop, self._cluster = loop, cluster
        self.names = CachedNames(loop, cluster, rng, replicas)
        self.watches: list[Watch] = []
        self.probed: dict[Address, int] = {}
        self.failed: list[tuple[float, Address]] = []
        self._now: list[Target] = []
        self._paths: dict[str, Path] = {}
        self._config = config = ClientConfig(node=f"node-{node}")
        self.targets = Targets(
            [parse_spec(text)],
            None,
            policy_of(config, f"node-{node}"),
            resolver=self.names,
            introduce=self._introduce,
            rng=rng,
            changed=self._changed,
            resolved=lambda *_: None,
            watch=self._watch,
            watch_failed=lambda *_: None,
            has_route=lambda _: True,
            clock=loop.clock,
        )
        self.tasks = [loop.create_task(self.targets.run()), loop.create_task(self._probe(rng))]

    async def _introduce(self, address: Address) -> Greeting:
        await asyncio.sleep(0.001)
        return self._cluster.ask(address)

    def _watch(self, service, **options):
        self.watches.append(Watch(self._loop, self._cluster, service, **options))
        return self.watches[-1]

    def _changed(self, found: Found) -> None:
        self._now = found.targets
        before, self._paths = self._paths, {}
        for target in found.targets:
            grace_ns = grace_ns_of(self._config, target.spec)
            path = before.get(target.key) or Path(target, drain_grace_ns=grace_ns)
            path.target = target
            self._paths[target.key] = path

    async def _probe(self, rng: Random) -> None:
        await asyncio.sleep(rng.uniform(0, 1))
        while True:
            for key, path in list(self._paths.items()):
                target, now_ns = path.target, self._loop.clock.mono_ns()
                if target.address is None or self._paths.get(key) is not path:
                    continue
                self.probed[target.address] = self.probed.get(target.address, 0) + 1
                answer = self._cluster.ask(target.address)
                result = ProbeResult(
                    intended_ns=now_ns, started_ns=now_ns, started_real_ns=now_ns, ended_ns=now_ns
                )
                result.draining = answer.draining
                if answer.who is None:
                    result.reason = Reason.REFUSED
                else:
                    result.server = Identity(target.address.host.encode(), *answer.who)
                path.begin()
                judge_probe(result, said_goodbye=path.responder.said_goodbye(result))
                path.record(result)
                if result.outcome is Outcome.FAIL:
                    self.failed.append((self._loop.time(), target.address))
                if answer.who is not None:
                    self.targets.saw(target, answer.who, leaving=answer.draining)
            await asyncio.sleep(1)

    @property
    def targets_now(self) -> set[Address]:
        return {target.address for target in self._now if target.address is not None}


def play(scene, **options):
    """Run a scene; returns what it returns."""

    async def main(loop):
        cluster = Cluster(loop, **options)
        return await scene(loop, cluster)

    return run_timeless(main)


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [5, 40])
@pytest.mark.parametrize("replicas", [1, 3])
def test_a_rollout_fails_no_path_whatever_the_phase_of_the_cache(nodes, replicas):
    async def scene(loop, cluster):
        clients = [
            Client(loop, cluster, seed=seed, replicas=replicas, node=seed % nodes)
            for seed in range(5)
        ]
        await asyncio.sleep(cluster.over_s - loop.time() + 200)
        for client in clients:
            assert client.failed == []
            assert all(address.host.startswith("10.0.2.") for address in client.targets_now)
            assert len(client.targets_now) == min(10, nodes - 1), "and all is as it was"

    play(scene, nodes=nodes, rollout_s=120.0, at_once=max(1, nodes // 10))


@pytest.mark.slow
def test_a_name_with_one_path_fails_none_in_a_rollout_either():
    async def scene(loop, cluster):
        clients = [Client(loop, cluster, "servers", seed=seed) for seed in range(40)]
        await asyncio.sleep(cluster.over_s - loop.time() + 60)
        assert [client.failed for client in clients] == [[]] * 40
        assert all(len(client.probed) > 1 for client in clients)

    play(scene, nodes=2, rollout_s=50.0, at_once=1)


@pytest.mark.slow
def test_a_client_that_starts_within_a_rollout_fails_no_path():
    async def scene(loop, cluster):
        clients = []
        for seed in range(5):
            await asyncio.sleep(17)
            clients.append(Client(loop, cluster, seed=seed, replicas=2, node=seed))
        await asyncio.sleep(cluster.over_s - loop.time() + 200)
        assert [client.failed for client in clients] == [[]] * 5
        assert {len(client.targets_now) for client in clients} == {10}

    play(scene, nodes=30, rollout_s=0.0, at_once=3)


def test_a_resolver_that_is_down_through_a_whole_rollout_fails_no_path():
    async def scene(loop, cluster):
        client = Client(loop, cluster)
        await asyncio.sleep(100)
        client.names.is_down = True
        await asyncio.sleep(cluster.over_s - loop.time() + 200)
        assert client.failed == []
        client.names.is_down = False
        await asyncio.sleep(60)
        assert len(client.targets_now) == 10

    play(scene, nodes=20, rollout_s=120.0, at_once=2)


@pytest.mark.parametrize("away_s", [112, 400])
def test_a_watch_that_is_away_through_a_rollout_fails_no_path(away_s):
    async def scene(loop, cluster):
        client = Client(loop, cluster, "endpointslices:servers")
        await asyncio.sleep(100)
        assert len(client.targets_now) == 10
        (watch,) = client.watches
        watch.is_cut = True
        await asyncio.sleep(away_s)
        watch.is_cut = False
        await asyncio.sleep(max(0.0, cluster.over_s - loop.time()) + 60)
        assert client.failed == []
        assert len(client.targets_now) == 10

    play(scene, nodes=20, rollout_s=120.0, at_once=2)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_server_that_is_dead_and_announced_is_found(is_known):
    """Be it one that was probed, one that was known, or one that was dead before we came."""

    async def scene(loop, cluster):
        client = Client(loop, cluster, replicas=2)
        if is_known:
            await asyncio.sleep(60)
        dead = cluster.kill(5)
        await asyncio.sleep(120)
        assert dead in client.targets_now
        assert {address for _, address in client.failed} == {dead}

    play(scene, nodes=8, rollout_s=1e9, at_once=1)


def test_a_server_that_says_goodbye_and_is_not_taken_off_the_list_is_found():
    async def scene(loop, cluster):
        client = Client(loop, cluster)
        await asyncio.sleep(60)
        index = next(n for n, pod in enumerate(cluster.pods) if pod.node == 5)
        leaver = cluster.pods[index]
        cluster.pods[index] = leaver._replace(stop_s=loop.time())
        cluster.announced = lambda _: tuple(pod.address for pod in cluster.pods if pod.ready_s == 0)
        await asyncio.sleep(120)
        assert leaver.address in client.targets_now
        assert {address for _, address in client.failed} == {leaver.address}

    play(scene, nodes=8, rollout_s=1e9, at_once=1)


def test_a_server_that_died_in_an_api_outage_is_found_once_the_watch_is_back():
    async def scene(loop, cluster):
        client = Client(loop, cluster, "endpointslices:servers")
        await asyncio.sleep(60)
        (watch,) = client.watches
        watch.is_cut = True
        await asyncio.sleep(60)
        dead = cluster.kill(5)
        await asyncio.sleep(120)
        watch.is_cut = False
        await asyncio.sleep(120)
        assert dead in client.targets_now

    play(scene, nodes=8, rollout_s=1e9, at_once=1)


def test_places_that_a_rollout_frees_are_taken_within_seconds():
    async def scene(loop, cluster):
        client = Client(loop, cluster)
        await asyncio.sleep(110)
        fewest = 10
        while loop.time() < cluster.over_s:
            await asyncio.sleep(1)
            fewest = min(fewest, len(client.targets_now))
        assert fewest >= 7

    play(scene, nodes=40, rollout_s=120.0, at_once=4)


def test_the_clock_of_the_test_shows_what_it_should():
    """A cache is as old as it says, or all of the above tests nothing."""

    async def scene(loop, cluster):
        names = CachedNames(loop, cluster, Random(1), 1)
        seen = []
        for _ in range(400):
            await asyncio.sleep(1)
            answer = await names.resolve("a", 1)
            now_s = loop.time()
            gone = [p for p in cluster.pods if p.address in answer.addresses and p.stop_s < now_s]
            seen += [now_s - pod.stop_s for pod in gone]
        assert CACHE_S - 5 < max(seen) < CACHE_S + TOLD_S + 1

    play(scene, nodes=30, rollout_s=20.0, at_once=1)
