"""A can that stands still: the client blames no path for it, and the server's client no network.

TWOCANS_STALLS says how many stalls of the client there are; 12 unless said otherwise.
"""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from integration import far_away, stallable
from integration.harness import ServerProcess, eventually, until
from integration.pair import (
    ClientProcess,
    books_on_the_page,
    get,
    parse_samples,
    probing,
    probing_tools,
)
from twocans_client.discovery.specs import parse_spec
from twocans_client.evidence.results import Outcome, ProbeResult, Reason
from twocans_client.oneshot import make_probes
from twocans_client.probes.conversation import Conversation
from twocans_client.probes.probe import Attempt, Plan, probe
from twocans_core.host.stalls import Cause
from twocans_core.net.sockets import Address

STALLS = int(os.environ.get("TWOCANS_STALLS", "12"))
CLIENTS = 3 if STALLS < 50 else 4
STALLABLE = (sys.executable, stallable.__file__)
# Who is not to stand still must get its CPU, whatever else runs here. Nothing happens without root.
HEALTHY = ("nice", "-n", "-15")
SOON = ("--drain-accept-s=0", "--drain-s=1")
STOPPED_S, LIMITED_S = 3.0, 2.0
# What a stall is at least seen as: the heartbeat may be due 50 ms after it began.
SEEN = 0.85


