import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from client.far_end import SERVER, SPLIT, ended, target
from fakes import COUNTERS
from twocans_client.discovery.resolver import Resolution
from twocans_client.evidence.loss import Fates, Segments
from twocans_client.evidence.results import Reason
from twocans_client.export.metrics import ClientCollector
from twocans_client.export.snapshot import View
from twocans_client.paths.path import Path
from twocans_client.paths.tally import ClientTally
from twocans_client.verdicts import either_host
from twocans_client.verdicts.engine import AT_ONCE, KINDS, Verdict
from twocans_client.verdicts.verdict import Finding, Kind
from twocans_core.process.telemetry import make_registry
from twocans_core.protocol.messages import MAX_TEXT

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


class SameThread:
    """A loop that is only asked to call something soon, and does so at once."""

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        callback()


def collector_of(
    tally: ClientTally, paths: Callable[[], Iterable[Path]], loop: Any = None, **view: Any
) -> ClientCollector:
    return ClientCollector(
        tally,
        lambda: View(**{"zone": "", **view, "paths": list(paths())}),
        cast("AbstractEventLoop", loop or SameThread()),
    )


def render(
    tally: ClientTally, *paths: Path, zone: str = "here", all_of_it: bool = False, **view: Any
) -> str:
    collector = collector_of(tally, lambda: paths, zone=zone, **view)
    registry = make_registry(collector) if all_of_it else CollectorRegistry()
    if not all_of_it:
        registry.register(collector)
    return generate_latest(registry).decode()


def samples(text: str, name: str = "") -> dict[tuple[str, ...], float]:
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = (f"{key}={value}" for key, value in sorted(sample.labels.items()))
            if not name or sample.name == name:
                key = (sample.name, *labels)
                assert key not in found, f"{key} twice"
                found[key] = sample.value
    return found


def busy_path(text: str = "server:5000", **fields: Any) -> Path:
    """A path that has seen every reason there is."""
    path = Path(target(text), drain_grace_ns=0)
    for number, reason in enumerate(Reason):
        path.scheduled += 2
        path.missed += 1
        path.begin()
        result = ended(
            reason,
            number,
            connect_ns=5,
            handshake_ns=4,
            exchanges=[SPLIT],
            ended=COUNTERS,
            server_ended=COUNTERS,
            **fields,
        )
        path.record(result)
        path.measure(result)
    path.label = path.server.name
    return path


def stand(path: Path, *kinds: Kind) -> None:
    """Let these verdicts stand, and no others."""
    findings = [Finding(kind, kind.culprits[0], "proof") for kind in kinds]
    path.verdicts = {finding.key: Verdict(finding, 0, 0) for finding in findings}


@pytest.mark.parametrize("is_counted", [True, False])
def test_a_path_that_has_seen_everything_has_at_most_forty_series(is_counted):
    path = busy_path(server=SERVER)
    path.is_counted = is_counted
    stand(path, *list(KINDS.values())[:AT_ONCE])
    series = samples(render(ClientTally(), path))
    of_the_path = [key for key in series if "target=server:5000" in key]
    assert {reason for reason, _ in path.reasons} >= {"dns_failure", "other"}
    assert len(of_the_path) == (40 if is_counted else 38)


def test_a_verdict_has_a_series_while_it_stands():
    path = busy_path(server=SERVER)
    name = "twocans_client_path_verdict"
    assert samples(render(ClientTally(), path), name) == {}
    stand(path, either_host.CPU_THROTTLED)
    ((key, value),) = samples(render(ClientTally(), path), name).items()
    assert value == 1
    assert {"verdict=cpu_throttled", "culprit=client_host", "direction="} < set(key)
    stand(path, either_host.CPU_THROTTLED._replace(is_info=True))
    assert list(samples(render(ClientTally(), path), name).values()) == [0]
    stand(path)
    assert samples(render(ClientTally(), path), name) == {}


def test_retransmissions_are_told_where_loss_is_not():
    path = busy_path(server=SERVER)
    names = ("twocans_client_path_segments_total", "twocans_client_retransmitted_segments_total")
    assert [bool(samples(render(ClientTally(), path), name)) for name in names] == [True, False]
    path.is_counted = False
    assert [bool(samples(render(ClientTally(), path), name)) for name in names] == [False, True]


def test_the_books_add_up_on_the_page():
    path = busy_path(server=SERVER)
    path.scheduled += 1
    path.begin()
    series = samples(render(ClientTally(), path))
    sums: dict[str, float] = defaultdict(float)
    for (name, *_), value in series.items():
        sums[name] += value
    assert sums["twocans_client_probes_scheduled_total"] == (
        sums["twocans_client_probes_total"]
        + sums["twocans_client_probes_missed_total"]
        + sums["twocans_client_probes_in_flight"]
    )
    ok = (
        "twocans_client_probes_total",
        "family=4",
        "outcome=ok",
        "server=server",
        "target=server:5000",
    )
    assert (
        sums["twocans_client_probe_reasons_total"] + series[ok]
        == (sums["twocans_client_probes_total"])
    )


