import ipaddress
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twocans_core.errors import LocalProtocolError, RemoteProtocolError
from twocans_core.kernel.tcpinfo import NO_COUNTERS, Counters, HostCounts, TcpCounts
from twocans_core.protocol import witness
from twocans_core.protocol.frames import EXCHANGE_HEAD_SIZE, Kind
from twocans_core.protocol.messages import (
    KINDS,
    MAX_TEXT,
    TYPES,
    Busy,
    Error,
    FollowUp,
    Goodbye,
    Hello,
    Identity,
    Message,
    Reply,
    Request,
    Welcome,
    body_limits,
)
from twocans_core.protocol.witness import (
    MOST_ASKED,
    UNKNOWN,
    Asked,
    Fate,
    HostSeen,
    Seen,
    Witness,
)

# All bits one means "not measured", so the largest measured value is one less.
u32 = st.integers(0, 0xFFFF_FFFF)
stamps = st.none() | st.integers(0, 0xFFFF_FFFF_FFFF_FFFE)
counts = st.none() | st.integers(0, 0xFFFF_FFFE)
stalls = st.none() | st.integers(0, 0xFFFF_FFFE).map(lambda us: us * 1_000)
counters = st.builds(Counters, *[counts] * 12)
hosts = st.builds(HostCounts, counts, counts)
payloads = st.binary(max_size=200)
texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=MAX_TEXT)
tokens = st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=1, max_size=32)
identities = st.builds(Identity, st.binary(min_size=16, max_size=16), texts, texts, texts, texts)
addresses = (st.ip_addresses(v=4) | st.ip_addresses(v=6)).filter(
    lambda address: address.version == 4 or address.ipv4_mapped is None
)
connections = st.integers(0, 0xFFFF_FFFF_FFFF_FFFF)
u64 = st.integers(0, 0xFFFF_FFFF_FFFF_FFFF)
asked = st.builds(Asked, connections, st.integers(0, 65_535))
words = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
hosts_seen = st.builds(
    HostSeen,
    *(stamps, stamps, stamps, words, stamps, stamps),
    st.builds(TcpCounts, *[counts] * 8),
    *[counts] * 6,
    st.lists(st.tuples(words, u32), max_size=8).map(tuple),
)
seen = st.just(UNKNOWN) | st.builds(
    Seen,
    *(st.sampled_from([Fate.OPEN, Fate.ENDED]), st.booleans()),
    st.tuples(addresses.map(str), st.integers(0, 65_535)),
    *(st.none() | st.integers(0, 254), u64, stamps, stamps, u64, u64, u32, counters),
    *[words] * 3,
)

MESSAGES: dict[type[Message], st.SearchStrategy[Message]] = {
    Hello: st.builds(Hello, identities, connections, u32),
    Welcome: st.builds(
        Welcome,
        *(identities, connections, u32, u32, st.booleans()),
        st.tuples(addresses.map(str), st.integers(0, 65_535)),
        *(stamps, stamps, stamps, counters, u32, stamps, hosts, stamps),
    ),
    Request: st.builds(Request, payloads, u32),
    Reply: st.builds(Reply, payloads, u32, stamps, stamps, stamps, stamps, counters, stalls),
    FollowUp: st.builds(FollowUp, stamps, counters, hosts),
    Goodbye: st.builds(Goodbye, tokens),
    Busy: st.builds(Busy, tokens),
    Error: st.builds(Error, tokens, st.integers(0, 255), st.integers(0, 255)),
    Witness: st.builds(Witness, u64, st.lists(asked, max_size=MOST_ASKED).map(tuple)),
    witness.Testimony: st.builds(
        witness.Testimony, u64, u64, hosts_seen, st.lists(seen, max_size=MOST_ASKED).map(tuple)
    ),
}
messages = st.one_of(*MESSAGES.values())

REASONS = {"bad_length", "bad_text", "bad_value", "reserved_not_zero"}


def welcome(**changes: object) -> Welcome:
    identity, peer = Identity(bytes(16)), ("192.0.2.1", 1)
    plain = Welcome(identity, 0, 0, 0, False, peer, None, None, None, NO_COUNTERS)
    return plain._replace(**changes)  # type: ignore[arg-type]


def test_each_kind_has_its_message():
    assert TYPES.keys() == set(Kind)
    assert {kind: message for message, kind in KINDS.items()} == TYPES
    assert MESSAGES.keys() == set(TYPES.values())


@given(messages)
def test_a_message_comes_back_as_it_went(message):
    assert type(message).parse(message.encode()) == message


@given(messages)
def test_a_message_fits_the_limit_of_its_kind(message):
    assert len(message.encode()) <= body_limits(200)[KINDS[type(message)]]


@given(st.sampled_from(list(TYPES.values())), st.binary(max_size=300))
def test_noise_is_refused_with_a_reason_or_means_exactly_its_bytes(kind, body):
    check_refused_or_exact(kind, body)


