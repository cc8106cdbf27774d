import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import COUNTERS, header
from twocans_core.errors import LocalProtocolError, RemoteProtocolError
from twocans_core.protocol import witness
from twocans_core.protocol.frames import HEADER_SIZE, Frame, Kind, encode
from twocans_core.protocol.messages import (
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
)
from twocans_core.protocol.session import ClientSession, ServerSession, State
from twocans_core.protocol.witness import UNKNOWN, Asked, HostSeen, Witness

HELLO = Hello(Identity(bytes(16), "client"), 7)
WELCOME = Welcome(
    identity=Identity(bytes(16), "server"),
    connection=7,
    max_payload=16,
    idle_ms=1000,
    draining=False,
    peer=("192.0.2.1", 40_000),
    t2k=1,
    t2u=2,
    t3u=3,
    counters=COUNTERS,
)
FOLLOW_UP = FollowUp(9, COUNTERS)
TESTIMONY = witness.Testimony(1, 1, HostSeen())


def reply_to(request: Request) -> Reply:
    return Reply(request.payload, request.crc, 1, 2, 3, None, COUNTERS)


class Pair:
    """Both sides, joined by a link that holds what is sent until it is delivered.

    Attributes:
        client: One side.
        server: The other.
        to_client: Bytes under way to the client.
        to_server: Bytes under way to the server.
    """

    def __init__(self) -> None:
        self.client = ClientSession(max_payload=16)
        self.server = ServerSession(max_payload=16)
        self.to_client = b""
        self.to_server = b""

    def at_server(self) -> list[Message]:
        data, self.to_server = self.to_server, b""
        return take(self.server, data)

    def at_client(self) -> list[Message]:
        data, self.to_client = self.to_client, b""
        return take(self.client, data)

    def open(self) -> None:
        self.to_server = self.client.hello(HELLO)
        assert self.at_server() == [HELLO]
        self.to_client = self.server.welcome(WELCOME)
        assert self.at_client() == [WELCOME]


def take(session: ClientSession | ServerSession, data: bytes) -> list[Message]:
    session.feed(data)
    return list(iter(session.next_message, None))


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.open()
    return pair


def refusal(session: ClientSession | ServerSession, data: bytes) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        take(session, data)
    assert session.state is State.CLOSED
    return caught.value.reason


def test_a_session_from_hello_to_goodbye(pair):
    for payload in (b"", b"one", b"a payload of 16!"):
        request = Request.of(payload)
        pair.to_server = pair.client.request(request)
        assert pair.at_server() == [request]
        pair.to_client = pair.server.reply(reply_to(request))
        assert pair.at_client() == [reply_to(request)]
    pair.to_server = pair.client.goodbye()
    assert pair.at_server() == [Goodbye("done")]
    pair.to_client = pair.server.farewell(FOLLOW_UP)
    assert pair.at_client() == [FOLLOW_UP, Goodbye("done")]
    assert (pair.client.state, pair.server.state) == (State.CLOSED, State.CLOSED)
    assert (pair.client.sequence, pair.server.sequence) == (3, 3)
    assert take(pair.client, b"") == []


def test_the_server_may_be_asked_what_it_saw_between_any_two_exchanges(pair):
    request, question = Request.of(b"one"), Witness(5, (Asked(7, 40_000), Asked(0, 1)))
    answer = TESTIMONY._replace(seen=(UNKNOWN, UNKNOWN))
    pair.to_server = pair.client.request(request) + pair.client.witness(question)
    assert pair.at_server() == [request, question]
    pair.to_client = pair.server.testimony(answer) + pair.server.reply(reply_to(request))
    assert pair.at_client() == [answer, reply_to(request)]
    pair.to_server = pair.client.witness(Witness(0)) + pair.client.goodbye()
    assert pair.at_server() == [Witness(0), Goodbye("done")]


def test_a_testimony_that_is_due_comes_before_the_end(pair):
    pair.to_server = pair.client.witness(Witness(0))
    assert pair.at_server() == [Witness(0)]
    pair.to_client = pair.server.testimony(TESTIMONY)
    pair.client.goodbye()
    assert pair.at_client() == [TESTIMONY]


def test_a_session_without_an_exchange(pair):
    pair.to_server = pair.client.goodbye()
    assert pair.at_server() == [Goodbye("done")]
    pair.to_client = pair.server.farewell(FOLLOW_UP)
    assert pair.at_client() == [FOLLOW_UP, Goodbye("done")]


