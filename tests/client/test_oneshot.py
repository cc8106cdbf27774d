import asyncio
import time

from integration.harness import running
from integration.pair import closed_port, echo_rfc_862, serving
from twocans_client.oneshot import make_probes
from twocans_client.plain import PlainAttempt
from twocans_client.probe import Plan
from twocans_client.results import Reason
from twocans_client.specs import parse_spec

PLAN = Plan(2_000_000_000, exchanges=2, payload_bytes=64)


def test_as_many_probes_as_asked_for_on_a_fixed_grid():
    async def main():
        async with running() as server:
            spec = parse_spec(str(server.address))
            return await make_probes(spec, PLAN, name="me", count=5, interval_s=0.05)

    results = asyncio.run(main())
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
    async def main():
        async with running() as server:
            spec = parse_spec(f"localhost:{server.address.port}")
            return await make_probes(spec, PLAN, name="", count=2, interval_s=0.01)

    results = asyncio.run(main())
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


def test_a_plain_echo_needs_none_of_our_servers():
    async def main():
        async with serving(echo_rfc_862) as target:
            plan = PLAN._replace(payload=b"Hello")
            return await make_probes(parse_spec(target), plan, name="", attempt_type=PlainAttempt)

    (result,) = asyncio.run(main())
    assert (result.reason, result.reply) == (Reason.OK, b"Hello")
