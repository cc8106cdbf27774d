"""What is logged of one path: changes, not probes, and of a path that flaps not every one."""

import logging
from collections import Counter
from collections.abc import Iterable

from twocans_client.evidence.results import Outcome, ProbeResult, Reason
from twocans_client.paths.path import Change, Learnt, News, Path, PathState
from twocans_client.probes.endings import Ending
from twocans_client.verdicts.engine import Began, Confirmed, Ended

from .lines import LINE_NS, Allowance, names_of
from .verdict_lines import VerdictLines

__all__ = ["Journal", "OwnTrouble"]

log = logging.getLogger(__name__)

_EVENTS = {
    PathState.OK: "path_ok",
    PathState.FAILING: "path_failing",
    PathState.DRAINING: "path_draining",
}
# One that probes once a minute waits longer until it can tell luck from trouble.
_PROBES_A_PERIOD = 5


class Journal:
    """What is logged of one path; nothing else logs about it.

    Args:
        path: Whose it is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._said = path.state
        self._before: str = path.state
        self._changes = 0
        self._newest_change: Change | None = None
        self._allowance = Allowance()
        self._verdicts = VerdictLines(path)
        self._is_closed = False

    def added(self) -> None:
        """The path is new."""
        log.info("path_added", extra=names_of(self._path.target))

    def removed(self) -> None:
        """The path is no longer wanted."""
        self._verdicts.close()
        path = self._path
        fields = {
            "twocans.server.name": path.server.name,
            "twocans.server.node": path.server.node,
            "twocans.path.state": path.state,
        }
        log.info("path_removed", extra={**names_of(path.target), **fields})

    def replaces(self, before: str) -> None:
        """Another server answers at this address, and the path is its; ``before``: the old name."""
        fields = {
            "twocans.server.name": self._path.server.name,
            "twocans.server.name_before": before,
        }
        log.info("server_replaced", extra={**names_of(self._path.target), **fields})

    def renamed_often(self) -> None:
        """Its server was renamed too often, and is called ``other`` from now on."""
        names = names_of(self._path.target)
        log.warning("server_renamed_often", extra={**names, "limited": True})

    def close(self) -> None:
        """The path is no more: nothing is logged of it from now on."""
        self._verdicts.close()
        self._is_closed = True

    def missed(self, slots: int, lag_s: float) -> None:
        """No probe could begin in some slots; ``lag_s`` is how late the loop was, at worst."""
        fields = {"twocans.probes.missed": slots, "twocans.loop.lag_s": lag_s, "limited": True}
        log.warning("slots_missed", extra={**names_of(self._path.target), **fields})

    def over_budget(self, in_flight: int) -> None:
        """A slot was missed, since too many probes are under way: ``in_flight``, of all paths."""
        fields = {
            "twocans.probes.in_flight": in_flight,
            "twocans.path.in_flight": self._path.in_flight,
            "limited": True,
        }
        log.warning("in_flight_limit_reached", extra={**names_of(self._path.target), **fields})

    def over_bytes(self, bytes_per_hour: int) -> None:
        """A slot was missed, since the path had spent its budget: so many bytes an hour."""
        fields = {"twocans.path.budget": bytes_per_hour, "limited": True}
        log.warning("budget_spent", extra={**names_of(self._path.target), **fields})

    def take(self, news: News, now_ns: int) -> None:
        """Log what a result changed, or as much of it as is due.

        Args:
            news: What ``Path.record`` returned.
            now_ns: CLOCK_MONOTONIC.
        """
        if self._is_closed:
            return
        if news.heard.restarted:
            names = names_of(self._path.target)
            log.info("server_restarted", extra={**names, "limited": True})
        if news.heard.renamed_often:
            self.renamed_often()
        if news.change is not None:
            self._changes += 1
            self._newest_change = news.change
        self.write(now_ns)

    def learn(self, learnt: Learnt) -> None:
        """Log what measurements showed to stand between the two ends."""
        if self._is_closed:
            return
        path = self._path
        fields = {**names_of(path.target), "twocans.server.name": path.server.name, "limited": True}
        if learnt.proxy_changed:
            event = "proxy_recognised" if path.proxy.sign else "proxy_gone"
            log.info(event, extra={**fields, "twocans.proxy.sign": path.proxy.sign})
        for box in learnt.boxes:
            log.info("box_recognised", extra={**fields, "twocans.box": box})

    def judge(self, changes: Iterable[Began | Confirmed | Ended], now_ns: int) -> None:
        """Log the verdicts that began, were confirmed and ended, or as much of it as is due."""
        if not self._is_closed:
            self._verdicts.take(changes, now_ns)

    def note_held(self, ending: Ending) -> None:
        """The held connection ended."""
        if self._is_closed:
            return
        fields: dict[str, object] = {
            **names_of(self._path.target),
            **_why(ending.reason, ending.detail),
            "twocans.server.name": self._path.server.name,
            "twocans.held.lasted_s": (ending.lasted_ns or 0) / 1e9,
            "twocans.held.exchanges": ending.exchanges,
        }
        level = logging.INFO if ending.own else logging.WARNING
        log.log(level, "held_ended", extra={**fields, "limited": True})

    def write(self, now_ns: int) -> None:
        """Log how the path is, if that is not what was said last and a line is due.

        Call it again from time to time: what could not be said at once is said then.

        Args:
            now_ns: CLOCK_MONOTONIC.
        """
        path, told = self._path, self._path.told
        if told is None or self._is_closed:
            return
        now = told.reason if path.state is PathState.FAILING else path.state
        if path.state is self._said:
            self._before = now  # an outage may look like this and that, and is one
            return
        if not self._allowance.take(now_ns):
            return
        fields: dict[str, object] = {
            **names_of(path.target),
            **_why(told.reason, told.detail),
            "twocans.server.name": path.server.name,
            "twocans.path.before": self._before,
            "twocans.path.changes": self._changes,
            "twocans.probe.total_s": told.total_ns / 1e9,
        }
        if self._newest_change is not None:
            fields["twocans.path.before_probes"] = self._newest_change.probes
        if path.label != path.server.name:
            fields["twocans.path.series"] = path.label
        if told.local is not None:
            address, port = told.local
            fields |= {"network.local.address": address, "network.local.port": port}
        level = logging.WARNING if path.state is PathState.FAILING else logging.INFO
        log.log(level, _EVENTS[path.state], extra=fields)
        self._said, self._before = path.state, now
        self._changes = 0


class OwnTrouble:
    """What is logged of probes that measured nothing, of all paths together.

    One is nothing to speak of: it is counted. One in ten, period after period, is a client that
    is blind.
    """

    def __init__(self) -> None:
        self._began_ns = 0
        self._probes = 0
        self._voids: Counter[Reason] = Counter()

    def note(self, result: ProbeResult, now_ns: int) -> None:
        """A probe ended."""
        if not self._probes:
            self._began_ns = now_ns
        self._probes += 1
        if result.outcome is Outcome.VOID and result.reason is not Reason.SHUTDOWN:
            self._voids[result.reason] += 1
        if now_ns - self._began_ns < LINE_NS or self._probes < _PROBES_A_PERIOD:
            return
        voids = self._voids.total()
        if voids > 1 and voids * 10 >= self._probes:
            ((reason, _),) = self._voids.most_common(1)
            fields = {
                "error.type": reason,
                "twocans.probes.void": voids,
                "twocans.probes.ended": self._probes,
            }
            log.warning("probes_void", extra=fields)
        self._probes = 0
        self._voids.clear()


def _why(reason: Reason, detail: str) -> dict[str, object]:
    fields: dict[str, object] = {}
    if reason is not Reason.OK:
        fields["error.type"] = reason
    if detail:
        fields["error.message"] = detail
    return fields
