"""Log lines are fit for a store that indexes JSON: each field has one shape."""

import re
from itertools import permutations

from log_calls import SOURCES, all_fields, log_calls

# The record's own, and OpenTelemetry's; whatever else there is begins with our name.
# fmt: off
STANDARD = {
    "timestamp", "level", "logger", "body", "cloud.availability_zone", "error.message",
    "error.type", "event.name", "exception.message", "exception.stacktrace", "exception.type",
    "file.path", "k8s.namespace.name", "k8s.node.name", "network.local.address",
    "network.local.port", "network.peer.address", "server.address", "server.port",
    "service.instance.id", "service.name", "service.version",
}
# fmt: on


def test_no_field_is_the_beginning_of_another():
    pairs = permutations(sorted(all_fields()), 2)
    assert [(one, other) for one, other in pairs if other.startswith(one + ".")] == []


def test_each_field_is_a_standard_one_or_has_our_name():
    odd = all_fields() - STANDARD
    assert {field for field in odd if not re.fullmatch(r"twocans(\.[a-z_]+)+", field)} == set()


def test_an_event_is_a_snake_case_name():
    events = {call.event for call in log_calls()}
    assert {event for event in events if not re.fullmatch(r"[a-z]+(_[a-z]+)*", event)} == set()


def test_every_log_call_is_seen():
    """Whatever a logger is called in the sources, ``log_calls`` must know the name."""
    source = "".join(page.read_text() for page in SOURCES)
    named = re.findall(r"(\w+) = logging\.getLogger", source)
    assert set(named) == {"log"}
    assert len(re.findall(r"\blog\.[a-zA-Z]+\(", source)) <= len(log_calls())
