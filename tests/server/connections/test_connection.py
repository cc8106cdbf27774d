import errno
import select
import zlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fakes import header
from server.scripted import (
    CLIENT,
    COUNTERS,
    GOODBYE,
    HELLO,
    HOST,
    READ_SIZE,
    SECOND_NS,
    SERVER,
    Peer,
    World,
    frames,
    request,
)
from twocans_core.kernel.tcpinfo import HostCounts
from twocans_core.net import channel
from twocans_core.protocol import witness
from twocans_core.protocol.frames import Frame, Kind, encode
from twocans_core.protocol.messages import (
    Busy,
    Error,
    Features,
    FollowUp,
    Goodbye,
    Hello,
    Reply,
    Request,
    Welcome,
)
from twocans_core.protocol.session import ALLOWANCE_BYTES
from twocans_core.protocol.witness import MOST_ASKED, Asked, Fate, Witness
from twocans_server.connections import outbox
from twocans_server.connections.endings import Ending
from twocans_server.tally import Durations


def reset() -> OSError:
    return ConnectionResetError(errno.ECONNRESET, "reset")


def greeted(**limits: float) -> Peer:
    peer = World(**limits).connect()
    peer.greet()
    return peer


def is_even(world: World) -> bool:
    """Whether nothing is left over of any connection."""
    return not any(world.tally.open.values()) and not world.turns


# --- how it ends --------------------------------------------------------------------------


def said_nothing_and_went(peer: Peer) -> None:
    peer.arrive(b"")


def said_nothing_and_reset(peer: Peer) -> None:
    peer.arrive(reset())


def said_nothing_for_too_long(peer: Peer) -> None:
    peer.expire()
    peer.arrive(b"")


def plain_and_ended(peer: Peer) -> None:
    peer.arrive(b"hello", b"")


def plain_and_never_read(peer: Peer) -> None:
    peer.wire.room = 2
    peer.arrive(b"hello", b"")
    peer.expire()


def plain_and_timed_out(peer: Peer) -> None:
    peer.arrive(b"hello", TimeoutError(errno.ETIMEDOUT, "timed out"))


def plain_and_unreachable(peer: Peer) -> None:
    peer.arrive(b"hello", OSError(errno.EHOSTUNREACH, "no route"))


def plain_and_gone_while_we_sent(peer: Peer) -> None:
    peer.wire.send_error = BrokenPipeError(errno.EPIPE, "pipe")
    peer.arrive(b"hello")


def plain_and_idle(peer: Peer) -> None:
    peer.arrive(b"hello")
    peer.expire()
    peer.expire()


def plain_and_stopped(peer: Peer) -> None:
    peer.arrive(b"hello")
    peer.connection.stop()
    peer.arrive(b"")


def plain_and_cut_off(peer: Peer) -> None:
    peer.arrive(b"hello")
    peer.connection.cut_off()


def framed_and_said_goodbye(peer: Peer) -> None:
    peer.arrive(HELLO, GOODBYE, b"")


def framed_and_never_closed(peer: Peer) -> None:
    peer.arrive(HELLO, GOODBYE)
    peer.expire()


def framed_and_went_before_the_greeting(peer: Peer) -> None:
    peer.arrive(HELLO[:20], b"")


def framed_and_went(peer: Peer) -> None:
    peer.arrive(HELLO, b"")


def framed_and_went_inside_a_frame(peer: Peer) -> None:
    peer.arrive(HELLO, request(1)[:-1], b"")


def framed_and_gave_up(peer: Peer) -> None:
    peer.arrive(HELLO, encode(Frame(Kind.ERROR, 0, Error("bad_value").encode())))


def framed_and_greeted_too_slowly(peer: Peer) -> None:
    peer.arrive(HELLO[:1])
    peer.expire()
    peer.expire()


def framed_and_sent_a_frame_too_slowly(peer: Peer) -> None:
    peer.arrive(HELLO, request(1)[:50])
    peer.expire()
    peer.arrive(b"")


def framed_and_idle(peer: Peer) -> None:
    peer.arrive(HELLO)
    peer.expire()
    peer.arrive(b"")


def framed_and_stopped(peer: Peer) -> None:
    peer.arrive(HELLO)
    peer.connection.stop()
    peer.expire()


def framed_and_a_bug(peer: Peer) -> None:
    peer.arrive(HELLO)
    peer.connection.fail()


def framed_and_reset_before_it_saw_our_goodbye(peer: Peer) -> None:
    peer.arrive(HELLO, GOODBYE, reset())


def framed_refused_and_reset(peer: Peer) -> None:
    peer.arrive(HELLO, HELLO, reset())


