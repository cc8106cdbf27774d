"""docs/verdicts.md, from the declarations of the verdicts."""

import inspect
from pathlib import Path as File
from types import ModuleType

from twocans_client.verdicts.engine import AT_ONCE, FAMILIES, KINDS, QUIET_NS
from twocans_client.verdicts.verdict import Confidence, Culprit, Direction, Kind

__all__ = ["PAGE", "verdicts"]

PAGE = File(__file__).parent.parent / "docs/verdicts.md"
# What stands between them is written by `make truth` and kept.
_BEGIN, _END = "<!-- accuracy -->\n", "<!-- end of accuracy -->\n"
_NOT_YET = "Not measured yet: `make truth` writes the table.\n"

_WORDS = f"""\
A verdict says what is wrong with a path, whose doing it is and in which direction, with the proof.
It is drawn from what both ends measured lately, once a second.
The families below are asked in their order, and what one of them explains, the next ones need not:
one fault has one name, and two faults have two.
While all is well there is none.

A verdict begins when its threshold is crossed, and ends when nothing has shown it for
{QUIET_NS // 10**9} s. A path has {AT_ONCE} at most.
Each is a line in the log when it [begins and ends](logs.md#client), a series
`twocans_client_path_verdict` meanwhile, a sentence in the
[alerts](operations.md#twocansfaultnamed) and a bar on the [dashboards](operations.md#dashboards).
The report of `twocans-client probe` begins with them.

Where probes failed and no verdict is found, the report says so, and which evidence is missing:
a wrong culprit would be worse.
"""

_CULPRITS = {
    Culprit.CLIENT_HOST: "the client's host: its CPU, its kernel, its limits, its firewall",
    Culprit.SERVER_HOST: "the server's host, likewise",
    Culprit.SERVER_APP: "the program that serves: it is slow, hangs, or does not accept",
    Culprit.PATH_FORWARD: "the network, from the client to the server",
    Culprit.PATH_REVERSE: "the network, from the server to the client",
    Culprit.PATH: "the network, in both directions or in one that nobody can tell",
    Culprit.MIDDLEBOX: "something between the two that acts on connections: firewall, NAT, proxy",
    Culprit.DNS: "the resolver",
    Culprit.CONFIGURATION: "a setting of either end",
    Culprit.CLOCK: "a clock: durations of that moment mean nothing",
    Culprit.TOOL: "twocans itself, or how it was set up",
}
_CONFIDENCES = {
    Confidence.PROVEN: "the evidence leaves nothing else: an errno, both ends' counts, the server's"
    " own word",
    Confidence.STATISTICAL: "chance would give the same evidence at the false-alarm rate that the"
    " verdict states",
    Confidence.PROVISIONAL: "only one end's evidence, as the other cannot be asked; later it is"
    " confirmed or withdrawn",
}


def verdicts() -> str:
    """Return docs/verdicts.md with all but the table of accuracy made anew."""
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
            f"{_BEGIN}{_accuracy()}{_END}",
            *(line for family in FAMILIES for line in _family(family)),
        ]
    )


_INFO = " (worth knowing; nothing is wrong)"


def _accuracy() -> str:
    page = PAGE.read_text() if PAGE.exists() else ""
    return page.split(_BEGIN)[1].split(_END)[0] if _BEGIN in page else _NOT_YET


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
        f"| needs | {kind.needs} |",
        f"| told apart | {kind.apart} |",
        f"| said when | {kind.threshold} |",
        f"| look next | {kind.look} |",
        "",
    ]


def _listed(names: tuple[Culprit, ...] | tuple[Direction, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names if name)
