"""The target's addresses: looked up once a second, and all of them tried."""

import asyncio
from collections.abc import Callable, Sequence

from twocans_client.discovery.resolver import LOOKUP_S, Resolution, Resolver
from twocans_client.discovery.specs import Kind, Spec, Target
from twocans_core.net.sockets import Address, has_route

__all__ = ["MOST", "Names"]

MOST = 64
"""Addresses that are tried at most."""
_EVERY_S = 1.0


class Names:
    """What the target's name stands for.

    Args:
        spec: The target.
        resolver: Looks it up.

    Attributes:
        targets: What to try: all addresses that there is a way to; one without an address where
            there is none.
        no_route: Addresses that our own host knows no way to, while it knows one to others.
        left_out: How many more there are.
    """

    def __init__(self, spec: Spec, resolver: Resolver) -> None:
        self._spec = spec
        self._resolver = resolver
        self.targets: list[Target] = []
        self.no_route: list[Address] = []
        self.left_out = 0

    async def look_up(self) -> Resolution | None:
        """Look it up once; returns how that went, None where there is nothing to look up."""
        spec = self._spec
        if spec.literal is not None:
            self.targets = [Target(spec, spec.literal)]
            return None
        found = await self._resolver.resolve(spec.host, spec.port, timeout_s=LOOKUP_S)
        if found.problem is None:
            self._take(list(dict.fromkeys(found.addresses)))
        elif not self.targets:
            self.targets = [Target(spec, None, found.problem)]
        return found

    async def keep(self, told: Callable[[Resolution], None]) -> None:
        """Look it up again and again, until cancelled: a name server may fail now and then."""
        while self._spec.literal is None:
            await asyncio.sleep(_EVERY_S)
            if (found := await self.look_up()) is not None:
                told(found)

    def _take(self, addresses: Sequence[Address]) -> None:
        routed = [address for address in addresses if has_route(address)]
        self.no_route = [each for each in addresses if routed and each not in routed]
        tried = (routed or list(addresses))[:MOST]
        self.left_out = len(addresses) - len(self.no_route) - len(tried)
        many = self._spec._replace(kind=Kind.DNS)  # each address is a path of its own
        self.targets = [Target(many, address) for address in tried]
