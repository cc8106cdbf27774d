"""Cans: twocans itself. Can the measurement be trusted, and what does it cost?"""

from .grafana import SERIOUS, Dashboard, choice, stat, table, timeseries

SELECTORS = {
    "ABOUT": '{__name__=~"twocans_(client|server)_info", name=~"$can"}',
    # Times 1, and only of the chosen cans: gives each series its can's name.
    "NAMED": "* on (job, instance) group_left (name) ABOUT",
    "CHOSEN": "and on (job, instance) ABOUT",
    "RATE": "$__rate_interval",
}

_TEN = " The ten highest at each moment."


def _highest(query: str) -> dict[str, str]:
    """Return the ten cans with the highest value; the query keeps job and instance."""
    return {"{{job}} {{name}}": f"topk(10, ({query}) NAMED)"}


def _p99(buckets: str) -> str:
    """Return the 99th percentile of each can that has this histogram."""
    return f"histogram_quantile(0.99, sum by (job, instance, le) (rate({buckets}[RATE])))"


# A counter that both kinds of cans have.
_BOTH = '{__name__=~"twocans_(client|server)_%s_total"}'


def _each(family: str) -> str:
    """Return the rate of a counter that both kinds of cans have."""
    return f"sum by (job, instance) (rate({_BOTH % family}[RATE]))"


def _mean(part: str) -> str:
    """Return the mean of a duration that servers measure."""
    series = f"sum(rate(twocans_server_{part}_seconds_%s[RATE]) CHOSEN)"
    return f"{series % 'sum'} / ({series % 'count'} > 0)"