def answer_everything(pair: Pair) -> None:
    """Be a server: answer each message as soon as it is taken."""
    data, pair.to_server = pair.to_server, b""
    pair.server.feed(data)
    while (message := pair.server.next_message()) is not None:
        if isinstance(message, Request):
            pair.to_client += pair.server.reply(reply_to(message))
        else:
            pair.to_client += pair.server.farewell(FOLLOW_UP)


def test_requests_may_be_sent_before_the_replies_are_there(pair):
    requests = [Request.of(bytes([n])) for n in range(5)]
    pair.to_server = b"".join(map(pair.client.request, requests))
    answer_everything(pair)
    assert pair.at_client() == [reply_to(request) for request in requests]


def test_replies_that_are_due_come_after_our_goodbye(pair):
    requests = [Request.of(bytes([n])) for n in range(3)]
    pair.to_server = b"".join(map(pair.client.request, requests)) + pair.client.goodbye()
    answer_everything(pair)
    expected = [*map(reply_to, requests), FOLLOW_UP, Goodbye("done")]
    assert pair.at_client() == expected


def test_a_draining_server_goes_on_answering(pair):
    pair.to_client = pair.server.goodbye("draining")
    assert pair.at_client() == [Goodbye("draining")]
    assert pair.client.draining
    assert (pair.client.state, pair.server.state) == (State.OPEN, State.OPEN)
    pair.to_server = pair.client.request(Request.of(b"still")) + pair.client.goodbye()
    answer_everything(pair)
    assert pair.at_client() == [reply_to(Request.of(b"still")), FOLLOW_UP, Goodbye("done")]


def test_goodbyes_of_a_drain_may_cross(pair):
    pair.to_server = pair.client.goodbye()
    pair.to_client = pair.server.goodbye("draining")
    answer_everything(pair)
    assert pair.at_client() == [Goodbye("draining"), FOLLOW_UP, Goodbye("done")]


def test_a_server_that_drains_already_says_so_in_its_welcome():
    pair = Pair()
    pair.to_server = pair.client.hello(HELLO)
    pair.at_server()
    pair.to_client = pair.server.welcome(WELCOME._replace(draining=True))
    pair.at_client()
    assert pair.client.draining


def test_an_idle_session_is_over(pair):
    pair.to_client = pair.server.goodbye("idle")
    assert pair.server.state is State.CLOSED
    assert pair.at_client() == [Goodbye("idle")]
    assert pair.client.state is State.CLOSED
    assert not pair.client.draining


def test_an_idle_goodbye_may_cross_with_ours(pair):
    pair.client.goodbye()
    pair.to_client = pair.server.goodbye("idle")
    assert pair.at_client() == [Goodbye("idle")]
    assert pair.client.state is State.CLOSED


def test_busy_instead_of_welcome_is_the_end():
    pair = Pair()
    pair.to_server = pair.client.hello(HELLO)
    pair.at_server()
    pair.to_client = pair.server.busy("connections")
    assert pair.at_client() == [Busy("connections")]
    assert (pair.client.state, pair.server.state) == (State.CLOSED, State.CLOSED)


@pytest.mark.parametrize("side", ["client", "server"])
def test_an_error_is_the_end_of_both_sides(pair, side):
    if side == "client":
        pair.to_server = pair.client.error("bad_value")
        assert pair.at_server() == [Error("bad_value", 1, 1)]
    else:
        pair.to_client = pair.server.error("bad_value")
        assert pair.at_client() == [Error("bad_value", 1, 1)]
    assert (pair.client.state, pair.server.state) == (State.CLOSED, State.CLOSED)


def test_a_version_that_is_not_ours_is_told_which_is():
    server = ServerSession(max_payload=16)
    assert refusal(server, header(Kind.HELLO, 32, version=2)) == "bad_version"
    assert take(ClientSession(max_payload=16), server.error("bad_version")) == [
        Error("bad_version", 1, 1)
    ]


def test_after_an_error_of_the_peer_nothing_else_counts(pair):
    pair.to_client = pair.server.error("bad_value")
    pair.at_client()
    goodbye = encode(Frame(Kind.GOODBYE, 0, Goodbye("draining").encode()))
    assert refusal(pair.client, goodbye) == "out_of_order"


