"""Faults of either end's host, and of the programs on it."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from random import Random

from lab.case import Case, Drawn, Expected, Truth
from lab.scene import WIRE, Scene

from .tools import PYTHON, drawing, figures, lasting, prepared, turned

__all__ = ["CASES", "burning", "quota"]

_PERIOD_US = 100_000
_UNIFIED, _SEPARATE = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu")  # cgroup v2, v1

Inject = Callable[[Scene, Drawn], AbstractContextManager[Truth]]


# --- CPU ------------------------------------------------------------------------------------


@contextmanager
def quota(scene: Scene, end: str, share: float) -> Iterator[Path]:
    """Give one end's process, and what is added, this share of one CPU; yields the cgroup."""
    process = scene.client_process if end == "client" else scene.server_process
    assert process is not None
    is_unified = (_UNIFIED / "cgroup.controllers").exists()
    home = _UNIFIED if is_unified else _SEPARATE
    folder = home / scene.client.name.replace("client", end)
    scene.guard.watch("cgroup", str(folder))
    if is_unified:
        (home / "cgroup.subtree_control").write_text("+cpu")
    folder.mkdir()
    limit = int(share * _PERIOD_US)
    if is_unified:
        (folder / "cpu.max").write_text(f"{limit} {_PERIOD_US}")
    else:
        (folder / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (folder / "cpu.cfs_quota_us").write_text(str(limit))
    # Threads that it has, and those that it will have.
    (folder / "cgroup.procs").write_text(str(process.pid))
    try:
        yield folder
    finally:
        # It may have ended; what is left in the folder the guardian ends.
        if process.poll() is None:
            (home / "cgroup.procs").write_text(str(process.pid))


@contextmanager
def burning(scene: Scene, end: str, cgroup: Path, busy: float) -> Iterator[None]:
    """Run somebody else in a cgroup that computes for this share of the time."""
    namespace = scene.client if end == "client" else scene.server
    code = (
        f"import time\nwhile True:\n end = time.monotonic() + {busy * 0.02}\n"
        f" while time.monotonic() < end: pass\n time.sleep({(1 - busy) * 0.02})"
    )
    burner = scene.as_nobody(namespace, PYTHON, "-c", code)
    try:
        (cgroup / "cgroup.procs").write_text(str(burner.pid))
        yield
    finally:
        burner.kill()
        burner.wait()


def throttled(end: str) -> Inject:
    """Return what gives one end less CPU time than it and its neighbours want."""

    @contextmanager
    def inject(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
        with quota(scene, end, drawn["quota"]) as cgroup, burning(scene, end, cgroup, 1.0):
            truth = figures(drawn)
            yield truth
            truth.figures.update(_throttling(cgroup))

    return inject


def _throttling(cgroup: Path) -> dict[str, float]:
    lines = (cgroup / "cpu.stat").read_text().splitlines()
    stat = {name: int(value) for name, value in map(str.split, lines)}
    seconds = stat.get("throttled_usec", 0) / 1e6 or stat.get("throttled_time", 0) / 1e9
    return {"throttled_periods": stat["nr_throttled"], "throttled_s": seconds}


def paused(end: str) -> Inject:
    """Return what stops one end's process again and again, as who pauses a container does."""

    @contextmanager
    def inject(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
        process = scene.client_process if end == "client" else scene.server_process
        assert process is not None
        over = threading.Event()
        truth = figures(drawn | {"pauses": 0})

        def pause() -> None:
            while not over.is_set():
                os.kill(process.pid, signal.SIGSTOP)
                over.wait(drawn["pause_s"])
                os.kill(process.pid, signal.SIGCONT)
                truth.figures["pauses"] += 1
                over.wait(drawn["every_s"])

        thread = threading.Thread(target=pause)
        thread.start()
        try:
            yield truth
        finally:
            over.set()
            thread.join()

    return inject


# --- the application ------------------------------------------------------------------------


def odd(
    name: str, text: str, expected: Expected, draw: Callable[[Random], Drawn], **knobs: str
) -> Case:
    """Return a case in which a program is odd; each knob gets what was drawn under a name."""

    @contextmanager
    def inject(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
        with turned(scene, **{knob: drawn[source] for knob, source in knobs.items()}):
            yield figures(drawn)

    return Case(name, text, (expected,), draw, inject, prepare=prepared)


@contextmanager
def hung(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
    """Let the server's program stand still at the next request, for some seconds."""
    with lasting(turned(scene, hang=1), drawn["duration_s"]):
        yield figures(drawn)


@contextmanager
def host_lost(scene: Scene, drawn: Drawn) -> Iterator[Truth]:
    """Let the server's host die without a word, and be back some seconds later."""
    with lasting(_dead_host(scene), drawn["duration_s"]):
        yield figures(drawn)


@contextmanager
def _dead_host(scene: Scene) -> Iterator[None]:
    assert scene.server_process is not None
    scene.server.ip(f"link set {WIRE} down")
    os.kill(scene.server_process.pid, signal.SIGKILL)
    yield
    # It forgets its connections, as by a boot: no FIN of them is sent later.
    scene.server.run("ss", "--kill", "--tcp")
    scene.link_server()
    scene.restart_server()


CASES = (
    Case(
        "cpu_throttled_server",
        "the server's cgroup is out of CPU quota in most periods",
        (Expected("cpu_throttled", "server_host"),),
        drawing(quota=(0.1, 0.4)),
        throttled("server"),
    ),
    Case(
        "cpu_throttled_client",
        "the client's cgroup is out of CPU quota in most periods",
        (Expected("cpu_throttled", "client_host"),),
        drawing(quota=(0.1, 0.4)),
        throttled("client"),
    ),
    Case(
        "process_paused_server",
        "the server's process is stopped now and then",
        (Expected("process_paused", "server_host"),),
        drawing(pause_s=(0.12, 1.5), every_s=(0.5, 2.0)),
        paused("server"),
    ),
    Case(
        "process_paused_client",
        "the client's process is stopped now and then",
        (Expected("process_paused", "client_host"),),
        drawing(pause_s=(0.12, 1.5), every_s=(0.5, 2.0)),
        paused("client"),
    ),
    odd(
        "slow_app",
        "the server's program computes over each reply",
        Expected("slow_app", "server_app"),
        drawing(answer_s=(0.005, 0.05)),
        answer_cpu_s="answer_s",
    ),
    odd(
        "slow_app_waiting",
        "the server's program waits for something before each reply",
        Expected("slow_app", "server_app"),
        drawing(answer_s=(0.005, 0.05)),
        answer_wait_s="answer_s",
    ),
    Case(
        "app_hung",
        "the server's program stands still for some seconds, and its kernel does not",
        (Expected("app_hung", "server_app"),),
        drawing(duration_s=(6.0, 12.0)),
        hung,
        prepare=prepared,
    ),
    odd(
        "closed_by_server",
        "the server's program closes connections instead of answering",
        Expected("closed_by_server", "server_app"),
        drawing(share=(0.05, 0.5)),
        close_share="share",
    ),
    Case(
        "peer_lost",
        "the server's host dies, and is back some seconds later",
        (Expected("peer_lost", "server_host"),),
        drawing(duration_s=(3.0, 6.0)),
        host_lost,
    ),
    odd(
        "clock_step",
        "the server's clock is stepped",
        Expected("clock_step", "clock"),
        drawing(step_s=(0.15, 2.0)),
        clock_s="step_s",
    ),
    odd(
        "self_inflicted",
        "the client's own loop is busy now and then",
        Expected("self_inflicted", "tool"),
        drawing(spin_s=(0.05, 0.3)),
        spin_s="spin_s",
    ),
)
