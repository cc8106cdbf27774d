"""The code against the specification: every vector of vectors.json, fed in every way.

The vectors are written by hand from docs/protocol.md. Where one fails, read the page first.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from twocans_core.errors import RemoteProtocolError
from twocans_core.kernel.tcpinfo import NO_COUNTERS, Counters, HostCounts, TcpCounts
from twocans_core.protocol import frames, messages, witness
from twocans_core.protocol.frames import Decoder, Frame, Kind
from twocans_core.protocol.messages import (
    Features,
    Goodbye,
    Hello,
    Identity,
    Message,
    Request,
    Welcome,
)
from twocans_core.protocol.session import ClientSession, ServerSession
from twocans_core.protocol.witness import (
    MOST_ASKED,
    UNKNOWN,
    Asked,
    HostSeen,
    Seen,
    Witness,
)

HERE = Path(__file__).resolve().parent
PAGE = (HERE.parent.parent / "docs" / "protocol.md").read_text()
VECTORS = json.loads((HERE / "vectors.json").read_text())
FRAMES = {vector["name"]: vector for vector in VECTORS["frames"]}
REFUSALS = {f"{vector['reason']}: {vector['name']}": vector for vector in VECTORS["refusals"]}

MAX_PAYLOAD = 16
CONNECTION = 0x1122334455667788
NOBODY = Identity(bytes(16))


def wire_of(vector: dict[str, Any]) -> bytes:
    """The bytes that a vector spells."""
    data = b""
    for piece in vector["wire"]:
        spelled, times = re.fullmatch(r".*?: ([0-9A-F ]+?)(?: x([0-9]+))?", piece).groups()  # type: ignore[union-attr]
        data += bytes.fromhex(spelled) * int(times or 1)
    return data


def message_of(vector: dict[str, Any]) -> Message:
    """The message that a vector describes."""
    fields = dict(vector["fields"])
    if "instance" in fields:
        instance = bytes.fromhex(fields.pop("instance"))
        fields["identity"] = Identity(instance, *fields.pop("names"))
    if "payload" in fields:
        fields["payload"] = bytes.fromhex(fields["payload"])
    if "counters" in fields:
        fields["counters"] = Counters(*fields["counters"])
    if "asked" in fields:
        fields["asked"] = tuple(Asked(*each) for each in fields["asked"])
    if "seen" in fields:
        fields["host"] = host_of(fields["host"])
        fields["seen"] = tuple(map(seen_of, fields["seen"]))
    elif "host" in fields:
        fields["host"] = HostCounts(*fields["host"])
    if "peer" in fields:
        fields["peer"] = tuple(fields["peer"])
    return messages.TYPES[Kind[vector["kind"]]](**fields)


def host_of(host: dict[str, Any]) -> HostSeen:
    known = dict(host)
    if known:
        known["tcp"] = TcpCounts(*known["tcp"])
        known["limits"] = tuple(map(tuple, known["limits"]))
    return HostSeen(**known)


def seen_of(seen: dict[str, Any] | None) -> Seen:
    if seen is None:
        return UNKNOWN
    counters, peer = Counters(*seen["counters"]), tuple(seen["peer"])
    return Seen(**{**seen, "counters": counters, "peer": peer})


def decoder() -> Decoder:
    return Decoder(messages.body_limits(65_536))


def drain(found_by: Decoder) -> list[Frame]:
    return list(iter(found_by.next_frame, None))


@pytest.fixture(params=list(FRAMES.values()), ids=list(FRAMES))
def vector(request: pytest.FixtureRequest) -> dict[str, Any]:
    param: dict[str, Any] = request.param
    return param


def test_encoding_gives_the_specified_bytes(vector):
    if vector.get("decode_only"):
        return
    message = message_of(vector)
    frame = Frame(Kind[vector["kind"]], vector["sequence"], message.encode())
    assert frames.encode(frame).hex() == wire_of(vector).hex()


def test_the_specified_bytes_are_that_message(vector):
    found_by = decoder()
    found_by.feed(wire_of(vector))
    (frame,) = drain(found_by)
    assert (frame.kind.name, frame.sequence) == (vector["kind"], vector["sequence"])
    assert messages.TYPES[frame.kind].parse(frame.body) == message_of(vector)


def test_a_message_may_come_byte_by_byte(vector):
    wire = wire_of(vector)
    found_by = decoder()
    for byte in wire[:-1]:
        found_by.feed(bytes([byte]))
        assert drain(found_by) == []
    found_by.feed(wire[-1:])
    assert [frame.body for frame in drain(found_by)] == [wire[frames.HEADER_SIZE :]]
    found_by.feed(b"")
    assert drain(found_by) == []


def test_two_messages_may_come_at_once(vector):
    wire = wire_of(vector)
    found_by = decoder()
    found_by.feed(wire + wire)
    assert [frame.body for frame in drain(found_by)] == [wire[frames.HEADER_SIZE :]] * 2


def test_an_end_inside_a_message_is_truncated(vector):
    wire = wire_of(vector)
    for size in range(1, len(wire)):
        found_by = decoder()
        found_by.feed(wire[:size])
        assert drain(found_by) == []
        found_by.feed(b"")
        with pytest.raises(RemoteProtocolError, match="truncated"):
            found_by.next_frame()


def server_at(when: str) -> ServerSession:
    session = ServerSession(max_payload=MAX_PAYLOAD)
    client = ClientSession(max_payload=MAX_PAYLOAD)
    if when != "greeting":
        session.feed(client.hello(Hello(NOBODY, CONNECTION)))
        assert isinstance(session.next_message(), Hello)
        session.welcome(welcome())
    if when == "leaving":
        session.feed(frames.encode(Frame(Kind.GOODBYE, 0, Goodbye("done").encode())))
        assert session.next_message() == Goodbye("done")
    return session


def client_at(when: str, requests: int, asked: Sequence[int] = ()) -> ClientSession:
    """A client after so many requests, and a WITNESS of so many connections for each of asked."""
    session = ClientSession(max_payload=MAX_PAYLOAD)
    session.hello(Hello(NOBODY, CONNECTION))
    if when != "greeting":
        session.feed(frames.encode(Frame(Kind.WELCOME, 0, welcome().encode())))
        assert isinstance(session.next_message(), Welcome)
        for _ in range(requests):
            session.request(Request.of(b""))
        for count in asked:
            session.witness(Witness(0, (Asked(0, 1),) * count))
    if when in ("leaving", "ending"):
        session.goodbye()
    if when == "ending":
        session.feed(wire_of(FRAMES["FOLLOW_UP of no reply, nothing measured"]))
        assert session.next_message() is not None
    return session


def welcome() -> Welcome:
    return Welcome(
        NOBODY, CONNECTION, 16, 1, False, ("192.0.2.1", 1), None, None, None, NO_COUNTERS
    )


@pytest.fixture(params=list(REFUSALS.values()), ids=list(REFUSALS))
def refusal(request: pytest.FixtureRequest) -> dict[str, Any]:
    param: dict[str, Any] = request.param
    return param


def session_for(refusal: dict[str, Any]) -> ServerSession | ClientSession:
    if refusal["to"] == "server":
        return server_at(refusal["when"])
    return client_at(refusal["when"], refusal.get("requests", 0), refusal.get("asked", ()))


def refused_for(session: ServerSession | ClientSession) -> str | None:
    """Take every message; return why the session was refused, or None when it was not."""
    try:
        while session.next_message() is not None:
            pass
    except RemoteProtocolError as error:
        return error.reason
    return None


def test_what_breaks_the_rules_is_refused_for_that_reason(refusal):
    session = session_for(refusal)
    session.feed(wire_of(refusal))
    if refusal.get("eof"):
        assert refused_for(session) is None
        session.feed(b"")
    assert refused_for(session) == refusal["reason"]


def test_it_is_refused_at_that_very_byte(refusal):
    session = session_for(refusal)
    for at, byte in enumerate(wire_of(refusal), start=1):
        session.feed(bytes([byte]))
        reason = refused_for(session)
        if at == refusal.get("at"):
            assert reason == refusal["reason"]
            return
        assert reason is None, f"refused after {at} bytes"
    session.feed(b"")
    assert refusal.get("eof")
    assert refused_for(session) == refusal["reason"]


@pytest.mark.parametrize("to", ["server", "client"])
def test_no_bit_that_turns_over_on_the_way_is_taken_for_anything_but_damage(to):
    seen = set()
    for vector in FRAMES.values():
        if vector["kind"] in seen:
            continue  # one of each kind
        seen.add(vector["kind"])
        wire = wire_of(vector)
        payload = vector["fields"].get("payload", "")  # has its own CRC
        for bit in range((len(wire) - len(payload) // 2) * 8):
            session = server_at("open") if to == "server" else client_at("open", 1)
            data = bytearray(wire)
            data[bit // 8] ^= 0x80 >> bit % 8
            session.feed(bytes(data))
            assert refused_for(session) == "damaged", (vector["name"], bit)


def test_what_was_refused_stays_refused(refusal):
    session = session_for(refusal)
    session.feed(wire_of(refusal))
    session.feed(b"")
    refused_for(session)
    session.feed(wire_of(FRAMES["GOODBYE done"]))
    assert refused_for(session) is not None


@pytest.mark.parametrize("name", ["REQUEST without a payload", "GOODBYE done"])
def test_a_client_need_not_wait_for_the_welcome_however_its_bytes_are_cut(name):
    hello, early = wire_of(FRAMES["HELLO, four empty texts"]), wire_of(FRAMES[name])
    for size in range(len(early) + 1):
        session = ServerSession(max_payload=MAX_PAYLOAD)
        session.feed(hello + early[:size])
        assert isinstance(session.next_message(), Hello)
        session.feed(early[size:])
        assert session.next_message() is not None


def test_an_error_together_with_a_hello_is_that_error():
    session = ServerSession(max_payload=MAX_PAYLOAD)
    session.feed(wire_of(FRAMES["HELLO, four empty texts"]) + wire_of(FRAMES["ERROR bad_magic"]))
    assert isinstance(session.next_message(), Hello)
    assert session.next_message() == messages.Error("bad_magic")


@pytest.mark.parametrize(
    "name", [name for name in REFUSALS if "an ERROR whose" in name or "ERROR without" in name]
)
def test_an_error_that_is_wrong_itself_is_not_answered(name):
    session = session_for(REFUSALS[name])
    session.feed(wire_of(REFUSALS[name]))
    assert session.error(str(refused_for(session))) == b""


def test_a_refusal_is_answered_with_its_reason(refusal):
    if "ERROR" in refusal["name"]:
        return
    session = session_for(refusal)
    session.feed(wire_of(refusal))
    session.feed(b"")
    found_by = decoder()
    found_by.feed(session.error(str(refused_for(session))))
    (frame,) = drain(found_by)
    assert messages.Error.parse(frame.body) == messages.Error(refusal["reason"], 1, 1)
    assert frame.sequence == 0


def table_after(heading: str) -> list[list[str]]:
    """The cells of the first table below a line of the page, its head left out."""
    _, found, rest = PAGE.partition(heading)
    assert found, heading
    rows = re.search(r"(?:^\|.*\n)+", rest, re.MULTILINE)
    assert rows
    lines = rows[0].splitlines()[2:]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]


def test_every_reason_of_the_page_has_a_vector():
    reasons = {row[0] for row in table_after("| 2 | | reason, a token |")}
    # too_slow is a matter of clocks: tests/server has it.
    assert reasons - {"too_slow"} == {vector["reason"] for vector in VECTORS["refusals"]}


def test_every_kind_of_the_page_has_a_vector():
    kinds = {
        row[1]: int(row[0])
        for row in table_after("| 20 | length | body | by kind |")
        if row[1].isupper()
    }
    assert kinds == {kind.name: kind.value for kind in Kind}
    assert kinds.keys() == {vector["kind"] for vector in VECTORS["frames"]}


def test_the_limits_of_bodies_are_the_pages():
    limits = {
        row[1]: int(row[3].replace(",", ""))
        for row in table_after("| 20 | length | body | by kind |")
        if row[3].replace(",", "").isdigit()
    }
    ours = {kind.name: limit for kind, limit in messages.body_limits(1000).items()}
    assert limits.items() <= ours.items()
    assert {kind: ours[kind] for kind in ours.keys() - limits.keys()} == {
        "REQUEST": 88 + 1000,
        "REPLY": 88 + 1000,
    }


def test_the_counters_of_the_page_are_ours_in_its_order():
    rows = table_after("**Counters** (48 bytes)")
    assert [row[1] for row in rows] == list(Counters._fields)
    assert [int(row[0]) for row in rows] == list(range(0, 48, 4))


def test_an_answer_is_as_long_as_its_question():
    for count in range(MOST_ASKED + 1):
        question = Witness(0, (Asked(1, 2),) * count)
        answer = witness.Testimony(0, 0, HostSeen(), (UNKNOWN,) * count)
        assert len(question.encode()) == len(answer.encode())


def test_the_features_of_the_page_are_ours():
    rows = table_after("Features are bits")
    assert {row[1]: 1 << int(row[0]) for row in rows} == {
        str(feature.name).lower(): feature.value for feature in Features
    }


def test_the_host_counts_of_the_page_are_ours_in_its_order():
    rows = table_after("**Host counters** (8 bytes)")
    assert [row[1] for row in rows] == list(HostCounts._fields)
    assert [int(row[0]) for row in rows] == [0, 4]
