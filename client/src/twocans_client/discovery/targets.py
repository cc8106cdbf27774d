"""Where to probe: settings, a file, DNS and Kubernetes, kept current beside the probes.

Looking up a name never holds up a probe: see ``resolver``. Of a name's many servers not all are
probed: see ``neighbours``.
"""

import asyncio
import functools
import itertools
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import NamedTuple, Protocol

from twocans_core.clock import SYSTEM_CLOCK, Clock
from twocans_core.net.sockets import Address, has_route
from twocans_core.process.jsonlog import report_bug

from .crowds import Crowds
from .explorer import Explorer, Introduce
from .file_sd import TargetsFile
from .neighbours import Neighbourhood, Server
from .resolver import Resolution, Resolver, first_usable, of_family
from .slices import Endpoint
from .specs import Kind, Spec, Target, Who

__all__ = ["Found", "Policy", "Targets"]

log = logging.getLogger(__name__)

_BACKOFF_FIRST_S, _BACKOFF_LAST_S = 1.0, 15.0
# An address that was right is more likely right than the resolver is down for good.
_STALE_NS = 600 * 1_000_000_000
_FILE_POLL_S = 1.0
# An answer that took longer than this may be chance, so the name is looked up again soon, a few
# times; but once a minute at most, or clients would burden the resolver most while it is slow.
_LATE_NS = 100_000_000
_AGAIN_S, _AGAIN_AT_MOST = 1.0, 4
_AGAIN_EVERY_NS = 60_000_000_000


class _Watching(Protocol):
    async def run(self) -> None: ...


class MakeWatch(Protocol):
    """Make a watch of a Service; ``endpointslices.Watch``, or a test's fake."""

    def __call__(
        self,
        service: str,
        *,
        port: int,
        on_change: Callable[[list[Endpoint]], None],
        on_problem: Callable[[str], None],
    ) -> _Watching: ...


class Policy(NamedTuple):
    """How many to probe, and how fast to find them.

    Attributes:
        interval_s: Seconds between two look-ups of one name, plus or minus a fifth.
        explore_per_s: New addresses greeted a second.
        max_paths: Targets beyond it are left out.
        neighbourhood: Makes one, empty, for a name and an address family.
        family: Which of a Service's addresses to take, as the setting says.
    """

    interval_s: float
    explore_per_s: float
    max_paths: int
    neighbourhood: Callable[[], Neighbourhood]
    family: str = "any"


class Found(NamedTuple):
    """What there is to probe.

    Attributes:
        targets: Those to probe.
        left_out: How many more there would be without ``max_paths``.
    """

    targets: list[Target]
    left_out: int


