"""What another tool's whole output shows, as symptoms. No I/O.

Each function knows the healthy path beforehand: its round trip, its jitter and its loss.
"""

import json
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from .scene import Base
from .shares import quantile

__all__ = [
    "SLACK_S",
    "Symptoms",
    "of_delays",
    "of_errors",
    "of_iperf3",
    "of_mtr",
    "of_ping",
]

Symptoms = dict[str, float]
"""By name; the value is the figure that goes with it, or 1."""

_REPLY = re.compile(r"icmp_seq=(\d+) .*time=([\d.]+) ms( \(DUP!\))?")
_MTU = re.compile(r"mtu ?= ?(\d+)")
_GAP = 150
"""So many lost in a row are no burst; at 100 a second it is 1.5 s."""
_PINGS_A_SECOND = 100
SLACK_S = 0.002
"""Less than this is the machine's own doing, on a busy day."""


def of_ping(small: str, big: str, base: Base) -> Symptoms:
    """From the output of two pings: 64 bytes, and 1500 that must not be fragmented."""
    found: Symptoms = {}
    replies = [(int(m[1]), float(m[2]) / 1e3, bool(m[3])) for m in _REPLY.finditer(small)]
    first = [(seq, rtt) for seq, rtt, is_copy in replies if not is_copy]
    sent = _number(r"(\d+) packets transmitted", small)
    if not sent:
        return (
            {"name_unknown": 1} if re.search(r"not known|failure in name|No address", small) else {}
        )
    # The last were still under way when ping ended.
    settled = sent - min(sent // 2, int((base.rtt_s + 0.2) * _PINGS_A_SECOND))
    missing = sorted(set(range(1, settled + 1)) - {seq for seq, _ in first})
    lost = len(missing)
    found |= _of_train(settled, lost, missing, base)
    if copies := sum(is_copy for _, _, is_copy in replies):
        found["duplicated"] = copies
    order = [seq for seq, _ in first]
    if late := sum(a > b for a, b in pairwise(order)):
        found["reordered"] = late
    found |= of_delays([rtt for _, rtt in first], base)
    for words, symptom in (("Host Unreachable", "unreachable"), ("prohibited", "rejected")):
        if words in small:
            found[symptom] = 1
    if mtu := _MTU.search(big):
        found["too_big"] = int(mtu[1])
    elif first and lost < settled / 2 and not _REPLY.search(big) and "transmitted" in big:
        found["big_lost"] = 1
    return found


def of_mtr(output: str, base: Base) -> Symptoms:
    """From the JSON report of ``mtr --tcp``: what its last hop, the server, answered."""
    try:
        hubs = json.loads(output)["report"]["hubs"]
    except (ValueError, KeyError):
        return {"name_unknown": 1} if "resolve" in output else {}
    if not hubs:
        return {}
    last = hubs[-1]
    sent = int(last["Snt"])
    found = _of_train(sent, round(sent * last["Loss%"] / 100), [], base)
    if last["Loss%"] < 100:
        best, worst = last["Best"] / 1e3, last["Wrst"] / 1e3
        if best > base.rtt_s * (1 + base.jitter) + SLACK_S:
            found["delay_grew"] = best - base.rtt_s
        elif worst > base.rtt_s + 0.9:
            found["connect_retried"] = 1
        elif last["StDev"] / 1e3 > base.rtt_s * base.jitter + 5 * SLACK_S:
            found["delay_varies"] = last["StDev"] / 1e3
    return found


def of_iperf3(runs: dict[str, dict[str, Any]], base: Base) -> Symptoms:
    """From the JSON of four runs: TCP and UDP, forward and reverse (``-R``).

    Args:
        runs: By ``tcp_forward`` and so on.
        base: The healthy path.
    """
    found: Symptoms = {}
    errors = [run.get("error", "") for run in runs.values()]
    for name, run in runs.items():
        protocol, _, direction = name.partition("_")
        end = run.get("end", {})
        if protocol == "tcp" and end.get("sum_sent"):
            found |= _of_tcp(run, direction, base)
        elif protocol == "udp" and (stats := end.get("sum")):
            packets, lost = stats.get("packets", 0), stats.get("lost_packets", 0)
            if packets and lost >= max(3, 0.001 * packets):
                # UDP at a steady rate loses what a policer has no tokens for, and TCP resends.
                is_policed = lost > 0.08 * packets and f"resent_{direction}" in found
                symptom = f"policed_{direction}" if is_policed else f"lost_{direction}"
                found[symptom] = lost / packets
            late = sum(
                s["udp"].get("out_of_order", 0) for s in end.get("streams", ()) if "udp" in s
            )
            if late:
                found[f"reordered_{direction}"] = late
    if errors and all(errors):
        found |= of_errors((error, 0.0) for error in errors)
        found.setdefault("all_failed", 1)
    return found


def _of_tcp(run: dict[str, Any], direction: str, base: Base) -> Symptoms:
    end, start = run["end"], run.get("start", {})
    sent, received = end["sum_sent"], end.get("sum_received", {})
    sender = end["streams"][0]["sender"]
    found: Symptoms = {}
    if not received.get("bytes"):
        return {f"stalled_{direction}": 1}
    if received.get("bits_per_second", 0) < 1e6:
        found[f"slow_{direction}"] = received["bits_per_second"]
    if sent.get("retransmits", 0) / max(1, sent["bytes"] / 1448) > 0.05:
        found[f"resent_{direction}"] = 1
    if sender.get("min_rtt", 0) / 1e6 > base.rtt_s * (1 + base.jitter) + 5 * SLACK_S:
        found["delay_grew"] = sender["min_rtt"] / 1e6 - base.rtt_s
    elif (growth := sender.get("mean_rtt", 0) / 1e6 - base.rtt_s) > base.rtt_s / 2 + 0.05:
        found[f"queue_{direction}"] = growth
    if start.get("tcp_mss_default", 1448) < 1000:
        found["small_mss"] = start["tcp_mss_default"]
    if 0 < start.get("sndbuf_actual", 1 << 20) < 16_384 and direction == "forward":
        found["small_send_buffer"] = start["sndbuf_actual"]
    if 0 < (window := sender.get("max_snd_wnd", 0)) <= 65_535:
        found["small_window" if window > 30_000 else f"tiny_window_{direction}"] = window
    return found


def of_errors(errors: Iterable[tuple[str, float]]) -> Symptoms:
    """From what connections complained of, each with how many seconds it took."""
    found: Symptoms = {}
    for error, took_s in errors:
        for words, symptom in _ERRORS:
            if re.search(words, error, re.IGNORECASE):
                late = symptom == "unreachable" and took_s > 1
                found["unreachable_late" if late else symptom] = 1
                break
    return found


_ERRORS = (
    (r"resolve host|no such host|server misbehaving|lookup", "name_unknown"),
    (r"assign requested address|bind failed", "no_ports"),
    (r"too many open files", "no_descriptors"),
    (r"no route|unreachable", "unreachable"),
    (r"refused|couldn't connect to server", "refused"),
    (r"reset", "reset"),
    (r"empty reply|\beof\b", "closed_empty"),
)


def _of_train(sent: int, lost: int, missing: Sequence[int], base: Base) -> Symptoms:
    if sent and lost == sent:
        return {"all_lost": 1}
    if lost < max(3, 10 * base.loss * sent):
        return {}
    if _longest_run(missing) >= _GAP:
        return {"gap": lost / sent}
    neighbours = sum(b - a == 1 for a, b in pairwise(missing))
    if neighbours >= 3 and neighbours > lost / 2:
        return {"lost_in_bursts": lost / sent}
    return {"some_lost": lost / sent}


def _longest_run(numbers: Sequence[int]) -> int:
    longest = run = 0
    for before, number in pairwise([-1, *numbers]):
        run = run + 1 if number == before + 1 else 1
        longest = max(longest, run)
    return longest


def of_delays(rtts_s: Sequence[float], base: Base, slack_s: float = SLACK_S) -> Symptoms:
    """From round trips: whether they grew, by as much each time or not, or came to vary."""
    ordered = sorted(rtts_s)
    if len(ordered) < 5:
        return {}
    low, middle, high = (quantile(ordered, part) or 0.0 for part in (0.05, 0.5, 0.95))
    growth = middle - base.rtt_s
    spread = high - low - 2 * base.rtt_s * base.jitter
    if growth > base.rtt_s * base.jitter + slack_s:
        return {"queue" if spread > max(0.3 * growth, 5 * slack_s) else "delay_grew": growth}
    if spread > 10 * slack_s:
        return {"delay_varies": spread}
    return {}


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0
