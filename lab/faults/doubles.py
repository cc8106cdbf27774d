"""Two faults at once."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from random import Random

from lab.case import Case, Drawn, Truth
from lab.scene import Scene

__all__ = ["SECOND", "together"]

SECOND = "second_"
"""Before the names of what belongs to the second."""


def together(first: Case, second: Case) -> Case:
    """Return a case that is both; the figures of the second have a prefix."""

    def draw(random: Random) -> Drawn:
        return first.draw(random) | {SECOND + k: v for k, v in second.draw(random).items()}

    @contextmanager
    def prepare(scene: Scene, drawn: Drawn) -> Iterator[None]:
        with first.prepare(scene, drawn), second.prepare(scene, _of_second(drawn)):
            yield

    @contextmanager
    def inject(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
        with ExitStack() as stack:
            one = stack.enter_context(first.inject(scene, drawn))
            two = stack.enter_context(second.inject(scene, _of_second(drawn)))
            truth = Truth({})
            yield truth
        truth.figures.update(one.figures | {SECOND + k: v for k, v in two.figures.items()})

    return Case(
        f"{first.name}+{second.name}",
        f"{first.text}; and {second.text}",
        first.expected + second.expected,
        draw,
        inject,
        first.target or second.target,
        first.server_flags + second.server_flags,
        first.client_flags + second.client_flags,
        prepare,
        max(first.lasts_s, second.lasts_s),
    )


def _of_second(drawn: Mapping[str, object]) -> Drawn:
    named = {k.removeprefix(SECOND): v for k, v in drawn.items() if k.startswith(SECOND)}
    return named or dict(drawn)
