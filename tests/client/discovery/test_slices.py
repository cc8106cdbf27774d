import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from client.api_server import endpoint, slice_of
from twocans_client.discovery.slices import (
    BadAnswer,
    Change,
    Endpoint,
    Expired,
    Page,
    merge,
    parse_change,
    parse_page,
    parse_status,
)
from twocans_core.net.sockets import Address
from twocans_core.process.values import place


def page_of(*slices: Any, **metadata: Any) -> bytes:
    return json.dumps(
        {"metadata": {"resourceVersion": "7"} | metadata, "items": list(slices)}
    ).encode()


def ready(*endpoints: Any, family: Any = "IPv4") -> list[Endpoint]:
    """What is made of one slice with these endpoints."""
    item = slice_of("a", *endpoints) | {"addressType": family}
    return parse_page(page_of(item), 5000).slices.get("a", [])


def event(kind: Any, item: Any) -> bytes:
    return json.dumps({"type": kind, "object": item}).encode()


def versioned(item: dict[str, Any], version: Any = "9") -> dict[str, Any]:
    return {**item, "metadata": {**item["metadata"], "resourceVersion": version}}


# --- one slice ----------------------------------------------------------------------------


def test_an_endpoint_has_address_node_and_zone():
    entry = endpoint("192.0.2.1", "node-1", zone="zone-1", targetRef={"kind": "Pod", "name": "x"})
    assert ready(entry) == [Endpoint(Address("192.0.2.1", 5000), "node-1", "zone-1")]


def test_what_is_not_said_of_an_endpoint_is_empty():
    assert ready({"addresses": ["192.0.2.1"]}) == [Endpoint(Address("192.0.2.1", 5000), "", "")]


def test_the_port_is_the_configured_one_whatever_the_slice_says():
    data = page_of(slice_of("a", endpoint("192.0.2.1")))
    assert [found.address.port for found in parse_page(data, 7).slices["a"]] == [7]


