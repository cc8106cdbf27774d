"""The metrics that each process exports of itself, and how a scrape leaves the loop alone."""

import gc
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from twocans_core import __version__
from twocans_core.histogram import Histogram
from twocans_core.host import cgroup, procfs
from twocans_core.host.stalls import StallWatch

from .jsonlog import LogPipe

__all__ = ["NO_COLLECTION", "SelfCollector", "add_histogram", "make_registry", "paced", "politely"]

T = TypeVar("T")

_ITEMS_A_TURN = 10
# Shorter than asyncio's own millisecond: long enough that the loop's thread gets the GIL.
_PAUSE_S = 0.000_05


class SelfCollector(Collector):
    """What a process exports of itself.

    Args:
        role: ``server`` or ``client``.
        stalls: Of its loop.
        logs: For the count of lines that were dropped; None where no pipe is used.
        about: Who it is: labels of ``_info``, read at each scrape.
    """

    def __init__(
        self, role: str, stalls: StallWatch, logs: LogPipe | None, about: Mapping[str, str]
    ) -> None:
        self._prefix = f"twocans_{role}"
        self._stalls = stalls
        self._logs = logs
        self._about = about

    def collect(self) -> Iterable[Metric]:
        prefix = self._prefix
        build = GaugeMetricFamily(
            f"{prefix}_build_info", "Always 1; the version is in the label.", labels=["version"]
        )
        build.add_metric([__version__], 1)
        yield build
        info = GaugeMetricFamily(f"{prefix}_info", "Always 1. This process, by its settings.")
        info.add_sample(info.name, dict(self._about), 1)
        yield info
        lag = HistogramMetricFamily(
            f"{prefix}_loop_lag_seconds",
            "Delay of the event loop's heartbeat, which is due every 20 to 50 ms.",
        )
        add_histogram(lag, [], self._stalls.lags)
        yield lag
        yield from self._of_stalls()
        for name, text, value in self._counters():
            if value is not None:
                yield CounterMetricFamily(f"{prefix}_{name}", text, value=value)

    def _of_stalls(self) -> Iterable[Metric]:
        prefix = self._prefix
        stalls = CounterMetricFamily(
            f"{prefix}_stalls",
            "Times that the event loop was late by 20 ms or more, by cause.",
            labels=["cause"],
        )
        seconds = CounterMetricFamily(
            f"{prefix}_stall_seconds", "Total duration of these stalls.", labels=["cause"]
        )
        for cause, count in self._stalls.counts.items():
            stalls.add_metric([cause], count)
            seconds.add_metric([cause], self._stalls.ns[cause] / 1e9)
        yield stalls
        yield seconds

    def _counters(self) -> Iterable[tuple[str, str, float | None]]:
        """Return names, help texts and values; None is not known here, and no series."""
        run_delay_ns = self._stalls.run_delay_ns()
        throttled = cgroup.throttling()
        listen = procfs.listen_counters() or {}
        yield (
            "run_delay_seconds",
            "Time that the event loop's thread was ready to run but waited for a CPU.",
            None if run_delay_ns is None else run_delay_ns / 1e9,
        )
        yield (
            "log_dropped",
            "Log lines lost: their reader did not keep up, or they could not be written.",
            self._logs.dropped if self._logs else 0,
        )
        yield (
            "cpu_throttled_periods",
            "Periods in which a CPU limit stopped this process's cgroup.",
            None if throttled is None else throttled.periods,
        )
        yield (
            "cpu_throttled_seconds",
            "Time that a CPU limit kept this process's cgroup from running.",
            None if throttled is None else throttled.seconds,
        )
        yield (
            "listen_overflows",
            "Connections dropped in this network namespace because an accept queue was full.",
            listen.get("ListenOverflows"),
        )
        yield (
            "listen_drops",
            "Connections dropped in this network namespace on a listening socket, for any cause.",
            listen.get("ListenDrops"),
        )


def make_registry(*collectors: Collector) -> CollectorRegistry:
    """Return a registry with these collectors and the process's own."""
    # Else each counter and histogram has one more series, of when it was made.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    for collector in collectors:
        registry.register(collector)
    return registry


def add_histogram(
    family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram
) -> None:
    """Add one of our histograms to a family."""
    buckets = []
    seen = 0
    names = (*(repr(float(bound)) for bound in histogram.bounds_s), "+Inf")
    for bound, count in zip(names, histogram.counts, strict=True):
        seen += count
        buckets.append((bound, seen))
    family.add_metric(labels, buckets, histogram.sum_ns / 1e9)


def paced(items: Iterable[T]) -> Iterator[T]:
    """Hand items out, with a pause after every ten in which the loop gets its turn.

    For threads that render a scrape: they hold the GIL, and a loop that waits for it measures
    the scrape instead of the path.
    """
    for index, item in enumerate(items):
        if index % _ITEMS_A_TURN == 0:
            time.sleep(_PAUSE_S)
        yield item


def politely(families: Iterable[Metric]) -> Iterator[Metric]:
    """Pace what prometheus_client does with families: about 7 us a line, all in one go."""
    for family in families:
        if len(family.samples) > _ITEMS_A_TURN:
            family.samples = _Paced(family.samples)
        yield family


class _Paced(list[Sample]):
    def __iter__(self) -> Iterator[Sample]:
        return paced(super().__iter__())


class _NoCollection:
    """Keep the cycle collector from running while somebody is inside.

    Rendering makes ten thousand small objects and no cycles. The collector would walk them
    again and again with the GIL held, some milliseconds each time, and the loop would wait.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            gc.disable()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                gc.enable()


NO_COLLECTION = _NoCollection()
