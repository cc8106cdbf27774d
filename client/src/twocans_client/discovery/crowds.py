"""The names that have many servers, and which of these we probe.

Each name has a neighbourhood for each address family, since both are networks of their own. A
machine may have but one of them: a family that it has no route to is left out while nobody of it
ever answered, and the name's other family may do. One that is lost later is a fault, and shows.
"""

import logging
from collections.abc import Callable, Iterable, Set
from itertools import chain

from twocans_core.clock import Clock
from twocans_core.net.sockets import Address

from .neighbours import Neighbourhood, Server
from .resolver import TRIED
from .specs import Spec, Target, Who

__all__ = ["Crowds"]

log = logging.getLogger(__name__)

_FAMILIES = ("4", "6")


class Crowds:
    """The neighbourhoods of every name, by the text of its target.

    Args:
        make: Makes a neighbourhood, empty.
        clock: Its ``mono_ns`` is their time.
        has_route: Tells whether our own kernel knows a way to an address.
    """

    def __init__(
        self,
        make: Callable[[], Neighbourhood],
        clock: Clock,
        has_route: Callable[[Address], bool],
    ) -> None:
        self._has_route = has_route
        self._unusable: dict[str, frozenset[str]] = {}
        self._make = make
        self._clock = clock
        self._by_text: dict[str, dict[str, Neighbourhood]] = {}
        self._only_ours: set[str] = set()

    def __contains__(self, text: str) -> bool:
        return text in self._by_text

    def neighbourhoods(self) -> Iterable[Neighbourhood]:
        """Return all that are of use."""
        return chain.from_iterable(self._usable(text).values() for text in self._by_text)

    def _usable(self, text: str) -> dict[str, Neighbourhood]:
        """Return a name's neighbourhoods by family, without those that nobody could reach."""
        out = self._unusable.get(text, frozenset())
        return {of: crowd for of, crowd in self._by_text[text].items() if of not in out}

    @property
    def unusable(self) -> dict[tuple[str, str], int]:
        """How many addresses are left out, by name and family: we have no route to that family."""
        return {
            (text, family): len(self._by_text[text][family])
            for text, families in self._unusable.items()
            for family in families
        }

    @property
    def zones(self) -> set[str]:
        """The zones that servers were heard to be in."""
        return {zone for crowd in self.neighbourhoods() for zone in crowd.zones}

    @property
    def own_zone(self) -> str:
        """The zone that the server on our own node is in; ``""`` until it is known."""
        return next((crowd.own_zone for crowd in self.neighbourhoods() if crowd.own_zone), "")

    def count(self, text: str) -> int:
        """Return how many addresses a name has."""
        return sum(map(len, self._by_text.get(text, {}).values()))

    def update(self, text: str, servers: list[Server], told_ns: int | None = None) -> None:
        """Take in who a name's servers are now.

        Args:
            text: The name's target.
            servers: All of them.
            told_ns: When they were asked for; None: a watch goes on telling of changes, until
                ``out_of_date``.
        """
        families = self._by_text.setdefault(text, {})
        for family in _FAMILIES:
            present = [server for server in servers if server.address.family == family]
            # Once made, a family stays, and is told of its empty list too: what was probed may
            # linger.
            if present and family not in families:
                families[family] = self._make()
            if family in families:
                families[family].update(present, self._clock.mono_ns(), told_ns=told_ns)

    def out_of_date(self, text: str) -> None:
        """A name's watch tells of changes no longer."""
        for crowd in self._by_text.get(text, {}).values():
            crowd.out_of_date(self._clock.mono_ns())

    def drop(self, text: str) -> None:
        """Forget one name."""
        self._by_text.pop(text, None)
        self._unusable.pop(text, None)

    def keep(self, texts: Set[str]) -> None:
        """Forget every other name."""
        self._by_text = {text: crowd for text, crowd in self._by_text.items() if text in texts}
        self._unusable = {text: of for text, of in self._unusable.items() if text in texts}
        self._only_ours &= texts

    def saw(self, target: Target, who: Who, *, leaving: bool) -> bool:
        """A probe was answered; returns whether that may change what we probe.

        Args:
            target: Who was probed.
            who: Who answered.
            leaving: Whether it said that it stops.
        """
        crowd = self._by_text.get(target.spec.text, {}).get(target.family)
        if crowd is None or target.address is None:
            return False
        if not leaving:
            return crowd.met(target.address, who, self._clock.mono_ns())
        crowd.leaves(target.address, self._clock.mono_ns())
        return True

    def choose(self, spec: Spec) -> list[Target]:
        """Return which of a name's servers to probe."""
        now_ns = self._clock.mono_ns()
        self._look_for_routes(spec.text)
        families = self._usable(spec.text)
        self._say_if_only_ours(spec.text, families.values())
        return [
            Target(spec, server.address, who=server.who)
            for family in sorted(families)
            for server in families[family].chosen(now_ns)
        ]

    def _look_for_routes(self, text: str) -> None:
        present = {of: crowd for of, crowd in self._by_text[text].items() if len(crowd)}
        out = frozenset(
            family
            for family, crowd in present.items()
            if not crowd.has_answered and not any(map(self._has_route, crowd.some(TRIED)))
        )
        if len(out) == len(present):
            out = frozenset()  # where there is no route at all, that shows as failing paths
        for family in out - self._unusable.get(text, frozenset()):
            fields = {"twocans.family": family, "twocans.addresses": len(present[family])}
            log.warning(
                "family_unusable", extra={"twocans.target": text, **fields, "limited": True}
            )
        self._unusable[text] = out

    def _say_if_only_ours(self, text: str, crowds: Iterable[Neighbourhood]) -> None:
        """Log, once, why nothing happens in a cluster of one node."""
        if not any(crowd.is_only_ours for crowd in crowds):
            self._only_ours.discard(text)
        elif text not in self._only_ours:
            self._only_ours.add(text)
            hint = "nothing is probed; probe_self would probe it"
            fields = {"twocans.target": text, "twocans.hint": hint, "limited": True}
            log.warning("only_own_server", extra=fields)
