import shutil
import subprocess
import time
from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from twocans_core import __version__
from twocans_core.histogram import Histogram
from twocans_core.host import cgroup, procfs
from twocans_core.host.stalls import Cause, StallWatch
from twocans_core.process.telemetry import SelfCollector, add_histogram, make_registry, politely


def samples(registry: CollectorRegistry) -> dict[str, float]:
    """Each sample's value by its line's start, as a scrape shows it."""
    text = generate_latest(registry).decode()
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


class Families(Collector):
    """Families of all sizes, some of them larger than one turn."""

    def collect(self) -> Iterable[Metric]:
        for size in (0, 1, 49, 50, 51, 250):
            family = GaugeMetricFamily(f"g{size}", 'Hostile \\ " \n', labels=["a", "b"])
            for number in range(size):
                family.add_metric([f'\\"\n{number}', ""], number / 3)
            yield family
        counter = CounterMetricFamily("c", "Many.", labels=["n"])
        histogram = HistogramMetricFamily("h_seconds", "Many.", labels=["n"])
        for number in range(60):
            counter.add_metric([str(number)], number)
            add_histogram(histogram, [str(number)], Histogram())
        yield counter
        yield histogram


class Polite(Families):
    def collect(self) -> Iterable[Metric]:
        return politely(super().collect())


@pytest.mark.parametrize("render", [generate_latest, generate_openmetrics])
def test_politeness_changes_no_byte(render):
    plain, polite = CollectorRegistry(), CollectorRegistry()
    plain.register(Families())
    polite.register(Polite())
    assert render(polite) == render(plain)


def test_politeness_yields_after_every_ten_samples(monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    family = GaugeMetricFamily("g", "Many.", labels=["n"])
    for number in range(250):
        family.add_metric([str(number)], number)
    (polite,) = politely([family])
    iterator = iter(polite.samples)
    seen = []
    for _ in range(250):
        next(iterator)
        seen.append(len(pauses))
    assert seen == [1 + number // 10 for number in range(250)]
    assert all(0 < pause < 0.001 for pause in pauses)


def test_small_families_are_left_alone():
    family = GaugeMetricFamily("g", "Few.", value=1)
    (same,) = politely([family])
    assert type(same.samples) is list


def test_a_histogram_is_cumulative_and_in_seconds():
    histogram = Histogram((0.001, 1.0))
    for ns in (500_000, 1_000_000, 2_000_000, 3_000_000_000):
        histogram.observe(ns)
    family = HistogramMetricFamily("h_seconds", "How long.", labels=["phase"])
    add_histogram(family, ["connect"], histogram)
    values = [(s.name, s.labels.get("le"), s.value) for s in family.samples]
    assert values == [
        ("h_seconds_bucket", "0.001", 2),
        ("h_seconds_bucket", "1.0", 3),
        ("h_seconds_bucket", "+Inf", 4),
        ("h_seconds_count", None, 4),
        ("h_seconds_sum", None, pytest.approx(3.0035)),
    ]
    assert all(sample.labels["phase"] == "connect" for sample in family.samples)


class Logs:
    """What a ``LogPipe`` is to a collector."""

    dropped = 7


def test_a_can_exports_what_it_knows_of_itself(monkeypatch):
    monkeypatch.setattr(cgroup, "throttling", lambda: cgroup.Throttling(4, 1.5))
    monkeypatch.setattr(
        procfs, "listen_counters", lambda: {"ListenOverflows": 22, "ListenDrops": 333}
    )
    stalls = StallWatch()
    stalls.lags.observe(3_000_000)
    stalls.counts[Cause.STOPPED] = 2
    stalls.ns[Cause.STOPPED] = 1_500_000_000
    monkeypatch.setattr(stalls, "run_delay_ns", lambda: 2_500_000_000)
    found = samples(make_registry(SelfCollector("server", stalls, Logs(), {})))  # type: ignore[arg-type]
    assert found[f'twocans_server_build_info{{version="{__version__}"}}'] == 1
    assert found['twocans_server_loop_lag_seconds_bucket{le="0.002"}'] == 0
    assert found['twocans_server_loop_lag_seconds_bucket{le="0.005"}'] == 1
    assert found["twocans_server_loop_lag_seconds_sum"] == pytest.approx(0.003)
    assert found['twocans_server_stalls_total{cause="stopped"}'] == 2
    assert found['twocans_server_stall_seconds_total{cause="stopped"}'] == 1.5
    assert found["twocans_server_run_delay_seconds_total"] == 2.5
    assert found["twocans_server_log_dropped_total"] == 7
    assert found["twocans_server_cpu_throttled_periods_total"] == 4
    assert found["twocans_server_cpu_throttled_seconds_total"] == 1.5
    assert found["twocans_server_listen_overflows_total"] == 22
    assert found["twocans_server_listen_drops_total"] == 333
    assert found["process_open_fds"] > 0


def test_what_the_kernel_does_not_show_is_left_out(monkeypatch):
    monkeypatch.setattr(cgroup, "throttling", lambda: None)
    monkeypatch.setattr(procfs, "listen_counters", lambda: None)
    stalls = StallWatch()
    stalls.stop()  # nothing is read of the kernel any more
    found = samples(make_registry(SelfCollector("client", stalls, None, {})))
    absent = ("throttled_", "listen_", "run_delay_")
    assert not [name for name in found for word in absent if word in name]
    assert found["twocans_client_log_dropped_total"] == 0


@pytest.mark.parametrize("name", ["ListenOverflows", "ListenDrops"])
def test_a_counter_that_the_kernel_does_not_show_is_left_out_alone(monkeypatch, name):
    monkeypatch.setattr(procfs, "listen_counters", lambda: {name: 5})
    found = samples(make_registry(SelfCollector("client", StallWatch(), None, {})))
    assert [value for key, value in found.items() if "_listen_" in key] == [5]


def test_every_cause_starts_at_nothing():
    found = samples(make_registry(SelfCollector("client", StallWatch(), None, {})))
    for name in ("stalls", "stall_seconds"):
        values = {found[f'twocans_client_{name}_total{{cause="{cause}"}}'] for cause in Cause}
        assert values == {0}


def test_there_are_no_created_series():
    text = generate_openmetrics(make_registry(SelfCollector("server", StallWatch(), None, {})))
    assert b"_created" not in text


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool to check metrics with")
@pytest.mark.parametrize("can", ["server", "client"])
def test_promtool_has_no_complaint(can, monkeypatch):
    monkeypatch.setattr(cgroup, "throttling", lambda: cgroup.Throttling(4, 1.5))
    text = generate_latest(make_registry(SelfCollector(can, StallWatch(), None, {})))
    ours = b"".join(
        line
        for line in text.splitlines(keepends=True)
        if line.removeprefix(b"# HELP ").removeprefix(b"# TYPE ").startswith(b"twocans_")
    )
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=ours, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
    assert len(list(text_string_to_metric_families(ours.decode()))) >= 5
