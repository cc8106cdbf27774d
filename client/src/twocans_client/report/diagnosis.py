"""What the battery of ``diagnose`` found of one target, in plain values. No I/O.

``page`` says it to people and ``diagnosis_document`` to programs.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twocans_client.evidence.bulk import Load
from twocans_client.evidence.idle import Bracket
from twocans_client.evidence.intervals import wilson
from twocans_client.evidence.results import Outcome, ProbeResult, Reason
from twocans_client.evidence.rows import Resolved
from twocans_client.evidence.sizes import passed
from twocans_client.verdicts.engine import Verdict
from twocans_core.net.sockets import Address

from .summary import Report

if TYPE_CHECKING:
    from twocans_client.evidence.loss import Fates

__all__ = ["Diagnosis", "Examined", "examine"]

# A verdict tells of the newest evidence: what it explained earlier is forgotten.
_NEWEST = 8


@dataclass(kw_only=True)
class Examined:
    """One address of the target.

    Attributes:
        address: It; None while the name does not resolve.
        results: Of its probes, in the order in which they ended.
        report: What those amount to, but for those that we ended ourselves.
        verdicts: What is wrong: what stands first, each in the order in which it was found.
        standing: How many of them stand; the others were over by the end.
        mtu: The largest packet that is known to pass, forward and reverse; None: not known.
        testimonies: Answers of the witness.
        idle_good_ns: The longest silence that did no harm; 0: none was tried.
        idle_bad: Where an idle time-out lies; None: none showed.
    """

    address: Address | None
    results: list[ProbeResult]
    report: Report
    verdicts: list[Verdict] = field(default_factory=list)
    standing: int = 0
    mtu: tuple[int | None, int | None] = (None, None)
    testimonies: int = 0
    idle_good_ns: int = 0
    idle_bad: Bracket | None = None

    def stands(self, verdict: Verdict) -> bool:
        """Whether one of its verdicts held until the end."""
        return verdict in self.verdicts[: self.standing]


@dataclass(kw_only=True)
class Diagnosis:
    """All of it, or as much as there was time for.

    Attributes:
        target: As it was written.
        look_ups: Of its name.
        paths: Its addresses that were tried.
        no_route: Those that were not, as our own host knows no way to them.
        left_out: How many more there are that were not.
        speaks: Whether the far end speaks our protocol; None: nothing showed it.
        load: What the short load showed; None: there was none, and ``no_load`` says why.
        no_load: That.
        took_ns: How long it all took.
        is_whole: Whether it came to its end.
    """

    target: str
    look_ups: list[Resolved] = field(default_factory=list)
    paths: list[Examined] = field(default_factory=list)
    no_route: list[Address] = field(default_factory=list)
    left_out: int = 0
    speaks: bool | None = None
    load: Load | None = None
    no_load: str = "it was cut off before"
    took_ns: int = 0
    is_whole: bool = False

    @property
    def results(self) -> list[ProbeResult]:
        """Of all probes."""
        return [result for path in self.paths for result in path.results]

    @property
    def faults(self) -> list[tuple[Examined, Verdict]]:
        """What is wrong, with the address where it is: not what is only worth knowing.

        What stands is first.
        """
        found = [
            (path, verdict)
            for path in self.paths
            for verdict in path.verdicts
            if not verdict.finding.kind.is_info
        ]
        return sorted(found, key=lambda pair: not pair[0].stands(pair[1]))

    @property
    def notes(self) -> list[tuple[Examined, Verdict]]:
        """What is worth knowing."""
        return [
            (path, verdict)
            for path in self.paths
            for verdict in path.verdicts
            if verdict.finding.kind.is_info
        ]

    @property
    def exit_code(self) -> int:
        """As ``Report.exit_code`` of all paths together; and a fault is never good."""
        codes = {path.report.exit_code for path in self.paths}
        if not codes:
            return 3
        if codes == {2} or codes == {2, 3}:
            return 2
        worst = 1 if codes & {1, 2} else 0 if 0 in codes else 3
        return max(worst, 1) if self.faults else worst

    @property
    def state(self) -> str:
        """The exit code in a word."""
        return ("ok", "degraded", "fail", "unknown")[self.exit_code]

    @property
    def counts(self) -> dict[Outcome, int]:
        """Probes by outcome."""
        counts = dict.fromkeys(Outcome, 0)
        for path in self.paths:
            for outcome, count in path.report.outcomes.items():
                counts[outcome] += count
        return counts

    @property
    def unexplained(self) -> list[Examined]:
        """Paths of which most newest failures are explained by no verdict."""
        return [path for path in self.paths if _is_unexplained(path)]

    @property
    def under_way(self) -> int:
        """How many probes were when it ended: they are in no count."""
        return sum(result.reason is Reason.SHUTDOWN for result in self.results)

    @property
    def ports(self) -> set[int]:
        """Local ports whose connections came to be."""
        return {
            result.local[1]
            for result in self.results
            if result.local is not None and result.connect_ns is not None
        }

    def lost(self, way: str) -> tuple[int, int] | None:
        """Return how many segments of a direction were lost, and of how many; None: unknown.

        On all paths together, and under load.
        """
        accounts = [path.report.segments for path in self.paths if not path.report.unaccounted]
        if not accounts or len(accounts) < len(self.paths) or None in accounts:
            return None
        accounts += [] if self.load is None else [self.load.segments]
        fates: list[Fates] = [getattr(each, way) for each in accounts if each is not None]
        return sum(each.lost for each in fates), sum(each.sent for each in fates)

    def lost_at_most(self, way: str) -> float | None:
        """Return the share of a direction's segments that may be lost at most, at 95 %."""
        account = self.lost(way)
        if account is None or not account[1]:
            return None
        lost, sent = account
        return wilson(lost, sent)[1] if lost else min(1.0, 3 / sent)

    @property
    def network_ns(self) -> int | None:
        """Return the time in the network of an exchange, there and back: the median; None: unknown.

        Of the path where it is longest.
        """
        medians = [path.report.quantile("network", "kernel", 0.5) for path in self.paths]
        return max((each for each in medians if each is not None), default=None)

    def mtu(self, direction: int) -> int | None:
        """Return the largest packet known to pass, 0 forward and 1 reverse, on every path."""
        sizes = [size for path in self.paths if (size := path.mtu[direction]) is not None]
        return min(sizes, default=None)


def _is_unexplained(path: Examined) -> bool:
    # The window numbers probes in the order in which they ended.
    failed = [n for n, each in enumerate(path.results, 1) if each.outcome is Outcome.FAIL]
    explained: set[int] = set()
    for verdict in path.verdicts:
        explained |= verdict.finding.explains
    newest = failed[-_NEWEST:]
    return 2 * sum(number not in explained for number in newest) > len(newest)


def examine(address: Address | None, results: Iterable[ProbeResult]) -> Examined:
    """Return what an address' probes amount to; its verdicts are still to be added."""
    results = list(results)
    report = Report()
    for result in results:
        if result.reason is not Reason.SHUTDOWN:
            report.add(result)
    known = [sizes for result in results if (sizes := passed(result)) is not None]
    mtu = known[-1] if known else (None, None)
    return Examined(address=address, results=results, report=report, mtu=mtu)