def test_promtool_has_nothing_to_say():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here")
    tally = ClientTally()
    tally.observe(ended(Reason.OK, connect_ns=5, exchanges=[SPLIT], server=SERVER), SERVER.zone)
    tally.observe_resolution(Resolution((), 5))
    labelled = busy_path("other:1", server=SERVER)
    labelled.target = target("other:1", "192.0.2.2", team="a", tier="b")
    text = render(tally, busy_path(server=SERVER), labelled, all_of_it=True)
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_labels_of_the_file_are_on_the_info_and_nowhere_else():
    path = Path(target("server:5000", "192.0.2.2", team="vermilion"), drain_grace_ns=0)
    text = render(ClientTally(), path)
    assert [key[0] for key in samples(text) if "label_team=vermilion" in key] == [
        "twocans_client_path_info"
    ]
    assert text.count("vermilion") == 1


def test_a_servers_address_is_no_label():
    path = Path(target("dns:server:5000", "192.0.2.77"), drain_grace_ns=0)
    assert "192.0.2.77" not in render(ClientTally(), path)


def test_both_families_of_one_server_are_series_of_their_own():
    paths = [
        Path(target("dns:server:5000", address), drain_grace_ns=0)
        for address in ("192.0.2.1", "2001:db8::1")
    ]
    for number, path in enumerate(paths):
        path.label = "server"
        path.scheduled += number
    series = samples(render(ClientTally(), *paths), "twocans_client_probes_scheduled_total")
    assert sorted(series.values()) == [0, 1]


def test_a_path_that_left_has_no_series():
    stays, leaves = busy_path("stays:1"), busy_path("leaves:1")
    paths = [stays, leaves]
    collector = collector_of(ClientTally(), lambda: paths)
    registry = CollectorRegistry()
    registry.register(collector)
    assert "leaves:1" in generate_latest(registry).decode()
    paths.remove(leaves)
    text = generate_latest(registry).decode()
    assert "leaves:1" not in text
    assert "stays:1" in text


def test_a_zone_that_no_path_is_in_any_more_goes_after_ten_minutes_and_may_come_back():
    def count(zone: str) -> None:
        tally.observe(ended(Reason.OK, connect_ns=5, exchanges=[SPLIT], server=SERVER), zone)
        tally.count_segments(Segments(Fates(sent=1), Fates()), zone)

    def shown() -> set[str]:
        page = samples(render(tally))
        return {label[12:] for key in page for label in key if label.startswith("target_zone=")}

    minute_ns = 60_000_000_000
    tally = ClientTally()
    tally.observe_resolution(Resolution((), 1))
    for zone in ("a", "b"):
        count(zone)
    for minute in range(5, 15):
        tally.keep_zones({"a"}, minute * minute_ns)
        assert shown() == {"", "a", "b"}
    tally.keep_zones({"a"}, 15 * minute_ns)
    assert shown() == {"", "a"}
    count("b")
    tally.keep_zones({"a", "b"}, 90 * minute_ns)
    tally.keep_zones({"a"}, 95 * minute_ns)
    tally.keep_zones({"a", "b"}, 104 * minute_ns)
    tally.keep_zones({"a"}, 106 * minute_ns)
    assert shown() == {"", "a", "b"}, "its time begins anew"
    for number in range(1_000):
        count(f"zone-{number}")
        tally.keep_zones({"a", f"zone-{number}"}, (200 + 20 * number) * minute_ns)
    assert len(shown()) == 4
    assert "other" not in shown(), "there is room for each"


def test_zones_that_servers_make_up_are_bounded():
    tally = ClientTally()
    for number in range(1_000):
        zone = f"{number}-" + "x" * (MAX_TEXT - 5)
        tally.observe(ended(Reason.OK, connect_ns=5, server=SERVER), zone)
    zones = {key[2] for key in tally.phases}
    assert len(zones) <= 65
    assert "other" in zones
    total = sum(sum(values.counts) for key, values in tally.phases.items() if key[0] == "connect")
    assert total == 1_000, "what is not named is counted all the same"


def test_a_hostile_name_is_only_a_label():
    name = 'a"} 1\\n# HELP \\'
    path = busy_path(server=SERVER._replace(name=name, node=name, zone=name))
    tally = ClientTally()
    tally.observe(ended(Reason.OK, server=SERVER), name)
    path.label = name
    series = samples(render(tally, path, zone=name))
    assert any(f"server={name}" in key for key in series)