ENDINGS = {
    said_nothing_and_went: ("new", "left", "", ""),
    said_nothing_and_reset: ("new", "reset", "econnreset", ""),
    said_nothing_for_too_long: ("new", "idle", "", ""),
    plain_and_ended: ("plain", "done", "", ""),
    plain_and_never_read: ("plain", "left", "", ""),
    plain_and_timed_out: ("plain", "reset", "etimedout", ""),
    plain_and_unreachable: ("plain", "reset", "ehostunreach", ""),
    plain_and_gone_while_we_sent: ("plain", "reset", "epipe", ""),
    plain_and_idle: ("plain", "idle", "", ""),
    plain_and_stopped: ("plain", "stopped", "", ""),
    plain_and_cut_off: ("plain", "stopped", "", ""),
    framed_and_said_goodbye: ("framed", "done", "", "WELCOME FOLLOW_UP GOODBYE"),
    framed_and_never_closed: ("framed", "done", "", "WELCOME FOLLOW_UP GOODBYE"),
    framed_and_went_before_the_greeting: ("framed", "refused", "truncated", "ERROR"),
    framed_and_went: ("framed", "left", "", "WELCOME"),
    framed_and_went_inside_a_frame: ("framed", "refused", "truncated", "WELCOME ERROR"),
    framed_and_gave_up: ("framed", "refused", "bad_value", "WELCOME"),
    framed_and_greeted_too_slowly: ("framed", "slow", "too_slow", "ERROR"),
    framed_and_sent_a_frame_too_slowly: ("framed", "slow", "too_slow", "WELCOME ERROR"),
    framed_and_idle: ("framed", "idle", "", "WELCOME GOODBYE"),
    framed_and_stopped: ("framed", "stopped", "", "WELCOME GOODBYE"),
    framed_and_a_bug: ("framed", "bug", "", "WELCOME"),
    framed_and_reset_before_it_saw_our_goodbye: (
        "framed",
        "reset",
        "econnreset",
        "WELCOME FOLLOW_UP GOODBYE",
    ),
    framed_refused_and_reset: ("framed", "refused", "out_of_order", "WELCOME ERROR"),
}


@pytest.mark.parametrize("story", ENDINGS, ids=lambda story: story.__name__)
def test_a_connection_ends_as_its_story_says_and_says_so(story):
    kind, ending, reason, said = ENDINGS[story]
    world = World()
    peer = world.connect()
    story(peer)
    assert peer.report is not None, "it never ended"
    assert (peer.report.kind, peer.report.ending, peer.report.reason) == (kind, ending, reason)
    assert is_even(world)
    if kind == "framed":
        assert " ".join(Kind(number).name for number, _, _ in frames(bytes(peer.wire.sent))) == said


OVER_THE_CAP = {
    "told when it greets": (
        [HELLO, b""],
        ("framed", "busy", "connections"),
        [Busy("connections").encode()],
    ),
    "told whatever follows": (
        [HELLO + request(1), reset()],
        ("framed", "busy", "connections"),
        [Busy("connections").encode()],
    ),
    "plain is just closed": ([b"hello"], ("plain", "busy", "connections"), []),
    "silent and gone": ([b""], ("new", "left", ""), []),
    "not even a greeting": (
        [header(99, 4)],
        ("framed", "refused", "bad_kind"),
        [Error("bad_kind").encode()],
    ),
}


@pytest.mark.parametrize("case", OVER_THE_CAP)
def test_a_client_over_the_cap_is_told_as_far_as_it_can_understand(case):
    steps, wanted, said = OVER_THE_CAP[case]
    world = World()
    peer = world.connect("connections")
    assert isinstance(steps, list)
    peer.arrive(*steps)
    if peer.report is None:
        peer.expire()
    assert peer.report is not None
    assert peer.report[:3] == wanted
    assert [body for _, _, body in frames(bytes(peer.wire.sent))] == said
    assert is_even(world)


def test_a_client_over_the_cap_that_stays_silent_is_closed_after_a_second():
    world = World()
    peer = world.connect("connections")
    before_ns = world.mono_ns
    peer.expire()
    assert world.mono_ns - before_ns == 1_000_000_000
    assert peer.report is not None
    assert peer.report.ending is Ending.BUSY


@pytest.mark.parametrize("step", range(1, len(HELLO)))
def test_a_client_over_the_cap_gains_no_time_by_greeting_slowly(step):
    world = World()
    peer = world.connect("connections")
    due_ns = peer.connection.deadline_ns
    peer.arrive(HELLO[:step])
    assert peer.connection.deadline_ns == due_ns


# --- plain echo ---------------------------------------------------------------------------

FIRST = st.binary(min_size=1, max_size=300).filter(lambda data: data[0] != 0xFC)
STEPS = st.lists(
    st.one_of(st.binary(min_size=1, max_size=300), st.integers(0, 400), st.just("turn")),
    max_size=30,
)


@settings(deadline=None)
@given(first=FIRST, steps=STEPS, buffered=st.sampled_from([1, 50, 65_536]))
@example(first=b"a" * 300, steps=[1, 1, 1, "turn"], buffered=65_536)
def test_plain_echo_gives_every_byte_back_however_it_is_cut_and_taken(first, steps, buffered):
    world = World(max_buffered_bytes=buffered)
    peer = world.connect()
    peer.wire.room = 0
    peer.arrive(first)
    said = first
    for step in steps:
        if isinstance(step, bytes):
            said += step
            peer.arrive(step)
        elif isinstance(step, int):
            peer.read(step)
        else:
            peer.event(select.EPOLLIN)
        assert peer.held_bytes < buffered + 300, "it reads on though nobody takes"
    peer.arrive(b"")
    for count in (1, 7, 100):  # the rest goes out in more than one piece
        peer.read(count)
    peer.read()
    assert bytes(peer.wire.sent) == said
    assert peer.wire.fin
    assert peer.report is not None
    assert peer.report.ending is Ending.DONE
    assert (world.tally.bytes_received, world.tally.bytes_sent) == (len(said), len(said))
    assert is_even(world)