CANS = Dashboard(
    key="cans",
    title="twocans: cans",
    description="twocans itself: can the measurement be trusted, and what does it cost?",
    selectors=SELECTORS,
    variables=[
        choice(
            "can",
            'label_values({__name__=~"twocans_(client|server)_info"}, name)',
            label="Can",
        ),
    ],
    rows={
        "Who is there?": [
            stat(
                "How many clients are there?",
                "Clients that Prometheus scrapes, of the chosen cans.",
                'count(twocans_client_info{name=~"$can"})',
                unit="none",
                empty="no such client is scraped",
                width=6,
            ),
            stat(
                "How many servers are there?",
                "Servers that Prometheus scrapes, of the chosen cans.",
                'count(twocans_server_info{name=~"$can"})',
                unit="none",
                empty="no such server is scraped",
                width=6,
            ),
            stat(
                "How many cans do not answer?",
                "Targets of Prometheus that it did not reach, of all cans: one that is down has"
                " no name to choose it by.",
                'count(up{job=~".*twocans.*"} == 0) or 0 * count(up{job=~".*twocans.*"})',
                unit="none",
                empty="Prometheus scrapes no can: see its page of targets",
                steps=SERIOUS,
                width=6,
            ),
            stat(
                "How many versions run?",
                "Different versions of servers and clients, of all cans. More than one is an"
                " upgrade under way.",
                'count(count by (version) ({__name__=~"twocans_(client|server)_build_info"}))',
                unit="none",
                empty="no can is scraped",
                steps=((None, "green"), (2, "yellow")),
                width=6,
            ),
            table(
                "Which cans are these?",
                "Who each can says that it is, and its version.",
                {
                    "Can": """
                        {__name__=~"twocans_(client|server)_build_info"} * on (job, instance)
                          group_left (name, node, zone, namespace, address) ABOUT
                    """
                },
                columns=["job", "name", "node", "zone", "namespace", "address", "version"],
                empty="no such can is scraped",
                height=7,
            ),
        ],
        "Can the measurement be trusted?": [
            timeseries(
                "How late do the cans' own loops run?",
                "99th percentile of a heartbeat's delay, one every 20 to 50 ms. As long as it is"
                " small beside a phase on a user clock, that phase is the path's and not ours."
                + _TEN,
                _highest(_p99('{__name__=~"twocans_(client|server)_loop_lag_seconds_bucket"}')),
                unit="s",
                empty="no such can is scraped",
                width=8,
            ),
            timeseries(
                "What keeps the cans from running?",
                "Time that loops stood still for 20 ms or more, as a share of all time, by cause:"
                " suspended is a host that slept, throttled a CPU limit, starved a host without a"
                " free CPU, stopped a signal or a freezer, blocked the can's own code.",
                {
                    "{{cause}}": f"""
                        sum by (cause) (rate({_BOTH % "stall_seconds"}[RATE]) CHOSEN)
                          / scalar(count(ABOUT))
                    """
                },
                unit="percentunit",
                empty="no such can is scraped",
                stacked=True,
                width=8,
            ),
            timeseries(
                "How often do loops stand still?",
                "Stalls of 20 ms or more, a second, by cause, of all chosen cans.",
                {
                    "{{cause}}": f"""
                        sum by (cause) (rate({_BOTH % "stalls"}[RATE]) CHOSEN)
                    """
                },
                unit="cps",
                empty="no such can is scraped",
                bars=True,
                width=8,
            ),
            timeseries(
                "Which cans stand still?",
                "Time that a loop stood still for 20 ms or more, as a share of all time." + _TEN,
                _highest(_each("stall_seconds")),
                unit="percentunit",
                empty="no such can is scraped",
                width=8,
            ),
            timeseries(
                "How long do cans wait for a CPU?",
                "Share of the time in which the loop's thread was ready to run and did not: the"
                " kernel's run delay." + _TEN,
                _highest(_each("run_delay_seconds")),
                unit="percentunit",
                empty="no such can is scraped, or their kernels do not say",
                width=8,
            ),
            timeseries(
                "How late do probes start?",
                "99th percentile of the time from a slot of the schedule to the start of its probe."
                + _TEN,
                _highest(_p99("twocans_client_start_delay_seconds_bucket")),
                unit="s",
                empty="no such client is scraped, or no probe was started",
                width=8,
            ),
            timeseries(
                "When was a probe due and none started?",
                "Share of the schedule's slots that were missed (no probe could start) or void"
                " (ours to blame). Draining servers make void probes, too." + _TEN,
                _highest("""
                    (sum by (job, instance) (rate(twocans_client_probes_missed_total[RATE]))
                      + sum by (job, instance)
                        (rate(twocans_client_probes_total{outcome="void"}[RATE])))
                    / (sum by (job, instance)
                        (rate(twocans_client_probes_scheduled_total[RATE])) > 0)
                """),
                unit="percentunit",
                empty="no such client is scraped, or no slot was due",
                width=8,
            ),
            timeseries(
                "Why are probes void?",
                "Void probes by reason, of the chosen clients: our own doing, docs/metrics.md"
                " lists them. draining is a server that said it stops.",
                {
                    "{{reason}}": """
                        sum by (reason) (
                          rate(twocans_client_probe_reasons_total{outcome="void"}[RATE]) CHOSEN
                        ) > 0
                    """
                },
                unit="reqps",
                empty="no probe was void",
                bars=True,
                width=8,
            ),
            timeseries(
                "Which good probes did our own stalls spoil?",
                "Good probes in whose time the client stood still, by cause: what the kernels"
                " stamped counts, what its program's clock says does not.",
                {
                    "{{cause}}": """
                        sum by (cause) (rate(twocans_client_tainted_probes_total[RATE]) CHOSEN)
                    """
                },
                unit="reqps",
                empty="no such client is scraped",
                bars=True,
                width=8,
            ),
            timeseries(
                "Which exchanges could not be split?",
                "Share of the exchanges of which it is not known where their time went, by reason."
                " unstamped: a kernel gave no stamp, or the connection ended before the server"
                " told its last; contradiction: stamps that cannot be; clock: a clock was stepped"
                " meanwhile.",
                {
                    "{{result}}": """
                        sum by (result)
                          (rate(twocans_client_exchange_splits_total{result!="split"}[RATE]) CHOSEN)
                        / ignoring (result) group_left ()
                        (sum(rate(twocans_client_exchange_splits_total[RATE]) CHOSEN) > 0)
                    """
                },
                unit="percentunit",
                empty="no such client is scraped, or no exchange was answered",
                width=8,
            ),
            timeseries(
                "On how many paths is a proxy?",
                "Paths on which the two ends are not of one TCP connection, of the chosen clients:"
                " their loss is not counted.",
                {"paths": "sum(twocans_client_proxied_paths CHOSEN)"},
                unit="none",
                empty="no such client is scraped",
                width=8,
            ),
            timeseries(
                "Does a CPU limit stop a can?",
                "Share of the time in which the can's cgroup was not allowed to run. Anything"
                " over 0 spoils what user clocks measure: give it no CPU limit." + _TEN,
                _highest(_each("cpu_throttled_seconds")),
                unit="percentunit",
                empty="no such can is scraped, or their cgroups do not say",
                width=8,
            ),
            table(
                "Which hosts do not let a can run?",
                "Hosts whose can runs late or is stopped by a CPU limit, in the last five minutes:"
                " the rules leave what clients there measure out of the zones' connect times.",
                {"Host": "instance:twocans_host_stalled:info CHOSEN"},
                columns=["host", "zone", "can"],
                empty="every host lets its cans run",
                width=8,
                height=8,
            ),
            timeseries(
                "What else disturbs the cans?",
                "late probes: saved by a last look after their deadline. clock steps: a client's"
                " clock was stepped, or its host suspended; or a server's, as its clients saw it."
                " held slots: skipped, because the answer before was still waited for. log lines:"
                " dropped because their reader did not keep up. HTTP requests: refused. accept"
                " errors: a server's machine lacks descriptors or memory.",
                {
                    "late probes": "sum(rate(twocans_client_late_probes_total[RATE]) CHOSEN)",
                    "clock steps": "sum(rate(twocans_client_clock_steps_total[RATE]) CHOSEN)",
                    "servers' clock steps": """
                        sum(rate(twocans_client_server_clock_steps_total[RATE]) CHOSEN)
                    """,
                    "held slots": "sum(rate(twocans_client_held_skipped_total[RATE]) CHOSEN)",
                    "log lines": f"sum({_each('log_dropped')} CHOSEN)",
                    "HTTP requests": f"sum({_each('http_refused')} CHOSEN)",
                    "accept errors": "sum(rate(twocans_server_accept_errors_total[RATE]) CHOSEN)",
                },
                unit="cps",
                empty="no such can is scraped",
                width=8,
            ),
        ],
        "Where does the time go at servers?": [
            timeseries(
                "What is a server's part of an exchange made of?",
                "Means of the chosen servers, of all their clients. wake-up: from the kernel's"
                " receive stamp to the program's read. application: until it sends its reply, of"
                " which stall is the time in which its thread did not run. send: until the"
                " kernel's transmit stamp.",
                {
                    "wake-up": _mean("wakeup"),
                    "application": f"""
                        ({_mean("application")}) - (({_mean("application_stall")}) or vector(0))
                    """,
                    "stall": _mean("application_stall"),
                    "send": _mean("send"),
                },
                unit="s",
                empty="no such server is scraped, or no request came",
                stacked=True,
                width=8,
            ),
            timeseries(
                "How long are these parts at worst?",
                "99th percentile, of all requests to the chosen servers. application has the stall"
                " in it.",
                {
                    name: f"""
                        histogram_quantile(0.99, sum by (le) (
                          rate(twocans_server_{family}_seconds_bucket[RATE]) CHOSEN))
                    """
                    for name, family in (
                        ("wake-up", "wakeup"),
                        ("application", "application"),
                        ("stall", "application_stall"),
                        ("send", "send"),
                    )
                },
                unit="s",
                empty="no such server is scraped, or no request came",
                width=8,
            ),
            timeseries(
                "How long do new connections wait to be accepted?",
                "99th percentile of the time from a greeting's arrival at the kernel to accept();"
                " 0 where the connection was accepted first. In it the server looks slow to its"
                " clients, and its kernel does not." + _TEN,
                _highest(_p99("twocans_server_accept_delay_seconds_bucket")),
                unit="s",
                empty="no such server is scraped, or nobody greeted it",
                width=8,
            ),
        ],
        "Are servers at their limits?": [
            timeseries(
                "Which limits are reached?",
                "Times a second that a limit of a server was reached. docs/configuration.md says"
                " what happens then.",
                {
                    "{{limit}} {{name}}": """
                        sum by (limit, name)
                          (rate(twocans_server_limit_hits_total[RATE]) NAMED) > 0
                    """
                },
                unit="cps",
                empty="no limit was reached",
                bars=True,
                width=8,
            ),
            timeseries(
                "Does an accept queue fill up?",
                "Connections waiting to be accepted, as a share of the queue." + _TEN,
                _highest("""
                    twocans_server_accept_queue_connections
                      / twocans_server_accept_queue_limit_connections
                """),
                unit="percentunit",
                empty="no such server is scraped",
                width=8,
            ),
            timeseries(
                "Does a kernel drop connections?",
                "Connections dropped on listening sockets, because an accept queue was full or"
                " for any cause, in the servers' network namespaces: of every program there.",
                {
                    "queue full": "sum(rate(twocans_server_listen_overflows_total[RATE]) CHOSEN)",
                    "any cause": "sum(rate(twocans_server_listen_drops_total[RATE]) CHOSEN)",
                },
                unit="cps",
                empty="no such server is scraped, or its kernel does not say",
                width=8,
            ),
            timeseries(
                "Who breaks the protocol?",
                "Connections closed for a protocol error, by reason. Scanners and foreign"
                " clients show up here.",
                {
                    "{{reason}} {{name}}": """
                        sum by (reason, name)
                          (rate(twocans_server_protocol_errors_total[RATE]) NAMED) > 0
                    """
                },
                unit="cps",
                empty="nobody does",
                bars=True,
                width=8,
            ),
            timeseries(
                "How many connections are open?",
                "Of the chosen servers: framed are measured, plain are echoed, new have said"
                " nothing yet.",
                {"{{kind}}": "sum by (kind) (twocans_server_connections CHOSEN)"},
                unit="none",
                empty="no such server is scraped",
                stacked=True,
                width=8,
            ),
            timeseries(
                "How do connections end?",
                "By kind and ending. framed done is a completed session: as many as clients"
                " count as ok.",
                {
                    "{{kind}} {{ending}}": """
                        sum by (kind, ending)
                          (rate(twocans_server_connections_ended_total[RATE]) CHOSEN)
                    """
                },
                unit="reqps",
                empty="no such server is scraped, or no connection ended",
                stacked=True,
                width=8,
            ),
        ],
        "What does it cost?": [
            timeseries(
                "How much traffic do the probes make?",
                "Bytes a second on measured connections, above TCP: each can's own count, of the"
                " chosen cans. What one end sends the other receives, if both are chosen.",
                {
                    f"{can}s {verb}": f"sum(rate(twocans_{can}_{verb}_bytes_total[RATE]) CHOSEN)"
                    for can in ("client", "server")
                    for verb in ("sent", "received")
                },
                unit="Bps",
                empty="no such can is scraped",
                width=8,
            ),
            timeseries(
                "How much CPU does a can use?",
                "Share of one processor." + _TEN,
                _highest("rate(process_cpu_seconds_total[RATE])"),
                unit="percentunit",
                empty="no such can is scraped",
                width=8,
            ),
            timeseries(
                "How much memory does a can use?",
                "Resident set of the process." + _TEN,
                _highest("process_resident_memory_bytes"),
                unit="bytes",
                empty="no such can is scraped",
                width=8,
            ),
            timeseries(
                "How near are the cans to their descriptor limits?",
                "Open descriptors as a share of the most that the process may have. A server"
                " keeps 256 free for other things than connections." + _TEN,
                _highest("process_open_fds / process_max_fds"),
                unit="percentunit",
                empty="no such can is scraped",
                width=8,
            ),
            timeseries(
                "How long does a scrape take to render?",
                "As each can measured its previous scrape. It shares a processor with the probes."
                + _TEN,
                _highest('{__name__=~"twocans_(client|server)_scrape_render_seconds"}'),
                unit="s",
                empty="no such can is scraped",
                width=8,
            ),
            timeseries(
                "How many samples does a can give?",
                "In one scrape; the configuration of Prometheus has a limit. A path is 40 at most."
                + _TEN,
                _highest("scrape_samples_scraped"),
                unit="none",
                empty="no such can is scraped",
                width=8,
            ),
        ],
        "Do clients find their servers?": [
            timeseries(
                "How many paths does a client have?",
                "Paths being probed: the least, the most and the mean of the chosen clients.",
                {
                    name: f"{function}(twocans_client_paths CHOSEN)"
                    for name, function in (("least", "min"), ("mean", "avg"), ("most", "max"))
                },
                unit="none",
                empty="no such client is scraped",
                width=8,
            ),
            timeseries(
                "How many addresses does discovery give?",
                "Addresses in the newest answer for each dns: or endpointslices: target, as the"
                " client with the fewest has it. 0 is a name without addresses.",
                {
                    "{{target}}": """
                        min by (target) (twocans_client_discovered_addresses CHOSEN)
                    """
                },
                unit="none",
                empty="no such client has a target that stands for several addresses",
                width=8,
            ),
            timeseries(
                "How many paths are left out?",
                "Paths that max_paths leaves out now, of all chosen clients. 0 is good.",
                {"left out": "sum(twocans_client_paths_left_out CHOSEN)"},
                unit="none",
                empty="no such client is scraped",
                width=8,
            ),
            timeseries(
                "Do new servers answer when asked who they are?",
                "Greetings of new addresses, made to learn their node and zone, by outcome. None"
                " are made when every address is known.",
                {
                    "{{outcome}}": """
                        sum by (outcome) (rate(twocans_client_introductions_total[RATE]) CHOSEN)
                    """
                },
                unit="reqps",
                empty="no such client is scraped",
                stacked=True,
                width=8,
            ),
            timeseries(
                "Do names resolve?",
                "Look-ups of target names by outcome. A name that fails keeps its old addresses"
                " for ten minutes.",
                {
                    "{{outcome}}": """
                        sum by (outcome) (rate(twocans_client_resolutions_total[RATE]) CHOSEN)
                    """
                },
                unit="reqps",
                empty="no such client is scraped",
                stacked=True,
                width=8,
            ),
            timeseries(
                "Do servers restart?",
                "Times a second that a server answered as a new process under its old name, as"
                " the chosen clients saw it: one restart is counted by every client that probes"
                " it.",
                {"restarts": "sum(rate(twocans_client_server_restarts_total[RATE]) CHOSEN)"},
                unit="cps",
                empty="no such client is scraped",
                width=8,
            ),
        ],
    },
)
