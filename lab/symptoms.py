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
_GAP = 20
"""So many lost in a row are no burst; at 10 a second it is 2 s."""
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
        if last["Avg"] / 1e3 > base.rtt_s * (1.15 + base.jitter) + _SLACK_S:
            found["delay_grew"] = last["Avg"] / 1e3 - base.rtt_s
        if last["StDev"] / 1e3 > base.rtt_s * base.jitter + 5 * _SLACK_S:
            found["delay_varies"] = last["StDev"] / 1e3
    return found


def of_attempts(attempts: Sequence[Attempt], base: Base) -> Symptoms:
    """From connections that asked and waited: curl's or blackbox_exporter's."""
    small = [one for one in attempts if not one.is_big]
    big = [one for one in attempts if one.is_big]
    if not small:
        return {}
    found = _of_errors(small)
    lookup = quantile(sorted(one.lookup_s for one in small), 0.9) or 0.0
    if lookup >= 2:
        found["lookup_lost"] = lookup
    elif lookup >= 0.05:
        found["lookup_slow"] = lookup
    connected = [one for one in small if one.connect_s is not None]
    answered = [one for one in connected if one.first_s is not None]
    silent = [one for one in small if one.connect_s is None and "time" in one.error.lower()]
    if len(silent) == len(small):
        found["connect_all_lost"] = 1
    elif len(silent) > 1:
        found["connect_some_lost"] = len(silent) / len(small)
    if any(one.connect_s is not None and one.connect_s > 0.9 for one in small):
        found["connect_retried"] = 1
    if len(connected) > 1 and not answered:
        found["no_answer"] = 1
    waits = sorted(one.first_s for one in answered if one.first_s is not None)
    handshakes = sorted(one.connect_s for one in connected if one.connect_s is not None)
    wait, handshake = quantile(waits, 0.5) or 0.0, quantile(handshakes, 0.5) or 0.0
    if wait > max(2 * handshake, base.rtt_s * (1.15 + base.jitter) + 0.01):
        found["answer_slow"] = wait
    if any(wait > base.rtt_s * 2 + 0.1 for wait in waits):
        found["answer_sometimes_slow"] = waits[-1]
    if handshakes:
        found |= _of_delays(handshakes, base)
    if answered and len(big) > 1 and not any(one.first_s is not None for one in big):
        found["big_lost"] = 1
    return found


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
    (r"assign requested address", "no_ports"),
    (r"too many open files", "no_descriptors"),
    (r"no route|unreachable", "unreachable"),
    (r"refused|couldn't connect to server", "refused"),
    (r"reset", "reset"),
    (r"empty reply|\beof\b", "closed_empty"),
)


def curl_attempt(line: str, *, is_big: bool) -> Attempt:
    """Read what ``curl --write-out '%{json}'`` wrote.

    Raises:
        ValueError: It is not that.
    """
    seen = json.loads(line)
    lookup, connect = seen["time_namelookup"], seen["time_connect"]
    first = seen["time_starttransfer"]
    error = seen["errormsg"] or ""
    if seen["exitcode"] == 28 and first > 0:
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
            found |= _of_tcp(end, direction, base)
        elif protocol == "udp" and (stats := end.get("sum")):
            packets, lost = stats.get("packets", 0), stats.get("lost_packets", 0)
            if packets and lost >= max(3, 0.001 * packets):
                found[f"lost_{direction}"] = lost / packets
            late = sum(
                s["udp"].get("out_of_order", 0) for s in end.get("streams", ()) if "udp" in s
            )
            if late:
                found[f"reordered_{direction}"] = late
    if errors and all(errors):
        found |= _of_errors([Attempt(0.0, None, None, error, 0.0) for error in errors])
        found.setdefault("all_failed", 1)
    return found


def _of_tcp(end: dict[str, Any], direction: str, base: Base) -> Symptoms:
    found: Symptoms = {}
    sent, received = end["sum_sent"], end.get("sum_received", {})
    segments = sent["bytes"] / 1448
    if not received.get("bytes"):
        found[f"stalled_{direction}"] = 1
    elif segments and sent.get("retransmits", 0) / segments > 0.002:
        found[f"resent_{direction}"] = sent["retransmits"] / segments
    rtt = end["streams"][0]["sender"].get("mean_rtt", 0) / 1e6
    if rtt > base.rtt_s * 1.5 + 0.01:
        found[f"queue_{direction}"] = rtt - base.rtt_s
    if received.get("bits_per_second", 0) and received["bits_per_second"] < 1e6:
        found[f"slow_{direction}"] = received["bits_per_second"]
    return found


def _of_train(sent: int, lost: int, missing: Sequence[int], base: Base) -> Symptoms:
    if sent and lost == sent:
        return {"all_lost": 1}
    if lost < max(2, 10 * base.loss * sent):
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
    if low > base.rtt_s * (1 + base.jitter) + _SLACK_S:
        return {"delay_grew": middle - base.rtt_s}
    if high - low > 2 * base.rtt_s * base.jitter + 10 * _SLACK_S:
        return {"delay_varies": high - low}
    return {}


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def _value(pattern: str, text: str) -> float:
    found = re.search(pattern, text, re.MULTILINE)
    return float(found[1]) if found else 0.0
