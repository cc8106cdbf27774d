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
    "accept_delay": "From a greeting's kernel receive timestamp to the return of accept() for its "
    "connection; 0 if accept() returned first.",
    "wakeup": "From a request's kernel receive timestamp to our read.",
    "application": "From our read of a request until just before we send its reply.",
    "application_stall": "The part of the application time during which our thread did not run.",
    "send": "From just before we send a reply to its kernel transmit timestamp.",
    "residence": "From a request's kernel receive timestamp to its reply's kernel transmit "
    "timestamp: wakeup, application and send.",
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
            "Open connections, by kind.",
            ["kind"],
            {(kind,): value for kind, value in dict(tally.open).items()},
        )
        yield _counter("connections_accepted", "Connections accepted.", tally.accepted)
        yield _by(
            CounterMetricFamily,
            "connections_ended",
            "Connections ended, by kind and ending. framed and done: a completed session.",
            ["kind", "ending"],
            tally.ended,
        )
        yield _counter("exchanges", "Requests answered.", tally.exchanges)
        yield _counter(
            "testimonies",
            "Questions answered about what was seen of connections and of this host.",
            tally.testimonies,
        )
        yield _counter(
            "damaged_requests",
            "Requests whose payload did not match its CRC-32: damaged in the forward direction.",
            tally.damaged_requests,
        )
        yield _counter(
            "damaged_frames",
            "Connections closed because a header or a body did not match its CRC-32: damaged in "
            "the forward direction.",
            tally.damaged_frames,
        )
        yield _counter(
            "received_bytes", "Bytes received on the measured port.", tally.bytes_received
        )
        yield _counter("sent_bytes", "Bytes sent on the measured port.", tally.bytes_sent)
        yield _by(
            CounterMetricFamily,
            "protocol_errors",
            "Connections closed because of a protocol error, by reason; from_client: the client "
            "reported that we broke the protocol.",
            ["reason"],
            {(reason,): value for reason, value in dict(tally.protocol_errors).items()},
        )
        yield _by(
            CounterMetricFamily,
            "limit_hits",
            "Times that a limit was reached, by limit. docs/configuration.md describes each.",
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
            "Segments that our kernel sent again after the FOLLOW_UP had reported its counter: "
            "the FOLLOW_UP and the FIN. No client learns of them, so no account of loss includes "
            "them.",
            tally.resent_at_close,
        )
        queue = self._accept_queue()
        if queue.length is not None and queue.limit is not None:
            yield _gauge(
                "accept_queue_connections", "Connections in the accept queue.", queue.length
            )
            yield _gauge(
                "accept_queue_limit_connections",
                "Length of the accept queue; connections beyond it are dropped, and their clients "
                "wait or time out.",
                queue.limit,
            )
        yield _gauge(
            "draining", "1 while the server is about to stop, else 0.", int(self._is_draining())
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
