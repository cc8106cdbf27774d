import asyncio
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from client.far_end import SECOND_NS, SERVER, ended
from integration.harness import running
from integration.pair import closed_port, echo_rfc_862, serving
from twocans_client import oneshot
from twocans_client.discovery.resolver import Resolver
from twocans_client.discovery.specs import parse_spec
from twocans_client.evidence.results import Outcome, Reason
from twocans_client.oneshot import make_probes, verdicts_of
from twocans_client.probes.plain import PlainAttempt
from twocans_client.probes.probe import Attempt, Plan
from twocans_client.verdicts import either_host, engine, own_side
from twocans_client.verdicts.verdict import Confidence, Culprit, Finding
from twocans_core.clock import SYSTEM_CLOCK, Clock

PLAN = Plan(2_000_000_000, exchanges=2, payload_bytes=64)


def probes_of(host, **how):
    async def main():
        async with running() as server:
            spec = parse_spec(f"{host}:{server.address.port}")
            return await make_probes(spec, PLAN, name="me", **how)

    return asyncio.run(main())


def test_as_many_probes_as_asked_for_on_a_fixed_grid():
    results = probes_of("127.0.0.1", count=5, interval_s=0.05)
    assert [result.reason for result in results] == [Reason.OK] * 5
    intended = [result.intended_ns for result in results]
    assert [after - intended[0] for after in intended] == [n * 50_000_000 for n in range(5)]
    assert all(result.started_ns >= result.intended_ns for result in results)


def test_a_slow_probe_delays_none_after_it():
    async def mute(reader, writer):
        await reader.read()

    async def main():
        async with serving(mute) as target:
            plan = PLAN._replace(timeout_ns=500_000_000)
            begun = time.monotonic()
            results = await make_probes(
                parse_spec(target), plan, name="", count=10, interval_s=0.01
            )
            return results, time.monotonic() - begun

    results, took_s = asyncio.run(main())
    assert {result.reason for result in results} == {Reason.GREETING_TIMEOUT}
    assert took_s < 10 * 0.5, "one after the other"


def test_a_name_is_looked_up_for_each_probe_and_its_time_kept():
    results = probes_of("localhost", count=2, interval_s=0.01)
    assert {result.reason for result in results} <= {Reason.OK, Reason.REFUSED}
    assert all(result.resolve_ns > 0 for result in results)


def test_a_name_that_does_not_resolve_is_a_result():
    spec = parse_spec("name.invalid:5000")
    (result,) = asyncio.run(make_probes(spec, PLAN, name=""))
    assert result.reason in (Reason.DNS_FAILURE, Reason.DNS_TIMEOUT)
    assert result.connect_ns is None


def test_where_nobody_listens_the_answer_is_refused():
    spec = parse_spec(f"127.0.0.1:{closed_port()}")
    (result,) = asyncio.run(make_probes(spec, PLAN, name=""))
    assert result.reason is Reason.REFUSED
    assert str(result.address) == result.path == spec.text
    assert result.local is not None
    assert result.local[0] == "127.0.0.1"
    assert result.local[1] > 0


def test_a_plain_echo_needs_none_of_our_servers():
    async def main():
        async with serving(echo_rfc_862) as target:
            plan = PLAN._replace(payload=b"Hello")
            return await make_probes(parse_spec(target), plan, name="", attempt_type=PlainAttempt)

    (result,) = asyncio.run(main())
    assert (result.reason, result.reply) == (Reason.OK, b"Hello")


class SteppedMidway(Attempt):
    """A probe in whose midst the clocks do something."""

    step: Callable[[], None]

    async def converse(self, talk):
        self.step()
        await super().converse(talk)


@pytest.mark.parametrize(
    ("real_ns", "boot_ns"),
    [(3_600_000_000_000, 0), (-3_600_000_000_000, 0), (60_000_000_000, 60_000_000_000)],
    ids=["stepped forward", "stepped back", "suspended"],
)
def test_a_probe_in_whose_time_the_clocks_moved_is_void_and_the_next_is_not(real_ns, boot_ns):
    offset = {"real": 0, "boot": 0}
    clock = Clock(
        SYSTEM_CLOCK.mono_ns,
        lambda: SYSTEM_CLOCK.real_ns() + offset["real"],
        lambda: SYSTEM_CLOCK.boot_ns() + offset["boot"],
        *SYSTEM_CLOCK[3:],
    )

    class Attempted(SteppedMidway):
        def step(self):
            offset.update(real=real_ns, boot=boot_ns)

    first, *others = probes_of(
        "127.0.0.1", count=3, interval_s=0.2, attempt_type=Attempted, clock=clock
    )
    assert first.reason is Reason.CLOCK_STEP
    assert {result.reason for result in others} == {Reason.OK}


