"""Faults of what stands on the way and knows of connections."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from random import Random

from lab.case import Case, Drawn, Expected, Truth
from lab.scene import SERVER, Scene

from .tools import drawing, figures, program, rule, wire_case

__all__ = ["CASES", "IDLE_LASTS_S", "VIRTUAL", "balanced"]

VIRTUAL = "10.80.3.1"
"""The address of a service whose back end is the server: the router passes it on."""
IDLE_LASTS_S = 60.0
"""How long a time-out of idle connections has to last."""
_DEAD = "10.80.2.77"  # routed to the server's host, which is not it
_PROXY_PORT, _NOBODY_PORT = "5080", "5999"
_OPTIONS = ["sack", "timestamps", "wscale", "mss"]


@contextmanager
def balanced(scene: Scene, drawn: Drawn) -> Iterator[None]:
    """Let the router pass a virtual address on to the server, as a balancer for one back end."""
    del drawn
    with rule(scene.router, "nat", "PREROUTING", *_to_virtual(), "-j", "DNAT", "--to", SERVER):
        yield


def _to_virtual() -> list[str]:
    return ["-d", VIRTUAL, "-p", "tcp", "--dport", "5000"]


def _behind_virtual(
    name: str,
    text: str,
    expected: Expected,
    draw: Callable[[Random], Drawn],
    inject: Callable[[Scene, Drawn], AbstractContextManager[Truth]],
) -> Case:
    return Case(name, text, (expected,), draw, inject, f"{VIRTUAL}:5000", prepare=balanced)


@contextmanager
def one_is_dead(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
    """Let the balancer have more back ends, one of which is not there."""
    some = ["-m", "statistic", "--mode", "random", "--probability", str(1 / drawn["of"])]
    words = [*_to_virtual(), *some, "-j", "DNAT", "--to", _DEAD]
    with rule(scene.router, "nat", "PREROUTING", *words):
        yield figures(drawn)


def _terminated(backend_port: str) -> Callable[[Scene, Drawn], AbstractContextManager[Truth]]:
    @contextmanager
    def inject(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
        """Put a proxy where the balancer was; connections that are there stay what they are."""
        to_proxy = [*_to_virtual(), "-j", "REDIRECT", "--to-ports", _PROXY_PORT]
        with ExitStack() as stack:
            words = [scene.router.address, _PROXY_PORT, SERVER, backend_port]
            stack.enter_context(program(scene, scene.router, "proxy", *words))
            stack.enter_context(rule(scene.router, "nat", "PREROUTING", *to_proxy))
            yield figures(drawn)

    return inject


def _idle(mode: str) -> Case:
    # Two silences of 17 s, which is the first that the client tries, and the answer to each waited
    # for for 5 s. Time-outs of 60 s and more, as most boxes have, would take some minutes.
    case = wire_case(
        f"idle_timeout_{mode}",
        {
            "silent": "connections that were idle are forgotten: their packets are dropped",
            "reset": "connections that were idle are forgotten: both ends get an RST",
        }[mode],
        (Expected("idle_timeout", "middlebox"),),
        drawing(idle_s=(5.0, 16.0)),
        "both",
        lambda drawn: {"idle_s": drawn["idle_s"], "idle_reset": float(mode == "reset")},
    )
    return case._replace(lasts_s=IDLE_LASTS_S)


CASES = (
    wire_case(
        "rst_injected",
        "a box on the way resets connections, in the name of each end to the other",
        (Expected("rst_injected", "middlebox"),),
        drawing(share=(0.05, 0.5)),
        "forward",
        lambda drawn: {"reset": drawn["share"]},
    ),
    _idle("silent"),
    _idle("reset"),
    wire_case(
        "option_stripped",
        "a box on the way takes a TCP option out of SYNs",
        (Expected("option_stripped", "middlebox"),),
        drawing(option=_OPTIONS),
        "both",
        lambda drawn: {f"strip_{drawn['option']}": 1},
    ),
    _behind_virtual(
        "stale_endpoint",
        "one of the addresses behind a balancer is dead",
        Expected("stale_endpoint", "configuration"),
        drawing(of=range(2, 6)),
        one_is_dead,
    ),
    _behind_virtual(
        "tcp_terminated",
        "a proxy ends TCP on the way",
        Expected("tcp_terminated", "middlebox"),
        drawing(),
        _terminated("5000"),
    ),
    _behind_virtual(
        "backend_dead",
        "a proxy on the way accepts for a back end that is not there",
        Expected("backend_dead", "server_app"),
        drawing(),
        _terminated(_NOBODY_PORT),
    ),
)
