"""Nothing is wrong, and some of it looks as if: whoever says so raises a false alarm."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from lab.case import Case, Drawn, Truth
from lab.scene import Scene

from .hosts import burning, quota
from .middleboxes import IDLE_LASTS_S, VIRTUAL, balanced
from .names import NAME, named
from .setup import behind_nat
from .tools import drawing, figures, rule

__all__ = ["CASES"]

_MTU = 1400

Prepare = Callable[[Scene, Drawn], AbstractContextManager[None]]


@contextmanager
def _as_it_is(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
    del scene
    yield figures(drawn)


def _wire(**settings: float) -> Prepare:
    @contextmanager
    def prepare(scene: Scene, drawn: Drawn) -> Iterator[None]:
        del drawn
        scene.wire.set("both", **settings)
        yield

    return prepare


def _busy(end: str) -> Callable[[Scene, Drawn], AbstractContextManager[Truth]]:
    @contextmanager
    def inject(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
        """Let a neighbour compute, in a cgroup whose quota is enough for both."""
        with quota(scene, end, 0.9) as cgroup, burning(scene, end, cgroup, drawn["busy"]):
            yield figures(drawn)

    return inject


@contextmanager
def _clamped(scene: Scene, drawn: Drawn) -> Iterator[None]:
    """Make the path narrower than the ends' links, and clamp the MSS before; ICMP comes back."""
    del drawn
    clamp = ["-p", "tcp", "--tcp-flags", "SYN,RST", "SYN", "-j", "TCPMSS"]
    with ExitStack() as stack:
        words = [*clamp, "--set-mss", str(_MTU - 40)]
        stack.enter_context(rule(scene.router, "mangle", "FORWARD", *words))
        scene.wire.set("both", mtu=_MTU, icmp=1)
        yield


def _case(
    name: str,
    text: str,
    prepare: Prepare | None = None,
    *,
    inject: Callable[[Scene, Drawn], AbstractContextManager[Truth]] = _as_it_is,
    target: str = "",
    client_flags: tuple[str, ...] = (),
    lasts_s: float = 16.0,
    **ranges: tuple[float, float],
) -> Case:
    name = f"healthy_{name}" if name else "healthy"
    case = Case(name, text, (), drawing(**ranges), inject, target)
    case = case._replace(client_flags=client_flags, lasts_s=lasts_s)
    return case if prepare is None else case._replace(prepare=prepare)


CASES = (
    _case("", "nothing is wrong"),
    _case("far", "80 ms there and back", _wire(delay_s=0.04)),
    _case(
        "jitter", "20 ms there and back, a tenth more or less", _wire(delay_s=0.01, jitter_s=1e-3)
    ),
    _case("background_loss", "one packet in ten thousand is lost", _wire(loss=1e-4)),
    _case(
        "busy_client",
        "the client's neighbour computes, within their quota",
        inject=_busy("client"),
        busy=(0.1, 0.5),
    ),
    _case(
        "busy_server",
        "the server's neighbour computes, within their quota",
        inject=_busy("server"),
        busy=(0.1, 0.5),
    ),
    _case("clamped_mss", "a narrow path whose router clamps the MSS", _clamped),
    _case("nat", "the client is behind a NAT", behind_nat, lasts_s=IDLE_LASTS_S),
    _case(
        "balancer",
        "the server is behind a balancer that passes on",
        balanced,
        target=f"{VIRTUAL}:5000",
    ),
    _case("named", "the server is known by name", named, target=f"{NAME}:5000"),
    _case(
        "long_idle",
        "a path that is asked seldom",
        client_flags=("--interval-s", "5", "--held-interval-s", "30"),
        lasts_s=IDLE_LASTS_S,
    ),
    _case(
        "big_transfers",
        "large requests over a link that they fill while they last",
        _wire(rate=1e8, queue_s=0.05),
        client_flags=("--payload-bytes", "65536", "--exchanges", "4", "--budget", "30GB"),
    ),
)