def test_clocks_that_move_between_two_probes_spoil_none():
    offset = 0
    clock = SYSTEM_CLOCK._replace(real_ns=lambda: SYSTEM_CLOCK.real_ns() + offset)

    def step():
        nonlocal offset
        offset += 3_600_000_000_000

    class ThenStepped(Attempt):
        async def run(self):
            await super().run()
            asyncio.get_running_loop().call_soon(step)  # once the probe is over

    results = probes_of("127.0.0.1", count=3, interval_s=0.2, attempt_type=ThenStepped, clock=clock)
    assert offset > 0
    assert [result.reason for result in results] == [Reason.OK] * 3


def test_a_look_up_that_we_slept_through_is_void(monkeypatch):
    gate = threading.Event()

    def silence(host, port):
        gate.wait(30)
        return []

    def make(_, **how):
        return Resolver(silence, **how)

    async def main():
        asyncio.get_running_loop().call_later(0.1, time.sleep, 0.3)
        plan = PLAN._replace(timeout_ns=500_000_000)
        return await make_probes(parse_spec("name:5000"), plan, name="me")

    monkeypatch.setattr(oneshot, "Resolver", make)
    (result,) = asyncio.run(main())
    gate.set()
    assert result.reason is Reason.SELF_STALL
    assert result.detail.startswith("dns_timeout after we stood still")


def test_a_stall_of_ours_is_told_in_the_result_and_not_on_stderr(caplog):
    class Attempted(SteppedMidway):
        def step(self):
            time.sleep(0.1)

    async def main():
        async with running() as server:
            # The server shares this loop, and says so itself.
            server._stalls.stop()
            spec = parse_spec(str(server.address))
            return await make_probes(spec, PLAN, name="me", attempt_type=Attempted)

    (result,) = asyncio.run(main())
    assert result.outcome is Outcome.OK
    assert result.tainted
    assert result.worst_lag_ns >= 70_000_000
    ours = [record for record in caplog.records if not record.name.startswith("twocans_server")]
    assert [record.msg for record in ours] == []


def named(*results):
    return [each.finding.kind.name for each in verdicts_of(parse_spec("server:5000"), results)]


def test_a_few_probes_have_the_verdicts_that_the_service_would_draw():
    good = [ended(Reason.OK, number * SECOND_NS, server=SERVER) for number in range(5)]
    assert named(*good) == []
    bad = [ended(Reason.NO_PORTS, number * SECOND_NS, dialled=True) for number in range(5)]
    (verdict,) = verdicts_of(parse_spec("server:5000"), bad)
    assert verdict.finding.kind.name == "local_ports_exhausted"
    assert "5 probes" in verdict.finding.proof, "the newest proof"


def test_a_fault_that_was_over_before_the_last_probe_is_named():
    bad = [ended(Reason.NO_PORTS, number * SECOND_NS, dialled=True) for number in range(3)]
    good = [ended(Reason.OK, number * SECOND_NS, server=SERVER) for number in range(3, 200)]
    assert named(*bad, *good) == ["local_ports_exhausted"]


def test_a_clock_that_was_stepped_is_named():
    results = [ended(Reason.CLOCK_STEP, SECOND_NS, dialled=True)]
    assert named(*results) == ["clock_step"]


def test_a_verdict_that_was_withdrawn_is_not_told(monkeypatch):
    def judge(case):
        is_early = len(case.window.probes) < 3
        finding = Finding(own_side.CLOCK_STEP, Culprit.CLOCK, "", explains={1})
        if is_early:
            yield finding._replace(confidence=Confidence.PROVISIONAL)
        else:
            yield finding._replace(kind=either_host.CPU_THROTTLED, confidence=Confidence.PROVEN)

    monkeypatch.setattr(engine, "FAMILIES", (SimpleNamespace(judge=judge),))
    results = [ended(Reason.RESET, number * SECOND_NS) for number in range(5)]
    assert named(*results[:2]) == ["clock_step"]
    assert named(*results) == ["cpu_throttled"]
