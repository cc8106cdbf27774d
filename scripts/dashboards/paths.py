"""Paths: is everything well?"""

from .grafana import (
    CONNECT_STEPS,
    LOSS_STEPS,
    SERIOUS,
    Dashboard,
    choice,
    matrix,
    stat,
    state_timeline,
    table,
    timeseries,
)

# A matrix of more cells than this is not readable, and a browser that draws it not usable.
MOST_CELLS = 1000
TOO_MANY = f"more than {MOST_CELLS:,} pairs: choose zones or nodes"

SELECTORS = {
    "ZONES": 'source_zone=~"$source_zone", target_zone=~"$target_zone"',
    "NODES": 'ZONES, source_node=~"$source_node", target_node=~"$target_node"',
    "LOSS": "path:twocans_probes_failed:ratio_rate5m{NODES}",
    "CONNECT": "path:twocans_connect_seconds:mean5m{NODES}",
    # By loss, and among equals by connect time. A path that never connects has loss only.
    "LOST": "node_pair:twocans_segments_lost:increase10m",
    "SENT": "node_pair:twocans_segments_sent:increase10m",
    "WORST": "topk(30, (1000 * LOSS + CONNECT) or 1000 * LOSS)",
    "PROBED_NAMES": 'label_replace(server:twocans_probed_by:count, "name", "$1", "server", "(.+)")',
}


def _zone_matrix(query: str) -> str:
    """A zone that nobody told is a line and a column as well."""
    return f"""
        label_replace(label_replace({query},
          "source_zone", "no zone", "source_zone", ""),
          "target_zone", "no zone", "target_zone", "")
    """


def _node_matrix(query: str) -> str:
    return f"{query} and on () (count({query}) <= {MOST_CELLS})"


LOSS_BY_NODE = _node_matrix("node_pair:twocans_probes_failed:ratio_rate5m{NODES}")
CONNECT_BY_NODE = _node_matrix("node_pair:twocans_connect_seconds:mean5m{NODES}")

