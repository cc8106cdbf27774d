"""A diagnosis as one JSON document, for programs; docs/diagnose.md describes it. No I/O."""

import json
from collections.abc import Mapping

from twocans_client.evidence.bulk import Load, Way
from twocans_client.evidence.rows import Resolved

from .diagnosis import Diagnosis, Examined
from .document import directions_of, report_document, verdict_document
from .excluded import excluded, unknowable
from .page import headline

__all__ = ["SCHEMA", "diagnosis_json"]

SCHEMA = 1
"""Of this document; it grows when a name goes or means something else, not when one is added."""


def diagnosis_json(found: Diagnosis) -> str:
    """Return all of it. Durations are in seconds; what was not measured is left out."""
    document: dict[str, object] = {
        "schema": SCHEMA,
        "kind": "diagnosis",
        "target": found.target,
        "state": found.state,
        "headline": headline(found),
        "whole": found.is_whole,
        "took_s": found.took_ns / 1e9,
        "under_way": found.under_way,
        "verdicts": [
            {
                **verdict_document(verdict.finding),
                **_at(path),
                "stands": path.stands(verdict),
                "info": verdict.finding.kind.is_info,
            }
            for path in found.paths
            for verdict in path.verdicts
        ],
        "bounds": _bounds(found),
        "excluded": [{"what": what, "how": how} for what, how in excluded(found)],
        "unknown": unknowable(found),
        "look_ups": [_look_up(each) for each in found.look_ups],
        "local_ports": len(found.ports),
        "no_route": [list(address) for address in found.no_route],
        "left_out": found.left_out,
        "load": {"reason": found.no_load} if found.load is None else _load(found.load),
        "addresses": [_examined(path, found.target) for path in found.paths],
    }
    if found.speaks is not None:
        document["speaks"] = found.speaks
    return json.dumps(document, indent=2)


def _at(path: Examined) -> dict[str, object]:
    return {} if path.address is None else {"address": list(path.address)}


def _bounds(found: Diagnosis) -> dict[str, object]:
    load = found.load
    return _measured(
        {
            "network_s": _seconds(found.network_ns),
            "lost_forward_at_most": found.lost_at_most("forward"),
            "lost_reverse_at_most": found.lost_at_most("reverse"),
            "mtu_forward_bytes": found.mtu(0),
            "mtu_reverse_bytes": found.mtu(1),
            "bits_per_s": load.sustained_bits_per_s if load else None,
        }
    )


def _look_up(look_up: Resolved) -> dict[str, object]:
    took_s = None if look_up.duration_ns is None else look_up.duration_ns / 1e9
    return _measured(
        {"reason": look_up.reason, "duration_s": took_s, "detail": look_up.detail or None}
    )


def _load(load: Load) -> dict[str, object]:
    return _measured(
        {
            "payload_bytes": load.payload_bytes,
            "exchanges": load.exchanges,
            "sustained_bits_per_s": load.sustained_bits_per_s,
            "problem": load.problem or None,
            "forward": _way(load.forward),
            "reverse": _way(load.reverse),
            "network_before_s": _seconds(load.idle_ns),
            "network_under_load_s": _seconds(load.loaded_ns),
            "busy_s": load.busy_s,
            "receiver_limited_share": load.receiver_share,
            "buffer_limited_share": load.buffer_share,
            "segments": None if load.segments is None else directions_of(load.segments),
        }
    )


def _way(way: Way) -> dict[str, object]:
    later_s = _seconds(way.grew_ns)
    return _measured({"burst_bits_per_s": way.burst_bits_per_s, "small_messages_later_s": later_s})


def _examined(path: Examined, target: str) -> dict[str, object]:
    sizes = {"forward": path.mtu[0], "reverse": path.mtu[1]}
    return {
        **_at(path),
        "mtu_bytes": _measured(sizes),
        "testimonies": path.testimonies,
        "idle": _measured(
            {
                "good_s": _seconds(path.idle_good_ns or None),
                "bad_s": None if path.idle_bad is None else path.idle_bad.bad_ns / 1e9,
            }
        ),
        "report": report_document(path.report, path.results, target),
    }


def _seconds(ns: float | None) -> float | None:
    return None if ns is None else ns / 1e9


def _measured(table: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in table.items() if value is not None}