@pytest.mark.parametrize(
    ("conditions", "is_ready"),
    [
        ({"ready": True, "serving": True, "terminating": False}, True),
        ({"ready": False, "serving": False, "terminating": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),
        # A Service with publishNotReadyAddresses.
        ({"ready": True, "serving": True, "terminating": True}, False),
        ({"ready": True, "serving": False, "terminating": False}, True),
        ({"ready": None, "serving": None, "terminating": None}, True),
        ({}, True),
        (None, True),
        ("ready", False),
    ],
)
def test_an_endpoint_is_ready_unless_said_otherwise_and_never_when_it_terminates(
    conditions, is_ready
):
    assert bool(ready(endpoint("192.0.2.1", conditions=conditions))) is is_ready


@pytest.mark.parametrize(
    ("family", "address", "host"),
    [
        ("IPv4", "192.0.2.1", "192.0.2.1"),
        ("IPv6", "2001:db8::1", "2001:db8::1"),
        ("IPv6", "2001:DB8:0::1", "2001:db8::1"),
        ("IPv6", "192.0.2.1", None),
        ("IPv4", "2001:db8::1", None),
        ("IPv6", "fe80::1%eth0", None),
        ("FQDN", "server.example.com", None),
        ("FQDN", "192.0.2.1", None),
        ("IPv4", "192.0.2.256", None),
        ("IPv4", 3221225985, None),
        ("IPv4", None, None),
        (None, "192.0.2.1", None),
        (["IPv4"], "192.0.2.1", None),
    ],
)
def test_addresses_are_of_the_slices_family_and_in_their_usual_form(family, address, host):
    found = [entry.address.host for entry in ready(endpoint(address), family=family)]
    assert found == ([] if host is None else [host])


def test_of_several_addresses_the_first_counts():
    entry = endpoint("192.0.2.1") | {"addresses": ["192.0.2.2", "192.0.2.1"]}
    assert [found.address.host for found in ready(entry)] == ["192.0.2.2"]


def test_an_odd_endpoint_does_not_take_the_others_with_it():
    broken: list[Any] = [
        None,
        7,
        "x",
        [],
        {},
        {"addresses": None},
        {"addresses": []},
        {"addresses": "192.0.2.9"},
    ]
    found = ready(*broken, endpoint("192.0.2.1"), endpoint("192.0.2.2"))
    assert [entry.address.host for entry in found] == ["192.0.2.1", "192.0.2.2"]


@pytest.mark.parametrize("text", ["ä" * 129, "nöde", "a\nb", "\ud800", 7, None, ["a"], {"a": 1}])
def test_what_is_no_label_is_empty(text):
    entry = endpoint("192.0.2.1", text, zone=text)
    assert ready(entry) == [Endpoint(Address("192.0.2.1", 5000), "", "")]


def test_a_long_name_is_cut_as_the_can_cuts_its_own():
    for name in ("a" * 128, "a" * 253):
        assert [found.node for found in ready(endpoint("192.0.2.1", name))] == [place(name)]


# --- lists and events ---------------------------------------------------------------------


def test_a_page_has_its_slices_the_version_and_what_follows():
    two = (
        slice_of("a", endpoint("192.0.2.1")),
        slice_of("b", endpoint("2001:db8::1"), family="IPv6"),
    )
    assert parse_page(page_of(*two, **{"continue": "x"}), 5000) == Page(
        {
            "a": [Endpoint(Address("192.0.2.1", 5000))],
            "b": [Endpoint(Address("2001:db8::1", 5000))],
        },
        "7",
        "x",
    )


@pytest.mark.parametrize("endpoints", [None, [], {}, "x", 7, [None], [{}]])
def test_a_slice_with_nothing_in_it_is_left_out(endpoints):
    item = slice_of("a") | {"endpoints": endpoints}
    assert parse_page(page_of(item), 5000).slices == {}
    assert parse_change(event("ADDED", versioned(item)), 5000) == Change("a", [], "9")


@pytest.mark.parametrize("end", [{}, {"continue": ""}, {"continue": None}])
def test_a_last_page_is_followed_by_nothing(end):
    assert parse_page(page_of(**end), 5000) == Page({}, "7", "")


def test_a_list_of_nothing_may_be_null():
    data = b'{"metadata": {"resourceVersion": "7"}, "items": null}'
    assert parse_page(data, 5000) == Page({}, "7", "")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"items": []}',
        b'{"metadata": null, "items": []}',
        page_of(resourceVersion=""),
        page_of(resourceVersion=7),
        page_of(resourceVersion="7\r\nX: y"),
        page_of(resourceVersion="7" * 257),
        page_of(resourceVersion="\ud800"),
        page_of(resourceVersion="ü"),
        page_of(**{"continue": 7}),
        page_of(**{"continue": "a" * 16_385}),
        page_of(None),
        page_of({"metadata": {}}),
        page_of({"metadata": {"name": ""}}),
        page_of({"metadata": {"name": 7}}),
        page_of({"metadata": {"name": ["a"]}}),
        page_of(slice_of("a"))[:-1],
        b'{"metadata": {"resourceVersion": "7"}, "items": {}}',
        b'{"a": ' + b"[" * 100_000,
        b'{"a": ' + b"1" * 100_000 + b"}",
        b"\xff\xfe\x00",
    ],
)
def test_what_is_no_list_is_refused(data):
    with pytest.raises(BadAnswer):
        parse_page(data, 5000)


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED"])
def test_an_event_has_all_of_the_slice_as_it_is_now(kind):
    item = versioned(slice_of("a", endpoint("192.0.2.1")))
    assert parse_change(event(kind, item), 5000) == Change(
        "a", [Endpoint(Address("192.0.2.1", 5000))], "9"
    )


def test_a_deleted_slice_has_no_endpoints():
    item = versioned(slice_of("a", endpoint("192.0.2.1")))
    assert parse_change(event("DELETED", item), 5000) == Change("a", [], "9")


def test_a_bookmark_is_a_version_and_no_more():
    item = {"kind": "EndpointSlice", "metadata": {"resourceVersion": "9"}}
    assert parse_change(event("BOOKMARK", item), 5000) == Change("", [], "9")


def test_an_error_410_means_that_the_version_is_too_old():
    with pytest.raises(Expired):
        parse_change(event("ERROR", {"kind": "Status", "code": 410, "message": "too old"}), 5000)


def test_another_error_is_told_in_the_servers_words():
    status = {"kind": "Status", "code": 500, "message": "etcd\x1b[31m\nis döwn" + "!" * 1_000}
    with pytest.raises(BadAnswer, match=r"etcd\?\[31m\?is d\?wn!+$") as caught:
        parse_change(event("ERROR", status), 5000)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"x",
        event("ADDED", None),
        event("ADDED", {}),
        event("ADDED", slice_of("a")),
        event("ADDED", versioned(slice_of("a"), None)),
        event("ADDED", versioned(slice_of(""))),
        event("DELETED", {"metadata": {"resourceVersion": "9"}}),
        event("BOOKMARK", {"metadata": {}}),
        event("ERROR", {}),
        event("ERROR", {"code": "410"}),
        event("RENAMED", versioned(slice_of("a"))),
        event(None, versioned(slice_of("a"))),
        event(["ADDED"], versioned(slice_of("a"))),
    ],
)
def test_what_is_no_event_is_refused(data):
    with pytest.raises(BadAnswer):
        parse_change(data, 5000)