def test_a_half_closed_client_that_reads_slowly_gets_every_byte():
    world = World()
    peer = world.connect()
    peer.wire.room = 10
    peer.arrive(b"x" * 1_000, b"")
    for _ in range(99):
        peer.event(select.EPOLLIN | select.EPOLLRDHUP)
        peer.read(10)
    assert len(peer.wire.sent) == 1_000
    assert peer.report is not None
    assert peer.report.ending is Ending.DONE


def test_text_that_is_almost_a_frame_is_echoed():
    peer = World().connect()
    peer.arrive(b"\xfb\xfc\x2c" + HELLO)
    assert peer.wire.sent == b"\xfb\xfc\x2c" + HELLO


# --- a framed session ---------------------------------------------------------------------


def test_the_welcome_says_who_and_whom_and_what_is_allowed():
    world = World(max_payload_bytes=1_000, idle_s=60.0)
    peer = world.connect()
    peer.arrive(peer.session.hello(Hello(CLIENT, 7)))
    (welcome,) = peer.messages()
    assert welcome == Welcome(
        identity=SERVER,
        connection=7,
        max_payload=1_000,
        idle_ms=60_000,
        draining=False,
        peer=("192.0.2.7", 4567),
        t2k=world.real_ns - 2_000,
        t2u=world.real_ns,
        t3u=world.real_ns,
        counters=COUNTERS,
        accepted=world.real_ns,
        features=Features.WITNESS,
        host=HOST,
        age_ns=world.mono_ns,
    )
    conversation = peer.connection._conversation
    assert conversation is not None
    assert conversation.client == CLIENT


@pytest.mark.parametrize(
    ("features", "done"),
    [
        (0, 0),
        (Features.KEEPALIVE, Features.KEEPALIVE),
        (Features.QUIET, Features.QUIET),
        (0xFFFF_FFFF, Features.QUIET),
        (0xFFFF_FFFF - Features.QUIET, Features.KEEPALIVE),
    ],
)
def test_a_client_that_wishes_it_has_its_silence_probed_or_let_be_and_is_told(features, done):
    peer = World().connect()
    peer.arrive(peer.session.hello(Hello(CLIENT, 7, features)))
    (welcome,) = peer.messages()
    assert isinstance(welcome, Welcome)
    assert welcome.features == Features.WITNESS | done
    assert peer.wire.probes_silence == (done == Features.KEEPALIVE)
    assert peer.wire.is_quiet == (done == Features.QUIET)


@pytest.mark.parametrize("offered", [None, 0, 1, 5, 7])
def test_the_welcome_says_which_options_the_host_offers(offered):
    world = World()
    world.options = offered
    peer = world.connect()
    peer.arrive(peer.session.hello(Hello(CLIENT, 7)))
    (welcome,) = peer.messages()
    assert isinstance(welcome, Welcome)
    assert Features.options_in(welcome.features) == offered


def test_limits_that_do_not_fit_into_the_welcome_are_said_as_the_most_that_does():
    peer = World(max_payload_bytes=1 << 40, idle_s=1e9).connect()
    peer.arrive(peer.session.hello(Hello(CLIENT, 7)))
    (welcome,) = peer.messages()
    assert isinstance(welcome, Welcome)
    assert (welcome.max_payload, welcome.idle_ms) == (0xFFFF_FFFF, 0xFFFF_FFFF)


def test_each_reply_carries_its_stamps_and_the_transmit_stamp_of_the_one_before():
    peer = greeted()
    world = peer.world
    left_ns = world.real_ns + 3_000  # the wire stamps a write 3 us after it
    for payload in (b"", b"one", b"x" * 1_000):
        world.pass_s(0.5)
        peer.ask(payload)
        (reply,) = peer.messages()
        assert reply == Reply(
            payload=payload,
            crc=zlib.crc32(payload),
            t2k=world.real_ns - 2_000,
            t2u=world.real_ns,
            t3u=world.real_ns,
            previous_t3k=left_ns,
            counters=COUNTERS,
            stalled_ns=0,
        )
        left_ns = world.real_ns + 3_000
    world.pass_s(0.5)
    peer.arrive(peer.session.goodbye(), b"")
    assert peer.messages() == [FollowUp(left_ns, COUNTERS, HOST), Goodbye("done")]
    assert peer.report is not None
    assert peer.report[:5] == ("framed", Ending.DONE, "", CLIENT, 7)
    assert peer.report.account.exchanges == 3
    assert world.tally.exchanges == 3


def test_a_testimony_does_not_take_the_transmit_stamp_of_the_reply_before_it():
    peer = greeted()
    world = peer.world
    peer.ask(b"one")
    left_ns = world.real_ns + 3_000
    world.pass_s(0.5)
    peer.arrive(peer.session.witness(Witness(0)))
    assert peer.wire.stamped[-1] < len(peer.wire.sent)
    world.pass_s(0.5)
    peer.ask(b"two")
    *_, reply = peer.messages()
    assert isinstance(reply, Reply)
    assert reply.previous_t3k == left_ns


