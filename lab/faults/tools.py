"""What the families share: drawing, rules of iptables, helpers that run beside the pair."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from random import Random
from typing import NamedTuple

from lab.case import Case, Drawn, Expected, Truth
from lab.namespaces import Namespace
from lab.programs.knobs import Knobs
from lab.scene import Scene

__all__ = [
    "PYTHON",
    "Log",
    "drawing",
    "figures",
    "knobs",
    "lasting",
    "loaded",
    "on_path",
    "prepared",
    "program",
    "rule",
    "turned",
    "wire_case",
]

PYTHON = sys.executable
_PROGRAMS = "lab.programs"
_BULK_PORT = "5201"


# --- drawing --------------------------------------------------------------------------------


class Log(NamedTuple):
    """A range over which small values are as likely as large ones."""

    low: float
    high: float


def drawing(
    **ranges: "tuple[float, float] | Log | range | list[str] | list[int]",
) -> Callable[[Random], Drawn]:
    """Return what draws each of these, in this order; a list is words to choose from."""

    def draw(random: Random) -> Drawn:
        drawn: Drawn = {}
        for name, among in ranges.items():
            match among:
                case range() | list():
                    drawn[name] = random.choice(among)
                case Log(low, high):
                    drawn[name] = float(f"{low * (high / low) ** random.random():.3g}")
                case (low, high):
                    drawn[name] = float(f"{random.uniform(low, high):.3g}")
        return drawn

    return draw


def figures(drawn: Drawn) -> Truth:
    """Return the numbers of what was drawn as the truth."""
    return Truth({name: value for name, value in drawn.items() if isinstance(value, int | float)})


# --- the path -------------------------------------------------------------------------------


def on_path(verdict: str, direction: str) -> tuple[Expected, ...]:
    """Return what to expect of a fault of one direction of the path."""
    return (Expected(verdict, f"path_{direction}", direction),)


def wire_case(
    name: str,
    text: str,
    expected: tuple[Expected, ...],
    draw: Callable[[Random], Drawn],
    direction: str,
    settings: Callable[[Drawn], dict[str, float]],
    prepare: Callable[[Scene, Drawn], AbstractContextManager[None]] | None = None,
) -> Case:
    """Return a case whose fault is a few settings of the wire."""

    @contextmanager
    def inject(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
        with scene.wire.fault(direction, **settings(drawn)):
            yield figures(drawn)

    case = Case(name, text, expected, draw, inject)
    return case if prepare is None else case._replace(prepare=prepare)


@contextmanager
def rule(namespace: Namespace, table: str, chain: str, *words: str) -> Iterator[None]:
    """Put a rule of iptables first in its chain, until the block ends."""
    namespace.run("iptables", "--wait", "-t", table, "-I", chain, *words)
    try:
        yield
    finally:
        namespace.run("iptables", "--wait", "-t", table, "-D", chain, *words)


@contextmanager
def loaded(scene: Scene, direction: str, flows: int = 2) -> Iterator[None]:
    """Let somebody else send over the path as fast as TCP lets them."""
    ends = (scene.client, scene.server)
    sender, receiver = ends if direction == "forward" else reversed(ends)
    with (
        program(scene, receiver, "bulk", "sink", _BULK_PORT),
        program(scene, sender, "bulk", "source", receiver.address, _BULK_PORT, str(flows)),
    ):
        yield


# --- time -----------------------------------------------------------------------------------


@contextmanager
def lasting(fault: AbstractContextManager[object], seconds: float) -> Iterator[None]:
    """Enter a fault, and leave it after so many seconds, or at the end of the block before that."""
    lock, stack = threading.Lock(), contextlib.ExitStack()

    def heal() -> None:
        with lock:
            stack.close()

    stack.enter_context(fault)
    timer = threading.Timer(seconds, heal)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        heal()


# --- programs -------------------------------------------------------------------------------


def program(
    scene: Scene, namespace: Namespace, name: str, *words: str
) -> AbstractContextManager[object]:
    """Run one of the lab's programs in a namespace."""
    return scene.running(namespace, PYTHON, "-m", f"{_PROGRAMS}.{name}", *words)


def knobs(scene: Scene) -> Knobs:
    """Return the scene's knobs, which ``prepared`` made."""
    return Knobs(scene.folder / "knobs", write=True)


@contextmanager
def prepared(scene: Scene, drawn: Drawn) -> Iterator[None]:
    """Start the odd server and the odd client in the others' stead."""
    del drawn
    Knobs.make(scene.folder / "knobs")
    scene.server_program = ("-m", f"{_PROGRAMS}.odd_server")
    scene.client_module = f"{_PROGRAMS}.odd_client"
    yield


@contextmanager
def turned(scene: Scene, **values: float) -> Iterator[None]:
    """Turn knobs, and turn them back."""
    at = knobs(scene)
    for name, value in values.items():
        at[name] = value
    try:
        yield
    finally:
        for name in values:
            at[name] = 0.0