@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b'{"message": 7}', b"{}"])
def test_an_error_without_words_has_none(data):
    assert parse_status(data) == ""


# --- all slices ---------------------------------------------------------------------------


def test_all_slices_together_are_sorted_by_address():
    one, two, three = (Endpoint(Address(host, 5000)) for host in ("192.0.2.1", "192.0.2.2", "::1"))
    assert merge({"a": [two], "b": [three, one]}) == [one, two, three]


def test_an_endpoint_that_moves_between_slices_is_one():
    known = Endpoint(Address("192.0.2.1", 5000), "node-1", "zone-1")
    less = known._replace(node="")
    assert merge({"a": [known], "b": [known]}) == [known]
    assert merge({"a": [known], "b": [less]}) == [known]
    assert merge({"a": [less], "b": [known]}) == [known]


def test_of_two_that_say_as_much_the_first_slice_by_name_is_right():
    old = Endpoint(Address("192.0.2.1", 5000), "node-1", "zone-1")
    new = old._replace(node="node-2")
    assert merge({"b": [new], "a": [old]}) == merge({"a": [old], "b": [new]}) == [old]


# --- anything at all ----------------------------------------------------------------------

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
odd = (
    leaves | st.lists(leaves, max_size=2) | st.dictionaries(st.text(max_size=3), leaves, max_size=2)
)
jsons = st.recursive(leaves, lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=20)


def either(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what is usual, so that what is odd is found deep inside too."""
    # Equal branches would be made one.
    return st.one_of(*(usual.map(lambda value: value) for _ in range(6)), odd)


hosts = st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "fe80::1%1", "x"])
conditions = st.fixed_dictionaries(
    {}, optional={name: either(st.booleans()) for name in ("ready", "terminating")}
)
entries = st.fixed_dictionaries(
    {"addresses": either(st.lists(either(hosts), max_size=2))},
    optional={
        "conditions": either(conditions),
        "nodeName": either(st.just("node-1")),
        "zone": either(st.just("zone-1")),
    },
)
metadata = st.fixed_dictionaries(
    {},
    optional={
        "name": either(st.sampled_from("ab")),
        "resourceVersion": either(st.just("7")),
        "continue": either(st.just("x")),
    },
)
items = st.fixed_dictionaries(
    {"metadata": either(metadata)},
    optional={
        "addressType": either(st.sampled_from(["IPv4", "IPv6", "FQDN"])),
        "endpoints": either(st.lists(either(entries), max_size=3)),
        "code": either(st.just(410)),
        "message": odd,
    },
)
pages = st.fixed_dictionaries(
    {"metadata": either(metadata), "items": either(st.lists(either(items), max_size=3))}
)
kinds = st.sampled_from(["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"])
events = st.fixed_dictionaries({"type": either(kinds), "object": either(items)})


def check(endpoints: list[Endpoint]) -> None:
    for found in endpoints:
        assert found.address.host in ("192.0.2.1", "192.0.2.2", "2001:db8::1")
        assert found.address.port == 5000
        assert all(len(text) <= 128 and text.isascii() for text in found[1:])


@given(pages | jsons)
@example({"metadata": {"resourceVersion": "7"}, "items": [slice_of("a", endpoint("192.0.2.1"))]})
def test_any_json_is_a_page_or_a_bad_answer(value):
    try:
        page = parse_page(json.dumps(value).encode(), 5000)
    except BadAnswer:
        return
    assert page.version
    assert all(page.slices.values())
    check(merge(page.slices))


@given(events | jsons)
def test_any_json_is_a_change_or_a_bad_answer(value):
    try:
        change = parse_change(json.dumps(value).encode(), 5000)
    except (BadAnswer, Expired):
        return
    assert change.version
    assert change.name or not change.endpoints
    check(change.endpoints)


@given(st.binary())
def test_any_bytes_are_no_page_no_change_and_no_words(data):
    for parse in (parse_page, parse_change):
        with pytest.raises(BadAnswer):
            parse(data, 5000)
    assert parse_status(data) == ""
