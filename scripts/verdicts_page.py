"""docs/verdicts.md, from the declarations of the verdicts."""

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path as File
from types import ModuleType
from typing import Any

from lab.page import NETWORK
from lab.score import markdown

from twocans_client.verdicts.engine import AT_ONCE, FAMILIES, KINDS, QUIET_NS
from twocans_client.verdicts.verdict import Confidence, Culprit, Direction, Kind

__all__ = ["RESULTS", "verdicts"]

RESULTS = File(__file__).parent.parent / "lab/results"
"""What `make truth-full` and `make truth` wrote; the page has the first that there is."""
_FILES = ("truth-full.json", "truth.json")

_WORDS = f"""\
A verdict says what is wrong with a path, whose doing it is and in which direction, with the proof.
Once a second, the client judges what both ends have measured recently.
It asks the families below in their order, and each sees only what no family before it explained.
So one fault has one name, and two faults have two.
While all is well, there is no verdict.

A verdict begins when its threshold is crossed, and ends when nothing has shown it for
{QUIET_NS // 10**9} s. A path has at most {AT_ONCE} at a time.
Each verdict is logged when it [begins and ends](logs.md#client).
While it stands, it is a series `twocans_client_path_verdict`, a sentence in the
[alerts](operations.md#twocansfaultnamed) and a bar on the [dashboards](operations.md#dashboards).
The report of `twocans-client probe` begins with the verdicts.

If probes failed and there is no verdict, the report says so, and says which evidence is missing:
a wrong culprit would be worse.

Our host is the client's, where the verdict is made. *Here* means the same.
"""

_CULPRITS = {
    Culprit.CLIENT_HOST: "the client's host: its CPU, its kernel, its limits, its firewall",
    Culprit.SERVER_HOST: "the server's host: the same of it",
    Culprit.SERVER_APP: "the server's program: it is slow, hangs, or does not accept",
    Culprit.PATH_FORWARD: "the network, from the client to the server",
    Culprit.PATH_REVERSE: "the network, from the server to the client",
    Culprit.PATH: "the network, in both directions or in one that cannot be told",
    Culprit.MIDDLEBOX: "something on the path that acts on connections: a firewall, a NAT, a proxy",
    Culprit.DNS: "the resolver",
    Culprit.CONFIGURATION: "a setting of either end",
    Culprit.CLOCK: "a clock: durations measured across the jump mean nothing",
    Culprit.TOOL: "twocans itself, or how it was set up",
}
_CONFIDENCES = {
    Confidence.PROVEN: "the evidence allows nothing else: an errno, both ends' counts, the server's"
    " own word",
    Confidence.STATISTICAL: "chance gives the same evidence, at the false-alarm rate that the"
    " verdict states",
    Confidence.PROVISIONAL: "the evidence is not complete yet, most often because the other end"
    " cannot be asked; the verdict is confirmed or withdrawn later",
}


def verdicts() -> str:
    """Return docs/verdicts.md."""
    return "\n".join(
        [
            "# Verdicts",
            "",
            "<!-- Made by `make docs` from the code. Edit the code. -->",
            "",
            _WORDS,
            "| verdict | what is wrong | culprit | direction |",
            "|---|---|---|---|",
            *(
                f"| [`{name}`](#{name}) | {kind.title}{_INFO * kind.is_info} |"
                f" {_listed(kind.culprits)} | {_listed(kind.directions)} |"
                for name, kind in KINDS.items()
            ),
            "",
            "## Words",
            "",
            "| culprit | whose doing it is |",
            "|---|---|",
            *(f"| `{culprit}` | {_CULPRITS[culprit]} |" for culprit in Culprit),
            "",
            "| confidence | |",
            "|---|---|",
            *(f"| `{confidence}` | {_CONFIDENCES[confidence]} |" for confidence in Confidence),
            "",
            "## How often they are right",
            "",
            *_accuracy(),
            "",
            *(line for family in FAMILIES for line in _family(family)),
        ]
    )


_INFO = " (worth knowing; nothing is wrong)"


def _accuracy() -> Iterator[str]:
    file = next((RESULTS / name for name in _FILES if (RESULTS / name).exists()), None)
    if file is None:
        yield "Not measured yet: `make truth`, then `make docs`, write the table."
        return
    found = json.loads(file.read_text())
    mine = found["scores"]["twocans"]
    machine = f"Linux {found['kernel']}, {found['cores']} cores, {found['scenes']} cases at a time"
    yield f"Faults were made on purpose in the [lab](../lab/README.md): {mine['cases']} cases,"
    yield f"drawn from seed {found['seed']} on {found['date']} ({machine})."
    yield f"The client made {found['probes_per_s']} probes a second and knew nothing of the faults."
    others = len(found["scores"]) > 1
    if others:
        yield "The same cases were shown to other tools, and the most generous rules that we could"
        yield "write drew verdicts from what those printed."
    if found["without"]:
        yield "They were also shown to twocans with one kind of evidence taken away."
    if not (others and found["without"]):
        yield "`make truth-full` also asks other tools, and takes evidence away from twocans."
    yield ""
    yield "| | macro-F1 | precision | recall | culprit | direction | false alarms |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for tool, one in found["scores"].items():
        yield _scored(tool, one)
    for evidence, one in found["without"].items():
        yield _scored(f"twocans without {evidence}", one)
    yield from _network(mine)
    yield ""
    yield "By fault; one that was never named has an F1 of 0:"
    yield ""
    yield markdown(mine).rstrip()


def _network(mine: Mapping[str, Any]) -> Iterator[str]:
    """How exact the network's share of an exchange is."""
    found = mine.get("network", {})  # a table that was written before had none
    rows = {shown: found[name] for name, shown in NETWORK.items() if name in found}
    if not rows:
        return
    yield ""
    yield "The client's figure for the network's share of an exchange, less the time that the wire"
    yield "had its packets. The difference includes the router's kernel, and how long the wire"
    yield "waited for a CPU:"
    yield ""
    yield "| | runs | exchanges | p50 | p95 | largest p50 of a run |"
    yield "|---|---:|---:|---:|---:|---:|"
    for shown, row in rows.items():
        figures = (row[name] * 1e6 for name in ("p50_s", "p95_s", "run_p50_max_s"))
        cells = " | ".join(f"{us:,.0f} µs" for us in figures)
        yield f"| {shown} | {row['runs']} | {row['exchanges']:,} | {cells} |"


def _scored(name: str, one: Mapping[str, Any]) -> str:
    shares = ("precision", "recall", "culprit", "direction")
    figures = [one["macro_f1"], *(one[share]["share"] for share in shares)]
    cells = " | ".join("" if figure is None else f"{figure:.3f}" for figure in figures)
    alarms = one["false_alarms"]
    return f"| {name} | {cells} | {alarms['alarmed']} of {alarms['controls']} |"


def _family(family: ModuleType) -> list[str]:
    title = (inspect.getdoc(family) or "").partition(".")[0].partition(":")[0]
    kinds: tuple[Kind, ...] = family.KINDS
    return [f"## {title}", "", *(line for kind in kinds for line in _kind(kind))]


def _kind(kind: Kind) -> list[str]:
    return [
        f"### {kind.name}",
        "",
        f"{kind.title[0].upper()}{kind.title[1:]}.",
        "",
        "| | |",
        "|---|---|",
        f"| evidence | {kind.needs} |",
        f"| not to be confused with | {kind.apart} |",
        f"| threshold | {kind.threshold} |",
        f"| look next | {kind.look} |",
        "",
    ]


def _listed(names: tuple[Culprit, ...] | tuple[Direction, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names if name)
