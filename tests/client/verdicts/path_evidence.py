"""Windows of paths that do something to segments or sizes, made to order."""

from random import Random
from typing import Any

from client.makers import exchange, good
from twocans_client.evidence.loss import Fates, Segments
from twocans_client.evidence.results import ProbeResult
from twocans_client.evidence.window import Window
from twocans_client.verdicts.case import Case
from twocans_client.verdicts.verdict import Finding

MS, SECOND = 1_000_000, 1_000_000_000
SMALL = Fates(sent=3, acks=2, syns=1, reordered=0, damaged=0, dsacks=0)
LARGE = SMALL._replace(sent=12, acks=6)
LARGE_BYTES = 12_000


class Tape:
    """Feeds a window with ten probes a second, each with what became of its segments."""

    def __init__(self) -> None:
        self.window = Window()
        self.at_ns = 0
        self.translated = False  # the server sees us at another port

    def probe(
        self, result: ProbeResult | None = None, *, is_large: bool = False, **of: Any
    ) -> None:
        """Feed one; ``forward`` and ``reverse`` replace fields of the usual fates."""
        usual = LARGE if is_large else SMALL
        forward, reverse = (usual._replace(**of.get(way, {})) for way in ("forward", "reverse"))
        self.at_ns += SECOND // 10
        if result is None:
            result = good(exchange(), at_ns=self.at_ns)
        if self.translated:
            result.local, result.seen_as = ("192.0.2.1", 40_000), ("192.0.2.9", 50_000)
        if is_large:
            result.payload_bytes = LARGE_BYTES
        self.window.probed(result, Segments(forward, reverse))

    def well(self, count: int) -> None:
        """Feed so many with which nothing is wrong."""
        for _ in range(count):
            self.probe()

    def lossy(self, count: int, share: float, way: str = "forward", *, seed: int = 1) -> None:
        """Feed so many of which each segment is lost with this chance."""
        random = Random(seed)
        for turn in range(count):
            is_large = turn % 10 == 0  # as while a loss may be chance
            usual = LARGE if is_large else SMALL
            lost = sum(random.random() < share for _ in range(usual.sent))
            acks_lost = sum(random.random() < share for _ in range(usual.acks))
            fates = {"sent": usual.sent + lost, "lost": lost, "resent": lost}
            of: dict[str, Any] = {way: {**fates, "acks_lost": acks_lost}}
            self.probe(is_large=is_large, **of)


def found(family: Any, window: Window) -> list[Finding]:
    """Return what one family finds in a window."""
    return list(family.judge(Case(window)))