def test_histograms_cumulate():
    tally = ClientTally()
    for ns in (10_000, 60_000, 60_000, 3_000_000, 50_000_000_000):
        tally.observe(ended(Reason.OK, connect_ns=ns), "")
    series = samples(render(tally))
    name = "twocans_client_phase_duration_seconds"
    labels = ("clock=user", "phase=connect", "source_zone=here", "target_zone=")
    buckets = {
        key[2]: value
        for key, value in series.items()
        if key[0] == f"{name}_bucket" and labels[1] in key
    }
    values = list(buckets.values())
    assert values == sorted(values)
    assert buckets["le=5e-05"] == 1
    assert buckets["le=0.0001"] == 3
    assert buckets["le=6.9"] == 4
    assert buckets["le=+Inf"] == series[(f"{name}_count", *labels)] == 5
    assert series[(f"{name}_sum", *labels)] == pytest.approx(50.00313)


def test_a_probe_that_started_before_its_slot_has_no_negative_delay():
    tally = ClientTally()
    early = ended(Reason.OK, 1_000)
    early.intended_ns = 2_000
    tally.observe(early, "")
    assert tally.start_delay.sum_ns == 0


def test_look_ups_are_counted_by_outcome_from_the_start():
    tally = ClientTally()
    name = "twocans_client_resolutions_total"
    assert set(samples(render(tally), name).values()) == {0}
    tally.observe_resolution(Resolution((), 5, Reason.DNS_FAILURE))
    tally.observe_resolution(Resolution((), None, Reason.DNS_TIMEOUT))
    tally.observe_resolution(Resolution((), 5))
    assert samples(render(tally), name) == {
        (name, "outcome=dns_failure"): 1,
        (name, "outcome=dns_timeout"): 1,
        (name, "outcome=ok"): 1,
        (name, "outcome=watch_failure"): 0,
    }
    resolve = [values for key, values in tally.phases.items() if key[0] == "resolve"]
    assert sum(resolve[0].counts) == 2, "what did not return took no known time"


def test_a_scrape_of_a_loop_that_does_not_turn_fails_and_does_not_hang(monkeypatch):
    class Stuck:
        def call_soon_threadsafe(self, _: Callable[[], None]) -> None:
            """Never."""

    monkeypatch.setattr("twocans_client.export.snapshot._SNAPSHOT_S", 0.05)
    registry = CollectorRegistry()
    registry.register(collector_of(ClientTally(), lambda: [], loop=Stuck()))
    with pytest.raises(TimeoutError):
        generate_latest(registry)


def test_what_was_found_and_what_is_left_of_it_is_on_the_page():
    path = busy_path()
    path.responder.name(path.server._replace(zone="zone-a"), 0)
    page = samples(
        render(
            ClientTally(),
            path,
            left_out=7,
            discovered={"dns:b": 0, "dns:a": 30},
            zones={"zone-b"},
        )
    )
    prefix = "twocans_client"
    assert page[f"{prefix}_paths_left_out",] == 7
    assert page[f"{prefix}_discovered_addresses", "target=dns:a"] == 30
    assert page[f"{prefix}_discovered_addresses", "target=dns:b"] == 0
    assert page[f"{prefix}_zones", "state=known"] == 2
    assert page[f"{prefix}_zones", "state=probed"] == 1
    introductions = samples(render(ClientTally()), f"{prefix}_introductions_total")
    assert {key[1] for key in introductions} == {"outcome=ok", "outcome=fail", "outcome=void"}


@pytest.mark.parametrize(
    ("reason", "tainted"),
    [(Reason.OK, "stopped"), (Reason.SELF_STALL, "stopped"), (Reason.CLOCK_STEP, "")],
)
def test_what_our_own_clock_says_of_a_spoiled_probe_is_not_counted(reason, tainted):
    tally = ClientTally()
    times: dict[str, Any] = {"connect_ns": 5, "handshake_ns": 4, "exchanges": [SPLIT]}
    tally.observe(ended(reason, tainted=tainted, dialled=True, **times), "")
    assert {clock for _, clock, _ in tally.phases} == {"kernel"}
    assert sum(tally.tainted.values()) == (reason is Reason.OK)


def test_fates_that_only_our_own_segments_have_are_of_the_way_there():
    tally = ClientTally()
    tally.count_segments(
        Segments(Fates(overflowed=1, unanswered=2, damaged=3), Fates(unsent=4)), "z"
    )
    fates = {}
    for (_, *labels), value in samples(render(tally), "twocans_client_segments_total").items():
        of = dict(label.split("=") for label in labels)
        fates[of["direction"], of["fate"]] = value
    forward = {fate for direction, fate in fates if direction == "forward"}
    reverse = {fate for direction, fate in fates if direction == "reverse"}
    # Nobody told of damage in the reverse direction.
    assert forward - reverse == {"overflowed", "unanswered", "damaged"}
    assert (fates["forward", "unanswered"], fates["reverse", "unsent"]) == (2, 4)
