"""The server's Prometheus metrics: every name and help text. docs/metrics.md lists them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from twocans_core.histogram import Histogram
from twocans_core.kernel.tcpinfo import AcceptQueue
from twocans_core.process.telemetry import add_histogram

from .limits import Limits

__all__ = ["Durations", "ServerCollector", "ServerTally"]


class Durations:
    """Where the time went at this end. Written on the loop only.

    Stamps are ns of CLOCK_REALTIME, named as in docs/protocol.md. Where one is missing, what is
    made from it is not observed; nor is what is negative, for then the clock was stepped.

    Attributes:
        accept_delay: From the kernel's receive stamp of a HELLO to accept()'s return; 0 where
            accept() returned first.
        wakeup: From the kernel's receive stamp of a request to our read of it (t2u - t2k).
        application: From there to right before we send its reply (t3u - t2u), stall included.
        application_stall: The share of that in which our thread did not run.
        send: From there to the reply's transmit stamp (t3k - t3u), known one exchange later.
        residence: From the first of these stamps to the last (t3k - t2k), likewise.
    """

    __slots__ = (
        *("accept_delay", "application", "application_stall", "residence", "send", "wakeup"),
    )

    def __init__(self) -> None:
        self.accept_delay = Histogram()
        self.wakeup = Histogram()
        self.application = Histogram()
        self.application_stall = Histogram()
        self.send = Histogram()
        self.residence = Histogram()

    def greeted(self, t2k: int | None, accepted_ns: int) -> None:
        """Observe a HELLO that is about to be answered."""
        if t2k is not None:
            self.accept_delay.observe(max(0, accepted_ns - t2k))

    def replying(self, t2k: int | None, t2u: int, t3u: int, stalled_ns: int | None) -> None:
        """Observe a reply that is about to be sent."""
        if t2k is not None and t2u >= t2k:
            self.wakeup.observe(t2u - t2k)
        if t3u >= t2u:
            self.application.observe(t3u - t2u)
            if stalled_ns is not None:
                self.application_stall.observe(stalled_ns)

    def left(self, t2k: int | None, t3u: int, t3k: int) -> None:
        """Observe a reply of which it is known now when it reached the network device."""
        if t3k >= t3u:
            self.send.observe(t3k - t3u)
        if t2k is not None and t3k >= t2k:
            self.residence.observe(t3k - t2k)


class ServerTally:
    """What the server counts, in plain numbers. Written on the loop only.

    Args:
        durations: Whether to keep them: what /metrics is for, and the dearest part of it.

    Attributes:
        open: Connections open now, by kind.
        accepted: Connections accepted.
        ended: Connections ended, by kind and ending.
        exchanges: Requests answered.
        damaged_requests: Requests whose payload did not fit its CRC-32.
        damaged_frames: Frames that did not fit theirs, payloads apart.
        bytes_received: On measured connections, protocol included.
        bytes_sent: Likewise; handed to the kernel or waiting to be.
        protocol_errors: By reason.
        limit_hits: By limit.
        accept_errors: accept() said that the machine lacks something.
        resent_at_close: Segments sent again after a session's last count was told.
        durations: Where the time went; None where nobody will ask.
    """

    def __init__(self, *, durations: bool = True) -> None:
        # A series that starts at 0 has a rate; a gap has none.
        self.open: Counter[str] = Counter(dict.fromkeys(("new", "plain", "framed"), 0))
        self.accepted = 0
        self.ended: Counter[tuple[str, str]] = Counter(
            {("framed", "done"): 0, ("plain", "done"): 0}
        )
        self.exchanges = 0
        self.damaged_requests = 0
        self.damaged_frames = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.protocol_errors: Counter[str] = Counter()
        self.limit_hits: Counter[str] = Counter(
            dict.fromkeys(("allowance", "memory", *(field.name for field in fields(Limits))), 0)
        )
        self.accept_errors = 0
        self.resent_at_close = 0
        self.durations = Durations() if durations else None


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
