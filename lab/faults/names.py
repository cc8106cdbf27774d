"""Faults of looking names up."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from random import Random

from lab.case import Case, Drawn, Expected, Truth
from lab.programs.knobs import Knobs
from lab.scene import Scene

from .tools import drawing, figures, program, turned

__all__ = ["CASES", "NAME", "named"]

NAME = "can.lab.test"
# The pair probes ten times as often as by default here; its look-ups keep step.
_CLIENT_FLAGS = ("--resolve-interval-s", "1")
_RCODES = {"SERVFAIL": 2, "NXDOMAIN": 3}


@contextmanager
def named(scene: Scene, drawn: Drawn) -> Iterator[None]:
    """Give the client a name server, on the server's host, that knows the server by name."""
    # The C library's own 5 s would be as long as a whole probe may take.
    resolv_conf = f"nameserver {scene.server.address}\noptions timeout:1 attempts:3\n"
    del drawn
    scene.write_etc(scene.client, "resolv.conf", resolv_conf)
    knobs = scene.folder / "knobs"
    Knobs.make(knobs)
    addresses = [scene.server.address] * 2
    with program(scene, scene.server, "dns_stub", str(knobs), *addresses):
        yield


def _case(
    name: str,
    text: str,
    draw: Callable[[Random], Drawn],
    inject: Callable[[Scene, Drawn], AbstractContextManager[Truth]],
) -> Case:
    expected = (Expected(name, "dns"),)
    case = Case(name, text, expected, draw, inject, f"{NAME}:5000", client_flags=_CLIENT_FLAGS)
    return case._replace(prepare=named)


@contextmanager
def slow(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
    """Answer late."""
    with turned(scene, dns_delay_s=drawn["delay_s"]):
        yield figures(drawn)


@contextmanager
def lossy(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
    """Leave some queries unanswered."""
    with turned(scene, dns_drop=drawn["share"]):
        yield figures(drawn)


@contextmanager
def failing(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
    """Answer that there is no such name, or that the server cannot tell."""
    with turned(scene, dns_rcode=_RCODES[drawn["answer"]]):
        yield figures(drawn)


CASES = (
    _case("dns_slow", "the name server answers late", drawing(delay_s=(0.2, 0.9)), slow),
    _case("dns_loss", "queries of names are lost", drawing(share=(0.2, 0.5)), lossy),
    _case("dns_failing", "the name server denies", drawing(answer=[*_RCODES]), failing),
)