def test_any_number_of_questions_stays_within_what_may_be_sent():
    peer = greeted()
    for count in [*range(MOST_ASKED + 1), *[MOST_ASKED] * 50]:
        question = peer.session.witness(Witness(0, (Asked(7, 4567),) * count))
        before = len(peer.wire.sent)
        peer.arrive(question)
        (testimony,) = peer.messages()
        assert isinstance(testimony, witness.Testimony)
        assert [seen.fate for seen in testimony.seen] == [Fate.OPEN] * count
        assert len(peer.wire.sent) - before == len(question)
    assert peer.world.tally.limit_hits["allowance"] == 0


def observed(peer: Peer) -> dict[str, tuple[int, int]]:
    """Return of each histogram how often it observed, and the sum in ns."""
    durations = peer.world.tally.durations
    assert durations is not None
    found = {name: getattr(durations, name) for name in Durations.__slots__}
    return {name: (sum(values.counts), values.sum_ns) for name, values in found.items()}


def test_the_parts_of_the_time_here_are_kept_and_add_up():
    world = World()
    peer = world.connect()
    peer.greet()
    world.work_ns, world.stall_ns = 40_000, 700_000
    for _ in range(3):
        peer.ask()
        peer.messages()
    world.work_ns = world.stall_ns = 0
    peer.arrive(peer.session.goodbye())
    assert observed(peer) == {
        "accept_delay": (1, 2_000),
        "wakeup": (3, 3 * 2_000),
        "application": (3, 3 * 740_000),
        "application_stall": (3, 3 * 700_000),
        "send": (3, 3 * 3_000),
        "residence": (3, 3 * 745_000),
    }


def test_without_kernel_stamps_only_what_the_program_saw_itself_is_observed():
    world = World()
    peer = world.connect()
    peer.wire.came_ns_ago, peer.wire.lost_stamps = None, True
    peer.greet()
    peer.ask()
    peer.arrive(peer.session.goodbye())
    assert {name: times for name, (times, _) in observed(peer).items()} == {
        **dict.fromkeys(("accept_delay", "wakeup", "send", "residence"), 0),
        **dict.fromkeys(("application", "application_stall"), 1),
    }


def test_a_clock_that_was_stepped_back_is_not_observed_as_no_time_at_all():
    world = World()
    peer = world.connect()
    peer.greet()
    peer.wire.came_ns_ago = -SECOND_NS
    world.stall_ns = -SECOND_NS // 2
    peer.wire.leaves_in_ns = -SECOND_NS
    peer.ask()
    (reply,) = peer.messages()
    assert isinstance(reply, Reply)
    assert reply.stalled_ns == 0
    peer.arrive(peer.session.goodbye())
    times = {name: times for name, (times, _) in observed(peer).items()}
    assert times == {**dict.fromkeys(times, 0), "accept_delay": 1}


def test_two_clocks_that_are_read_one_after_the_other_make_no_negative_stall():
    peer = greeted()
    peer.world.work_ns, peer.world.stall_ns = 40_000, -100
    peer.ask()
    (reply,) = peer.messages()
    assert isinstance(reply, Reply)
    assert reply.stalled_ns == 0
    assert observed(peer)["application_stall"] == (1, 0)


@pytest.mark.parametrize(("ago_ns", "delay_ns"), [(5_000_000, 4_000_000), (1_000_000, 0), (9, 0)])
def test_a_greeting_that_came_before_accept_was_delayed_by_us_and_another_was_not(ago_ns, delay_ns):
    world = World()
    accepted_ns = world.real_ns
    peer = world.connect(accepted_ns=accepted_ns)
    world.pass_s(0.001)
    peer.wire.came_ns_ago = ago_ns
    peer.arrive(peer.session.hello(Hello(CLIENT, 7)))
    (welcome,) = peer.messages()
    assert isinstance(welcome, Welcome)
    assert welcome.accepted == accepted_ns
    assert observed(peer)["accept_delay"] == (1, delay_ns)


def test_a_reply_says_for_how_long_our_thread_did_not_run_since_the_read():
    peer = greeted()
    peer.world.work_ns, peer.world.stall_ns = 40_000, 700_000
    peer.arrive(request(1) + request(2))
    peer.session.sequence = 2
    one, two = peer.messages()
    assert isinstance(one, Reply)
    assert isinstance(two, Reply)
    assert one.t2u == two.t2u
    assert one.t3u is not None
    assert two.t3u == one.t3u + 740_000
    assert (one.stalled_ns, two.stalled_ns) == (700_000, 1_400_000)


def test_waiting_for_another_connections_turn_is_no_stall():
    peer = greeted(frames_per_turn=1)
    peer.wire.inbox += [request(1) + request(2)]
    peer.event(select.EPOLLIN, turns=False)
    peer.world.real_ns += 50_000
    peer.world.cpu_ns += 50_000
    peer.world.run_turns()
    peer.session.sequence = 2
    replies = [reply for reply in peer.messages() if isinstance(reply, Reply)]
    assert [reply.stalled_ns for reply in replies] == [0, 0]


def test_a_reply_that_waited_for_its_client_to_read_has_no_stall():
    peer = greeted(max_buffered_bytes=1)
    peer.wire.room = 0
    peer.arrive(request(1) + request(2))
    peer.world.pass_s(3)
    peer.read()
    peer.arrive(request(3))
    peer.session.sequence = 3
    replies = [reply for reply in peer.messages() if isinstance(reply, Reply)]
    assert [reply.stalled_ns for reply in replies] == [0, None, 0]
    assert observed(peer)["application_stall"][0] == 2