PATHS = Dashboard(
    key="paths",
    title="twocans: paths",
    description="Is every TCP path good, and which is not?",
    selectors=SELECTORS,
    variables=[
        choice(
            "source_zone",
            "label_values(node_pair:twocans_probes_failed:ratio_rate5m, source_zone)",
            label="From zone",
        ),
        choice(
            "target_zone",
            "label_values(node_pair:twocans_probes_failed:ratio_rate5m, target_zone)",
            label="To zone",
        ),
        choice(
            "source_node",
            'label_values(node_pair:twocans_probes_failed:ratio_rate5m{source_zone=~"$source_zone"},'
            " source_node)",
            label="From node",
        ),
        choice(
            "target_node",
            'label_values(node_pair:twocans_probes_failed:ratio_rate5m{target_zone=~"$target_zone"},'
            " target_node)",
            label="To node",
        ),
    ],
    rows={
        "Is everything well?": [
            stat(
                "How many paths are probed?",
                "Paths on which a probe ended in the last five minutes, of the chosen zones and"
                " nodes.",
                "count(LOSS)",
                unit="none",
                empty="no path is probed, or its rules are not loaded",
            ),
            stat(
                "How many paths fail?",
                "Paths on which a probe failed in the last five minutes. Void and missed probes"
                " are our own doing and not counted.",
                "count(LOSS > 0) or 0 * count(LOSS)",
                unit="none",
                empty="no path is probed",
                steps=SERIOUS,
            ),
            stat(
                "How bad is the worst?",
                "Largest share of failed probes on one path: fail / (ok + fail) of five minutes.",
                "max(LOSS)",
                unit="percentunit",
                empty="no path is probed",
                steps=LOSS_STEPS,
            ),
            stat(
                "How slow is the slowest connect?",
                "Longest mean connect time of one path in the last five minutes, on the"
                " application's clock.",
                "max(CONNECT)",
                unit="s",
                empty="no path connects",
                steps=CONNECT_STEPS,
            ),
            stat(
                "How many servers are probed?",
                "Share of the servers that Prometheus scrapes which at least one client probes."
                " Of all zones and nodes.",
                """
                count(twocans_server_info and on (name) PROBED_NAMES) / count(twocans_server_info)
                """,
                unit="percentunit",
                empty="no scraped server is probed",
                steps=((None, "red"), (1, "green")),
            ),
            stat(
                "How many cans do not answer?",
                "Servers and clients whose /metrics Prometheus did not reach. Of all zones and"
                " nodes.",
                'count(up{job=~".*twocans.*"} == 0) or 0 * count(up{job=~".*twocans.*"})',
                unit="none",
                empty="Prometheus scrapes no can: see its page of targets",
                steps=SERIOUS,
            ),
        ],
        "Zone by zone": [
            matrix(
                "Which zones lose probes to which?",
                "Share of failed probes, fail / (ok + fail), of five minutes; from the zone at"
                " the left to the zone above. Look here first: it stays readable at any number of"
                " nodes. A cell leads to the paths behind it, but for those without a zone.",
                _zone_matrix("zone_pair:twocans_probes_failed:ratio_rate5m{ZONES}"),
                by="zone",
                unit="percentunit",
                empty="no zone is probed",
                steps=LOSS_STEPS,
                height=7,
            ),
            matrix(
                "How far is it from zone to zone?",
                "Mean connect time of five minutes; from the zone at the left to the zone above."
                " Clients whose own host stalls are left out. Blue is distance; orange and red"
                " are retransmissions and lost SYNs.",
                _zone_matrix("zone_pair:twocans_connect_seconds:mean5m{ZONES}"),
                by="zone",
                unit="s",
                empty="no zone is reached, or every client's host stalls",
                steps=CONNECT_STEPS,
                height=7,
            ),
        ],
        "Node by node": [
            matrix(
                "Which nodes lose probes to which?",
                "Share of failed probes, fail / (ok + fail), of five minutes; from the node at"
                " the left to the node above. A red column is a node that is down, a red line one"
                f" that is cut off. Up to {MOST_CELLS:,} pairs are shown, which is 100 nodes of 10"
                " neighbours: with more, find the zones above and choose them first. A cell leads"
                " to its paths.",
                LOSS_BY_NODE,
                by="node",
                unit="percentunit",
                empty=f"no node is probed, or {TOO_MANY}",
                steps=LOSS_STEPS,
            ),
            matrix(
                "How far is it from node to node?",
                "Mean connect time of five minutes; from the node at the left to the node above."
                " Blue is distance; orange and red are retransmissions and lost SYNs. Shown as"
                " the matrix beside it.",
                CONNECT_BY_NODE,
                by="node",
                unit="s",
                empty=f"no node is reached, or {TOO_MANY}",
                steps=CONNECT_STEPS,
            ),
        ],
        "Where are segments lost?": [
            matrix(
                "Which zones lose segments on the way to which?",
                "Share of lost segments, by both ends' counters, of ten minutes; from the zone of"
                " who sent, at the left, to that of who should have received, above. Probes may be"
                " good all the same: TCP sends lost segments again. While probes fail, at least so"
                " many are lost. Paths with a proxy are not in it.",
                _zone_matrix("""
                    sum by (source_zone, target_zone) (LOST{ZONES})
                      / (sum by (source_zone, target_zone) (SENT{ZONES}) > 0)
                """),
                by="zone",
                unit="percentunit",
                empty="no connection ended, no kernel counts, or every path has a proxy",
                steps=LOSS_STEPS,
                height=7,
            ),
            matrix(
                "Which nodes lose segments on the way to which?",
                "The same from node to node, whichever of a node's cans sent or received: a red"
                " line is a node that loses what it sends, a red column one that loses what is sent"
                " to it. Shown as the matrices above.",
                _node_matrix("(LOST{NODES} / (SENT{NODES} > 0))"),
                by="node",
                unit="percentunit",
                empty=f"no connection ended, no kernel counts, or {TOO_MANY}",
                steps=LOSS_STEPS,
                height=7,
            ),
        ],
        "Which paths are the worst?": [
            table(
                "These paths are the worst now",
                "The thirty that lose most, and among those that lose alike the slowest to"
                " connect. Of five minutes. A client or a server leads to its path.",
                {"Loss": "LOSS and WORST", "Connect": "CONNECT and WORST"},
                columns=[
                    "client",
                    "source_node",
                    "source_zone",
                    "server",
                    "target_node",
                    "target_zone",
                    "target",
                    "family",
                ],
                units={"Loss": ("percentunit", LOSS_STEPS), "Connect": ("s", CONNECT_STEPS)},
                links={
                    label: ("path", ["client", "target", "server", "family"])
                    for label in ("client", "server")
                },
                worst_first=["Loss", "Connect"],
                empty="no path is probed",
            ),
            state_timeline(
                "When did the worst paths fail?",
                "The thirty paths that lost most in the time shown. Each moment is of the five"
                " minutes before it: a single failed probe is seen for that long.",
                {
                    "{{client}} to {{server}}, {{target}}, IPv{{family}}": """
                        LOSS and topk(30, avg_over_time(LOSS[$__range] @ end()))
                    """
                },
                unit="percentunit",
                empty="no path was probed in this time",
                states=[
                    (0, 0, "all good", "green"),
                    (1e-9, 0.5, "some fail", "yellow"),
                    (0.5, 1, "most fail", "red"),
                ],
            ),
            table(
                "Which alerts are there?",
                "Alerts of twocans, pending and firing. docs/operations.md says for each what to"
                " do.",
                {"Alert": 'ALERTS{alertname=~"Twocans.*"}'},
                columns=[
                    "alertstate",
                    "severity",
                    "alertname",
                    "node",
                    "client",
                    "server",
                    "target",
                    "scope",
                    "source_node",
                    "source_zone",
                    "target_node",
                    "target_zone",
                ],
                empty="no alert is pending or firing, or their rules are not loaded",
                height=7,
            ),
        ],
        "Is enough probed?": [
            timeseries(
                "How do the probes end?",
                "All probes, of all zones and nodes. fail is the path's or the far end's doing,"
                " void our own, missed a slot in which no probe could start.",
                {
                    "{{outcome}}": """
                        sum by (outcome) (rate(twocans_client_probes_total[$__rate_interval]))
                    """,
                    "missed": "sum(rate(twocans_client_probes_missed_total[$__rate_interval]))",
                },
                unit="reqps",
                empty="no client is scraped",
                stacked=True,
            ),
            timeseries(
                "How many clients watch each server?",
                "Servers that Prometheus scrapes, and how many servers at least one and at least"
                " three clients probe. One client alone cannot tell a server that is down from a"
                " line of its own that is cut.",
                {
                    "scraped": "count(twocans_server_info)",
                    "probed by 1 or more": "count(server:twocans_probed_by:count >= 1)",
                    "probed by 3 or more": """
                        count(server:twocans_probed_by:count >= 3)
                          or 0 * count(server:twocans_probed_by:count)
                    """,
                },
                unit="none",
                empty="no server is scraped or probed",
            ),
            timeseries(
                "Does every client reach every zone?",
                "Zones that clients have heard of, and zones in which they probe a server: the"
                " least and the most of any client. While lines of known and probed differ, some"
                " client still has a zone to explore.",
                {
                    "{{state}}, least": "min by (state) (twocans_client_zones)",
                    "{{state}}, most": "max by (state) (twocans_client_zones)",
                },
                unit="none",
                empty="no client knows a zone",
            ),
            table(
                "Which servers does nobody probe?",
                "Scraped servers that are on no client's path.",
                {"Server": "twocans_server_info unless on (name) PROBED_NAMES"},
                columns=["name", "node", "zone", "address"],
                links={"name": ("cans", ["can=name"])},
                empty="every scraped server is probed",
                width=12,
                height=8,
            ),
        ],
    },
)
