"""Path: one path in depth."""

from .grafana import (
    CONNECT_STEPS,
    LOSS_STEPS,
    Dashboard,
    choice,
    constant_choice,
    heatmap,
    stat,
    table,
    timeseries,
)

SELECTORS = {
    "CLIENT": 'instance=~"$instance"',
    "PATH": 'instance=~"$instance", target=~"$target", server=~"$server", family=~"$family"',
    "ZONES": 'instance=~"$instance", target_zone=~"$target_zone"',
    "SERVER": 'instance=~"$server_instance"',
    "RATE": "$__rate_interval",
}

# A path keeps sums of these and of connect; of every phase there are histograms by pair of zones.
EXCHANGE = ["network", "server", "client"]

PHASES = ["network", "server", "client", "exchange", "handshake", "connect", "greet", "close"]
PHASES += ["probe", "response"]

_ALL_PATHS = (
    " Of ALL probes of this client to the chosen servers' zones, not of this path alone: of these"
    " phases histograms are kept, by pair of zones."
)


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
    description="One path: where does its time go, and whose doing is it when it is not good?",
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
                "Who is at its ends?",
                "The client and what it knows of the server: node, zone and version are as"
                " announced in the greeting. While no one server is chosen, all that this client"
                " probes are meant here and below.",
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
                links={"name": ("cans", ["can=name"]), "server": ("cans", ["can=server"])},
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
                "Mean connect time in the time shown, on the application's clock.",
                _mean("connect", "$__range"),
                unit="s",
                empty="no probe connected",
                steps=CONNECT_STEPS,
                width=6,
            ),
            stat(
                "How long ago was the newest good probe?",
                "Since its start. With several paths, of the one that waits longest.",
                "time() - min(twocans_client_last_success_timestamp_seconds{PATH} > 0)",
                unit="s",
                empty="no probe was good yet",
                steps=((None, "green"), (10, "orange"), (60, "red")),
                width=6,
            ),
            stat(
                "How many slots tell nothing?",
                "Share of the schedule's slots that were missed, or void and so ours to blame,"
                " in the time shown. While it is not 0 the other figures rest on fewer probes.",
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
                "fail is the path's or the far end's doing, void our own, missed a slot in which"
                " no probe could start. The four add up to the schedule.",
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
                "By reason, from a closed list in docs/metrics.md: refused is a server that is"
                " down, connect_timeout a path that is, greeting_timeout a program that hangs"
                " behind a kernel that answers. draining is a server that said it stops, and no"
                " failure.",
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
        ],
        "Where does the time go?": [
            timeseries(
                "What is an exchange made of?",
                "Mean time of one request and its reply, by kernel clocks. network is both ways"
                " between the two network devices; server and client are host and program at"
                " either end. The three add up to what the application felt.",
                {
                    "{{phase}}": """
                        sum by (phase) (rate(twocans_client_path_phase_seconds_sum
                          {PATH, phase=~"network|server|client"}[RATE]))
                        / (sum by (phase) (rate(twocans_client_path_phase_seconds_count
                          {PATH, phase=~"network|server|client"}[RATE])) > 0)
                    """
                },
                unit="s",
                empty="no exchange was stamped by the kernel at both ends",
                stacked=True,
            ),
            timeseries(
                "Does our program see more of an exchange than the kernels do?",
                "Mean of the network's and the server's share by kernel clocks, and of the"
                " exchange by the application's. What lies between is this client's host and"
                " program.",
                {
                    "kernels: network and server": f"{_mean('network')} + {_mean('server')}",
                    "application: exchange": " + ".join(map(_mean, EXCHANGE)),
                },
                unit="s",
                empty="no exchange was answered",
            ),
        ],
        "How is it between these zones?": [
            timeseries(
                "What is a probe between these zones made of?",
                "Mean time in each phase of a probe that connected, on the application's clock. A"
                " probe has several exchanges; exchange is all of them." + _ALL_PATHS,
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
                "Does our program see more of a connect than the kernel does?",
                "Mean of one round trip by the kernel's clock (SYN to SYN-ACK, not counted when it"
                " was sent again) and of connect() by the application's. What lies between is this"
                " client's scheduling, or a lost SYN, and not distance." + _ALL_PATHS,
                {
                    "kernel: handshake": _mean_between_zones("handshake"),
                    "application: connect": _mean_between_zones("connect"),
                },
                unit="s",
                empty="no probe connected",
            ),
            heatmap(
                "How is the phase $phase distributed between these zones?",
                "Choose another phase above. Buckets end just under 0.2 s, 1 s, 3 s and 7 s: a"
                " retransmission and the first, second and third lost SYN each fall over one of"
                " these." + _ALL_PATHS,
                """
                sum by (le) (increase(
                  twocans_client_phase_duration_seconds_bucket{ZONES, phase="$phase"}[RATE]))
                """,
                unit="s",
                empty="nothing of this phase was measured",
            ),
            timeseries(
                "How are the quantiles of the phase $phase between these zones?",
                "Median, 90th and 99th percentile of what the histogram beside it shows, right to"
                " within a bucket." + _ALL_PATHS,
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
        "Is anything lost on the way?": [
            timeseries(
                "Which end sends segments again?",
                "Retransmitted segments by the end that sent them, from both kernels' counters."
                " client: lost on the way there, or its acknowledgement on the way back; server:"
                " the reverse.",
                {
                    "{{end}}": """
                        sum by (end)
                          (rate(twocans_client_retransmitted_segments_total{PATH}[RATE]))
                    """
                },
                unit="pps",
                empty="no such path is probed",
            ),
            timeseries(
                "How many of its probes are under way?",
                "Probes that have begun and not ended. A path that hangs has one for each"
                " interval of the time-out.",
                {"under way": "sum(twocans_client_probes_in_flight{PATH})"},
                unit="none",
                empty="no such path is probed",
            ),
        ],
        "What does the server see?": [
            timeseries(
                "How long does the server hold a request?",
                "By its kernel's clock, of all its clients. residence: from the receive stamp to"
                " the reply's transmit stamp. wake-up: the part until its program read it, which"
                " is the host's scheduling. The server is found by its name; while no one is"
                " chosen, all that are scraped are meant, here and below.",
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
                "How late do the programs at both ends run?",
                "99th percentile of a heartbeat's delay, one every 20 ms. What is measured by a"
                " user clock is uncertain by as much.",
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