def test_where_no_durations_are_kept_the_client_is_told_the_same():
    told = {}
    for durations in (True, False):
        world = World()
        if not durations:
            world.tally.durations = None
        peer = world.connect()
        peer.arrive(HELLO + request(1), GOODBYE, b"")
        told[durations] = bytes(peer.wire.sent)
        assert world.tally.exchanges == 1
    assert told[True] == told[False]


def test_only_the_frames_whose_stamp_is_told_later_are_stamped():
    peer = greeted()
    ends = [len(peer.wire.sent)]
    peer.ask()
    ends.append(len(peer.wire.sent))
    peer.connection.announce_drain()
    peer.arrive(peer.session.goodbye(), b"")
    assert peer.wire.stamped == ends


def test_a_reply_that_left_in_pieces_left_with_its_last():
    peer = greeted()
    peer.wire.room = 10
    peer.ask()
    peer.world.pass_s(0.5)
    left_ns = peer.world.real_ns + 3_000
    peer.read()
    peer.world.pass_s(0.5)
    peer.ask()
    _, reply = peer.messages()
    assert isinstance(reply, Reply)
    assert reply.previous_t3k == left_ns


def test_plain_echo_is_never_stamped():
    peer = World().connect()
    peer.wire.room = 2
    peer.arrive(b"hello")
    peer.read()
    assert peer.wire.sent == b"hello"
    assert peer.wire.stamped == []


def test_only_the_frame_that_ends_a_read_has_a_receive_stamp():
    peer = greeted()
    peer.arrive(request(1) + request(2) + request(3))
    peer.session.sequence = 3
    replies = peer.messages()
    stamps = [reply.t2k is not None for reply in replies if isinstance(reply, Reply)]
    assert stamps == [False, False, True]


def test_a_frame_followed_by_the_start_of_another_has_no_receive_stamp():
    peer = greeted()
    peer.arrive(request(1) + request(2)[:1])
    peer.arrive(request(2)[1:])
    peer.session.sequence = 2
    stamps = [reply.t2k is not None for reply in peer.messages() if isinstance(reply, Reply)]
    assert stamps == [False, True]


def test_a_receive_stamp_survives_waiting_for_the_next_turn():
    peer = greeted(frames_per_turn=2)
    peer.arrive(b"".join(request(number) for number in range(1, 8)))
    peer.session.sequence = 7
    stamps = [reply.t2k is not None for reply in peer.messages() if isinstance(reply, Reply)]
    assert stamps == [False] * 6 + [True]


def test_a_stamp_that_the_kernel_did_not_give_is_not_measured():
    peer = greeted()
    peer.wire.lost_stamps = True
    peer.wire._tx.clear()
    peer.ask()
    peer.arrive(peer.session.goodbye())
    reply, follow_up, _ = peer.messages()
    assert isinstance(reply, Reply)
    assert isinstance(follow_up, FollowUp)
    assert reply.previous_t3k is None
    assert follow_up.t3k is None
    assert observed(peer)["residence"] == observed(peer)["send"] == (0, 0)


def test_a_damaged_request_is_counted_and_answered_as_it_came():
    peer = greeted()
    damaged = Request(b"paylOad", zlib.crc32(b"payload"))
    peer.session.sequence = 1
    peer.arrive(encode(Frame(Kind.REQUEST, 1, damaged.encode())))
    (reply,) = peer.messages()
    assert isinstance(reply, Reply)
    assert reply.payload == b"paylOad"
    assert reply.crc == zlib.crc32(b"paylOad")
    assert (peer.world.tally.damaged_requests, peer.world.tally.exchanges) == (1, 1)


@settings(deadline=None)
@given(
    payloads=st.lists(st.binary(max_size=200), max_size=20),
    cuts=st.lists(st.integers(1, 400), max_size=40),
    rooms=st.lists(st.integers(0, 500), max_size=40),
    buffered=st.sampled_from([1, 300, 65_536]),
)
def test_a_session_is_served_alike_however_it_is_cut_and_taken(payloads, cuts, rooms, buffered):
    world = World(max_buffered_bytes=buffered, frames_per_turn=3)
    peer = world.connect()
    peer.greet()
    stream = b"".join(peer.session.request(Request.of(payload)) for payload in payloads)
    stream += peer.session.goodbye()
    peer.wire.room = 0
    for cut in cuts:
        if stream:
            peer.arrive(stream[:cut])
        stream = stream[cut:]
        peer.read(rooms.pop() if rooms else 0)
    if stream:
        peer.arrive(stream)
    for room in rooms:
        peer.read(room)
    peer.read()
    peer.arrive(b"")
    kinds = [kind for kind, _, _ in frames(bytes(peer.wire.sent))]
    assert kinds == [Kind.WELCOME, *[Kind.REPLY] * len(payloads), Kind.FOLLOW_UP, Kind.GOODBYE]
    echoed = [body[88:] for kind, _, body in frames(bytes(peer.wire.sent)) if kind == Kind.REPLY]
    assert echoed == payloads
    sequences = [number for kind, number, _ in frames(bytes(peer.wire.sent)) if kind == Kind.REPLY]
    assert sequences == list(range(1, len(payloads) + 1))
    assert world.tally.damaged_requests == 0
    assert peer.report is not None
    assert peer.report.ending is Ending.DONE
    assert is_even(world)


