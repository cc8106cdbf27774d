"""What a diagnosis rules out, and by which figures. Facts only: rules are the verdicts'. No I/O."""

from collections.abc import Iterator

from twocans_client.evidence.intervals import in_words
from twocans_client.evidence.results import Outcome, ProbeResult, Reason
from twocans_client.verdicts.verdict import Culprit
from twocans_client.verdicts.words import counted

from .diagnosis import Diagnosis
from .shown import UNKNOWN_TO_ONE_END, show_ns

__all__ = ["excluded", "unknowable"]

_CLASSES = 16


def excluded(found: Diagnosis) -> Iterator[tuple[str, str]]:
    """Yield (what, how it is known), what is nearest to us first."""
    results = [result for result in found.results if result.reason is not Reason.SHUTDOWN]
    dialled = [result for result in results if result.dialled]
    if not dialled:
        return
    blamed = {verdict.finding.culprit for _, verdict in found.faults}
    if Culprit.CLIENT_HOST not in blamed:
        yield from _own_host(results)
    if Culprit.DNS not in blamed:
        yield from _names(found)
    yield from _connecting(found, dialled)
    if found.speaks:
        if Culprit.SERVER_APP not in blamed:
            yield from _talking(dialled)
        yield from _sizes(found)
        yield from _loss(found)


def _own_host(results: list[ProbeResult]) -> Iterator[tuple[str, str]]:
    void = any(result.outcome is Outcome.VOID for result in results)
    if not void and not any(result.tainted for result in results):
        yield "our own host", f"it stalled in none of {len(results)} probes"


def _names(found: Diagnosis) -> Iterator[tuple[str, str]]:
    look_ups = found.look_ups
    if look_ups and all(each.reason is Reason.OK for each in look_ups):
        worst_ns = max(each.duration_ns or 0 for each in look_ups)
        yield (
            "DNS",
            f"{counted(len(look_ups), 'look-up')} answered, the slowest in {show_ns(worst_ns)}",
        )


def _connecting(found: Diagnosis, dialled: list[ProbeResult]) -> Iterator[tuple[str, str]]:
    made = [result for result in dialled if result.connect_ns is not None]
    if made == dialled:
        yield "a closed port, a firewall", f"all {len(made)} connections were made"
        ports = found.ports
        classes = len({port % _CLASSES for port in ports})
        yield (
            "one bad lane of many",
            f"so from {len(ports)} local ports, of {classes} of {_CLASSES} classes",
        )
        if not any(result.syns_resent for result in made):
            yield "lost handshakes", f"no SYN was sent again in {len(made)}"


def _talking(dialled: list[ProbeResult]) -> Iterator[tuple[str, str]]:
    talked = [result for result in dialled if result.exchanges]
    if talked and all(result.reason is Reason.OK for result in dialled):
        yield "a server that hangs", f"it answered all {len(talked)} requests"
        exchanged = sum(result.bytes_received for result in talked)
        yield "damage", f"{exchanged:,} bytes came back as they were sent"


def _sizes(found: Diagnosis) -> Iterator[tuple[str, str]]:
    forward, reverse = found.mtu(0), found.mtu(1)
    stuck = {verdict.finding.kind.name for _, verdict in found.faults}
    if forward and reverse and "mtu_blackhole" not in stuck:
        yield (
            "a packet size that does not pass",
            f"full packets do: {forward:,} bytes forward, {reverse:,} reverse",
        )


def _loss(found: Diagnosis) -> Iterator[tuple[str, str]]:
    for way in ("forward", "reverse"):
        account = found.lost(way)
        if account is not None and not account[0]:
            yield f"loss {way}", in_words(*account)


def unknowable(found: Diagnosis) -> list[str]:
    """Return what one end cannot know of a far end that does not speak our protocol."""
    if found.speaks or not any(result.connect_ns is not None for result in found.results):
        return []
    who = (
        "the far end speaks another protocol"
        if found.speaks is False
        else "the far end never greeted us: either its program hangs, or it is no twocans server "
        "(--connect-only)"
    )
    return [
        f"{who}; so all that is known is what our own kernel saw of the handshakes",
        f"not known: {UNKNOWN_TO_ONE_END}",
    ]
