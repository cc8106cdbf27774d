"""What curl and blackbox_exporter show: connections that ask and wait for the answer. No I/O."""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from .scene import Base
from .shares import quantile
from .symptoms import SLACK_S, Symptoms, of_delays, of_errors

__all__ = ["Attempt", "curl_attempt", "exporter_attempt", "of_attempts"]


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


def of_attempts(attempts: Sequence[Attempt], base: Base) -> Symptoms:
    """From connections that asked and waited: curl's or blackbox_exporter's."""
    small = [one for one in attempts if not one.is_big]
    big = [one for one in attempts if one.is_big]
    if not small:
        return {}
    found = of_errors((one.error, one.total_s) for one in small)
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
    if base.rtt_s > SLACK_S and handshakes and handshake < base.rtt_s / 2:
        found["connect_too_quick"] = handshake
    if wait > max(2 * handshake, base.rtt_s * (1 + base.jitter) + 2 * SLACK_S):
        found["answer_slow"] = wait
        if wait > base.rtt_s + 0.5:
            found["answer_very_slow"] = wait
    elif waits and waits[-1] > 2 * base.rtt_s + 0.1:
        found["answer_sometimes_slow"] = waits[-1]
        if retried or 0.19 < waits[-1] - base.rtt_s < 0.23:  # the least RTO of a kernel is 0.2 s
            found["data_resent"] = 1
    if handshakes:
        found |= of_delays(handshakes, base, 5 * SLACK_S)  # by a program's clock
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


def _value(pattern: str, text: str) -> float:
    found = re.search(pattern, text, re.MULTILINE)
    return float(found[1]) if found else 0.0
