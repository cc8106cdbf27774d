"""The server's Prometheus metrics: every name and help text. docs/metrics.md lists them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from twocans_core.kernel.tcpinfo import AcceptQueue
from twocans_core.process.telemetry import add_histogram

from .tally import ServerTally

__all__ = ["ServerCollector"]


_DURATIONS = {
    "accept_delay": "From a greeting's kernel receive stamp to accept()'s return of its "
    "connection; 0 where accept() returned first.",
    "wakeup": "From a request's kernel receive stamp to our read.",
    "application": "From our read of a request to right before we send its reply.",
    "application_stall": "Of that, the time in which our thread did not run.",
    "send": "From right before we send a reply to its kernel transmit stamp.",
    "residence": "From a request's kernel receive stamp to its reply's kernel transmit stamp: "
    "wakeup, application and send.",
}


class ServerCollector(Collector):
    """Render a tally at scrape.

    Args:
        tally: What is counted.
        accept_queue: Asked at each scrape.
        is_draining: Likewise.
    """

    def __init__(
        self,
        tally: ServerTally,
        accept_queue: Callable[[], AcceptQueue],
        is_draining: Callable[[], bool],
    ) -> None:
        self._tally = tally
        self._accept_queue = accept_queue
        self._is_draining = is_draining

    def collect(self) -> Iterable[Metric]:
        tally = self._tally
        yield _by(
            GaugeMetricFamily,
            "connections",
            "Connections open now, by what they turned out to be.",
            ["kind"],
            {(kind,): value for kind, value in dict(tally.open).items()},
        )
        yield _counter("connections_accepted", "Connections accepted.", tally.accepted)
        yield _by(
            CounterMetricFamily,
            "connections_ended",
            "Connections ended. kind framed with ending done is a completed session.",
            ["kind", "ending"],
            tally.ended,
        )
        yield _counter("exchanges", "Requests answered.", tally.exchanges)
        yield _counter(
            "damaged_requests",
            "Requests whose payload did not fit its CRC-32: damaged on the way here.",
            tally.damaged_requests,
        )
        yield _counter(
            "damaged_frames",
            "Connections closed because a header or a body did not fit its CRC-32: damaged on the "
            "way here.",
            tally.damaged_frames,
        )
        yield _counter(
            "received_bytes", "Bytes received on the measured port.", tally.bytes_received
        )
        yield _counter("sent_bytes", "Bytes sent on the measured port.", tally.bytes_sent)
        yield _by(
            CounterMetricFamily,
            "protocol_errors",
            "Connections closed for breaking the protocol; from_client: the client says we did.",
            ["reason"],
            {(reason,): value for reason, value in dict(tally.protocol_errors).items()},
        )
        yield _by(
            CounterMetricFamily,
            "limit_hits",
            "Times that a limit was reached. docs/configuration.md says what happens then.",
            ["limit"],
            {(limit,): value for limit, value in dict(tally.limit_hits).items()},
        )
        yield _counter(
            "accept_errors",
            "Times that accept() failed because the machine lacks descriptors or memory.",
            tally.accept_errors,
        )
        yield _counter(
            "resent_at_close_segments",
            "Segments that our kernel sent again after the FOLLOW_UP had told its count: the "
            "FOLLOW_UP and the FIN. No client hears of them, so they are in no account of loss.",
            tally.resent_at_close,
        )
        queue = self._accept_queue()
        if queue.length is not None and queue.limit is not None:
            yield _gauge(
                "accept_queue_connections", "Connections waiting to be accepted.", queue.length
            )
            yield _gauge(
                "accept_queue_limit_connections",
                "Connections that may wait; more are dropped, and their clients wait or time out.",
                queue.limit,
            )
        yield _gauge(
            "draining", "1 when the server is about to stop, else 0.", int(self._is_draining())
        )
        if tally.durations is not None:
            for name, text in _DURATIONS.items():
                family = HistogramMetricFamily(f"twocans_server_{name}_seconds", text)
                add_histogram(family, [], getattr(tally.durations, name))
                yield family


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"twocans_server_{name}", text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"twocans_server_{name}", text, value=value)


def _by(
    family_type: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    text: str,
    labels: list[str],
    values: Mapping[Any, int],
) -> Metric:
    family = family_type(f"twocans_server_{name}", text, labels=labels)
    # A copy: the loop may add a key while this thread iterates.
    for key, value in sorted(dict(values).items()):
        family.add_metric(key, value)
    return family
