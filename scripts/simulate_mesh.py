"""Simulate who probes whom in a cluster, and write simulate_mesh.md beside this file.

python -m scripts.simulate_mesh            all sizes; minutes of CPU time
python -m scripts.simulate_mesh 10 100     those sizes, printed only

A few of the rows and columns are in docs/operations.md too.

One client and one server on each node, every client with the product's own selection code
(``twocans_client.discovery.neighbours``) and its default settings: ten neighbours, one probe a
second of each, one new address greeted a second. Nothing is random: the choice is made by hashes
of names.
"""

import argparse
import concurrent.futures
import itertools
import math
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from scripts.generate_docs import client_families
from twocans_client.config import ClientConfig
from twocans_client.discovery.neighbours import Neighbourhood, Server
from twocans_client.discovery.specs import Who
from twocans_core.net.sockets import Address

TABLE = Path(__file__).with_suffix(".md")
DOCS = Path(__file__).parent.parent / "docs" / "operations.md"
SIZES = (10, 100, 1_000, 5_000)
ZONES = range(1, 7)
BEGIN, END = "<!-- mesh: begin -->", "<!-- mesh: end -->"

_CONFIG = ClientConfig()
# Those for which leaving and discovery are followed, at most; the choice itself is everybody's.
_FOLLOWED = 300
_LEAVERS = 5
_TENTH = 10
_FIRST_S = 60


class Row(NamedTuple):
    """One cluster.

    Attributes:
        nodes: In it.
        zones: That they are in, node by node in turn.
        targets: Of a client: the fewest and the most.
        series: That a client with so many targets exports while all is well, and at most, when
            each path has failed for every reason and each zone has lost segments and timestamps.
        by_server: Probes a second that a server gets: mean and most.
        at_first: Share of servers probed by at least 3 clients once the first ten addresses are
            greeted, before a client knows which server is on its own node; found by DNS.
        in_the_end: The same once every address is known; with a watch this is at once.
        after_a_tenth: The same of the rest, once every tenth node has left at once.
        unprobed: Servers that nobody probes, in the end.
        changed: Targets that a client changes when one of its targets leaves, mean; and those
            that clients change, all together, when somebody leaves whom they did not probe.
        covered_s: Seconds until a client that finds servers by DNS has a target in every zone
            that is not its own node's alone: median and most.
        burst: New addresses greeted at the busiest server in its busiest second of the first
            minute, when all clients start at once.
    """

    nodes: int
    zones: int
    targets: tuple[int, int]
    series: tuple[int, int]
    by_server: tuple[float, int]
    at_first: float
    in_the_end: float
    after_a_tenth: float
    unprobed: int
    changed: tuple[float, int]
    covered_s: tuple[float, float]
    burst: int

    def line(self) -> str:
        """Return the row as Markdown."""
        fewest, most = self.targets
        cells = (
            f"{self.nodes:,}",
            str(self.zones),
            str(most) if fewest == most else f"{fewest} to {most}",
            f"{self.series[0]:,} / {self.series[1]:,}",
            f"{self.by_server[0]:.0f} / {self.by_server[1]}",
            f"{self.at_first:.2%} / {self.in_the_end:.2%} / {self.after_a_tenth:.2%}",
            str(self.unprobed),
            f"{self.changed[0]:.2f} / {self.changed[1]}",
            f"{self.covered_s[0] / 60:.1f} / {self.covered_s[1] / 60:.1f}",
            str(self.burst),
        )
        return f"| {' | '.join(cells)} |"


HEAD = (
    "| nodes | zones | targets | series, healthy / most | probes/s per server, mean / most"
    " | probed by 3 or more: first / in the end / after a tenth of the nodes is gone"
    " | by none | changed, had it / others"
    " | minutes to every zone, median / most | burst |"
)
ZONES_IN_DOCS = 3
_CELLS_IN_DOCS = (0, 3, 4, 5, 8)


def extract(lines: list[str]) -> list[str]:
    """Return the rows and columns of the table, a head and a rule first, for docs/operations.md."""
    head, rule, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    some = [row for row in rows if row[1] == str(ZONES_IN_DOCS)]
    return [
        f"| {' | '.join(row[cell] for cell in _CELLS_IN_DOCS)} |" for row in (head, rule, *some)
    ]


class Cluster:
    """Nodes of one client and one server each."""

    def __init__(self, nodes: int, zones: int) -> None:
        self.nodes = nodes
        self.whos = [Who("", f"node-{n}", f"zone-{n % zones}") for n in range(nodes)]
        self.addresses = [
            Address(f"10.{n // 62_500}.{n // 250 % 250}.{n % 250 + 1}", 5000) for n in range(nodes)
        ]
        self.numbers = {address: n for n, address in enumerate(self.addresses)}
        self.found = [Server.at(address) for address in self.addresses]

    def client(self, number: int) -> Neighbourhood:
        """Return what the client of a node starts with, when it finds servers by DNS."""
        name = f"node-{number}"
        hood = Neighbourhood(
            client=name,
            node=name,
            limit=_CONFIG.neighbours,
            probe_self=_CONFIG.probe_self,
            leaving_ns=int(_CONFIG.drain_grace_s * 1e9),
            linger_ns=int(_CONFIG.linger_s * 1e9),
        )
        hood.update(self.found, 0)
        return hood

    def greet(self, hood: Neighbourhood) -> int | None:
        """Let a client greet one more; returns whom."""
        address = hood.stranger(0)
        if address is None:
            return None
        number = self.numbers[address]
        hood.met(address, self.whos[number], 0)
        return number

    def chosen(self, hood: Neighbourhood) -> set[int]:
        """Return whom a client probes."""
        return {self.numbers[server.address] for server in hood.chosen(0)}


