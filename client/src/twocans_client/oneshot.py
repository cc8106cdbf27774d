"""The one-shot commands' work: a few probes of one target, now."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Iterable
from random import Random

from twocans_client.discovery.resolver import Resolver, first_usable, lookup_of, retry_ns
from twocans_client.discovery.specs import Spec, Target
from twocans_client.evidence.blame import judge_probe
from twocans_client.evidence.results import ProbeResult, Reason, Unfinished
from twocans_client.evidence.rows import Resolved
from twocans_client.evidence.window import Window
from twocans_client.paths.path import Path
from twocans_client.probes.probe import Attempt, Plan, probe
from twocans_client.probes.schedule import Schedule
from twocans_client.probes.tools import Toolbox, Tools
from twocans_client.verdicts.engine import Ended, Engine, Standing, Verdict
from twocans_core.clock import SYSTEM_CLOCK, Clock, StepDetector
from twocans_core.host.stalls import StallWatch
from twocans_core.net.sockets import EVERYTHING, Address, Kernel

__all__ = ["make_probes", "verdicts_of"]

# The kernel switches receive timestamping on a moment after it is asked to.
_STAMPING_S = 0.05
# How often the evidence is looked at, as in the service.
_LOOK_NS = 1_000_000_000


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
    results: list[ProbeResult] | None = None,
) -> list[ProbeResult]:
    """Probe one target ``count`` times on a fixed grid, a slow probe delaying none after it.

    A name is looked up for each probe, and its first address is used that we have a route to: one
    attempt a probe, no second try at another address. As in the service, a probe in whose time our
    clock was stepped, or our host suspended, is void.

    Args:
        spec: The target.
        plan: What each probe is to do.
        name: Who we say that we are; ``""``: the host's name.
        count: How many.
        interval_s: Between two starts.
        attempt_type: How to talk.
        kernel: What to ask the kernel for.
        family: Of the addresses that may be used: ``any``, ``4`` or ``6``.
        clock: The clocks.
        results: Filled in as probes end, so that who cancels this has them: those under way
            as well, with the reason ``shutdown``.

    Returns:
        ``results``, in the order in which they ended.
    """
    results = [] if results is None else results
    loop = asyncio.get_running_loop()
    rng = Random()  # noqa: S311 - no secrets
    stalls, steps = StallWatch(clock, say=False), StepDetector(clock)
    name = name or os.uname().nodename
    toolbox = Toolbox(stalls, rng, name=name, clock=clock, kernel=kernel)
    resolver = Resolver(
        lookup_of(family), clock=clock, stalled_since=stalls.since, attention=stalls.attention
    )
    probes: list[asyncio.Task[None]] = []
    toolbox.start()
    try:
        await asyncio.sleep(_STAMPING_S)
        async for intended_ns in _slots(count, int(interval_s * 1e9), clock):
            result = ProbeResult(
                intended_ns=intended_ns,
                started_ns=clock.mono_ns(),
                started_real_ns=clock.real_ns(),
                path=spec.text,
            )
            work = _probe_once(result, spec, plan, toolbox.tools, resolver, attempt_type)
            probes.append(loop.create_task(_noted(work, result, results, steps)))
        await asyncio.gather(*probes)
        return results
    finally:
        for task in probes:
            task.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        toolbox.close()


def verdicts_of(spec: Spec, results: Iterable[ProbeResult]) -> list[Verdict]:
    """Return the verdicts of a few probes, in the order in which they were found.

    The evidence is looked at as it was once a second, and at the end: so a fault that was over
    before the last probe is among them, and one that was withdrawn is not.

    Args:
        spec: The target.
        results: Judged, in the order in which they ended.
    """
    path = Path(Target(spec, spec.literal), drain_grace_ns=0)
    window = Window()
    engine = Engine(window)
    found: Standing = {}
    looked_ns = 0
    for result in results:
        _feed(window, path, result)
        if result.ended_ns - looked_ns >= _LOOK_NS:
            looked_ns = result.ended_ns
            _look(engine, found)
    _look(engine, found)
    return list(found.values())


def _feed(window: Window, path: Path, result: ProbeResult) -> None:
    if result.reason is Reason.CLOCK_STEP:
        path.one_way.forget_clocks()
        window.own_steps.append(result.ended_ns)
    problem = result.reason if result.reason in (Reason.DNS_FAILURE, Reason.DNS_TIMEOUT) else None
    if result.resolve_ns is not None or problem is not None:
        reason = problem or Reason.OK
        at_ns, took_ns = result.ended_ns, result.resolve_ns
        window.resolved(Resolved(at_ns, took_ns, reason, result.detail, retry_ns()))
    path.begin()
    path.record(result)
    learnt = path.measure(result)
    if learnt.clock_steps:
        window.server_steps.append(result.ended_ns)
    window.growth = path.growth
    window.proxy_sign, window.boxes = path.proxy.sign, path.proxy.boxes
    window.probed(result, learnt.segments)


def _look(engine: Engine, found: Standing) -> None:
    for change in engine.look(engine.window.now_ns):
        if isinstance(change, Ended) and change.withdrawn:
            found.pop(change.verdict.finding.key, None)
    found |= engine.standing


async def _slots(count: int, interval_ns: int, clock: Clock) -> AsyncIterator[int]:
    """Wait for each slot of a fixed grid that begins now; yields when it was to start."""
    begun_ns = clock.mono_ns()
    # The first slot is now. A schedule leaves out slots up to its own "now": so that is a moment
    # ago.
    schedule = Schedule(interval_ns, begun_ns % interval_ns, begun_ns - 1)
    for _ in range(count):
        intended_ns = schedule.next_ns
        await asyncio.sleep(max(0, intended_ns - clock.mono_ns()) / 1e9)
        schedule.take(intended_ns)
        yield intended_ns


async def _noted(
    work: Awaitable[None], result: ProbeResult, results: list[ProbeResult], steps: StepDetector
) -> None:
    steps.check()  # what happened before is not this probe's
    try:
        await work
    except asyncio.CancelledError:
        result.reason = Reason.SHUTDOWN
        raise
    finally:
        steps.check()
        judge_probe(result, stepped=result.started_ns < steps.newest_ns)
        results.append(result)


async def _probe_once(
    result: ProbeResult,
    spec: Spec,
    plan: Plan,
    tools: Tools,
    resolver: Resolver,
    attempt_type: type[Attempt],
) -> None:
    address: Address | None = spec.literal
    try:
        if address is None:
            result.unfinished = Unfinished("resolve", 0)
            found = await resolver.resolve(spec.host, spec.port, timeout_s=plan.timeout_ns / 1e9)
            result.resolve_ns = found.duration_ns
            if found.duration_ns is not None:
                result.unfinished = None
            if found.problem is not None:
                result.reason, result.detail = found.problem, found.detail
                return
            address = first_usable(found.addresses)
            # One time-out for both: who waits for the answer waits for the look-up as well.
            plan = plan._replace(timeout_ns=max(1, plan.timeout_ns - (found.duration_ns or 0)))
        await probe(address, plan, tools, attempt_type=attempt_type, result=result)
    finally:
        result.ended_ns = result.ended_ns or tools.clock.mono_ns()
        if not result.dialled and result.unfinished is not None:
            result.unfinished = Unfinished("resolve", result.total_ns)
