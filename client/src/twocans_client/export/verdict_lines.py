"""What is logged of one path's verdicts: when each began, was confirmed and ended."""

import logging
from collections.abc import Iterable

from twocans_client.paths.path import Path
from twocans_client.verdicts.engine import Began, Confirmed, Ended, Verdict
from twocans_client.verdicts.verdict import Confidence, Culprit, Direction

from .lines import Allowance, names_of

__all__ = ["VerdictLines"]

log = logging.getLogger(__name__)


class VerdictLines:
    """Lines come in pairs: a verdict whose beginning was logged has its end logged, at any price.

    So no rate limit may take single lines. What is limited are beginnings, six at once and then one
    each ten seconds; of a verdict that ended before its turn came there is no line at all, and the
    next beginning has the number of those.

    Args:
        path: Whose they are.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._allowance = Allowance()
        self._said: dict[tuple[str, Culprit, Direction], Verdict] = {}
        self._unsaid = 0

    def take(self, changes: Iterable[Began | Confirmed | Ended], now_ns: int) -> None:
        """Log what changed, as far as it is due, and what stands and could not be said so far.

        Args:
            changes: What ``Engine.look`` returned.
            now_ns: CLOCK_MONOTONIC.
        """
        for change in changes:
            key = change.verdict.finding.key
            match change:
                case Ended(verdict, withdrawn):
                    if self._said.pop(key, None) is None:
                        self._unsaid += 1
                    else:
                        self._log_end(verdict, withdrawn=withdrawn)
                case Confirmed(verdict):
                    # Once: confidence may come and go.
                    if key in self._said and _is_provisional(self._said[key]):
                        self._said[key] = verdict
                        fields = _verdict_fields(self._path, verdict)
                        log.log(_level(verdict), "verdict_confirmed", extra=fields)
        for key, verdict in self._path.verdicts.items():
            if key not in self._said and self._allowance.take(now_ns):
                self._said[key] = verdict
                fields = _verdict_fields(self._path, verdict)
                if self._unsaid:
                    fields["twocans.suppressed"], self._unsaid = self._unsaid, 0
                log.log(_level(verdict), "verdict_began", extra=fields)

    def close(self) -> None:
        """The path is no more, and so are its verdicts."""
        for key, said in self._said.items():
            verdict = self._path.verdicts.get(key, said)
            self._log_end(verdict, withdrawn=_is_provisional(verdict))
        self._said.clear()

    def _log_end(self, verdict: Verdict, *, withdrawn: bool) -> None:
        fields = {
            **_verdict_fields(self._path, verdict),
            "twocans.verdict.lasted_s": (verdict.seen_ns - verdict.began_ns) / 1e9,
            "twocans.verdict.withdrawn": withdrawn,
        }
        log.info("verdict_ended", extra=fields)


def _verdict_fields(path: Path, verdict: Verdict) -> dict[str, object]:
    finding = verdict.finding
    return {
        **names_of(path.target),
        "twocans.server.name": path.server.name,
        "twocans.verdict.name": finding.kind.name,
        "twocans.verdict.culprit": finding.culprit,
        "twocans.verdict.direction": finding.direction,
        "twocans.verdict.confidence": finding.confidence,
        "twocans.verdict.proof": finding.proof,
        "twocans.verdict.figures": dict(finding.figures),
    }


def _level(verdict: Verdict) -> int:
    return logging.INFO if verdict.finding.kind.is_info else logging.WARNING


def _is_provisional(verdict: Verdict) -> bool:
    return verdict.finding.confidence is Confidence.PROVISIONAL
