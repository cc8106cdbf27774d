"""What another tool's whole output shows, as symptoms. No I/O.

Each function knows the healthy path beforehand: its round trip, its jitter and its loss.
"""

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from .scene import Base
from .shares import quantile

__all__ = [
    "Attempt",
    "Symptoms",
    "curl_attempt",
    "exporter_attempt",
    "of_attempts",
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
_SLACK_S = 0.002
"""Less than this is the machine's own doing, on a busy day."""


class Attempt(NamedTuple):
    """One connection of a tool that connects, asks, and waits for the answer.

    Attributes:
        lookup_s: How long the look-up took.
        connect_s: The handshake; None if there was none.
        first_s: From then to the first byte of the answer; None if none came.
        error: What the tool said.
        total_s: The whole attempt.
        is_big: The request was 60 kB.
    """

    lookup_s: float
    connect_s: float | None
    first_s: float | None
    error: str
    total_s: float
    is_big: bool = False


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
    lost = sent - len({seq for seq, _ in first})
    found |= _of_train(sent, lost, sorted(set(range(1, sent + 1)) - {s for s, _ in first}), base)
    if copies := sum(is_copy for _, _, is_copy in replies):
        found["duplicated"] = copies
    order = [seq for seq, _ in first]
    if late := sum(a > b for a, b in pairwise(order)):
        found["reordered"] = late
    found |= _of_delays([rtt for _, rtt in first], base)
    for words, symptom in (("Host Unreachable", "unreachable"), ("prohibited", "rejected")):
        if words in small:
            found[symptom] = 1
    if mtu := _MTU.search(big):
        found["too_big"] = int(mtu[1])
    elif first and lost < sent / 2 and not _REPLY.search(big) and "transmitted" in big:
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
        if best > base.rtt_s * (1 + base.jitter) + _SLACK_S:
            found["delay_grew"] = best - base.rtt_s
        elif worst > base.rtt_s + 0.9:
            found["connect_retried"] = 1
        elif last["StDev"] / 1e3 > base.rtt_s * base.jitter + 5 * _SLACK_S:
            found["delay_varies"] = last["StDev"] / 1e3
    return found


def of_attempts(attempts: Sequence[Attempt], base: Base) -> Symptoms:
    """From connections that asked and waited: curl's or blackbox_exporter's."""
    small = [one for one in attempts if not one.is_big]
    big = [one for one in attempts if one.is_big]
    if not small:
        return {}
    found = _of_errors(small)
    found |= _of_lookups(sorted(one.lookup_s for one in small), base)
    connected = [one for one in small if one.connect_s is not None]
    answered = [one for one in connected if one.first_s is not None]
    silent = [one for one in small if one.connect_s is None and "time" in one.error.lower()]
    handshakes = sorted(one.connect_s for one in connected if one.connect_s is not None)
    waits = sorted(one.first_s for one in answered if one.first_s is not None)
    retried = any(handshake > 0.9 for handshake in handshakes)
    if len(silent) == len(small):
        found["connect_all_lost"] = 1
    elif len(silent) > 1:
        found["connect_some_lost"] = len(silent) / len(small)
    if retried:
        found["connect_retried"] = 1
    if len(connected) > 1 and not answered:
        found["no_answer"] = 1
    wait, handshake = quantile(waits, 0.5) or 0.0, quantile(handshakes, 0.5) or 0.0
    if base.rtt_s > _SLACK_S and handshakes and handshake < base.rtt_s / 2:
        found["connect_too_quick"] = handshake
    if wait > max(2 * handshake, base.rtt_s * (1 + base.jitter) + 2 * _SLACK_S):
        found["answer_slow"] = wait
        if wait > base.rtt_s + 0.5:
            found["answer_very_slow"] = wait
    elif waits and waits[-1] > 2 * base.rtt_s + 0.1:
        found["answer_sometimes_slow"] = waits[-1]
        if retried or 0.19 < waits[-1] - base.rtt_s < 0.23:  # the least RTO of a kernel is 0.2 s
            found["data_resent"] = 1
    if handshakes:
        found |= _of_delays(handshakes, base)
    if answered and len(big) > 1 and not any(one.first_s is not None for one in big):
        found["big_lost"] = 1
    for symptom, parts in _COMPOSITE.items():
        if all(part in found for part in parts):
            found[symptom] = 1
    return found


_COMPOSITE = {
    "silent_and_slow": ("connect_some_lost", "answer_slow"),
    "silent_and_retried": ("connect_some_lost", "connect_retried"),
    "quick_and_closed": ("connect_too_quick", "closed_empty"),
    "quick_and_silent": ("connect_too_quick", "no_answer"),
}


def _of_lookups(lookups_s: Sequence[float], base: Base) -> Symptoms:
    """A slow name server is slow each time; a query that is lost is asked again after a second."""
    usual, highest = quantile(lookups_s, 0.3) or 0.0, lookups_s[-1]
    if usual > 5 * base.rtt_s + 0.1:
        return {"lookup_slow": usual}
    if highest > 5 * base.rtt_s + 0.9:
        return {"lookup_lost": highest}
    return {}


def _of_errors(attempts: Sequence[Attempt]) -> Symptoms:
    found: Symptoms = {}
    for one in attempts:
        for words, symptom in _ERRORS:
            if re.search(words, one.error, re.IGNORECASE):
                late = symptom == "unreachable" and one.total_s > 1
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


_COMPLAINT = re.compile(r"^\* .*(?:failed|[Rr]eset|refused|resolve).*$", re.MULTILINE)


def curl_attempt(output: str, *, is_big: bool) -> Attempt:
    """Read what ``curl --verbose`` said, and wrote as %{json} in the last line.

    Raises:
        ValueError: It is not that.
    """
    words, _, document = output.strip().rpartition("\n")
    seen = json.loads(document)
    lookup, connect = seen["time_namelookup"], seen["time_connect"]
    first = seen["time_starttransfer"]
    error = f"{seen['errormsg'] or ''} {' '.join(_COMPLAINT.findall(words))}".strip()
    if seen["exitcode"] == 28 and first > 0 and seen["size_download"]:
        error = ""  # the server keeps echoing connections open: curl was told to give up
    return Attempt(
        lookup,
        connect - lookup if connect > 0 else None,
        first - connect if first > 0 and seen["size_download"] else None,
        error,
        seen["time_total"],
        is_big,
    )


def exporter_attempt(page: str) -> Attempt:
    """Read a probe's page of blackbox_exporter, with its debug log."""
    lookup = _value(r"^probe_dns_lookup_time_seconds (\S+)", page)
    total = _value(r"^probe_duration_seconds (\S+)", page)
    dialled = 'msg="Successfully dialed"' in page
    is_good = "\nprobe_success 1\n" in page
    error = re.search(r'level=error .*?err="([^"]*)"', page) or re.search(r"level=error (.*)", page)
    moments = {m[2]: float(m[1]) for m in re.finditer(r'ts=\S+:(\S+)Z .*?msg="([^"]*)"', page)}
    dial, begun = moments.get("Successfully dialed"), moments.get("Dialing TCP without TLS")
    connect = (dial - begun) % 60 if dial is not None and begun is not None else None
    end = moments.get("Regexp matched")
    return Attempt(
        lookup,
        connect if dialled else None,
        (end - dial) % 60 if is_good and end is not None and dial is not None else None,
        "" if is_good else (error[1] if error else "failed"),
        total,
    )


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
        found |= _of_errors([Attempt(0.0, None, None, error, 0.0) for error in errors])
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
    if sender.get("min_rtt", 0) / 1e6 > base.rtt_s * (1 + base.jitter) + 5 * _SLACK_S:
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


def _of_delays(rtts_s: Sequence[float], base: Base) -> Symptoms:
    ordered = sorted(rtts_s)
    if len(ordered) < 5:
        return {}
    low, middle, high = (quantile(ordered, part) or 0.0 for part in (0.05, 0.5, 0.95))
    growth = middle - base.rtt_s
    spread = high - low - 2 * base.rtt_s * base.jitter
    if growth > base.rtt_s * base.jitter + _SLACK_S:
        return {"queue" if spread > max(0.3 * growth, 5 * _SLACK_S) else "delay_grew": growth}
    if spread > 10 * _SLACK_S:
        return {"delay_varies": spread}
    return {}


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def _value(pattern: str, text: str) -> float:
    found = re.search(pattern, text, re.MULTILINE)
    return float(found[1]) if found else 0.0