class CpuLimit:
    """A cgroup of its own for one process, without a limit until one is set."""

    ROOT = Path("/sys/fs/cgroup")
    PERIOD_US = 100_000

    def __init__(self, name: str) -> None:
        controllers = self.ROOT / "cgroup.controllers"
        if controllers.exists():
            if "cpu" not in (self.ROOT / "cgroup.subtree_control").read_text().split():
                raise OSError("the cpu controller is not enabled for child cgroups")
            self._home, self._file, self._format = self.ROOT, "cpu.max", f"{{}} {self.PERIOD_US}"
            self._none = "max"
        else:
            homes = [self.ROOT / "cpu", self.ROOT / "cpu,cpuacct"]
            self._home = next((home for home in homes if home.exists()), homes[0])
            self._file, self._format, self._none = "cpu.cfs_quota_us", "{}", "-1"
        self._folder = self._home / name
        self._folder.mkdir()
        try:
            self.set(None)
        except OSError:
            self.remove()
            raise

    def add(self, pid: int) -> None:
        (self._folder / "cgroup.procs").write_text(str(pid))

    def set(self, percent: int | None) -> None:
        value = self._none if percent is None else str(self.PERIOD_US * percent // 100)
        (self._folder / self._file).write_text(self._format.format(value))

    def remove(self) -> None:
        """Send whoever is left home, and go."""
        for pid in (self._folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (self._home / "cgroup.procs").write_text(pid)
        self._folder.rmdir()


@pytest.fixture
def limits() -> Iterator[Callable[[int], CpuLimit | None]]:
    """Give a function that puts a process under a CPU limit of its own, if that is allowed."""
    made: list[CpuLimit] = []

    def make(pid: int) -> CpuLimit | None:
        try:
            limit = CpuLimit(f"twocans-{os.getpid()}-{len(made)}")
        except OSError as error:
            print(f"no CPU limit can be had here, so none is tried: {error}")
            return None
        made.append(limit)
        limit.add(pid)
        return limit

    yield make
    for limit in made:
        limit.remove()


@contextlib.contextmanager
def distant(port: int) -> Iterator[int]:
    """Put a server farther away; gives the port to probe it at."""
    command = [*HEALTHY, sys.executable, far_away.__file__, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


class Victim:
    """A process that is made to stand still, and asked afterwards how it was."""

    def __init__(self, can: str, process: ClientProcess | ServerProcess, limit: CpuLimit | None):
        self.prefix = f"twocans_{can}"
        self.pid = process.process.pid
        self.http_port = process.http_port
        self.limit = limit
        # How, for how long at least, and the causes that it may be seen with. Whoever needs the
        # CPU and has it less than half of the time is starved, on a machine that is busy.
        self.stalls: dict[str, tuple[Callable[[], None], float, set[str]]] = {
            "stop": (self._stop, STOPPED_S, {"stopped"}),
            "wait": (lambda: self._block(signal.SIGUSR1), stallable.BLOCKED_S, {"blocked"}),
            "work": (
                lambda: self._block(signal.SIGUSR2),
                stallable.BLOCKED_S,
                {"blocked", "starved"},
            ),
        }
        if limit is not None:
            self.stalls["limit"] = (self._limit, LIMITED_S / 4, {"throttled", "starved"})

    def _stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        time.sleep(STOPPED_S)
        os.kill(self.pid, signal.SIGCONT)

    def _block(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)
        time.sleep(stallable.BLOCKED_S)

    def _limit(self) -> None:
        # Somebody in the same cgroup uses up what is allowed, so that none is left for us.
        assert self.limit is not None
        self.limit.set(10)
        with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as greedy:
            self.limit.add(greedy.pid)
            time.sleep(LIMITED_S)
            greedy.kill()
        self.limit.set(None)

    def suffer(self, kind: str) -> None:
        """Stand still once, and see that it is known, with its cause and about its length."""
        stall, seconds, causes = self.stalls[kind]
        before = self.stalled_s()
        stall()
        seen: dict[str, float] = {}

        def is_seen() -> bool:
            after = self.stalled_s()
            seen.update({cause: round(after[cause] - before[cause], 3) for cause in after})
            return sum(seen[cause] for cause in causes) >= SEEN * seconds

        with contextlib.suppress(AssertionError):
            until(is_seen)
        assert is_seen(), f"{kind}: {seconds} s of {causes}, but seen were {seen}"

    def stalled_s(self) -> dict[str, float]:
        """Return how long it says that it stood still so far, by cause."""
        samples = parse_samples(get(self.http_port, "/metrics")[1])
        name = f"{self.prefix}_stall_seconds_total"
        return {str(cause): samples[name, f"cause={cause}"] for cause in Cause}


def mixed(kinds: list[str], count: int, rng: random.Random) -> list[str]:
    """Return so many kinds of stall, each as often as the others, in no order."""
    events = [kinds[number % len(kinds)] for number in range(count)]
    rng.shuffle(events)
    return events


def endure(client: ClientProcess, limit: CpuLimit | None, count: int, seed: str) -> Counter[str]:
    """Let a client stand still so many times; returns how its probes ended, by reason."""
    victim = Victim("client", client, limit)
    rng = random.Random(seed)
    client.probed(10)
    for kind in mixed(list(victim.stalls), count, rng):
        victim.suffer(kind)
        time.sleep(rng.uniform(0, 0.3))
    samples = client.samples()
    scheduled, settled = books_on_the_page(samples)
    assert scheduled == settled
    stopped = client.stop()  # where the books are looked at once more
    how = ("ok", "fail", "void", "missed")
    ends = Counter({end: stopped[f"twocans.probes.{end}"] for end in how})
    for (name, *labels), value in samples.items():
        if name in ("twocans_client_probe_reasons_total", "twocans_client_stalls_total"):
            ends[next(label for label in labels if label[:6] in ("reason", "cause="))] += int(value)
    return ends


@pytest.mark.slow
@pytest.mark.timeout(60 + 10 * STALLS)
def test_a_client_that_stands_still_blames_no_path(limits):
    seed = random.randrange(10**6)
    print(f"{STALLS} stalls of {CLIENTS} clients, seed {seed}")
    # With a time-out that every stall exceeds or comes near to.
    flags = ("--interval-s=0.04", "--timeout-s=1", "--exchanges=3", "--budget=1GB")
    counts = [STALLS // CLIENTS + (number < STALLS % CLIENTS) for number in range(CLIENTS)]
    with ServerProcess(*SOON, wrapper=HEALTHY) as server, contextlib.ExitStack() as stack:
        target = f"--target=127.0.0.1:{stack.enter_context(distant(server.port))}"
        clients = [
            stack.enter_context(ClientProcess(target, *flags, wrapper=STALLABLE)) for _ in counts
        ]
        caged = [limits(client.process.pid) for client in clients]
        seeds = [f"{seed}.{number}" for number in range(CLIENTS)]
        with ThreadPoolExecutor(CLIENTS) as pool:
            found = list(pool.map(endure, clients, caged, counts, seeds))
        server.signal()
        assert server.wait() == 0
    total = sum(found, Counter[str]())
    print(dict(total))
    assert total["fail"] == 0, total
    assert total["ok"] > 0
    if all(caged):
        assert total["cause=throttled"] > 0, total


@pytest.mark.slow
def test_a_server_that_lost_its_patience_with_us_is_not_to_blame():
    class Sleepy(Attempt):
        async def converse(self, talk: Conversation) -> None:
            await talk.greet()
            time.sleep(1.5)  # noqa: ASYNC251 - the stall
            await talk.exchange(bytes(64))

    with ServerProcess(*SOON, "--idle-s=0.5") as server:
        spec, plan = parse_spec(f"127.0.0.1:{server.port}"), Plan(30_000_000_000)
        (result,) = asyncio.run(make_probes(spec, plan, name="", attempt_type=Sleepy))
    assert result.reason is Reason.SELF_STALL
    assert result.detail.startswith(("closed_early after", "reset after"))


async def talk_until(over: asyncio.Event, address: Address) -> ProbeResult:
    """Be in one conversation all the time, an exchange every few milliseconds."""

    class Talking(Attempt):
        async def converse(self, talk: Conversation) -> None:
            await talk.greet()
            while not over.is_set():
                await talk.exchange(bytes(64))
                await asyncio.sleep(0.005)
            await talk.say_goodbye()

    with probing_tools() as tools:
        return await probe(address, Plan(60_000_000_000), tools, attempt_type=Talking)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stop", "wait", "work", "limit"])
def test_a_server_that_stands_still_is_never_taken_for_the_network(kind, limits):
    async def main(server: ServerProcess, victim: Victim) -> tuple[ProbeResult, list[ProbeResult]]:
        over = asyncio.Event()
        address = Address("127.0.0.1", server.port)
        talker = asyncio.create_task(talk_until(over, address))
        # Patient, for this is about where the time went. A limit's periods are 100 ms: visitors at
        # a simple share of that would come at the same few moments of each.
        async with probing(str(address), timeout_s=30.0, interval_s=0.037) as visitors:
            await eventually(lambda: len(visitors.results) >= 5)
            await asyncio.to_thread(victim.suffer, kind)
            totals = await visitors.stop()
        over.set()
        assert totals["fail"] == 0
        return await talker, visitors.results

    with ServerProcess(*SOON, wrapper=STALLABLE) as server:
        limit = limits(server.process.pid) if kind == "limit" else None
        if kind == "limit" and limit is None:
            pytest.skip("no CPU limit can be had here")
        talker, visitors = asyncio.run(main(server, Victim("server", server, limit)))
        server.signal()
        assert server.wait() == 0
    assert talker.outcome is Outcome.OK, talker.detail
    splits = [exchange.split for exchange in talker.exchanges]
    parts = [(split.network_ns / 1e9, split.server_ns / 1e9) for split in splits if split]
    # Our own share is left out: whatever it is, it is not the server's.
    long = [(network_s, server_s) for network_s, server_s in parts if network_s + server_s >= 0.05]
    print(
        f"{kind}: {len(long)} of {len(parts)} exchanges were long, (network, server) {max(long)} s"
    )
    assert len(parts) >= len(talker.exchanges) - 5, "the rest is no evidence"
    assert long
    assert [
        (network_s, server_s) for network_s, server_s in long if network_s * 10 > server_s
    ] == []
    # Who came meanwhile was accepted late, and its handshake took no longer for that.
    waited = [result for result in visitors if (result.accept_ns or 0) >= 50_000_000]
    assert waited
    assert all((result.handshake_ns or 0) * 10 < (result.accept_ns or 0) for result in waited)
