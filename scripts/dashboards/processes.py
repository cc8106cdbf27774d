"""Processes: twocans itself. Can the measurement be trusted, and what does it cost?"""

from .grafana import SERIOUS, Dashboard, choice, stat, table, timeseries

SELECTORS = {
    "ABOUT": '{__name__=~"twocans_(client|server)_info", name=~"$process"}',
    # Times 1, and only of the chosen processes: gives each series its name.
    "NAMED": "* on (job, instance) group_left (name) ABOUT",
    "CHOSEN": "and on (job, instance) ABOUT",
    "RATE": "$__rate_interval",
}

_TEN = " The ten highest at each moment."


def _highest(query: str) -> dict[str, str]:
    """Return the ten processes with the highest value; the query keeps job and instance."""
    return {"{{job}} {{name}}": f"topk(10, ({query}) NAMED)"}


def _p99(buckets: str) -> str:
    """Return the 99th percentile of each process that has this histogram."""
    return f"histogram_quantile(0.99, sum by (job, instance, le) (rate({buckets}[RATE])))"


# A counter that servers and clients have.
_BOTH = '{__name__=~"twocans_(client|server)_%s_total"}'


def _each(family: str) -> str:
    """Return the rate of a counter that servers and clients have."""
    return f"sum by (job, instance) (rate({_BOTH % family}[RATE]))"


def _mean(part: str) -> str:
    """Return the mean of a duration that servers measure."""
    series = f"sum(rate(twocans_server_{part}_seconds_%s[RATE]) CHOSEN)"
    return f"{series % 'sum'} / ({series % 'count'} > 0)"


