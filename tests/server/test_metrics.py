import asyncio
import dataclasses
import shutil
import subprocess

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from integration.harness import FramedClient, dial, echo, eventually, running
from twocans_core.kernel.tcpinfo import AcceptQueue
from twocans_server.connections.endings import Ending, Kind
from twocans_server.limits import Limits
from twocans_server.metrics import ServerCollector
from twocans_server.tally import Durations, ServerTally


def render(tally: ServerTally, queue: AcceptQueue | None = None, draining: bool = False) -> str:
    registry = CollectorRegistry()
    queue = queue or AcceptQueue(None, None)
    registry.register(ServerCollector(tally, lambda: queue, lambda: draining))
    return generate_latest(registry).decode()


def samples(text: str) -> dict[str, float]:
    """Return every sample by its name and labels, as they are written."""
    return {
        " ".join(
            [sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))]
        ): (sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def busy_tally() -> ServerTally:
    """Count something in every place."""
    tally = ServerTally()
    tally.open[Kind.PLAIN] += 2
    tally.accepted = 3
    for kind in Kind:
        for ending in Ending:
            tally.ended[kind, ending] += 4
    tally.exchanges = 5
    tally.damaged_requests = 6
    tally.damaged_frames = 3
    tally.bytes_received = 7
    tally.bytes_sent = 8
    tally.protocol_errors["too_big"] = 9
    tally.limit_hits["idle_s"] = 10
    tally.accept_errors = 11
    tally.resent_at_close = 13
    durations = tally.durations
    assert durations is not None
    for number, name in enumerate(Durations.__slots__, 1):
        getattr(durations, name).observe(number * 100_000_000)
    return tally


def test_everything_that_is_counted_is_exported():
    found = samples(render(busy_tally(), AcceptQueue(12, 4_096), draining=True))
    wanted = {
        "twocans_server_connections kind=plain": 2,
        "twocans_server_connections_accepted_total": 3,
        "twocans_server_connections_ended_total ending=busy kind=framed": 4,
        "twocans_server_exchanges_total": 5,
        "twocans_server_damaged_requests_total": 6,
        "twocans_server_damaged_frames_total": 3,
        "twocans_server_received_bytes_total": 7,
        "twocans_server_sent_bytes_total": 8,
        "twocans_server_protocol_errors_total reason=too_big": 9,
        "twocans_server_limit_hits_total limit=idle_s": 10,
        "twocans_server_accept_errors_total": 11,
        "twocans_server_resent_at_close_segments_total": 13,
        "twocans_server_accept_queue_connections": 12,
        "twocans_server_accept_queue_limit_connections": 4_096,
        "twocans_server_draining": 1,
        "twocans_server_wakeup_seconds_count": 1,
        "twocans_server_wakeup_seconds_bucket le=0.5": 0,
        "twocans_server_wakeup_seconds_bucket le=0.95": 1,
        **{
            f"twocans_server_{name}_seconds_sum": number / 10
            for number, name in enumerate(Durations.__slots__, 1)
        },
    }
    assert {name: found.get(name) for name in wanted} == wanted


def test_every_count_of_a_tally_has_a_metric():
    before = samples(render(ServerTally()))
    for name in vars(ServerTally()):
        tally = ServerTally()
        value = getattr(tally, name)
        if isinstance(value, int):
            setattr(tally, name, 1)
        elif isinstance(value, Durations):
            continue
        else:
            value[("new", "left") if name == "ended" else "new"] += 1
        assert samples(render(tally)) != before, f"{name} is not exported"


@pytest.mark.parametrize("name", Durations.__slots__)
def test_every_duration_has_a_histogram_of_its_name(name):
    tally = ServerTally()
    getattr(tally.durations, name).observe(1)
    found = samples(render(tally))
    counted = {key for key, value in found.items() if key.endswith("_seconds_count") and value}
    assert counted == {f"twocans_server_{name}_seconds_count"}


def test_where_no_durations_are_kept_none_are_exported():
    assert "_seconds" not in render(ServerTally(durations=False))


def test_every_name_says_whose_it_is():
    families = list(text_string_to_metric_families(render(busy_tally())))
    assert families
    assert all(family.name.startswith("twocans_server_") for family in families)
    assert all(family.documentation.endswith(".") for family in families)


def test_the_series_that_alerts_are_made_from_begin_at_zero():
    found = samples(render(ServerTally()))
    for field in dataclasses.fields(Limits):
        assert found[f"twocans_server_limit_hits_total limit={field.name}"] == 0
    for kind in Kind:
        assert found[f"twocans_server_connections kind={kind}"] == 0
    assert found["twocans_server_connections_ended_total ending=done kind=framed"] == 0


def test_an_accept_queue_that_is_not_known_is_left_out():
    assert "accept_queue" not in render(ServerTally(), AcceptQueue(None, None))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool here")
def test_promtool_finds_nothing_to_say():
    text = render(busy_tally(), AcceptQueue(1, 2))
    command = ["promtool", "check", "metrics"]
    check = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert (check.returncode, check.stdout + check.stderr) == (0, "")


def test_the_number_of_series_does_not_depend_on_who_comes():
    async def story():
        async with running() as server:
            port = server.address.port

            def visit() -> None:
                for number in range(1, 30):
                    with FramedClient(port, source=f"127.0.1.{number}") as client:
                        client.greet()
                        client.ask()
                        client.leave()
                    with dial(port, source=f"127.0.2.{number}") as sock:
                        echo(sock, b"x")

            await asyncio.to_thread(visit)
            await eventually(lambda: not sum(server.tally.open.values()))
            return len(samples(render(server.tally)))

    tally = ServerTally()
    assert asyncio.run(story()) == len(samples(render(tally)))