@given(messages, st.data())
def test_a_damaged_message_is_refused_with_a_reason_or_means_exactly_its_bytes(message, data):
    body = bytearray(message.encode())
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | st.integers(0, len(body)))
    check_refused_or_exact(type(message), bytes(body[:cut]) + data.draw(st.binary(max_size=3)))


def check_refused_or_exact(kind: type[Message], body: bytes) -> None:
    # There is one way to write each message, so nothing can hide in another.
    parsed = parse_or_refuse(kind, body)
    if isinstance(parsed, RemoteProtocolError):
        assert parsed.reason in REASONS
    else:
        assert parsed.encode() == body


def parse_or_refuse(kind: type[Message], body: bytes) -> Message | RemoteProtocolError:
    try:
        return kind.parse(body)
    except RemoteProtocolError as error:
        return error


@given(st.ip_addresses(v=4), st.sampled_from(["{}", "::ffff:{}"]))
def test_an_ipv4_address_travels_as_ipv4_even_when_it_was_mapped(address, spelled):
    body = welcome(peer=(spelled.format(address), 7)).encode()
    assert body[37] == 4
    assert body[40:56] == address.packed + bytes(12)
    assert Welcome.parse(body).peer == (str(address), 7)


def test_the_scope_of_a_link_local_address_stays_at_home():
    body = welcome(peer=("fe80::1%eth0", 7)).encode()
    assert Welcome.parse(body).peer == ("fe80::1", 7)
    assert body[40:56] == ipaddress.ip_address("fe80::1").packed


@given(payloads)
def test_a_request_has_the_crc_of_its_payload(payload):
    assert Request.of(payload) == Request(payload, zlib.crc32(payload))


@given(payloads)
def test_a_reply_is_exactly_as_long_as_its_request(payload):
    reply = Reply(payload, 0, None, None, None, None, NO_COUNTERS)
    request = Request.of(payload)
    assert len(reply.encode()) == len(request.encode()) == EXCHANGE_HEAD_SIZE + len(payload)


@pytest.mark.parametrize(
    ("stalled_ns", "arrives_ns"),
    [
        (None, None),
        (0, 0),
        (999, 0),
        (1_999, 1_000),
        (-1, 0),
        (-(10**18), 0),
        (0xFFFF_FFFE * 1_000 + 999, 0xFFFF_FFFE * 1_000),
        (0xFFFF_FFFF * 1_000, 0xFFFF_FFFE * 1_000),
        (10**18, 0xFFFF_FFFE * 1_000),
    ],
)
def test_a_stall_travels_as_whole_microseconds_and_none_is_taken_for_not_measured(
    stalled_ns, arrives_ns
):
    reply = Reply(b"", 0, None, None, None, None, NO_COUNTERS, stalled_ns)
    assert Reply.parse(reply.encode()).stalled_ns == arrives_ns


def test_what_nobody_told_of_accept_and_stall_is_not_measured():
    assert Welcome.parse(welcome().encode()).accepted is None
    reply = Reply(b"", 0, None, None, None, None, NO_COUNTERS)
    assert Reply.parse(reply.encode()).stalled_ns is None


@pytest.mark.parametrize("text", ["a" * 129, "\n", "\x1b[2J", "\x7f"])
def test_we_send_no_text_that_the_peer_must_refuse(text):
    with pytest.raises(LocalProtocolError, match="bad_text"):
        Hello(Identity(bytes(16), text), 0).encode()


def test_what_is_not_ascii_in_our_own_names_becomes_question_marks():
    body = Hello(Identity(bytes(16), "b\u00fcro \u03b1"), 0).encode()
    assert Hello.parse(body).identity.name == "b?ro ?"


@pytest.mark.parametrize("token", ["", "Done", "do ne", "done\n", "a" * 33, "\u00fc"])
def test_we_send_no_token_that_the_peer_must_refuse(token):
    for message in (Goodbye(token), Busy(token), Error(token)):
        with pytest.raises(LocalProtocolError, match="bad_text"):
            message.encode()


@given(st.sampled_from(list(TYPES.values())), st.binary(max_size=300))
def test_no_bytes_of_a_peer_are_in_an_error(kind, body):
    error = parse_or_refuse(kind, body)
    if isinstance(error, RemoteProtocolError):
        assert str(error).isascii()
        assert str(error).isprintable()
        assert len(str(error)) < 80


def test_of_many_limits_those_reached_most_often_have_room():
    limits = tuple((f"limit_{number}_of_quite_some_length", number) for number in range(50, 0, -1))
    told = witness.Testimony.parse(witness.Testimony(0, 0, HostSeen(limits=limits)).encode())
    assert 0 < len(told.host.limits) < 50
    assert told.host.limits == limits[: len(told.host.limits)]


def test_more_connections_than_fit_are_not_asked():
    with pytest.raises(LocalProtocolError, match="too_big"):
        Witness(0, (Asked(1, 1),) * (MOST_ASKED + 1)).encode()
