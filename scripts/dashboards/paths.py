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
# Of a table that a person reads.
MOST_VERDICTS = 100
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
    description="Is every TCP path good, and if not, which one?",
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
                "Paths of the chosen zones and nodes on which a probe ended in the last five "
                "minutes.",
                "count(LOSS)",
                unit="none",
                empty="no path is probed, or its rules are not loaded",
            ),
            stat(
                "How many paths fail?",
                "Paths on which a probe failed in the last five minutes. Void and missed probes "
                "are our own doing, and not counted.",
                "count(LOSS > 0) or 0 * count(LOSS)",
                unit="none",
                empty="no path is probed",
                steps=SERIOUS,
            ),
            stat(
                "How bad is the worst?",
                "Largest share of failed probes on one path: fail / (ok + fail) over five minutes.",
                "max(LOSS)",
                unit="percentunit",
                empty="no path is probed",
                steps=LOSS_STEPS,
            ),
            stat(
                "How slow is the slowest connect?",
                "Longest mean connect time of one path in the last five minutes, on the user "
                "clock.",
                "max(CONNECT)",
                unit="s",
                empty="no path connects",
                steps=CONNECT_STEPS,
            ),
            stat(
                "How many servers are probed?",
                "Share of the servers scraped by Prometheus that at least one client probes. All "
                "zones and nodes.",
                """
                count(twocans_server_info and on (name) PROBED_NAMES) / count(twocans_server_info)
                """,
                unit="percentunit",
                empty="no scraped server is probed",
                steps=((None, "red"), (1, "green")),
            ),
            stat(
                "How many processes do not answer?",
                "Servers and clients whose /metrics Prometheus did not reach. All zones and nodes.",
                'count(up{job=~".*twocans.*"} == 0) or 0 * count(up{job=~".*twocans.*"})',
                unit="none",
                empty="Prometheus scrapes no server or client: see its page of targets",
                steps=SERIOUS,
            ),
        ],
        "Zone by zone": [
            matrix(
                "Which zones lose probes to which?",
                "Share of failed probes, fail / (ok + fail), over five minutes; from the zone on "
                "the left to the zone above. Look here first: it stays readable at any number of "
                "nodes. A cell links to its paths, except for those without a zone.",
                _zone_matrix("zone_pair:twocans_probes_failed:ratio_rate5m{ZONES}"),
                by="zone",
                unit="percentunit",
                empty="no zone is probed",
                steps=LOSS_STEPS,
                height=7,
            ),
            matrix(
                "How far is it from zone to zone?",
                "Mean connect time over five minutes; from the zone on the left to the zone "
                "above. Clients whose own host stalls are left out. Blue is distance; orange and "
                "red are retransmissions and lost SYNs.",
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
                "Share of failed probes, fail / (ok + fail), over five minutes; from the node on"
                " the left to the node above. A red column is a node that is down, a red row one"
                f" that is cut off. Up to {MOST_CELLS:,} pairs are shown, which is 100 nodes of 10"
                " neighbours: with more, find the zones above and choose them first. A cell links"
                " to its paths.",
                LOSS_BY_NODE,
                by="node",
                unit="percentunit",
                empty=f"no node is probed, or {TOO_MANY}",
                steps=LOSS_STEPS,
            ),
            matrix(
                "How far is it from node to node?",
                "Mean connect time over five minutes; from the node on the left to the node "
                "above. Blue is distance; orange and red are retransmissions and lost SYNs. "
                "Limited like the matrix beside it.",
                CONNECT_BY_NODE,
                by="node",
                unit="s",
                empty=f"no node is reached, or {TOO_MANY}",
                steps=CONNECT_STEPS,
            ),
        ],
        "Where are segments lost?": [
            matrix(
                "Which zones lose segments to which?",
                "Share of lost segments, from both ends' counters, over ten minutes; from the "
                "sender's zone on the left to the intended receiver's zone above. Probes may "
                "still be good: TCP sends lost segments again. While probes fail, this is a lower "
                "bound. Paths with a proxy are left out.",
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
                "Which nodes lose segments to which?",
                "The same from node to node, for a node's server and client together: a red row "
                "is a node that loses what it sends, a red column one that loses what is sent to "
                "it. Limited like the matrices above.",
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
                "The thirty with the highest share of failed probes, and among equals the slowest "
                "to connect, over five minutes. A client or a server links to its path.",
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
            table(
                "Which faults have a name now?",
                "Verdicts that stand, a hundred at most: what is wrong, whose doing it is and in "
                "which direction. docs/verdicts.md has the evidence of each and what to do "
                "next. A client or a server links to its path, which shows them over time.",
                {"Fault": f"topk({MOST_VERDICTS}, path:twocans_verdict:info{{NODES}} > 0)"},
                columns=[
                    "verdict",
                    "culprit",
                    "direction",
                    "client",
                    "source_node",
                    "source_zone",
                    "server",
                    "target_node",
                    "target_zone",
                    "target",
                    "family",
                ],
                links={
                    label: ("path", ["client", "target", "server", "family"])
                    for label in ("client", "server")
                },
                empty="no fault has a name now",
                height=7,
            ),
            state_timeline(
                "When did the worst paths fail?",
                "The thirty paths with the highest share of failed probes in the time shown. Each "
                "moment covers the five minutes before it: a single failed probe is visible for "
                "that long.",
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
                "Alerts of twocans, pending and firing. docs/operations.md has a runbook for each.",
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
                "All probes, all zones and nodes. fail: caused by the path or the far end. void: "
                "caused by us. missed: no probe could start in the slot.",
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
                "How many clients probe each server?",
                "Servers that Prometheus scrapes, and the number that at least one and at least "
                "three clients probe. One client alone cannot distinguish a server that is down "
                "from its own connection being cut.",
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
                "Zones that clients know, and zones in which they probe a server: the fewest and "
                "the most of any client. While known and probed differ, some client still has a "
                "zone to explore.",
                {
                    "{{state}}, least": "min by (state) (twocans_client_zones)",
                    "{{state}}, most": "max by (state) (twocans_client_zones)",
                },
                unit="none",
                empty="no client knows a zone",
            ),
            table(
                "Which servers are not probed?",
                "Scraped servers that no client probes.",
                {"Server": "twocans_server_info unless on (name) PROBED_NAMES"},
                columns=["name", "node", "zone", "address"],
                links={"name": ("processes", ["process=name"])},
                empty="every scraped server is probed",
                width=12,
                height=8,
            ),
        ],
    },
)
