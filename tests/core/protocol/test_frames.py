import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import header
from twocans_core.errors import RemoteProtocolError
from twocans_core.protocol.frames import HEADER_SIZE, Decoder, Frame, Kind, encode

LIMIT = 64
LIMITS = dict.fromkeys(Kind, LIMIT)
REASONS = {"", "damaged", "bad_magic", "bad_version", "bad_kind", "too_big", "truncated"}

frames = st.builds(
    Frame, st.sampled_from(Kind), st.integers(0, 0xFFFF_FFFF), st.binary(max_size=LIMIT)
)


def headers() -> st.SearchStrategy[bytes]:
    """Headers that are right, or nearly so."""
    length = st.sampled_from([0, 1, LIMIT, LIMIT + 1, 0xFFFF_FFFF])
    right = st.builds(
        lambda kind, length, sequence, magic, version: header(
            kind, length, sequence=sequence, magic=magic, version=version
        ),
        st.integers(0, 255),
        length,
        length,
        st.sampled_from([b"\xfc\x2c", b"\xfc\x2c", b"\xfc\x2d", b"GE"]),
        st.sampled_from([0, 1, 1, 2, 255]),
    )
    return st.one_of(right, right.map(lambda head: head[:-1] + b"\0"))


def streams() -> st.SearchStrategy[bytes]:
    """Streams that are noise, or hold frames, or nearly do."""
    parts = st.one_of(st.binary(max_size=100), headers(), frames.map(encode))
    return st.lists(parts, max_size=6).map(b"".join)


@st.composite
def splits(draw: st.DrawFn, stream: st.SearchStrategy[bytes]) -> list[bytes]:
    """A stream as any sequence of reads."""
    data = draw(stream)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    edges = [0, *cuts, len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    return [piece for piece in pieces if piece]


def drain(decoder: Decoder) -> list[Frame]:
    return list(iter(decoder.next_frame, None))


def drain_until_refused(decoder: Decoder) -> tuple[list[Frame], str]:
    """The frames there are, and why there are no more: ``""`` when bytes are missing."""
    found = []
    try:
        while (frame := decoder.next_frame()) is not None:
            found.append(frame)
    except RemoteProtocolError as error:
        return found, error.reason
    return found, ""


@given(
    st.lists(frames, max_size=5).map(lambda sent: (sent, b"".join(map(encode, sent)))), st.data()
)
def test_frames_come_out_as_they_went_in_however_they_are_cut(sent_and_wire, data):
    sent, wire = sent_and_wire
    decoder = Decoder(LIMITS)
    found = []
    for piece in data.draw(splits(st.just(wire))):
        decoder.feed(piece)
        found += drain(decoder)
    assert found == sent
    decoder.feed(b"")
    assert drain(decoder) == []


@given(splits(streams()), st.booleans())
def test_whatever_comes_nothing_but_a_protocol_error_is_raised(pieces, ends):
    decoder = Decoder(LIMITS)
    for piece in [*pieces, b""] if ends else pieces:
        decoder.feed(piece)
        _, reason = drain_until_refused(decoder)
        assert reason in REASONS


@given(splits(streams()))
def test_the_cuts_between_reads_change_nothing(pieces):
    def outcome(reads: list[bytes]) -> tuple[list[Frame], str]:
        decoder = Decoder(LIMITS)
        found: list[Frame] = []
        reason = ""
        for read in reads:
            decoder.feed(read)
            frames, reason = drain_until_refused(decoder)
            found += frames
        return found, reason

    assert outcome(pieces) == outcome([b"".join(pieces)])


@given(splits(streams()))
def test_no_more_is_held_than_a_header_the_largest_body_and_one_read(pieces):
    decoder = Decoder(LIMITS)
    for piece in pieces:
        decoder.feed(piece)
        assert decoder.buffered_bytes < HEADER_SIZE + LIMIT + len(piece)
        _, reason = drain_until_refused(decoder)
        if reason:
            assert decoder.buffered_bytes == 0
            return
        assert decoder.buffered_bytes < HEADER_SIZE + LIMIT


def test_a_declared_size_takes_no_memory():
    for length in (LIMIT + 1, 2**31 - 1, 2**31, 2**32 - 1):
        decoder = Decoder(LIMITS)
        decoder.feed(header(3, length))
        with pytest.raises(RemoteProtocolError, match="too_big"):
            decoder.next_frame()
        assert decoder.buffered_bytes == 0


def test_frames_before_bad_bytes_are_delivered_before_the_error():
    decoder = Decoder(LIMITS)
    good = Frame(Kind.GOODBYE, 0, b"\4done")
    decoder.feed(encode(good) + encode(good) + b"?")
    assert decoder.next_frame() == good
    assert decoder.next_frame() == good
    with pytest.raises(RemoteProtocolError, match="damaged: a magic, 3f"):
        decoder.next_frame()


def test_an_error_is_repeated_whatever_comes_after_it():
    decoder = Decoder(LIMITS)
    decoder.feed(b"??")
    with pytest.raises(RemoteProtocolError) as first:
        decoder.next_frame()
    decoder.feed(encode(Frame(Kind.GOODBYE, 0, b"\4done")))
    with pytest.raises(RemoteProtocolError) as second:
        decoder.next_frame()
    assert second.value is first.value


def test_a_kind_that_may_not_arrive_is_unknown():
    decoder = Decoder({Kind.HELLO: LIMIT})
    decoder.feed(encode(Frame(Kind.REQUEST, 1, b"")))
    with pytest.raises(RemoteProtocolError, match="bad_kind"):
        decoder.next_frame()


def test_limits_may_change_between_frames():
    limits = {Kind.REQUEST: 1}
    decoder = Decoder(limits)
    decoder.feed(encode(Frame(Kind.REQUEST, 1, b"a")) + encode(Frame(Kind.REQUEST, 2, b"ab")))
    assert drain_one(decoder).body == b"a"
    limits[Kind.REQUEST] = 2
    assert drain_one(decoder).body == b"ab"


def drain_one(decoder: Decoder) -> Frame:
    frame = decoder.next_frame()
    assert frame is not None
    return frame


def test_what_is_missing_is_counted_down_to_the_next_frame():
    decoder = Decoder(LIMITS)
    assert decoder.missing_bytes == 0
    wire = encode(Frame(Kind.GOODBYE, 0, b"\4done"))
    for at, byte in enumerate(wire[:-1], start=1):
        decoder.feed(bytes([byte]))
        assert decoder.next_frame() is None
        whole = HEADER_SIZE if at < HEADER_SIZE else len(wire)
        assert decoder.missing_bytes == whole - at
        assert decoder.buffered_bytes == at
    decoder.feed(wire[-1:])
    assert decoder.next_frame() is not None
    assert (decoder.missing_bytes, decoder.buffered_bytes) == (0, 0)


def test_an_end_between_two_frames_is_no_error():
    decoder = Decoder(LIMITS)
    decoder.feed(encode(Frame(Kind.GOODBYE, 0, b"\4done")))
    decoder.feed(b"")
    assert drain_one(decoder).kind is Kind.GOODBYE
    assert decoder.next_frame() is None


def test_no_bytes_of_a_peer_are_in_an_error_but_as_hex():
    decoder = Decoder(LIMITS)
    decoder.feed(b"\x1b[2J, or worse")
    with pytest.raises(RemoteProtocolError) as caught:
        decoder.next_frame()
    assert str(caught.value) == "bad_magic: 1b5b"
