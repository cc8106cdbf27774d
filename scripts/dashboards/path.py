"""Path: one path in depth."""

from .grafana import (
    CONNECT_STEPS,
    LOSS_STEPS,
    Dashboard,
    Steps,
    choice,
    constant_choice,
    heatmap,
    stat,
    state_timeline,
    table,
    timeseries,
)

_SEGMENTS = "twocans_client_path_segments_total"

SELECTORS = {
    "CLIENT": 'instance=~"$instance"',
    "PATH": 'instance=~"$instance", target=~"$target", server=~"$server", family=~"$family"',
    "ZONES": 'instance=~"$instance", target_zone=~"$target_zone"',
    "SERVER": 'instance=~"$server_instance"',
    "RATE": "$__rate_interval",
    # Wilson's interval for LOST of SENT at 95 %: 1.96 squared is 3.8416.
    "LOST": f"sum by (direction) (increase({_SEGMENTS}{{PATH, fate='lost'}}[$__range]))",
    "SENT": f"(sum by (direction) (increase({_SEGMENTS}{{PATH, fate='sent'}}[$__range])) > 0)",
    "SPREAD": "1.96 * sqrt(LOST * (1 - LOST / SENT) + 0.9604)",
    "LOW": "(LOST + 1.9208 - SPREAD) / (SENT + 3.8416)",
    "HIGH": "(LOST + 1.9208 + SPREAD) / (SENT + 3.8416)",
    # A probe that failed is in no account, and loss may be why: then there is no upper end.
    "FAILED": "sum(increase(twocans_client_probes_total{PATH, outcome='fail'}[$__range])) > 0",
}

# A path keeps sums of these and of connect; of every phase there are histograms by pair of zones.
EXCHANGE = ["network", "server", "client"]

PHASES = ["network", "server", "client", "exchange", "handshake", "connect", "greet", "close"]
PHASES += ["probe", "response", "recovery", "held_network", "sized"]

_ALL_PATHS = (
    " Of ALL probes of this client to the chosen servers' zones, not of this path alone: "
    "histograms are kept by pair of zones."
)
# What comes before the first exchange, and a share of client_send: no parts of the sum.
_NO_SUMMANDS = "accept|client_connect|client_qdisc"
_EXCHANGES = (
    " Of ALL exchanges of this client with the chosen servers' zones, on fresh connections and"
    " held ones."
)


# A number without a colour.
_PLAIN: Steps = ((None, "transparent"),)


def _mean(phase: str, window: str = "RATE") -> str:
    """Return the mean duration of a phase on this path."""
    return _ratio(f'twocans_client_path_phase_seconds_%s{{PATH, phase="{phase}"}}[{window}]')


def _mean_between_zones(phase: str) -> str:
    return _ratio(f'twocans_client_phase_duration_seconds_%s{{ZONES, phase="{phase}"}}[RATE]')


def _ratio(series: str) -> str:
    return f"sum(rate({series % 'sum'})) / (sum(rate({series % 'count'})) > 0)"


def _quantile(quantile: float, family: str, selector: str) -> str:
    buckets = f"{family}_bucket{{{selector}}}[RATE]"
    return f"histogram_quantile({quantile}, sum by (le) (rate({buckets})))"