class Targets:
    """Keep the list of targets current until cancelled.

    Args:
        specs: From the settings.
        file: A file_sd file with more, or None.
        policy: How many, how fast.
        resolver: Looks names up.
        introduce: Greets an address.
        rng: For the jitter.
        changed: Called whenever the list has changed.
        resolved: Called after every look-up, and after every change that a watch told of.
        watch: Makes a watch of a Service's endpoints.
        watch_failed: Called with what keeps a watch from telling us anything.
        has_route: Tells whether our own kernel knows a way to an address.
        clock: Its ``mono_ns`` says how old an address is.

    Attributes:
        file: The file's targets, and what of it is not taken.
        crowds: The names with many servers.
        is_settled: Whether there are targets, and every name of theirs was looked up once.
    """

    def __init__(
        self,
        specs: Iterable[Spec],
        file: Path | None,
        policy: Policy,
        *,
        resolver: Resolver,
        introduce: Introduce,
        rng: Random,
        changed: Callable[[Found], None],
        resolved: Callable[[Spec, Resolution], None],
        watch: MakeWatch,
        watch_failed: Callable[[Spec, str], None],
        has_route: Callable[[Address], bool] = has_route,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._fixed = list(specs)
        self.file = TargetsFile(file)
        self._policy = policy
        self._resolver = resolver
        self._rng = rng
        self._changed = changed
        self._resolved = resolved
        self._make_watch = watch
        self._watch_failed = watch_failed
        self._clock = clock
        self._watched: dict[Spec, asyncio.Task[None]] = {}
        self._known: dict[Spec, list[Target]] = {}
        self._has_route = has_route
        self.crowds = Crowds(policy.neighbourhood, clock, has_route)
        self._announced: Found | None = None
        self._answered: set[str] = set()
        self.is_settled = False
        self._explorer = Explorer(
            self.crowds.neighbourhoods,
            introduce,
            per_s=policy.explore_per_s,
            learned=self._choose_all,
            rng=rng,
            clock=clock,
        )

    @property
    def discovered(self) -> dict[str, int]:
        """How many addresses each name with many servers has now."""
        return {
            spec.text: self.crowds.count(spec.text)
            for spec in self._known
            if spec.kind is not Kind.ONE and spec.literal is None
        }

    def saw(self, target: Target, who: Who, *, leaving: bool) -> None:
        """A probe was answered: who did, and whether it said that it stops."""
        if self.crowds.saw(target, who, leaving=leaving):
            self._choose_all()
            self._explorer.look()

    async def run(self) -> None:
        """Watch the file and the names."""
        explorer = asyncio.create_task(self._explorer.run())
        explorer.add_done_callback(report_bug)
        try:
            self._update()
            while True:
                if self.file.look():
                    self._update()
                await asyncio.sleep(_FILE_POLL_S)
        finally:
            tasks = [explorer, *self._watched.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _update(self) -> None:
        specs = list(dict.fromkeys([*self._fixed, *self.file.specs]))
        for gone in self._watched.keys() - set(specs):
            self._watched.pop(gone).cancel()
        # By their text: who is given other labels is still the same path.
        known = {spec.text: targets for spec, targets in self._known.items()}
        self._known = {
            spec: [target._replace(spec=spec) for target in known.get(spec.text, ())]
            for spec in specs
        }
        texts = {spec.text for spec in specs}
        self._answered &= texts
        self.crowds.keep(texts)
        for spec in specs:
            if spec.literal is not None:
                self._known[spec] = [Target(spec, spec.literal)]
            elif spec not in self._watched:
                work = self._watch if spec.kind is Kind.ENDPOINTSLICES else self._look_up
                self._watched[spec] = task = asyncio.create_task(work(spec))
                task.add_done_callback(report_bug)
        self._announce()

    def _announce(self) -> None:
        # Where not all may be probed, each name has its turn.
        turns = itertools.zip_longest(*self._known.values())
        targets = [target for turn in turns for target in turn if target is not None]
        left_out = max(0, len(targets) - self._policy.max_paths)
        found = Found(targets[: self._policy.max_paths], left_out)
        self.is_settled = bool(self._known) and all(
            spec.text in self._answered for spec in self._watched
        )
        if found == self._announced:
            return
        if left_out:
            fields = {"twocans.paths": len(targets), "twocans.max_paths": self._policy.max_paths}
            log.error("too_many_paths", extra={**fields, "limited": True})
        self._announced = found
        self._changed(found)

    async def _watch(self, spec: Spec) -> None:
        """Follow one Service forever. While the watch fails, the last good list stays."""

        def failed(problem: str) -> None:
            self._answered.add(spec.text)
            self.crowds.out_of_date(spec.text)
            self._watch_failed(spec, problem)
            self._announce()

        await self._make_watch(
            spec.host,
            port=spec.port,
            on_change=functools.partial(self._endpoints, spec),
            on_problem=failed,
        ).run()

    def _endpoints(self, spec: Spec, endpoints: list[Endpoint]) -> None:
        self._answered.add(spec.text)
        every = [one.address for one in endpoints]
        wanted = set(of_family(every, self._policy.family, self._has_route))
        self._resolved(spec, Resolution(tuple(every), None))
        self._crowd(spec, [_server(one) for one in endpoints if one.address in wanted])

    async def _look_up(self, spec: Spec) -> None:
        """Look one name up, again and again."""
        good_ns = failures = again = again_ns = 0
        slow = False
        while True:
            asked_ns = self._clock.mono_ns()
            found = await self._resolver.resolve(spec.host, spec.port, slow=slow)
            slow = found.slow
            self._resolved(spec, found)
            if found.problem is None:
                good_ns, failures = self._clock.mono_ns(), 0
                wait_s = self._policy.interval_s
                if (found.duration_ns or 0) > _LATE_NS and asked_ns >= again_ns:
                    again, again_ns = _AGAIN_AT_MOST, asked_ns + _AGAIN_EVERY_NS
                if again:
                    again, wait_s = again - 1, min(wait_s, _AGAIN_S)
            else:
                failures += 1
                # The exponent is bounded too: 2 ** 1024 is no float any more, and an outage of five
                # hours gets there.
                wait_s = min(_BACKOFF_FIRST_S * 2 ** min(failures - 1, 10), _BACKOFF_LAST_S)
            fresh = good_ns and self._clock.mono_ns() - good_ns < _STALE_NS
            # A failure is told (``_resolved``), but while the last good answer is fresh it changes
            # no target: a resolver that is down is no outage of the servers.
            if found.problem is None or not fresh:
                self._learn(spec, found, asked_ns)
            # Jitter: clients that a rollout started together do not go on asking the resolver
            # together.
            await asyncio.sleep(wait_s * self._rng.uniform(0.8, 1.2))

    def _learn(self, spec: Spec, found: Resolution, asked_ns: int) -> None:
        self._answered.add(spec.text)
        if found.problem is None and spec.kind is Kind.DNS:
            self._crowd(spec, [Server.at(address) for address in found.addresses], asked_ns)
            return
        if found.problem is not None:
            self.crowds.drop(spec.text)
            target = Target(spec, None, found.problem)
        else:
            # The resolver may rotate its answers. A server that is probed stays while it is there.
            now = next((target.address for target in self._known.get(spec, [])), None)
            first = first_usable(found.addresses, self._has_route)
            if now is not None and now in found.addresses:
                # Unless our own kernel has lost the route to it meanwhile and has one to another.
                is_lost = not self._has_route(now) and self._has_route(first)
                first = first if is_lost else now
            target = Target(spec, first)
        self._known[spec] = [target]
        self._announce()

    def _crowd(self, spec: Spec, servers: list[Server], told_ns: int | None = None) -> None:
        self.crowds.update(spec.text, servers, told_ns)
        self._explorer.look()
        self._known[spec] = self.crowds.choose(spec)
        self._announce()

    def _choose_all(self) -> None:
        crowded = [spec for spec in self._known if spec.text in self.crowds]
        if crowded:
            self._known |= {spec: self.crowds.choose(spec) for spec in crowded}
            self._announce()


def _server(endpoint: Endpoint) -> Server:
    """Return what a watch tells: whose node it knows needs no greeting."""
    if not endpoint.node:
        return Server.at(endpoint.address)
    return Server(endpoint.address, Who("", endpoint.node, endpoint.zone), endpoint.node)