class _Seen(NamedTuple):
    """What was seen of some clients."""

    at_first: Counter[int]
    in_the_end: Counter[int]
    after_a_tenth: Counter[int]
    targets: list[int]
    covered_s: list[float]
    greeted: Counter[tuple[int, int]]
    had: list[int]
    others: int


def _follow(nodes: int, zones: int, clients: range, step: int) -> _Seen:
    cluster = Cluster(nodes, zones)
    seen = _Seen(Counter(), Counter(), Counter(), [], [], Counter(), [], 0)
    others = 0
    for client in clients:
        hood = cluster.client(client)
        wanted = {who.zone for n, who in enumerate(cluster.whos) if n != client}
        covered_s = None
        greeted = []
        for second in itertools.count():
            if second == _CONFIG.neighbours:
                seen.at_first.update(cluster.chosen(hood))
            is_covered = covered_s is not None or client % step
            if second >= _FIRST_S and is_covered:
                break
            number = cluster.greet(hood)
            if number is None:
                break
            greeted.append(number)
            if not is_covered and {cluster.whos[n].zone for n in cluster.chosen(hood)} >= wanted:
                covered_s = second + 1
        seen.greeted.update(enumerate(greeted[:_FIRST_S]))
        if second < _CONFIG.neighbours:
            seen.at_first.update(cluster.chosen(hood))
        if not client % step:
            seen.covered_s.append(math.inf if covered_s is None else covered_s)
        for address, who in zip(cluster.addresses, cluster.whos, strict=True):
            hood.met(address, who, 0)
        chosen = cluster.chosen(hood)
        seen.in_the_end.update(chosen)
        seen.targets.append(len(chosen))
        if client % _TENTH:
            # Every tenth node leaves at once, with its client and its server.
            leavers = [n for n in chosen if not n % _TENTH]
            while leavers:
                for leaver in leavers:
                    hood.leaves(cluster.addresses[leaver], 0)
                leavers = [n for n in cluster.chosen(hood) if not n % _TENTH]
            seen.after_a_tenth.update(cluster.chosen(hood))
            for address, who in zip(cluster.addresses, cluster.whos, strict=True):
                hood.met(address, who, 0)
        if client % step:
            continue
        strangers = (n % nodes for n in itertools.count(client + 1))
        for leaver in (*chosen, *itertools.islice(strangers, _LEAVERS)):
            if leaver == client:
                continue
            hood.leaves(cluster.addresses[leaver], 0)
            new = len(cluster.chosen(hood) - chosen)
            if leaver in chosen:
                seen.had.append(new)
            else:
                others += new
            hood.met(cluster.addresses[leaver], cluster.whos[leaver], 0)
    return seen._replace(others=others)


def simulate(nodes: int, zones: int, workers: int = 1) -> Row:
    """Let every client of a cluster choose."""
    step = max(1, nodes // _FOLLOWED)
    parts = [range(first, nodes, workers) for first in range(workers)]
    if workers == 1:
        seen = [_follow(nodes, zones, parts[0], step)]
    else:
        with concurrent.futures.ProcessPoolExecutor(workers) as pool:
            seen = list(
                pool.map(_follow, *zip(*((nodes, zones, p, step) for p in parts), strict=True))
            )
    at_first, in_the_end, greeted = Counter[int](), Counter[int](), Counter[tuple[int, int]]()
    after_a_tenth = Counter[int]()
    for part in seen:
        at_first += part.at_first
        in_the_end += part.in_the_end
        after_a_tenth += part.after_a_tenth
        greeted += part.greeted
    targets = [count for part in seen for count in part.targets]
    had = [count for part in seen for count in part.had]
    covered_s = [count for part in seen for count in part.covered_s]
    return Row(
        nodes,
        zones,
        (min(targets), max(targets)),
        (_series(max(targets), zones, healthy=True), _series(max(targets), zones, healthy=False)),
        (in_the_end.total() / nodes, max(in_the_end.values())),
        sum(at_first[n] >= 3 for n in range(nodes)) / nodes,
        sum(in_the_end[n] >= 3 for n in range(nodes)) / nodes,
        statistics.mean(after_a_tenth[n] >= 3 for n in range(nodes) if n % _TENTH),
        sum(not in_the_end[n] for n in range(nodes)),
        (statistics.mean(had) if had else 0.0, sum(part.others for part in seen)),
        (statistics.median(covered_s), max(covered_s)),
        max(greeted.values()),
    )


def _series(paths: int, zones: int, *, healthy: bool) -> int:
    families = client_families(paths=paths, proxied=0, zones=zones, healthy=healthy)
    return sum(len(family.samples) for family in families)


def main() -> int:
    """Simulate; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="*", help="Nodes; all sizes unless given.")
    parser.add_argument("--workers", type=int, default=2, help="Processes.")
    flags = parser.parse_args()
    lines = [HEAD, "|" + "---:|" * HEAD.count(" | ") + "---:|"]
    print(lines[0], lines[1], sep="\n")
    for nodes, zones in itertools.product(flags.sizes or SIZES, ZONES):
        lines.append(simulate(nodes, zones, flags.workers).line())
        print(lines[-1], flush=True)
    if not flags.sizes:
        for page, table in ((TABLE, lines), (DOCS, extract(lines))):
            before, after = page.read_text().split(BEGIN)[0], page.read_text().split(END)[1]
            page.write_text("\n".join([before + BEGIN, *table, END + after]))
            print(f"{page.name} written", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
