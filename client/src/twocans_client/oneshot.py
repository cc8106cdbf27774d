"""The one-shot commands' work: a few probes of one target, now."""

import asyncio
import functools
import os
from collections.abc import Awaitable
from random import Random

from twocans_core import __version__
from twocans_core.clock import SYSTEM_CLOCK, Clock, StepDetector
from twocans_core.messages import Identity
from twocans_core.poller import Poller
from twocans_core.procfs import HostWatch
from twocans_core.sockets import EVERYTHING, Address, Kernel, open_keeper
from twocans_core.stalls import StallWatch
from twocans_core.streams import connect

from .probe import Attempt, Plan, Tools, probe
from .resolver import Resolver, first_usable, lookup_of
from .results import ProbeResult, Reason
from .schedule import Schedule
from .specs import Spec

__all__ = ["make_probes"]

# The kernel switches receive stamping on a moment after it is asked to.
_STAMPING_S = 0.05


async def make_probes(
    spec: Spec,
    plan: Plan,
    *,
    name: str,
    count: int = 1,
    interval_s: float = 1.0,
    attempt_type: type[Attempt] = Attempt,
    kernel: Kernel = EVERYTHING,
    family: str = "any",
    clock: Clock = SYSTEM_CLOCK,
) -> list[ProbeResult]:
    """Probe one target ``count`` times on a fixed grid, a slow probe delaying none after it.

    A name is looked up for each probe, and its first address is used that we have a route to: one
    attempt a probe, no second try at another address. As in the service, a probe in whose time our
    clock was stepped, or our host suspended, is void.
    """
    loop = asyncio.get_running_loop()
    poller, rng = Poller(loop), Random()  # noqa: S311 - no secrets
    stalls, steps = StallWatch(clock, say=False), StepDetector(clock)
    identity = Identity(os.urandom(16), name or os.uname().nodename, version=__version__)
    dial = functools.partial(connect, poller=poller, clock=clock, kernel=kernel)
    host = HostWatch(clock.mono_ns)
    tools = Tools(dial, identity, rng, stalls.since, clock, stalls.attention, host)
    resolver = Resolver(
        lookup_of(family), clock=clock, stalled_since=stalls.since, attention=stalls.attention
    )
    close_keeper = open_keeper() if kernel.stamps else None
    stalls.start()
    try:
        await asyncio.sleep(_STAMPING_S)
        begun_ns = clock.mono_ns()
        interval_ns = int(interval_s * 1e9)
        schedule = Schedule(interval_ns, begun_ns % interval_ns, begun_ns - 1)
        probes = []
        for _ in range(count):
            intended_ns = schedule.next_ns
            await asyncio.sleep(max(0, intended_ns - clock.mono_ns()) / 1e9)
            schedule.take(intended_ns)
            work = _probe_once(spec, plan, tools, resolver, intended_ns, attempt_type)
            probes.append(loop.create_task(_unless_stepped(work, steps)))
        return list(await asyncio.gather(*probes))
    finally:
        stalls.stop()
        poller.close()
        if close_keeper is not None:
            close_keeper()


async def _unless_stepped(work: Awaitable[ProbeResult], steps: StepDetector) -> ProbeResult:
    steps.check()  # what happened before is not this probe's
    result = await work
    steps.check()
    if result.started_ns < steps.newest_ns:
        result.reason = Reason.CLOCK_STEP
    return result


async def _probe_once(
    spec: Spec,
    plan: Plan,
    tools: Tools,
    resolver: Resolver,
    intended_ns: int,
    attempt_type: type[Attempt],
) -> ProbeResult:
    address: Address | None = spec.literal
    resolve_ns = None
    if address is None:
        started_ns, started_real_ns = tools.clock.mono_ns(), tools.clock.real_ns()
        found = await resolver.resolve(spec.host, spec.port, timeout_s=plan.timeout_ns / 1e9)
        resolve_ns = found.duration_ns
        if found.problem is not None:
            return ProbeResult(
                intended_ns=intended_ns,
                started_ns=started_ns,
                started_real_ns=started_real_ns,
                ended_ns=tools.clock.mono_ns(),
                reason=found.problem,
                detail=found.detail,
            )
        address = first_usable(found.addresses)
        plan = plan._replace(timeout_ns=max(1, plan.timeout_ns - (resolve_ns or 0)))
    result = await probe(address, plan, tools, intended_ns=intended_ns, attempt_type=attempt_type)
    result.resolve_ns = resolve_ns
    return result
