"""Faults of a path that delivers: what is lost, late, twice, out of order or not what was sent."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from lab.case import Case, Drawn, Expected, Truth
from lab.scene import Scene

from .tools import Log, drawing, figures, lasting, loaded, on_path, wire_case

__all__ = ["CASES"]

_DIRECTIONS = ("forward", "reverse")


def both_ways(
    verdict: str,
    text: str,
    draw: Callable[[Random], Drawn],
    settings: Callable[[Drawn], dict[str, float]],
    name: str = "",
) -> list[Case]:
    """Return a case for each direction."""
    return [
        wire_case(
            f"{name or verdict}_{direction}",
            f"{text}, {direction}",
            on_path(verdict, direction),
            draw,
            direction,
            settings,
        )
        for direction in _DIRECTIONS
    ]


def under_load(
    verdict: str,
    text: str,
    draw: Callable[[Random], Drawn],
    settings: Callable[[Drawn], dict[str, float]],
    flows: int,
) -> list[Case]:
    """Return a case for each direction: a narrow place that somebody else fills."""

    def case(direction: str) -> Case:
        @contextmanager
        def inject(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
            with scene.wire.fault(direction, **settings(drawn)), loaded(scene, direction, flows):
                yield figures(drawn)

        named = f"{verdict}_{direction}", f"{text}, {direction}"
        return Case(*named, on_path(verdict, direction), draw, inject)

    return [case(direction) for direction in _DIRECTIONS]


def longer(direction: str) -> Case:
    """Return a case in which packets take longer than before."""

    @contextmanager
    def inject(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
        before = scene.wire.setting(direction, "delay_s")
        with scene.wire.fault(direction, delay_s=before + drawn["delay_s"]):
            yield figures(drawn)

    return Case(
        f"delay_increase_{direction}",
        f"packets take longer than before, {direction}",
        on_path("delay_increase", direction),
        drawing(delay_s=(0.015, 0.1)),
        inject,
    )


def blackout(name: str, text: str, direction: str) -> Case:
    """Return a case in which nothing gets through for some seconds."""
    expected = (
        (Expected("blackout", "path"),) if direction == "both" else on_path("blackout", direction)
    )

    @contextmanager
    def inject(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
        with lasting(scene.wire.fault(direction, blackout=1), drawn["duration_s"]):
            yield figures(drawn)

    return Case(name, text, expected, drawing(duration_s=(3.0, 10.0)), inject)


def _bursts(drawn: Drawn) -> dict[str, float]:
    leave = 1 / drawn["run"]
    return {"burst_enter": leave * drawn["share"] / (1 - drawn["share"]), "burst_leave": leave}


def _ports(drawn: Drawn) -> dict[str, float]:
    of = drawn["of"]
    return {"port_loss": 1, "port_mask": of - 1, "port_value": drawn["number"] % of}


CASES = (
    *both_ways(
        "loss",
        "packets are lost, one by one",
        drawing(share=Log(0.01, 0.06)),
        lambda drawn: {"loss": drawn["share"]},
    ),
    *both_ways(
        "burst_loss",
        "packets are lost, several in a row",
        drawing(share=(0.02, 0.08), run=(4.0, 12.0)),
        _bursts,
    ),
    *both_ways(
        "ack_loss",
        "lone acknowledgements are lost, and nothing else",
        drawing(share=(0.05, 0.4)),
        lambda drawn: {"ack_loss": drawn["share"]},
    ),
    *both_ways(
        "reordering",
        "packets are overtaken by later ones",
        drawing(share=Log(0.02, 0.2), reorder_s=(0.003, 0.03)),
        lambda drawn: {"reorder": drawn["share"], "reorder_s": drawn["reorder_s"]},
    ),
    *both_ways(
        "duplication",
        "packets arrive twice",
        drawing(share=Log(0.01, 0.1)),
        lambda drawn: {"duplicate": drawn["share"]},
    ),
    *both_ways(
        "silent_corruption",
        "a bit is flipped, and the TCP checksum fits",
        drawing(share=Log(0.01, 0.1)),
        lambda drawn: {"corrupt": drawn["share"]},
    ),
    *both_ways(
        "corruption",
        "a bit is flipped, and the TCP checksum shows it: the receiver drops the segment",
        drawing(share=Log(0.01, 0.06)),
        lambda drawn: {"damage": drawn["share"]},
        "damage",
    ),
    *both_ways(
        "mtu_blackhole",
        "packets above a size vanish, and nobody is told",
        drawing(mtu=range(900, 1480)),
        lambda drawn: {"mtu": drawn["mtu"]},
    ),
    *both_ways(
        "mtu_reduced",
        "packets above a size are dropped, and their sender is told",
        drawing(mtu=range(900, 1480)),
        lambda drawn: {"mtu": drawn["mtu"], "icmp": 1},
    ),
    *both_ways(
        "path_subset_loss",
        "the connections of some source ports do not get through, those of others do",
        drawing(of=[2, 4, 8], number=range(8)),
        _ports,
    ),
    longer("forward"),
    longer("reverse"),
    *under_load(
        "bufferbloat",
        "somebody else fills a long queue",
        drawing(queue_s=Log(0.05, 0.5), rate=Log(5e6, 5e7)),
        lambda drawn: {"queue_s": drawn["queue_s"], "rate": drawn["rate"]},
        flows=2,
    ),
    *under_load(
        "policing",
        "what is more than a rate is dropped, and somebody else uses it up",
        drawing(rate=Log(1e6, 1e7), bucket=Log(4e3, 2e4)),
        lambda drawn: {"police": drawn["rate"], "police_bytes": drawn["bucket"]},
        flows=8,
    ),
    blackout("blackout_forward", "nothing reaches the server, for some seconds", "forward"),
    blackout("blackout_reverse", "nothing reaches the client, for some seconds", "reverse"),
    blackout("blackout_both", "nothing gets through at all, for some seconds", "both"),
)
