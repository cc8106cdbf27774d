"""What may be concluded from another tool's symptoms: the most generous rules we could write.

One table for each tool, symptom -> verdict; the first symptom that is there is what it says. Each
tool may use any of our verdicts and knows the healthy path. Where several faults show the same
symptom, the row names the one that a reader would think of first. Corrections are welcome: a rule
that raises a tool's score on new seeds belongs here.
"""

from .outcome import Name, Said
from .symptoms import Symptoms

__all__ = ["RULES", "conclude"]

_BLACKOUT = Name("blackout", "path")
_LOSS = Name("loss", "path")
_BURSTS = Name("burst_loss", "path")
_DELAY = Name("delay_increase", "path")
_QUEUE = Name("bufferbloat", "path")
_DNS_FAILING = Name("dns_failing", "dns")
_BLACK_HOLE = Name("mtu_blackhole", "path")
_REORDERING = Name("reordering", "path")
_SLOW_APP = Name("slow_app", "server_app")

_ATTEMPTS = {
    "name_unknown": _DNS_FAILING,
    "lookup_slow": Name("dns_slow", "dns"),
    "lookup_lost": Name("dns_loss", "dns"),
    "no_ports": Name("local_ports_exhausted", "client_host"),
    "no_descriptors": Name("descriptors_exhausted", "client_host"),
    "unreachable_late": Name("neighbour_unreachable", "path"),
    "unreachable": Name("rejected_midpath", "middlebox"),
    "refused": Name("refused_by_server", "server_app"),
    "quick_and_closed": Name("backend_dead", "server_app"),
    "quick_and_silent": Name("backend_dead", "server_app"),
    "reset": Name("rst_injected", "middlebox"),
    "closed_empty": Name("closed_by_server", "server_app"),
    "connect_too_quick": Name("tcp_terminated", "middlebox"),
    "connect_all_lost": _BLACKOUT,
    "big_lost": _BLACK_HOLE,
    "silent_and_slow": Name("backlog_overflow", "server_app"),
    "silent_and_retried": Name("syn_loss", "path"),
    "connect_some_lost": Name("path_subset_loss", "path"),
    "no_answer": Name("app_hung", "server_app"),
    "answer_very_slow": Name("app_hung", "server_app"),
    "answer_slow": _SLOW_APP,
    "data_resent": _LOSS,
    "connect_retried": _LOSS,
    "queue": _QUEUE,
    "delay_grew": _DELAY,
    "answer_sometimes_slow": Name("process_paused", "server_host"),
}

RULES: dict[str, dict[str, Name]] = {
    "ping": {
        "name_unknown": _DNS_FAILING,
        "unreachable": Name("neighbour_unreachable", "path"),
        "rejected": Name("rejected_midpath", "middlebox"),
        "too_big": Name("mtu_reduced", "path"),
        "all_lost": _BLACKOUT,
        "gap": _BLACKOUT,
        "big_lost": _BLACK_HOLE,
        "duplicated": Name("duplication", "path"),
        "queue": _QUEUE,
        "lost_in_bursts": _BURSTS,
        "some_lost": _LOSS,
        "reordered": _REORDERING,
        "delay_grew": _DELAY,
    },
    "mtr": {
        "name_unknown": _DNS_FAILING,
        "all_lost": _BLACKOUT,
        "some_lost": Name("syn_loss", "path"),
        "connect_retried": _LOSS,
        "delay_grew": _DELAY,
        "delay_varies": _QUEUE,
    },
    "curl": _ATTEMPTS,
    "blackbox_exporter": _ATTEMPTS,
    "iperf3": {
        "name_unknown": _DNS_FAILING,
        "no_ports": Name("local_ports_exhausted", "client_host"),
        "refused": Name("refused_by_server", "server_app"),
        "unreachable": Name("rejected_midpath", "middlebox"),
        "unreachable_late": Name("neighbour_unreachable", "path"),
        "reset": Name("rst_injected", "middlebox"),
        "all_failed": _BLACKOUT,
        "small_mss": Name("option_stripped", "middlebox"),
        "stalled_forward": Name("mtu_blackhole", "path_forward", "forward"),
        "stalled_reverse": Name("mtu_blackhole", "path_reverse", "reverse"),
        "small_send_buffer": Name("sender_limited", "client_host"),
        "tiny_window_forward": Name("receiver_limited", "server_host"),
        "small_window": Name("window_limited", "configuration"),
        "delay_grew": _DELAY,
        "queue_forward": Name("bufferbloat", "path_forward", "forward"),
        "queue_reverse": Name("bufferbloat", "path_reverse", "reverse"),
        "policed_forward": Name("policing", "path_forward", "forward"),
        "policed_reverse": Name("policing", "path_reverse", "reverse"),
        "reordered_forward": Name("reordering", "path_forward", "forward"),
        "reordered_reverse": Name("reordering", "path_reverse", "reverse"),
        "lost_forward": Name("loss", "path_forward", "forward"),
        "lost_reverse": Name("loss", "path_reverse", "reverse"),
    },
}


def conclude(tool: str, symptoms: Symptoms, at_s: float) -> tuple[Said, ...]:
    """Return what a tool says of its symptoms, if anything, at the end of its watch."""
    for symptom, name in RULES[tool].items():
        if symptom in symptoms:
            figures = {"mtu": symptoms[symptom]} if symptom == "too_big" else {}
            return (Said(name, at_s, figures=figures, proof=symptom),)
    return ()
