"""What may be concluded from another tool's symptoms: the most generous rules we could write.

One table for each tool, symptom -> verdict; the first symptom that is there is what it says. Each
tool may use any of our verdicts and knows the healthy path. Where several faults show the same
symptom, the row names the one that a reader would think of first. Corrections are welcome: a rule
that raises a tool's score on new seeds belongs here.
"""

from collections.abc import Mapping
from typing import NamedTuple

from .outcome import Name, Said
from .symptoms import Symptoms

__all__ = ["RULES", "TOGETHER", "conclude", "conclude_together"]

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
    "silent_and_slow": Name("backlog_overflow", "server_app"),
    "silent_and_retried": Name("syn_loss", "path"),
    "big_lost": _BLACK_HOLE,
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


TOGETHER = "all_together"
"""The name of a script that reads what all of them print."""


class _Row(NamedTuple):
    """A rule of that script.

    Attributes:
        name: What it says.
        seen: One of these, ``tool.symptom`` or a symptom of any tool, is there.
        also: So is this.
        unless: And this is not.
    """

    name: Name
    seen: str
    also: str = ""
    unless: str = ""


def _both_ways(verdict: str, seen: str, hint: str, unless: str = "") -> tuple[_Row, ...]:
    """Return rows that take the direction from iperf3, where it has one."""
    return (
        *(
            _Row(Name(verdict, f"path_{way}", way), seen, f"iperf3.{hint}_{way}", unless)
            for way in ("forward", "reverse")
        ),
        _Row(Name(verdict, "path"), seen, "", unless),
    )


# Names are looked up first: what is wrong with them is a fault beside another one.
_NAMES = (
    _Row(_DNS_FAILING, "name_unknown"),
    _Row(Name("dns_slow", "dns"), "lookup_slow"),
    _Row(Name("dns_loss", "dns"), "lookup_lost"),
)
_TOGETHER = (
    _Row(Name("local_ports_exhausted", "client_host"), "no_ports"),
    _Row(Name("descriptors_exhausted", "client_host"), "no_descriptors"),
    _Row(Name("neighbour_unreachable", "path"), "unreachable_late ping.unreachable"),
    _Row(Name("rejected_midpath", "middlebox"), "unreachable rejected"),
    _Row(Name("peer_lost", "server_host"), "ping.gap", "refused"),
    _Row(Name("refused_by_server", "server_app"), "refused"),
    _Row(Name("backend_dead", "server_app"), "quick_and_closed quick_and_silent"),
    _Row(Name("rst_injected", "middlebox"), "reset"),
    _Row(Name("closed_by_server", "server_app"), "closed_empty"),
    _Row(Name("tcp_terminated", "middlebox"), "connect_too_quick"),
    _Row(_BLACKOUT, "ping.all_lost ping.gap"),
    _Row(Name("new_connection_limit", "middlebox"), "connect_all_lost"),
    _Row(Name("mtu_reduced", "path"), "too_big"),
    *_both_ways("mtu_blackhole", "ping.big_lost", "stalled"),
    _Row(Name("duplication", "path"), "duplicated"),
    _Row(Name("backlog_overflow", "server_app"), "silent_and_slow"),
    _Row(Name("syn_loss", "path"), "silent_and_retried", "", "ping.some_lost"),
    _Row(Name("path_subset_loss", "path"), "connect_some_lost", "", "ping.some_lost"),
    *_both_ways("policing", "policed_forward policed_reverse", "policed"),
    *_both_ways("bufferbloat", "ping.queue", "queue"),
    *_both_ways("burst_loss", "lost_in_bursts", "lost"),
    *_both_ways("loss", "some_lost", "lost"),
    *_both_ways("reordering", "reordered", "reordered"),
    *_both_ways("loss", "lost_forward lost_reverse", "lost"),
    _Row(Name("app_hung", "server_app"), "no_answer answer_very_slow"),
    _Row(_DELAY, "ping.delay_grew"),
    _Row(_SLOW_APP, "answer_slow"),
    _Row(_LOSS, "data_resent connect_retried"),
    _Row(Name("option_stripped", "middlebox"), "small_mss"),
    _Row(Name("sender_limited", "client_host"), "small_send_buffer"),
    _Row(Name("receiver_limited", "server_host"), "tiny_window_forward"),
    _Row(Name("window_limited", "configuration"), "small_window"),
    _Row(Name("process_paused", "server_host"), "answer_sometimes_slow"),
)


def conclude_together(symptoms: Mapping[str, Symptoms], at_s: float) -> tuple[Said, ...]:
    """Return what a script says that reads every tool: of names, and of the rest."""
    seen = {f"{tool}.{symptom}" for tool, mine in symptoms.items() for symptom in mine}
    seen |= {symptom for mine in symptoms.values() for symptom in mine}
    said: list[Said] = []
    for rows in (_NAMES, _TOGETHER):
        if said and "name_unknown" in seen:
            break  # all else follows from that
        for row in rows:
            if (
                seen.intersection(row.seen.split())
                and (not row.also or row.also in seen)
                and row.unless not in seen
            ):
                said.append(Said(row.name, at_s, proof=row.seen))
                break
    return tuple(said)


def conclude(tool: str, symptoms: Symptoms, at_s: float) -> tuple[Said, ...]:
    """Return what a tool says of its symptoms, if anything, at the end of its watch."""
    for symptom, name in RULES[tool].items():
        if symptom in symptoms:
            figures = {"mtu": symptoms[symptom]} if symptom == "too_big" else {}
            return (Said(name, at_s, figures=figures, proof=symptom),)
    return ()
