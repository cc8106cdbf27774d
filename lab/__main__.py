"""Try one fault and watch the pair react: ``python -m lab list | run CASE | shell CASE``."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from types import FrameType

from .cases import CASES, Case, Drawn, Truth
from .errors import LabError, UnsupportedError
from .pair import Event, Pair, pair, target_of
from .scene import BACKENDS, Base, Scene, scene

__all__ = ["main"]

_HEALTHY_S = 5.0
_AFTER_S = 3.0
_SHOWN = ("verdict_", "path_", "held_", "clock_")
# Said in every line, or of no use to who watches.
_DULL = {
    *("timestamp", "level", "logger", "event.name"),
    *("service.name", "service.version", "service.instance.id"),
}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 1 the lab cannot, 2 wrong usage."""
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if arguments.command == "list":
            _list()
        elif arguments.command == "run":
            _run(arguments)
        else:
            _shell(arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every case, with what should be said of it")
    for name, text in (
        (
            "run",
            "start the pair, inject a fault after some healthy seconds, show what the pair says",
        ),
        ("shell", "a shell on the client's host while the fault is on"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("case", choices=sorted(CASES), metavar="CASE")
        command.add_argument("--seed", type=int, default=None, help="of all that is drawn")
        command.add_argument("--rtt-ms", type=float, default=2.0, help="of the healthy path")
        command.add_argument("--jitter", type=float, default=0.0, help="as a share of it")
        command.add_argument("--loss", type=float, default=0.0, help="in each direction")
        command.add_argument("--backend", choices=BACKENDS, default="wire")
        if name == "run":
            command.add_argument("--seconds", type=float, help="of the fault; default: its own")
    return parser


def _list() -> None:
    width = max(map(len, CASES))
    for case in CASES.values():
        print(f"{case.name:{width}}  {case.text}")
        for verdict, culprit, direction in case.expected:
            print(f"{'':{width}}    {verdict}: {culprit}{direction and f', {direction}'}")


def _run(arguments: argparse.Namespace) -> None:
    case: Case = CASES[arguments.case]
    with (
        _set(case, arguments) as (its, drawn),
        pair(its, case) as both,
    ):
        shown = _Shown(both)
        shown.watch(_HEALTHY_S)
        print(f"{both.now_s():6.1f} s  fault begins: {case.text}", flush=True)
        with case.inject(its, drawn) as truth:
            shown.watch(arguments.seconds or case.lasts_s)
        print(f"{both.now_s():6.1f} s  fault ends", flush=True)
        shown.watch(_AFTER_S)
        _print_truth(case, truth, its)


def _shell(arguments: argparse.Namespace) -> None:
    case: Case = CASES[arguments.case]
    with _set(case, arguments) as (its, drawn), ExitStack() as stack:
        # Some faults are of the processes: they are there, but nobody looks at what they say.
        stack.enter_context(pair(its, case))
        stack.enter_context(case.inject(its, drawn))
        where = target_of(its, case)
        print(f"lab: this is the client's host; the server is {where}; exit to end", flush=True)
        shell = os.environ.get("SHELL", "/bin/sh")
        subprocess.run([*its.client.wrapper, shell], check=False)


@contextmanager
def _set(case: Case, arguments: argparse.Namespace) -> Iterator[tuple[Scene, Drawn]]:
    seed = arguments.seed if arguments.seed is not None else int.from_bytes(os.urandom(3))
    drawn = case.draw(Random(seed))
    print(f"lab: {case.name} --seed {seed}: {_words(drawn) or 'nothing to draw'}", flush=True)
    base = Base(arguments.rtt_ms / 1e3, arguments.jitter, arguments.loss)
    with (
        scene(base, backend=arguments.backend, seed=seed) as its,
        case.prepare(its, drawn),
    ):
        yield its, drawn


class _Shown:
    """What the client logs, shown as it comes."""

    def __init__(self, both: Pair) -> None:
        self._both = both
        self._seen = 0

    def watch(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for event in self._both.client_events[self._seen :]:
                self._seen += 1
                if event.name.startswith(_SHOWN):
                    print(_line(event), flush=True)
            time.sleep(0.1)


def _line(event: Event) -> str:
    fields = {
        name.removeprefix("twocans."): value
        for name, value in event.fields.items()
        if name not in _DULL and value not in ("", None)
    }
    return f"{event.at_s:6.1f} s  {event.name}  {_words(fields)}"


def _print_truth(case: Case, truth: Truth, its: Scene) -> None:
    print(f"truth: {_words(truth.figures) or 'nothing to count'}")
    for verdict, culprit, direction in case.expected:
        print(f"truth: {verdict}: {culprit}{direction and f', {direction}'}")
    if not case.expected:
        print("truth: nothing is wrong")
    try:
        log = its.wire.log()
    except UnsupportedError as error:
        print(f"truth: {error}")
        return
    for direction in ("forward", "reverse"):
        fates = Counter(packet.fate.name.lower() for packet in log if packet.direction == direction)
        print(f"wire:  {direction} {_words(dict(fates.most_common()))}")


def _words(values: dict[str, object] | dict[str, float] | dict[str, int]) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