def test_a_framed_client_that_half_closes_still_gets_the_replies_that_are_due():
    peer = greeted()
    peer.wire.room = 10
    peer.arrive(request(1, b"x" * 500), b"")
    for _ in range(100):
        peer.event(select.EPOLLIN | select.EPOLLRDHUP)
        peer.read(10)
    peer.session.sequence = 1
    (reply,) = peer.messages()
    assert isinstance(reply, Reply)
    assert reply.payload == b"x" * 500
    assert peer.report is not None
    assert peer.report.ending is Ending.LEFT


def test_requests_that_wait_for_their_turn_are_answered_before_the_end_of_the_stream_is():
    peer = greeted(frames_per_turn=1)
    peer.arrive(b"".join(request(number) for number in range(1, 6)), b"")
    assert peer.world.tally.exchanges == 5


@pytest.mark.parametrize(
    ("data", "reason"),
    {
        "another magic": (b"\xfc\x2d" + bytes(18), "bad_magic"),
        "another version": (header(Kind.HELLO, 32, version=2), "bad_version"),
        "an unknown kind": (header(77, 0), "bad_kind"),
        "a reserved kind": (header(18, 0), "bad_kind"),
        "a body of 4 GiB": (header(Kind.HELLO, 0xFFFF_FFFF), "too_big"),
        "an empty greeting": (header(Kind.HELLO, 0), "bad_length"),
        "a request first": (request(1), "out_of_order"),
        "a goodbye first": (GOODBYE, "out_of_order"),
        "two greetings": ([HELLO, HELLO], "out_of_order"),
        "a greeting in an exchange": (encode(Frame(Kind.HELLO, 1, HELLO[20:])), "bad_sequence"),
        "a sequence left out": ([HELLO, request(2)], "bad_sequence"),
        "a sequence again": ([HELLO, request(1) + request(1)], "bad_sequence"),
        "a name of escapes": (
            encode(Frame(Kind.HELLO, 0, HELLO[20:].replace(b"client", b"\x1b[31m!"))),
            "bad_text",
        ),
        "a reply": ([HELLO, encode(Frame(Kind.REPLY, 0, bytes(64)))], "bad_length"),
        "a busy": ([HELLO, encode(Frame(Kind.BUSY, 0, Busy("x").encode()))], "out_of_order"),
        "a request's stamp": (
            [HELLO, encode(Frame(Kind.REQUEST, 1, b"\0" * 4 + b"\1" * 84))],
            "reserved_not_zero",
        ),
    }.values(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_rule_that_is_broken_is_named_and_the_rest_is_read_away(data, reason):
    world = World()
    peer = world.connect()
    steps = [data] if isinstance(data, bytes) else data
    peer.arrive(*steps, b"rubbish" * 10_000, b"")
    *_, (kind, _, body) = frames(bytes(peer.wire.sent))
    assert (kind, body) == (Kind.ERROR, Error(reason).encode())
    assert not any(step for step in peer.wire.inbox), "unread bytes make a reset of our close"
    assert peer.report is not None
    assert (peer.report.ending, peer.report.reason) == (Ending.REFUSED, reason)
    assert world.tally.protocol_errors == {reason: 1}
    assert is_even(world)


@pytest.mark.parametrize(
    "frame", [HELLO, HELLO + request(1), HELLO + GOODBYE], ids=["HELLO", "REQUEST", "GOODBYE"]
)
def test_a_frame_that_came_damaged_is_told_apart_from_a_rule_that_was_broken(frame):
    peer = World().connect()
    at = len(frame) - (10 if frame.endswith(request(1)) else 1)
    peer.arrive(frame[:at] + bytes((frame[at] ^ 0x10,)) + frame[at + 1 :], b"")
    *_, (kind, _, body) = frames(bytes(peer.wire.sent))
    assert (kind, body) == (Kind.ERROR, Error("damaged").encode())
    assert peer.report is not None
    assert (peer.report.ending, peer.report.reason) == (Ending.DAMAGED, "damaged")
    assert (peer.world.tally.damaged_frames, peer.world.tally.protocol_errors) == (1, {})


def test_a_client_that_says_that_our_frame_came_damaged_has_broken_no_rule():
    peer = greeted()
    peer.arrive(encode(Frame(Kind.ERROR, 0, Error("damaged").encode())), b"")
    assert peer.report is not None
    assert (peer.report.ending, peer.report.reason) == (Ending.DAMAGED, "from_client")
    assert (peer.world.tally.damaged_frames, peer.world.tally.protocol_errors) == (0, {})


@pytest.mark.parametrize(("out_of_order", "told"), [(0, HOST), (1, HostCounts(9, 9))])
def test_the_hosts_counts_are_read_anew_at_the_end_where_segments_came_out_of_order(
    out_of_order, told
):
    peer = greeted()
    peer.wire.kernel = COUNTERS._replace(rcv_ooopack=out_of_order)
    peer.world.host = HostCounts(9, 9)
    peer.arrive(peer.session.goodbye())
    (follow_up, _) = peer.messages()
    assert isinstance(follow_up, FollowUp)
    assert follow_up.host == told


def test_an_error_is_never_answered():
    peer = World().connect()
    peer.arrive(encode(Frame(Kind.ERROR, 0, Error("anything").encode())), b"")
    assert not peer.wire.sent
    assert peer.world.tally.protocol_errors == {"from_client": 1}


# --- memory, turns, wake-ups --------------------------------------------------------------


def test_a_plain_client_that_never_reads_costs_at_most_128_kib():
    peer = World().connect()
    peer.wire.room = 100_000
    for _ in range(64):
        peer.arrive(b"x" * 1_000_000)
        assert peer.held_bytes <= 128 * 1024
    assert peer.wire.taken < 300_000


@pytest.mark.parametrize("size", [0, 1_000, 65_536])
def test_a_framed_client_that_never_reads_costs_at_most_200_kib(size):
    peer = greeted()
    peer.wire.room = 0
    stream = b"".join(
        request(number, bytes(size)) for number in range(1, 10_000_000 // (size + 104))
    )
    for start in range(0, len(stream), 100_000):
        peer.arrive(stream[start : start + 100_000])
        assert peer.held_bytes <= 200 * 1024
    assert peer.wire.taken < 400_000


def test_a_transmit_stamp_alone_wakes_nobody():
    peer = greeted()
    reads = peer.wire.reads
    peer.event(select.EPOLLERR | select.EPOLLOUT)
    peer.event(select.EPOLLERR)
    assert peer.wire.reads == reads


def test_a_stamp_that_comes_with_room_for_what_is_unsent_is_not_taken_for_a_stamp_alone():
    peer = greeted()
    peer.wire.room = 0
    peer.ask()
    peer.wire.room = None
    peer.event(select.EPOLLERR | select.EPOLLOUT)
    assert len(peer.messages()) == 1


def test_events_while_a_turn_is_due_do_not_make_more_turns():
    peer = greeted(frames_per_turn=4)
    peer.wire.inbox += [request(number) for number in range(1, 101)]
    for _ in range(10):
        peer.event(select.EPOLLIN, turns=False)
    assert len(peer.world.turns) == 1
    peer.world.run_turns()
    assert peer.world.tally.exchanges == 100


@pytest.mark.parametrize("size", [1, 65_536])
def test_one_turn_reads_no_more_than_its_budget(size):
    peer = World(frames_per_turn=8).connect()
    peer.wire.inbox += [b"\xfc" if size == 1 else HELLO[:2]]
    stream = header(Kind.HELLO, 1_024)[1 if size == 1 else 2 :] + bytes(1_000)
    peer.wire.inbox += [stream[at : at + size] for at in range(0, len(stream), size)]
    before = len(peer.wire.inbox)
    peer.event(select.EPOLLIN, turns=False)
    assert before - len(peer.wire.inbox) <= 9


def test_a_turn_for_a_connection_that_is_over_does_nothing():
    peer = greeted(frames_per_turn=1)
    peer.wire.inbox += [request(1), request(2)]
    peer.event(select.EPOLLIN, turns=False)
    peer.connection.fail()
    peer.world.run_turns()
    peer.connection.on_events(select.EPOLLIN)
    peer.connection.on_deadline()
    peer.connection.stop()
    peer.connection.cut_off()
    peer.connection.fail()
    peer.connection.announce_drain()
    assert len(peer.world.reports) == 1


# --- stopping -----------------------------------------------------------------------------


def test_a_session_that_is_told_of_the_drain_goes_on():
    peer = greeted()
    peer.connection.announce_drain()
    assert peer.messages() == [Goodbye("draining")]
    peer.ask()
    (reply,) = peer.messages()
    assert isinstance(reply, Reply)
    peer.arrive(peer.session.goodbye(), b"")
    assert [type(message) for message in peer.messages()] == [FollowUp, Goodbye]
    assert peer.report is not None
    assert peer.report.ending is Ending.DONE


@pytest.mark.parametrize("retrans", [4, None])
def test_what_is_sent_again_after_the_last_count_was_told_is_counted(retrans):
    peer = greeted()
    peer.arrive(peer.session.goodbye())
    assert peer.world.tally.resent_at_close == 0
    peer.wire.kernel = COUNTERS._replace(total_retrans=retrans)
    peer.arrive(b"")
    assert peer.report is not None
    told = COUNTERS.total_retrans
    assert told is not None
    assert peer.world.tally.resent_at_close == (0 if retrans is None else retrans - told)


def test_of_a_session_that_ended_otherwise_nothing_is_counted_at_close():
    peer = greeted()
    peer.wire.kernel = COUNTERS._replace(total_retrans=9)
    peer.arrive(b"")
    assert peer.report is not None
    assert peer.world.tally.resent_at_close == 0


def test_the_drain_does_not_cost_the_next_reply_its_transmit_stamp():
    peer = greeted()
    peer.ask()
    peer.connection.announce_drain()
    peer.ask()
    *_, reply = peer.messages()
    assert isinstance(reply, Reply)
    assert reply.previous_t3k is not None


def test_a_welcome_during_the_drain_says_so():
    world = World()
    world.draining = True
    peer = world.connect()
    peer.arrive(peer.session.hello(Hello(CLIENT, 7)))
    (welcome,) = peer.messages()
    assert isinstance(welcome, Welcome)
    assert welcome.draining


@pytest.mark.parametrize("before", [[], [b"text"], [HELLO[:9]], [HELLO, GOODBYE]])
def test_only_an_open_session_is_told_of_the_drain(before):
    peer = World().connect()
    peer.arrive(*before)
    sent = len(peer.wire.sent)
    peer.connection.announce_drain()
    assert len(peer.wire.sent) == sent


def test_a_session_that_is_gone_when_told_of_the_drain_was_reset_and_is_no_bug():
    peer = greeted()
    peer.wire.send_error = BrokenPipeError(errno.EPIPE, "pipe")
    peer.connection.announce_drain()
    assert peer.report is not None
    assert peer.report[1:3] == (Ending.RESET, "epipe")


def test_being_told_twice_to_stop_gives_no_more_time_and_changes_no_verdict():
    peer = greeted()
    peer.arrive(peer.session.goodbye())
    due_ns = peer.connection.deadline_ns
    for _ in range(5):
        peer.world.pass_s(0.05)
        peer.connection.stop()
    assert peer.connection.deadline_ns == due_ns
    peer.arrive(b"")
    assert peer.report is not None
    assert peer.report.ending is Ending.DONE


# --- whatever happens ---------------------------------------------------------------------

PIECES = st.one_of(
    st.sampled_from([HELLO, GOODBYE, b"", "reset", "drain", "stop", "expire", "turn", "stamp"]),
    st.sampled_from(["cut_off", "fail", "pipe"]),
    st.integers(0, 2_000),
    st.builds(request, st.integers(0, 4), st.binary(max_size=300)),
    st.builds(
        header,
        st.integers(0, 40),
        st.sampled_from([0, 1, 15, 64, 88, 1_024, 1_025, 70_000, 0xFFFF_FFFF]),
        sequence=st.integers(0, 3),
        version=st.sampled_from([1, 1, 1, 0, 2]),
        body=st.sampled_from([b"", b"", b"", b"?"]),
    ),
    st.binary(min_size=1, max_size=50),
    st.tuples(st.sampled_from([HELLO, GOODBYE, request(1)]), st.integers(1, 40)),
)


def play(peer: Peer, piece: object) -> None:
    wire = peer.wire
    match piece:
        case bytes():
            peer.arrive(piece)
        case (bytes() as frame, int(cut)):
            peer.arrive(frame[:cut])
        case int():
            peer.read(piece)
        case "reset":
            peer.arrive(reset())
        case "pipe":
            wire.send_error = BrokenPipeError(errno.EPIPE, "pipe")
        case "drain":
            peer.world.draining = True
            peer.connection.announce_drain()
        case "stop":
            peer.connection.stop()
        case "cut_off":
            peer.connection.cut_off()
        case "fail":
            peer.connection.fail()
        case "expire":
            peer.expire()
        case "turn":
            peer.event(select.EPOLLIN)
        case "stamp":
            peer.event(select.EPOLLERR | select.EPOLLOUT)


@settings(max_examples=500, deadline=None)
@given(
    start=st.sampled_from([[], [b"plain"], [HELLO], [HELLO, 0], [HELLO, request(1), 0]]),
    pieces=st.lists(PIECES, max_size=25),
    refusal=st.sampled_from(["", "", "connections"]),
    limits=st.sampled_from(
        [{}, {"max_buffered_bytes": 1}, {"frames_per_turn": 1}, {"max_payload_bytes": 100}]
    ),
)
@example(start=[HELLO], pieces=[0, request(1, bytes(200))] * 30, refusal="", limits={})
def test_every_connection_ends_once_and_never_sends_more_than_it_may(
    start, pieces, refusal, limits
):
    world = World(**limits)
    peer = world.connect(refusal)
    for piece in [*start, *pieces]:
        play(peer, piece)
        assert len(peer.wire.sent) <= peer.wire.taken + ALLOWANCE_BYTES
    # The time that a client can take for nothing is bounded: three deadlines at the most.
    for _ in range(3):
        peer.expire()
    assert len(world.reports) == 1, "it is still there"
    assert is_even(world)
    assert world.tally.bytes_received == peer.wire.taken


@settings(max_examples=500, deadline=None)
@given(pieces=st.lists(PIECES, max_size=25), refusal=st.sampled_from(["", "connections"]))
def test_what_a_server_sends_is_always_frames(pieces, refusal):
    peer = World().connect(refusal)
    for piece in [HELLO[:16], HELLO[16:], *pieces]:
        play(peer, piece)
    peer.read()
    if peer.wire.send_error is None and not peer.wire.closed:
        frames(bytes(peer.wire.sent))


def test_the_allowance_is_never_passed(monkeypatch):
    monkeypatch.setattr(outbox, "ALLOWANCE_BYTES", 0)
    peer = World().connect()
    peer.arrive(HELLO)  # the WELCOME is longer than it
    assert not peer.wire.sent
    assert peer.report is not None
    assert peer.report[1:3] == (Ending.REFUSED, "allowance")
    assert peer.world.tally.limit_hits["allowance"] == 1


def test_reads_are_as_long_as_the_scripted_ones():
    assert channel.READ_SIZE == READ_SIZE