PATH = Dashboard(
    key="path",
    title="twocans: path",
    description="One path: where does its time go, and what is the cause when it is not good?",
    selectors=SELECTORS,
    variables=[
        choice("client", "label_values(twocans_client_info, name)", label="Client", several=False),
        choice("instance", 'label_values(twocans_client_info{name="$client"}, instance)'),
        choice(
            "server",
            "label_values(twocans_client_path_info{CLIENT}, server)",
            label="Server",
        ),
        choice(
            "target",
            'label_values(twocans_client_path_info{CLIENT, server=~"$server"}, target)',
            label="Target",
        ),
        choice(
            "family",
            'label_values(twocans_client_path_info{CLIENT, server=~"$server"}, family)',
            label="IP version",
        ),
        choice("target_zone", "label_values(twocans_client_path_info{PATH}, zone)"),
        choice("server_instance", 'label_values(twocans_server_info{name=~"$server"}, instance)'),
        constant_choice("phase", "Phase", PHASES),
    ],
    rows={
        "Which path is this, and is it good?": [
            table(
                "What is at its ends?",
                "The client, and what it knows of the server: node, zone and version as announced "
                "in the greeting. Without a chosen server, this panel and those below cover all "
                "servers that this client probes.",
                {
                    "Path": """
                        twocans_client_path_info{PATH} * on (job, instance)
                          group_left (name, source_node, source_zone)
                        label_replace(label_replace(twocans_client_info{CLIENT},
                          "source_node", "$1", "node", "(.*)"), "source_zone", "$1", "zone", "(.*)")
                    """
                },
                columns=[
                    "name",
                    "source_node",
                    "source_zone",
                    "server",
                    "node",
                    "zone",
                    "version",
                    "target",
                    "family",
                ],
                links={
                    "name": ("processes", ["process=name"]),
                    "server": ("processes", ["process=server"]),
                },
                empty="no such path is probed now: look back in time, or choose another",
                height=5,
            ),
            stat(
                "How much does it lose?",
                "Share of failed probes in the time shown: fail / (ok + fail).",
                """
                sum(increase(twocans_client_probes_total{PATH, outcome="fail"}[$__range]))
                  / (sum(increase(
                    twocans_client_probes_total{PATH, outcome=~"ok|fail"}[$__range])) > 0)
                """,
                unit="percentunit",
                empty="no probe ended",
                steps=LOSS_STEPS,
                width=6,
            ),
            stat(
                "How long does it take to connect?",
                "Mean connect time in the time shown, on the user clock.",
                _mean("connect", "$__range"),
                unit="s",
                empty="no probe connected",
                steps=CONNECT_STEPS,
                width=6,
            ),
            stat(
                "How long ago was the newest good probe?",
                "Since its start. With several paths, of the one whose newest good probe is "
                "oldest.",
                "time() - min(twocans_client_last_success_timestamp_seconds{PATH} > 0)",
                unit="s",
                empty="no probe was good yet",
                steps=((None, "green"), (10, "orange"), (60, "red")),
                width=6,
            ),
            stat(
                "How many slots have no result?",
                "Share of the schedule's slots that were missed, or void because of us, in the "
                "time shown. While it is not 0 the other figures rest on fewer probes.",
                """
                (sum(increase(twocans_client_probes_missed_total{PATH}[$__range]))
                  + sum(increase(twocans_client_probes_total{PATH, outcome="void"}[$__range])))
                  / (sum(increase(twocans_client_probes_scheduled_total{PATH}[$__range])) > 0)
                """,
                unit="percentunit",
                empty="no slot was due",
                steps=LOSS_STEPS,
                width=6,
            ),
            timeseries(
                "How do its probes end?",
                "fail: caused by the path or the far end. void: caused by us. missed: no probe "
                "could start in the slot. With ok, they add up to the schedule.",
                {
                    "{{outcome}}": """
                        sum by (outcome) (rate(twocans_client_probes_total{PATH}[RATE]))
                    """,
                    "missed": "sum(rate(twocans_client_probes_missed_total{PATH}[RATE]))",
                },
                unit="reqps",
                empty="no probe ended",
                stacked=True,
            ),
            timeseries(
                "Why were probes not good?",
                "By reason, from a closed list in docs/metrics.md: refused is a server that is "
                "down, connect_timeout a path that is down, greeting_timeout a process that hangs "
                "behind a kernel that answers. draining is a server that announced its stop, and "
                "not a failure.",
                {
                    "{{outcome}}: {{reason}}": """
                        sum by (outcome, reason)
                          (rate(twocans_client_probe_reasons_total{PATH}[RATE])) > 0
                    """
                },
                unit="reqps",
                empty="every probe was good",
                bars=True,
            ),
            state_timeline(
                "Which faults have a name?",
                "The verdicts over time: what was wrong, whose doing it was, in which direction. "
                "docs/verdicts.md has the evidence of each and what to do next; the proof is in "
                "the client's log, event verdict_began. A verdict ends when nothing has shown it "
                "for ten seconds. Below it, the panels of the same time show what it is made of.",
                {
                    "{{verdict}}, {{culprit}} {{direction}}": """
                        max by (verdict, culprit, direction) (twocans_client_path_verdict{PATH})
                    """
                },
                unit="none",
                empty="no verdict stood in this time",
                states=[
                    (0, 0, "worth knowing", "light-blue"),
                    (1, 1, "a fault", "red"),
                ],
                height=6,
            ),
        ],
        "Where does the time go?": [
            timeseries(
                "What is an exchange made of?",
                "Mean time of one request and its reply, by kernel timestamps. network is both "
                "directions between the two network devices; server and client are host and "
                "process at either end. The three add up to the exchange as the client process "
                "saw it.",
                {
                    "{{phase}}": """
                        sum by (phase) (rate(twocans_client_path_phase_seconds_sum
                          {PATH, phase=~"network|server|client"}[RATE]))
                        / (sum by (phase) (rate(twocans_client_path_phase_seconds_count
                          {PATH, phase=~"network|server|client"}[RATE])) > 0)
                    """
                },
                unit="s",
                empty="no exchange has kernel timestamps of both ends",
                stacked=True,
            ),
            timeseries(
                "Does our process see a longer exchange than the kernels?",
                "Mean of the network's and the server's share by kernel timestamps, and of the "
                "whole exchange on the user clock. The difference is this client's host and "
                "process.",
                {
                    "kernels: network and server": f"{_mean('network')} + {_mean('server')}",
                    "application: exchange": " + ".join(map(_mean, EXCHANGE)),
                },
                unit="s",
                empty="no exchange was answered",
            ),
            timeseries(
                "Where did the time of the newest exchange go?",
                "The newest exchange at each scrape, part by part, by kernel timestamps. "
                "docs/measuring.md defines each part. With several paths, the mean.",
                {
                    "{{part}}": """
                        avg by (part) (twocans_client_path_last_seconds{PATH, part!="handshake"})
                    """
                },
                unit="s",
                empty="no exchange has kernel timestamps of both ends",
                stacked=True,
                width=8,
            ),
            timeseries(
                "Does a handshake take as long as an exchange?",
                "The newest of each, by kernel timestamps. Both are one round trip. If the "
                "handshake is much shorter, something nearer than the server answers it: a proxy.",
                {
                    "{{part}}": """
                        avg by (part)
                          (twocans_client_path_last_seconds{PATH, part=~"handshake|network"})
                    """
                },
                unit="s",
                empty="no such path is probed, or its kernels do not report it",
                width=8,
            ),
            timeseries(
                "In which direction is it slower than it was?",
                "By how much the newest exchange was slower than the quickest of the last day: "
                "forward is client to server. The hosts' clocks need not be synchronised. Each "
                "line is an upper bound, absent while it could be all or nothing: "
                "docs/measuring.md has the details. With several paths, the most.",
                {"{{direction}}": "max by (direction) (twocans_client_path_growth_seconds{PATH})"},
                unit="s",
                empty="no exchange has timestamps of both ends, or the direction is unknown",
                width=8,
            ),
        ],
        "How is it between these zones?": [
            timeseries(
                "What is a probe between these zones made of?",
                "Mean time in each phase of a probe that connected, on the user clock. A probe "
                "may have several exchanges; exchange is all of them." + _ALL_PATHS,
                {
                    "{{phase}}": """
                        sum by (phase) (rate(twocans_client_phase_duration_seconds_sum
                          {ZONES, phase=~"connect|greet|exchange|close"}[RATE]))
                        / ignoring (phase) group_left ()
                        (sum(rate(twocans_client_phase_duration_seconds_count
                          {ZONES, phase="connect"}[RATE])) > 0)
                    """
                },
                unit="s",
                empty="no probe connected",
                stacked=True,
            ),
            timeseries(
                "Where does the time of exchanges between these zones go?",
                "Mean time in each part of an exchange, by kernel timestamps. They add up to the "
                "exchange as the client process saw it. server_stall: the server's process was "
                "answering and did not run." + _EXCHANGES,
                {
                    "{{part}}": f"""
                        sum by (part) (rate(twocans_client_exchange_part_seconds_sum
                          {{ZONES, part!~"{_NO_SUMMANDS}"}}[RATE]))
                        / (sum by (part) (rate(twocans_client_exchange_part_seconds_count
                          {{ZONES, part!~"{_NO_SUMMANDS}"}}[RATE])) > 0)
                    """
                },
                unit="s",
                empty="no exchange has kernel timestamps of both ends",
                stacked=True,
            ),
            timeseries(
                "How long are the parts of an exchange at worst?",
                "99th percentile of each part, accurate to a bucket. client_qdisc is the share of "
                "client_send in our host's queueing discipline. Two belong to the connection, not "
                "to an exchange: accept is how long a greeting waited until the server's process "
                "had accepted, client_connect is connect() without the handshake." + _EXCHANGES,
                {
                    "{{part}}": """
                        histogram_quantile(0.99, sum by (part, le) (
                          rate(twocans_client_exchange_part_seconds_bucket{ZONES}[RATE])))
                    """
                },
                unit="s",
                empty="no exchange has kernel timestamps of both ends",
            ),
            timeseries(
                "Does our process see a longer connect than the kernel?",
                "Mean of one round trip by the kernel (SYN to SYN-ACK, not counted if sent "
                "again), and of connect() on the user clock. The difference is this client's "
                "scheduling, or a lost SYN, and not distance." + _ALL_PATHS,
                {
                    "kernel: handshake": _mean_between_zones("handshake"),
                    "application: connect": _mean_between_zones("connect"),
                },
                unit="s",
                empty="no probe connected",
            ),
            heatmap(
                "How is the phase $phase distributed between these zones?",
                "Choose another phase above. Buckets end just under 0.2 s, 1 s, 3 s and 7 s: a "
                "retransmission and the first, second and third lost SYN each cross one of these."
                + _ALL_PATHS,
                """
                sum by (le) (increase(
                  twocans_client_phase_duration_seconds_bucket{ZONES, phase="$phase"}[RATE]))
                """,
                unit="s",
                empty="nothing of this phase was measured",
            ),
            timeseries(
                "How are the quantiles of the phase $phase between these zones?",
                "Median, 90th and 99th percentile of the histogram beside it, accurate to a "
                "bucket." + _ALL_PATHS,
                {
                    f"p{quantile * 100:g}": _quantile(
                        quantile,
                        "twocans_client_phase_duration_seconds",
                        'ZONES, phase="$phase"',
                    )
                    for quantile in (0.5, 0.9, 0.99)
                },
                unit="s",
                empty="nothing of this phase was measured",
                height=9,
            ),
        ],
        "Is anything lost on the path?": [
            table(
                "How much is lost in which direction?",
                "Segments with data or SYN in the time shown, from both ends' counters: forward "
                "is client to server. The true share lies between the last two columns, with 95 % "
                "certainty (Wilson); if none was lost it is at most 3 / sent. If a probe failed "
                "there is no upper end: loss may have kept its connection out of the count. "
                "Counts are Prometheus' estimates, and not whole numbers.",
                {
                    "Sent": "SENT",
                    "Lost": "LOST",
                    "Share": "LOST / SENT",
                    "At least": "clamp_min(LOW, 0)",
                    "At most": "(HIGH and LOST > 0 or clamp_max(3 / SENT, 1)) unless on () FAILED",
                },
                columns=["direction"],
                units={
                    "Sent": ("none", _PLAIN),
                    "Lost": ("none", _PLAIN),
                    "Share": ("percentunit", _PLAIN),
                    "At least": ("percentunit", LOSS_STEPS),
                    "At most": ("percentunit", _PLAIN),
                },
                empty="no connection ended, its kernels do not count, or there is a proxy on the "
                "path",
                width=18,
                height=5,
            ),
            stat(
                "Is there a proxy on the path?",
                "A proxy terminates our TCP connection and opens another one to the server. Then "
                "each end counts its own connection, and loss is unknown: it is counted neither "
                "here nor in the zones' figures. A proxy is recognised within twenty probes, "
                "because the two ends' counters disagree.",
                """
                count(twocans_client_path_info{PATH} unless on (job, instance, target, server,
                  family) twocans_client_path_segments_total{PATH})
                  or 0 * count(twocans_client_path_info{PATH})
                """,
                unit="none",
                empty="no such path is probed",
                states=(
                    (0, 0, "none: loss is counted", "green"),
                    (1, 1e9, "proxy: loss is not claimed", "blue"),
                ),
                width=6,
            ),
            timeseries(
                "When was something lost, and in which direction?",
                "Lost segments as a share of those sent, SYNs included, from both ends' counters, "
                "in connections that reached their end: while probes fail, this is a lower bound. "
                "A segment that was sent again without need is not lost.",
                {
                    "{{direction}}": f"""
                        sum by (direction) (rate({_SEGMENTS}{{PATH, fate="lost"}}[RATE]))
                        / (sum by (direction) (rate({_SEGMENTS}{{PATH, fate="sent"}}[RATE])) > 0)
                    """
                },
                unit="percentunit",
                empty="no connection ended, its kernels do not count, or there is a proxy on the "
                "path",
            ),
            timeseries(
                "What becomes of segments between these zones?",
                "By direction and fate. lost: did not arrive; duplicated: arrived more often than "
                "sent; resent: sent again, of which spurious without need, and damaged because of "
                "a wrong checksum; unsent: dropped by the sender's own host; reordered: "
                "overtaken by others; acks_lost: segments without data that did not "
                "arrive; syns_lost: SYNs forward, SYN-ACKs reverse; overflowed: a full accept "
                "queue may have dropped them; unanswered: SYNs of connections that were never "
                "established." + _ALL_PATHS,
                {
                    "{{direction}} {{fate}}": """
                        sum by (direction, fate)
                          (rate(twocans_client_segments_total{ZONES, fate!~"sent|syns"}[RATE]))
                    """
                },
                unit="pps",
                empty="no connection ended, its kernels do not count, or there is a proxy on "
                "every path",
            ),
            timeseries(
                "Which end retransmits segments?",
                "Retransmitted segments by the end that sent them, from both kernels' counters, "
                "on paths whose losses cannot be counted: there is a proxy. client: the segment "
                "was lost forward, or its acknowledgement reverse; server: the opposite.",
                {
                    "{{end}}": """
                        sum by (end)
                          (rate(twocans_client_retransmitted_segments_total{PATH}[RATE]))
                    """
                },
                unit="pps",
                empty="losses are counted: see the panel beside this one",
            ),
            timeseries(
                "How many of its probes are in flight?",
                "Probes that have started and not finished. A path that hangs has one for each "
                "interval of the time-out.",
                {"in flight": "sum(twocans_client_probes_in_flight{PATH})"},
                unit="none",
                empty="no such path is probed",
            ),
        ],
        "Does the held connection differ?": [
            stat(
                "Is the held connection open?",
                "Each path keeps one connection open, with an exchange now and then. With several "
                "paths: whether all are open.",
                "min(twocans_client_path_held{PATH})",
                unit="none",
                empty="no such path is probed",
                states=((0, 0, "not open", "orange"), (1, 1, "open", "green")),
                width=6,
            ),
            timeseries(
                "Is the network slower on fresh connections than on held ones?",
                "Mean network time of an exchange, by kernel timestamps, without exchanges in "
                "which a segment was sent again. Fresh connections may be hashed onto other "
                "links, and firewalls may inspect them more closely." + _ALL_PATHS,
                {
                    "fresh": _mean_between_zones("network"),
                    "held": _mean_between_zones("held_network"),
                },
                unit="s",
                empty="no exchange was answered",
                width=18,
            ),
            table(
                "How did held connections end?",
                "Endings in the time shown, by reason, of all paths of this client, including "
                "connections that could not be opened. own: not caused by the path or the far "
                "end, or announced. docs/logs.md has the next step for each reason.",
                {
                    "Endings": """
                        sum by (reason, own)
                          (increase(twocans_client_held_endings_total{CLIENT}[$__range])) > 0
                    """
                },
                columns=["reason", "own"],
                units={"Endings": ("none", _PLAIN)},
                empty="none ended",
                worst_first=["Endings"],
                width=12,
                height=8,
            ),
            timeseries(
                "What do held connections wait for?",
                "By our kernel, for all paths of this client: the share of the time with "
                "unacknowledged data (busy), and the part of it during which the receiver's "
                "window or our own send buffer kept them from sending.",
                {
                    "{{by}}": """
                        sum by (by) (rate(twocans_client_held_limited_seconds_total{CLIENT}[RATE]))
                        / ignoring (by) group_left ()
                        (sum(twocans_client_path_held{CLIENT}) > 0)
                    """
                },
                unit="percentunit",
                empty="no held connection is open",
            ),
        ],
        "What does the server see?": [
            timeseries(
                "How long does the server hold a request?",
                "By its kernel's timestamps, over all its clients. residence: from the receive "
                "timestamp to the reply's transmit timestamp. wake-up: the part until its process "
                "read the request, which is the host's scheduling. The server is found by its "
                "name; without a chosen server, this panel and those below cover all that are "
                "scraped.",
                {
                    f"{name} p{quantile * 100:g}": _quantile(
                        quantile, f"twocans_server_{family}_seconds", "SERVER"
                    )
                    for name, family in (("residence", "residence"), ("wake-up", "wakeup"))
                    for quantile in (0.5, 0.99)
                },
                unit="s",
                empty="no server of this name is scraped, or no request came",
            ),
            timeseries(
                "How late do the processes at both ends run?",
                "99th percentile of a heartbeat's delay, one every 20 to 50 ms. User-clock "
                "durations are uncertain by as much.",
                {
                    "server": _quantile(0.99, "twocans_server_loop_lag_seconds", "SERVER"),
                    "client": _quantile(0.99, "twocans_client_loop_lag_seconds", "CLIENT"),
                },
                unit="s",
                empty="neither end is scraped",
            ),
            timeseries(
                "How full is the server?",
                "Connections open now, of all its clients: framed are measured, plain are"
                " echoed, new have said nothing yet.",
                {"{{kind}}": "sum by (kind) (twocans_server_connections{SERVER})"},
                unit="none",
                empty="no server of this name is scraped",
                stacked=True,
                width=8,
            ),
            timeseries(
                "Which of its limits were reached?",
                "Times that a limit of the server was reached, by limit. docs/configuration.md"
                " says what happens then.",
                {
                    "{{limit}}": """
                        sum by (limit) (increase(twocans_server_limit_hits_total{SERVER}[RATE])) > 0
                    """
                },
                unit="none",
                empty="no limit was reached, or no server of this name is scraped",
                bars=True,
                width=8,
            ),
            timeseries(
                "Does its accept queue fill up?",
                "Connections waiting to be accepted, as a share of the queue. When it is full,"
                " new ones are dropped as if they were lost on the way.",
                {
                    "waiting": """
                        max(twocans_server_accept_queue_connections{SERVER}
                          / twocans_server_accept_queue_limit_connections{SERVER})
                    """
                },
                unit="percentunit",
                empty="no server of this name is scraped",
                width=8,
            ),
        ],
    },
)