def test_the_last_sequence_is_used_and_none_after_it(pair):
    pair.client.sequence = pair.server.sequence = 0xFFFF_FFFE
    pair.to_server = pair.client.request(Request.of(b""))
    assert pair.at_server() == [Request.of(b"")]
    assert pair.server.sequence == 0xFFFF_FFFF
    with pytest.raises(LocalProtocolError, match="bad_sequence"):
        pair.client.request(Request.of(b""))
    again = encode(Frame(Kind.REQUEST, 0, Request.of(b"").encode()))
    assert refusal(pair.server, again) == "bad_sequence"


def test_the_greetings_own_limit_may_be_smaller_and_ends_with_it():
    size = len(HELLO.encode())
    server = ServerSession(max_greeting=size - 1, max_payload=1000)
    assert refusal(server, ClientSession(max_payload=16).hello(HELLO)[:HEADER_SIZE]) == "too_big"
    server = ServerSession(max_greeting=size, max_payload=1000)
    client = ClientSession(max_payload=1000)
    assert take(server, client.hello(HELLO)) == [HELLO]
    client.feed(server.welcome(WELCOME))
    client.next_message()
    big = Request.of(bytes(1000))
    assert take(server, client.request(big)) == [big]


def test_a_setting_does_not_widen_what_the_page_allows():
    server = ServerSession(max_greeting=5000, max_payload=10_000)
    request = encode(Frame(Kind.REQUEST, 1, bytes(1025)))
    assert refusal(server, request[:HEADER_SIZE]) == "too_big"


@pytest.mark.parametrize(
    "call",
    [
        lambda pair: pair.client.hello(HELLO),
        lambda pair: pair.server.farewell(FOLLOW_UP),
        lambda pair: (pair.client.goodbye(), pair.client.request(Request.of(b""))),
        lambda pair: (pair.client.goodbye(), pair.client.goodbye()),
        lambda pair: (pair.server.error("bad_value"), pair.server.reply(reply_to(Request.of(b"")))),
        lambda pair: (pair.server.goodbye("idle"), pair.server.welcome(WELCOME)),
    ],
)
def test_our_own_side_may_not_break_the_order_either(pair, call):
    with pytest.raises(LocalProtocolError, match="out_of_order"):
        call(pair)


def test_a_client_asks_for_nothing_before_the_welcome():
    client = ClientSession(max_payload=16)
    for call in (client.goodbye, lambda: client.request(Request.of(b""))):
        with pytest.raises(LocalProtocolError, match="out_of_order"):
            call()
    client.hello(HELLO)
    with pytest.raises(LocalProtocolError, match="second HELLO"):
        client.hello(HELLO)


def test_a_server_that_speaks_before_our_hello_is_refused():
    data = encode(Frame(Kind.WELCOME, 0, WELCOME.encode()))
    assert refusal(ClientSession(max_payload=16), data) == "out_of_order"


def test_our_own_hello_come_back_has_a_hint():
    session = ClientSession(max_payload=16)
    session.feed(session.hello(HELLO))
    with pytest.raises(RemoteProtocolError) as caught:
        session.next_message()
    assert (caught.value.reason, caught.value.hint) == ("out_of_order", "echoed_hello")


@given(st.booleans(), st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, 2)), max_size=8))
def test_frames_in_any_order_raise_nothing_but_protocol_errors(at_server, order):
    pair = Pair()
    pair.open()
    pair.client.request(Request.of(b""))
    bodies: dict[Kind, Message] = {
        Kind.HELLO: HELLO,
        Kind.WELCOME: WELCOME,
        Kind.REQUEST: Request.of(b""),
        Kind.REPLY: reply_to(Request.of(b"")),
        Kind.FOLLOW_UP: FOLLOW_UP,
        Kind.GOODBYE: Goodbye("done"),
        Kind.BUSY: Busy("connections"),
        Kind.ERROR: Error("bad_value"),
        Kind.WITNESS: Witness(0),
        Kind.TESTIMONY: TESTIMONY,
    }
    session = pair.server if at_server else pair.client
    for kind, sequence in order:
        session.feed(encode(Frame(kind, sequence, bodies[kind].encode())))
    reason = ""
    try:
        while session.next_message() is not None:
            pass
    except RemoteProtocolError as error:
        reason = error.reason
    assert reason in {"", "out_of_order", "bad_sequence"}


@given(st.binary(max_size=200), st.booleans())
def test_noise_at_any_time_raises_nothing_but_protocol_errors(noise, at_server):
    pair = Pair()
    pair.open()
    session = pair.server if at_server else pair.client
    session.feed(noise)
    session.feed(b"")
    try:
        assert session.next_message() is None
    except RemoteProtocolError:
        assert session.state is State.CLOSED