PROCESSES = Dashboard(
    key="processes",
    title="twocans: processes",
    description="twocans itself: can the measurement be trusted, and what does it cost?",
    selectors=SELECTORS,
    variables=[
        choice(
            "process",
            'label_values({__name__=~"twocans_(client|server)_info"}, name)',
            label="Process",
        ),
    ],
    rows={
        "What is running?": [
            stat(
                "How many clients are there?",
                "Chosen clients that Prometheus scrapes.",
                'count(twocans_client_info{name=~"$process"})',
                unit="none",
                empty="no such client is scraped",
                width=6,
            ),
            stat(
                "How many servers are there?",
                "Chosen servers that Prometheus scrapes.",
                'count(twocans_server_info{name=~"$process"})',
                unit="none",
                empty="no such server is scraped",
                width=6,
            ),
            stat(
                "How many processes do not answer?",
                "Targets that Prometheus did not reach, among all servers and clients: one that "
                "is down has no name by which to choose it.",
                'count(up{job=~".*twocans.*"} == 0) or 0 * count(up{job=~".*twocans.*"})',
                unit="none",
                empty="Prometheus scrapes no server or client: see its page of targets",
                steps=SERIOUS,
                width=6,
            ),
            stat(
                "How many versions run?",
                "Different versions of all servers and clients. More than one means an upgrade in "
                "progress.",
                'count(count by (version) ({__name__=~"twocans_(client|server)_build_info"}))',
                unit="none",
                empty="no server or client is scraped",
                steps=((None, "green"), (2, "yellow")),
                width=6,
            ),
            table(
                "Which processes are these?",
                "The name, place and version that each server and client reports.",
                {
                    "Process": """
                        {__name__=~"twocans_(client|server)_build_info"} * on (job, instance)
                          group_left (name, node, zone, namespace, address) ABOUT
                    """
                },
                columns=["job", "name", "node", "zone", "namespace", "address", "version"],
                empty="no such process is scraped",
                height=7,
            ),
        ],
        "Can the measurement be trusted?": [
            timeseries(
                "How late do the event loops run?",
                "99th percentile of a heartbeat's delay, one every 20 to 50 ms. While it is small "
                "compared with a user-clock phase, that phase shows the path, not our own delay."
                + _TEN,
                _highest(_p99('{__name__=~"twocans_(client|server)_loop_lag_seconds_bucket"}')),
                unit="s",
                empty="no such process is scraped",
                width=8,
            ),
            timeseries(
                "What keeps the processes from running?",
                "Share of the time that event loops stalled for 20 ms or more, by cause: "
                "suspended is a host that slept, throttled a CPU limit, starved a host without a "
                "free CPU, stopped a signal or a freezer, blocked our own code.",
                {
                    "{{cause}}": f"""
                        sum by (cause) (rate({_BOTH % "stall_seconds"}[RATE]) CHOSEN)
                          / scalar(count(ABOUT))
                    """
                },
                unit="percentunit",
                empty="no such process is scraped",
                stacked=True,
                width=8,
            ),
            timeseries(
                "How often do event loops stall?",
                "Stalls of 20 ms or more per second, by cause, of all chosen processes.",
                {
                    "{{cause}}": f"""
                        sum by (cause) (rate({_BOTH % "stalls"}[RATE]) CHOSEN)
                    """
                },
                unit="cps",
                empty="no such process is scraped",
                bars=True,
                width=8,
            ),
            timeseries(
                "Which processes stall?",
                "Share of the time that an event loop stalled for 20 ms or more." + _TEN,
                _highest(_each("stall_seconds")),
                unit="percentunit",
                empty="no such process is scraped",
                width=8,
            ),
            timeseries(
                "How long do processes wait for a CPU?",
                "Share of the time that the event loop's thread was ready to run but did not: the "
                "kernel's run delay." + _TEN,
                _highest(_each("run_delay_seconds")),
                unit="percentunit",
                empty="no such process is scraped, or their kernels do not report it",
                width=8,
            ),
            timeseries(
                "How late do probes start?",
                "99th percentile of the time from a slot of the schedule to the start of its "
                "probe." + _TEN,
                _highest(_p99("twocans_client_start_delay_seconds_bucket")),
                unit="s",
                empty="no such client is scraped, or no probe was started",
                width=8,
            ),
            timeseries(
                "When did no probe start in its slot?",
                "Share of the schedule's slots that were missed (no probe could start) or void "
                "(our own doing). Draining servers cause void probes, too." + _TEN,
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
                "Void probes of the chosen clients by reason: our own doing, listed in "
                "docs/metrics.md. draining is a server that announced its stop.",
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
                "Which good probes did our own stalls taint?",
                "Good probes during which the client stalled, by cause: their kernel timestamps "
                "count, their user-clock durations do not.",
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
                "Share of the exchanges for which it is unknown where their time went, by reason. "
                "unstamped: a kernel took no timestamp, or the connection ended before the server "
                "reported its last one; contradiction: impossible timestamps; clock: a clock was "
                "stepped meanwhile.",
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
                "Paths of the chosen clients on which the two ends are not of one TCP connection: "
                "their loss is not counted.",
                {"paths": "sum(twocans_client_proxied_paths CHOSEN)"},
                unit="none",
                empty="no such client is scraped",
                width=8,
            ),
            timeseries(
                "Does a CPU limit stop a process?",
                "Share of the time that the process's cgroup was not allowed to run. Anything "
                "over 0 spoils user-clock durations: set no CPU limit." + _TEN,
                _highest(_each("cpu_throttled_seconds")),
                unit="percentunit",
                empty="no such process is scraped, or their cgroups do not report it",
                width=8,
            ),
            table(
                "Which hosts do not run a process in time?",
                "Hosts on which a server or client ran late or was stopped by a CPU limit, in the "
                "last five minutes: the rules leave their clients out of the zones' connect "
                "times.",
                {"Host": "instance:twocans_host_stalled:info CHOSEN"},
                columns=["host", "zone", "process"],
                empty="every host runs its processes in time",
                width=8,
                height=8,
            ),
            timeseries(
                "What else disturbs the processes?",
                "late probes: saved by a last read after their deadline. clock steps: a client's "
                "clock was stepped, or its host suspended; or a server's, as its clients saw it. "
                "held slots: skipped because the previous exchange had no reply yet. log lines: "
                "dropped because their reader did not keep up. HTTP requests: refused. accept "
                "errors: a server's machine lacks descriptors or memory.",
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
                empty="no such process is scraped",
                width=8,
            ),
        ],
        "Where does the time go at servers?": [
            timeseries(
                "What is a server's share of an exchange made of?",
                "Means of the chosen servers, over all their clients. wake-up: from the kernel's "
                "receive timestamp to the process's read. application: from there until it sends "
                "its reply, without stall, the time during which its thread did not run. send: "
                "until the kernel's transmit timestamp.",
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
                "99th percentile, over all requests to the chosen servers. application includes "
                "the stall.",
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
                "99th percentile of the time from a greeting's arrival at the kernel to accept(); "
                "0 if the connection was accepted first. During it the server looks slow to its "
                "clients although its kernel answers." + _TEN,
                _highest(_p99("twocans_server_accept_delay_seconds_bucket")),
                unit="s",
                empty="no such server is scraped, or no client greeted it",
                width=8,
            ),
        ],
        "Are servers at their limits?": [
            timeseries(
                "Which limits are reached?",
                "Times per second that a limit of a server was reached. docs/configuration.md "
                "describes each.",
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
                "Connections waiting to be accepted, as a share of the queue's length." + _TEN,
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
                "Connections dropped on listening sockets, because an accept queue was full or "
                "for any cause, in the servers' network namespaces, including other programs "
                "there.",
                {
                    "queue full": "sum(rate(twocans_server_listen_overflows_total[RATE]) CHOSEN)",
                    "any cause": "sum(rate(twocans_server_listen_drops_total[RATE]) CHOSEN)",
                },
                unit="cps",
                empty="no such server is scraped, or its kernel does not report it",
                width=8,
            ),
            timeseries(
                "Which connections break the protocol?",
                "Connections closed because of a protocol error, by reason. Scanners and foreign "
                "clients appear here.",
                {
                    "{{reason}} {{name}}": """
                        sum by (reason, name)
                          (rate(twocans_server_protocol_errors_total[RATE]) NAMED) > 0
                    """
                },
                unit="cps",
                empty="none does",
                bars=True,
                width=8,
            ),
            timeseries(
                "How many connections are open?",
                "Of the chosen servers: framed are measured, plain are echoed, new have sent "
                "nothing yet.",
                {"{{kind}}": "sum by (kind) (twocans_server_connections CHOSEN)"},
                unit="none",
                empty="no such server is scraped",
                stacked=True,
                width=8,
            ),
            timeseries(
                "How do connections end?",
                "By kind and ending. framed done is a completed session: clients count the same "
                "number as ok.",
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
                "How much traffic do the probes cause?",
                "Bytes per second on measured connections, above TCP, as counted by each chosen "
                "process. What one end sends the other receives, if both are chosen.",
                {
                    f"{end}s {verb}": f"sum(rate(twocans_{end}_{verb}_bytes_total[RATE]) CHOSEN)"
                    for end in ("client", "server")
                    for verb in ("sent", "received")
                },
                unit="Bps",
                empty="no such process is scraped",
                width=8,
            ),
            timeseries(
                "How much CPU does a process use?",
                "Share of one processor." + _TEN,
                _highest("rate(process_cpu_seconds_total[RATE])"),
                unit="percentunit",
                empty="no such process is scraped",
                width=8,
            ),
            timeseries(
                "How much memory does a process use?",
                "Resident set of the process." + _TEN,
                _highest("process_resident_memory_bytes"),
                unit="bytes",
                empty="no such process is scraped",
                width=8,
            ),
            timeseries(
                "How near are the processes to their descriptor limits?",
                "Open descriptors as a share of the process's limit. A server keeps 256 free for "
                "other uses than connections." + _TEN,
                _highest("process_open_fds / process_max_fds"),
                unit="percentunit",
                empty="no such process is scraped",
                width=8,
            ),
            timeseries(
                "How long does a scrape take to render?",
                "Time to render the previous scrape, as each process measured it. Rendering "
                "shares a processor with the probes." + _TEN,
                _highest('{__name__=~"twocans_(client|server)_scrape_render_seconds"}'),
                unit="s",
                empty="no such process is scraped",
                width=8,
            ),
            timeseries(
                "How many samples does a process export?",
                "Per scrape; the configuration of Prometheus has a limit. A path has at most 40."
                + _TEN,
                _highest("scrape_samples_scraped"),
                unit="none",
                empty="no such process is scraped",
                width=8,
            ),
        ],
        "Do clients find their servers?": [
            timeseries(
                "How many paths does a client have?",
                "Paths being probed: the fewest, the mean and the most of the chosen clients.",
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
                "Addresses in the newest answer for each dns: or endpointslices: target, from the "
                "client with the fewest. 0 is a name without addresses.",
                {
                    "{{target}}": """
                        min by (target) (twocans_client_discovered_addresses CHOSEN)
                    """
                },
                unit="none",
                empty="no such client has a dns: or endpointslices: target",
                width=8,
            ),
            timeseries(
                "How many paths are left out?",
                "Paths of the chosen clients that are left out because of max_paths. 0 is good.",
                {"left out": "sum(twocans_client_paths_left_out CHOSEN)"},
                unit="none",
                empty="no such client is scraped",
                width=8,
            ),
            timeseries(
                "Do new servers answer greetings?",
                "Greetings of new addresses, to learn their node and zone, by outcome. There are "
                "none while every address is known.",
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
                "Look-ups of target names, by outcome. A name that fails keeps its known "
                "addresses for ten minutes.",
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
                "Times per second that a server answered as a new process under the same name, as "
                "the chosen clients saw it: every client that probes it counts the restart.",
                {"restarts": "sum(rate(twocans_client_server_restarts_total[RATE]) CHOSEN)"},
                unit="cps",
                empty="no such client is scraped",
                width=8,
            ),
        ],
    },
)
