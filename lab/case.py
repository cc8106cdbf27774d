"""What a case is: a fault or a healthy control, how bad it is, and what should be said of it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from random import Random
from typing import Any, NamedTuple

from .scene import Scene

__all__ = ["Case", "Drawn", "Expected", "Truth", "nothing"]

Drawn = dict[str, Any]
"""What a case drew, how bad it is first: numbers, and words such as an option's name."""


class Expected(NamedTuple):
    """A verdict that a case should get.

    Attributes:
        verdict: Its name.
        culprit: Who did it.
        direction: "forward", "reverse", or "" where there is none.
    """

    verdict: str
    culprit: str
    direction: str = ""


class Truth(NamedTuple):
    """What was really injected; the packets' fates are in ``scene.wire.log()``.

    Attributes:
        figures: By name, such as ``{"mtu": 1300}``. What is known only afterwards is added when
            the fault ends.
    """

    figures: dict[str, float]


@contextmanager
def nothing(scene: Scene, drawn: Drawn) -> Iterator[None]:
    """Prepare nothing."""
    del scene, drawn
    yield


class Case(NamedTuple):
    """A fault, or the want of one.

    Attributes:
        name: For the command line, such as ``syn_loss_forward``.
        text: One line of what it does.
        expected: Its verdicts; none is a healthy control, two are two faults.
        draw: Draws how bad it is, and whatever else differs from run to run.
        inject: Entering it begins the fault, leaving it ends it.
        target: What the client probes; "" is the server's address and port 5000.
        server_flags: More flags of the server.
        client_flags: More flags of the client.
        prepare: What is there before either process starts, and is healthy as such.
        lasts_s: How long it has to last: some things cannot be seen sooner than they take.
    """

    name: str
    text: str
    expected: tuple[Expected, ...]
    draw: Callable[[Random], Drawn]
    inject: Callable[[Scene, Drawn], AbstractContextManager[Truth]]
    target: str = ""
    server_flags: tuple[str, ...] = ()
    client_flags: tuple[str, ...] = ()
    prepare: Callable[[Scene, Drawn], AbstractContextManager[None]] = nothing
    lasts_s: float = 16.0
