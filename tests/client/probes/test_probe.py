import asyncio
import errno
import os
import zlib
from random import Random

import pytest

from client.far_end import (
    ADDRESS,
    LOCAL,
    PLAN,
    SECOND_NS,
    SERVER,
    TIMEOUT_NS,
    FarEnd,
    good_script,
    make_probe,
    probe_over,
)
from fakes import COUNTERS, Attention, FakeClock, MemoryStream, connection_refused, header
from twocans_client.evidence.results import Outcome, Reason
from twocans_client.probes.probe import Plan, probe, sized_payload
from twocans_client.probes.tools import Tools
from twocans_core.kernel.tcpinfo import NO_COUNTERS, HostCounts
from twocans_core.net.channel import Received
from twocans_core.net.streams import DeadlineExceeded
from twocans_core.protocol.frames import Frame, Kind, encode
from twocans_core.protocol.messages import (
    Busy,
    Error,
    FollowUp,
    Goodbye,
    Hello,
    Reply,
    Request,
    Welcome,
)

END = b""
RESET = ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
DRAINING = encode(Frame(Kind.GOODBYE, 0, Goodbye("draining").encode()))


def error_of(number: int) -> OSError:
    return OSError(number, os.strerror(number))


# --- a good one ----------------------------------------------------------------------------


def test_a_good_probe_is_ok_and_holds_all_that_both_ends_said():
    result = probe_over(*good_script(FarEnd()))
    assert (result.reason, result.outcome, result.detail) == (Reason.OK, Outcome.OK, "")
    assert result.server == SERVER
    assert result.seen_as == result.local == ("192.0.2.1", 40_000)
    assert [exchange.sequence for exchange in result.exchanges] == [1, 2]
    assert result.handshake_ns == 50_000, "the kernel's 50 us"
    assert None not in (result.connect_ns, result.greet_ns, result.close_ns)
    assert result.connected == result.ended == result.server_ended == COUNTERS
    assert not result.late
    assert not result.draining


def test_every_byte_is_counted():
    far = FarEnd()
    said = []

    def answer(sent):
        said.append(far(sent))
        return said[-1]

    stream = MemoryStream(*[answer] * 4, END)
    result = make_probe(stream)
    assert result.bytes_sent == len(stream.sent)
    assert result.bytes_received == sum(map(len, said))


def test_phases_are_measured_on_the_clock_that_is_given():
    clock = FakeClock()
    stream = MemoryStream(*good_script(FarEnd()), clock=clock, step_ns=7)
    result = make_probe(stream, clock=clock)
    assert result.connect_ns == 0
    assert result.greet_ns == 7
    assert [exchange.duration_ns for exchange in result.exchanges] == [7, 7]
    assert result.close_ns == 14  # the farewell, and the end of the stream
    assert result.total_ns == 5 * 7


def test_a_transmit_stamp_of_the_server_goes_to_the_exchange_before():
    stamps = iter((11, 22, 33))

    def reply(message):
        return message._replace(t2k=5, t2u=6, t3u=7, previous_t3k=next(stamps))

    def follow_up(message):
        return message._replace(t3k=next(stamps))

    result = probe_over(*good_script(FarEnd({Reply: reply, FollowUp: follow_up})))
    assert [exchange.stamps.t3k for exchange in result.exchanges] == [22, 33]


def test_stamps_of_both_ends_split_an_exchange():
    clock = FakeClock()
    at_ns = clock.real_ns
    stream = MemoryStream(clock=clock, step_ns=100)
    stream.queueing_ns = 4

    def reply(message):
        return message._replace(t2k=1_000, t2u=1_001, t3u=1_003, previous_t3k=999, stalled_ns=1)

    far = FarEnd({Reply: reply, FollowUp: lambda message: message._replace(t3k=1_030)})

    def answer(sent):
        stream.tx_ns[len(sent)] = at_ns + 100 + 10
        return Received(far(sent), at_ns + 200 - 20)

    stream.script = [far, answer, far, lambda _: END]
    result = make_probe(stream, PLAN._replace(exchanges=1), clock=clock)
    (exchange,) = result.exchanges
    split = exchange.split
    assert split is not None
    assert (split.network_ns, split.server_ns, split.client_ns) == (100 - 60, 30, 10 + 20)
    assert (split.client_send_ns, split.client_qdisc_ns, split.client_wakeup_ns) == (10, 4, 20)
    assert (split.server_wakeup_ns, split.server_stall_ns, split.server_app_ns) == (1, 0, 2)
    assert split.server_send_ns == 27


def test_a_handshake_with_a_lost_syn_is_not_one_round_trip():
    stream = MemoryStream(*good_script(FarEnd()))
    stream.kernel = COUNTERS._replace(total_retrans=1)
    assert make_probe(stream).handshake_ns is None


def test_counters_that_come_and_go_are_no_segment_sent_again():
    far = FarEnd({Reply: lambda message: message._replace(counters=NO_COUNTERS)})
    result = probe_over(*good_script(far))
    assert [each.resent for each in result.exchanges] == [False, False]


def test_no_exchange_is_asked_for_and_none_is_made():
    result = probe_over(*good_script(FarEnd(), 0), plan=PLAN._replace(exchanges=0))
    assert (result.reason, result.exchanges) == (Reason.OK, [])


def test_payloads_are_drawn_anew_and_of_the_wanted_size():
    far = FarEnd()
    probe_over(*good_script(far), plan=PLAN._replace(payload_bytes=1_000))
    payloads = [message.payload for message in far.heard if isinstance(message, Request)]
    assert [len(payload) for payload in payloads] == [1_000, 1_000]
    assert payloads[0] != payloads[1]


def test_a_given_payload_is_sent_and_its_reply_kept():
    result = probe_over(*good_script(FarEnd()), plan=PLAN._replace(payload=b"Hello"))
    assert result.reply == b"Hello"


# --- every reason --------------------------------------------------------------------------


def test_what_connect_says_is_the_reason_and_the_detail():
    result = make_probe(error_of(errno.EHOSTUNREACH))
    assert (result.reason, result.detail) == (Reason.UNREACHABLE, "EHOSTUNREACH")
    assert result.connect_ns is None


def say(*messages, sequence=0):
    kinds = {Busy: Kind.BUSY, Error: Kind.ERROR, Goodbye: Kind.GOODBYE, Hello: Kind.HELLO}
    return b"".join(encode(Frame(kinds[type(m)], sequence, m.encode())) for m in messages)


def as_sequence(number):
    return lambda message: encode(Frame(Kind.REPLY, number, message.encode()))


def damaged_at(at, far):
    def answer(sent):
        said = bytearray(far(sent))
        said[at] ^= 0x02
        return bytes(said)

    return answer


other = b"HTTP/1.1 400 Bad Request\r\n\r\n"
ENDINGS = {
    "nobody answers the SYN": (DeadlineExceeded(), Reason.CONNECT_TIMEOUT),
    "silence after the handshake": ([], Reason.GREETING_TIMEOUT),
    "silence after the welcome": (lambda f: [f], Reason.REPLY_TIMEOUT),
    "silence after one reply": (lambda f: [f, f], Reason.REPLY_TIMEOUT),
    "half a reply": (lambda f: [f, lambda sent: f(sent)[:-1]], Reason.REPLY_TIMEOUT),
    "silence after goodbye": (lambda f: [f, f, f], Reason.CLOSE_TIMEOUT),
    "the stream stays open": (lambda f: [f, f, f, f], Reason.CLOSE_TIMEOUT),
    "the kernel gives up": ([error_of(errno.ETIMEDOUT)], Reason.GREETING_TIMEOUT),
    "reset in the greeting": ([RESET], Reason.RESET),
    "reset in the exchange": (lambda f: [f, RESET], Reason.RESET),
    "reset instead of the end": (lambda f: [f, f, f, f, RESET], Reason.RESET),
    "end in the greeting": ([END], Reason.CLOSED_EARLY),
    "end in the exchange": (lambda f: [f, END], Reason.CLOSED_EARLY),
    "end inside a frame": (lambda f: [lambda sent: f(sent)[:-1], END], Reason.CLOSED_EARLY),
    "end instead of goodbye": (lambda f: [f, f, f, END], Reason.CLOSED_EARLY),
    "idle": (lambda f: [f, say(Goodbye("idle"))], Reason.CLOSED_EARLY),
    "busy": ([say(Busy("connections"))], Reason.BUSY),
    "an error": ([say(Error("too_slow"))], Reason.PROTOCOL_ERROR),
    "another version": ([say(Error("bad_version", 2, 3))], Reason.PROTOCOL_ERROR),
    "another protocol": ([other], Reason.PROTOCOL_ERROR),
    "an echo server": ([lambda sent: sent], Reason.PROTOCOL_ERROR),
    "4 GiB announced": ([header(Kind.WELCOME, 0xFFFF_FFFF)], Reason.PROTOCOL_ERROR),
    "a welcome for another": (
        {Welcome: lambda m: m._replace(connection=m.connection ^ 1)},
        Reason.PROTOCOL_ERROR,
    ),
    "two welcomes": (
        {Welcome: lambda m: encode(Frame(Kind.WELCOME, 0, m.encode())) * 2},
        Reason.PROTOCOL_ERROR,
    ),
    "a reply to the next request": ({Reply: as_sequence(2)}, Reason.PROTOCOL_ERROR),
    "a reply to no request": (
        {Welcome: lambda m: as_sequence(1)(Reply(b"", 0, None, None, None, None, COUNTERS))},
        Reason.PROTOCOL_ERROR,
    ),
    "a reply that is longer": (
        {Reply: lambda m: m._replace(payload=m.payload + b"!")},
        Reason.PROTOCOL_ERROR,
    ),
    "a hello": (
        {Welcome: lambda m: encode(Frame(Kind.HELLO, 0, Hello(SERVER, 1).encode()))},
        Reason.PROTOCOL_ERROR,
    ),
    "goodbye unasked": ({Reply: lambda m: say(Goodbye("done"))}, Reason.PROTOCOL_ERROR),
    "goodbye with a sequence": (
        {Reply: lambda m: say(Goodbye("draining"), sequence=1)},
        Reason.PROTOCOL_ERROR,
    ),
    "a welcome that came damaged": (lambda f: [damaged_at(-1, f)], Reason.DAMAGED),
    "a reply whose counters came damaged": (lambda f: [f, damaged_at(60, f)], Reason.DAMAGED),
    "a reply whose header came damaged": (lambda f: [f, damaged_at(7, f)], Reason.DAMAGED),
    "a follow-up that came damaged": (lambda f: [f, f, f, damaged_at(60, f)], Reason.DAMAGED),
    "our greeting came damaged": ([say(Error("damaged"))], Reason.DAMAGED),
    "our greeting came damaged, and was echoed": (
        [lambda sent: b"\x7c" + sent[1:]],
        Reason.DAMAGED,
    ),
    "our request came damaged": (lambda f: [f, say(Error("damaged"))], Reason.DAMAGED),
    "a shorter reply": ({Reply: lambda m: m._replace(payload=m.payload[:-1])}, Reason.WRONG_BYTES),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_every_way_to_end_has_its_reason(name):
    how, reason = ENDINGS[name]
    if isinstance(how, Exception):
        result = make_probe(how)
    elif isinstance(how, dict):
        result = probe_over(*good_script(FarEnd(how)))
    else:
        script = how(FarEnd()) if callable(how) else how
        assert isinstance(script, list)
        result = probe_over(*script)
    assert result.reason is reason, result.detail
    assert result.close_ns is None
    assert result.detail.isprintable()


def test_bytes_after_the_end_break_the_protocol_in_the_same_read_and_in_the_next():
    for script in (
        lambda far: [far, far, far, lambda sent: far(sent) + b"\0"],
        lambda far: [far, far, far, far, b"\0"],
    ):
        result = probe_over(*script(FarEnd()), END)
        assert (result.reason, result.close_ns) == (Reason.PROTOCOL_ERROR, None)


def test_an_error_names_the_versions_that_are_spoken():
    assert "2 to 3" in probe_over(say(Error("bad_version", 2, 3))).detail


def test_an_echo_server_is_recognised():
    assert "--plain" in probe_over(lambda sent: sent).detail


def test_a_server_that_never_stops_saying_draining_is_left():
    far = FarEnd()
    calls = 0

    def endless(_):
        nonlocal calls
        calls += 1
        assert calls < 10, "nothing waits here, so the loop is gone"
        return DRAINING * 2_000

    result = probe_over(far, *[endless] * 20)
    assert (result.reason, result.outcome) == (Reason.PROTOCOL_ERROR, Outcome.FAIL)
    assert "more than it may" in result.detail


def test_a_server_may_say_draining_between_any_two_frames():
    far = FarEnd()
    steps = [lambda sent, step=step: step(sent) + DRAINING for step in [far] * 3]
    result = probe_over(*steps, lambda sent: DRAINING + far(sent), END)
    assert (result.reason, result.draining) == (Reason.OK, True)


def test_a_payload_over_the_servers_limit_is_not_sent():
    far = FarEnd(max_payload=63)
    result = probe_over(far)
    assert result.reason is Reason.PROTOCOL_ERROR
    assert "64 bytes, the server takes 63" in result.detail
    assert [type(message) for message in far.heard] == [Hello]


def test_the_size_that_counts_is_that_of_the_given_payload():
    plan = Plan(TIMEOUT_NS, exchanges=1, payload_bytes=1_000_000, payload=b"short")
    assert probe_over(*good_script(FarEnd(), 1), plan=plan).reason is Reason.OK
    plan = plan._replace(payload=bytes(100), payload_bytes=1)
    assert "100 bytes" in probe_over(FarEnd(max_payload=99), plan=plan).detail


# --- damage --------------------------------------------------------------------------------


def damaged(payload: bytes) -> bytes:
    return payload[:5] + bytes((payload[5] ^ 1,)) + payload[6:]


@pytest.mark.parametrize(
    ("change", "direction"),
    [
        (lambda m: m, None),
        (
            lambda m: m._replace(payload=damaged(m.payload), crc=zlib.crc32(damaged(m.payload))),
            "forward",
        ),
        (lambda m: m._replace(payload=damaged(m.payload)), "reverse"),
        (lambda m: m._replace(crc=m.crc ^ 1), "reverse"),
    ],
    ids=[
        "whole",
        "in the forward direction",
        "in the reverse direction",
        "of the crc, in the reverse direction",
    ],
)
def test_damage_is_found_with_its_direction(change, direction):
    result = probe_over(*good_script(FarEnd({Reply: change})))
    if direction is None:
        assert result.reason is Reason.OK
    else:
        assert (result.reason, result.exchanges) == (Reason.WRONG_BYTES, [])
        assert f"damaged in the {direction} direction" in result.detail


def test_the_first_damaged_byte_is_named():
    far = FarEnd({Reply: lambda m: m._replace(payload=damaged(m.payload))})
    assert probe_over(*good_script(far)).detail.endswith("first difference at 5")
    far = FarEnd({Reply: lambda m: m._replace(payload=m.payload[:9])})
    assert probe_over(*good_script(far)).detail.endswith("9 came back, first difference at 9")


# --- our own doing -------------------------------------------------------------------------


def test_an_answer_found_by_the_last_look_is_ok_and_late():
    far = FarEnd()
    late_end = Received(END, None, late=True)
    result = probe_over(far, far, far, far, late_end)
    assert (result.reason, result.late) == (Reason.OK, True)


def test_a_time_out_is_void_when_we_stood_still_for_a_quarter_of_it():
    for lag_ns, outcome, reason in (
        (TIMEOUT_NS // 4 - 1, Outcome.FAIL, Reason.GREETING_TIMEOUT),
        (TIMEOUT_NS // 4, Outcome.VOID, Reason.SELF_STALL),
    ):
        result = probe_over(lag_ns=lag_ns)
        assert (result.outcome, result.reason) == (outcome, reason)
        assert result.worst_lag_ns == lag_ns


@pytest.mark.parametrize("step", [END, RESET, DeadlineExceeded()])
def test_a_server_that_announced_its_end_may_end(step):
    far = FarEnd()
    for script in ([FarEnd(draining=True)], [far, lambda sent: far(sent) + DRAINING]):
        result = probe_over(*script, step)
        assert (result.reason, result.outcome) == (Reason.DRAINING, Outcome.VOID)
        assert result.draining


def test_draining_excuses_no_broken_protocol_and_no_damage():
    result = probe_over(FarEnd(draining=True), say(Hello(SERVER, 1)))
    assert (result.reason, result.draining) == (Reason.PROTOCOL_ERROR, True)
    result = probe_over(FarEnd(draining=True), other)
    assert (result.reason, result.detail) == (Reason.DAMAGED, "damaged: a magic, 4854")
    far = FarEnd({Reply: lambda m: m._replace(payload=damaged(m.payload))}, draining=True)
    assert probe_over(*good_script(far)).reason is Reason.WRONG_BYTES


@pytest.mark.parametrize(
    ("message", "lie"),
    [
        (Welcome, {"total_retrans": 0x0200_0000}),
        (Reply, {"total_retrans": 0x0200_0000}),
        (Reply, {"segs_in": 3}),
        (Reply, {"data_segs_in": 13}),
        (FollowUp, {"data_segs_out": 4}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_counters_that_no_connection_can_have_are_withheld_and_all_after_them(message, lie):
    far = FarEnd({message: lambda m: m._replace(counters=COUNTERS._replace(**lie))})
    result = probe_over(*good_script(far))
    assert (result.reason, result.server_ended, result.segments) == (Reason.OK, NO_COUNTERS, None)
    assert not any(exchange.resent for exchange in result.exchanges)


def test_when_a_servers_process_began_is_told_by_our_clock_and_not_too_late():
    clock = FakeClock()
    far = FarEnd({Welcome: lambda m: m._replace(age_ns=5 * 10**9)})
    result = probe_over(*good_script(far), clock=clock)
    assert result.server_began_ns == clock.mono_ns - 5 * 10**9
    assert probe_over(*good_script(FarEnd()), clock=clock).server_began_ns is None


def test_what_the_servers_host_counted_is_told_at_both_ends_of_a_probe():
    told = {
        Welcome: lambda m: m._replace(host=HostCounts(1, None)),
        FollowUp: lambda m: m._replace(host=HostCounts(2, 0)),
    }
    result = probe_over(*good_script(FarEnd(told)))
    assert (result.host_greeted, result.host_ended) == ((1, None), (2, 0))


# --- ownership -----------------------------------------------------------------------------


def test_every_step_has_the_deadline_of_the_whole_probe():
    clock = FakeClock()
    started_ns = clock.mono_ns
    stream = MemoryStream(*good_script(FarEnd()), clock=clock, step_ns=SECOND_NS // 2)
    make_probe(stream, clock=clock)
    assert set(stream.deadlines) == {started_ns + TIMEOUT_NS}


@pytest.mark.parametrize(
    ("answers", "phase"), [(0, "greet"), (1, "exchange"), (2, "exchange"), (3, "close")]
)
def test_a_probe_that_fails_says_in_which_phase_and_how_long_that_lasted(answers, phase):
    clock = FakeClock()
    script = good_script(FarEnd())[:answers]
    result = make_probe(MemoryStream(*script, clock=clock), clock=clock)
    assert result.outcome is Outcome.FAIL
    assert result.unfinished == (phase, TIMEOUT_NS)
    assert probe_over(*good_script(FarEnd())).unfinished is None


@pytest.mark.parametrize("error", [connection_refused(), DeadlineExceeded()])
def test_both_ends_are_known_before_anybody_answers(error):
    result = make_probe(error)
    assert (result.address, result.local) == (ADDRESS, LOCAL)
    assert result.unfinished is not None
    assert result.unfinished.phase == "connect"


def test_silence_lasts_until_the_deadline_and_no_longer():
    clock = FakeClock()
    result = make_probe(MemoryStream(clock=clock), clock=clock)
    assert (result.reason, result.total_ns) == (Reason.GREETING_TIMEOUT, TIMEOUT_NS)


def test_a_cancelled_probe_closes_its_stream():
    class Hanging(MemoryStream):
        async def receive(self, deadline_ns):
            await asyncio.sleep(3_600)
            raise AssertionError

    stream, attention = Hanging(), Attention()

    async def dial(address, **_):
        return stream

    async def cancel_one():
        tools = Tools(dial, SERVER, Random(1), attention=attention)
        task = asyncio.create_task(probe(ADDRESS, PLAN, tools))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_one())
    assert stream.closed
    assert (attention.ever, attention.now) == (1, 0)


def test_a_stream_that_breaks_at_once_is_closed():
    class Broken(MemoryStream):
        def counters(self):
            raise error_of(errno.ENOTCONN)

    stream = Broken()
    assert make_probe(stream).outcome is Outcome.FAIL
    assert stream.closed


def test_a_send_that_fails_is_judged_as_a_read_would_be():
    stream = MemoryStream()
    stream.send_error = BrokenPipeError(errno.EPIPE, "broken")
    assert make_probe(stream).reason is Reason.RESET


def test_counters_are_taken_before_the_close_however_it_ended():
    assert probe_over(RESET).ended == COUNTERS


# --- a sized one ---------------------------------------------------------------------------

SIZED = PLAN._replace(sized=True)
SIZED_BYTES = 8 * 1448 + 200 - 108  # COUNTERS.snd_mss, and what a frame adds


@pytest.mark.parametrize(
    ("mss", "limit", "size"),
    [
        (1448, 65_536, SIZED_BYTES),
        (None, 65_536, SIZED_BYTES),
        (1220, 65_536, 8 * 1220 + 92),
        (8948, 65_536, 7 * 8948 + 92),  # eight are more than a server takes
        (65_483, 65_536, 65_536),  # loopback
        (1448, 4_096, 2 * 1448 + 92),
        (1448, 1_000, 1_000),
        (1448, 1 << 30, SIZED_BYTES),
    ],
)
def test_a_sized_request_is_full_segments_and_a_short_tail_as_far_as_the_server_takes_it(
    mss, limit, size
):
    assert sized_payload(mss, limit) == size <= limit


def test_a_sized_exchange_comes_after_the_others_and_is_kept_apart():
    stamps = iter((11, 22, 33, 44))
    far = FarEnd(
        {
            Reply: lambda message: message._replace(t2k=5, t2u=6, t3u=7, previous_t3k=next(stamps)),
            FollowUp: lambda message: message._replace(t3k=next(stamps)),
        }
    )
    result = probe_over(*good_script(far, exchanges=3), plan=SIZED)
    assert result.reason is Reason.OK
    asked = [len(heard.payload) for heard in far.heard if isinstance(heard, Request)]
    assert asked == [64, 64, SIZED_BYTES]
    assert result.payload_bytes == SIZED_BYTES
    assert [(each.sequence, each.stamps.t3k) for each in result.exchanges] == [(1, 22), (2, 33)]
    assert result.sized is not None
    assert (result.sized.sequence, result.sized.stamps.t3k) == (3, 44)
    phases = [phase for phase, _, _ in result.phases()]
    assert (phases.count("exchange"), phases.count("sized")) == (2, 1)


def test_an_ordinary_probe_has_no_sized_exchange():
    result = probe_over(*good_script(FarEnd()))
    assert (result.is_sized, result.sized, result.payload_bytes) == (False, None, 64)
    assert "sized" not in {phase for phase, _, _ in result.phases()}


def test_a_sized_exchange_that_fails_fails_the_probe_and_spoils_no_other_exchange():
    stream = MemoryStream(*good_script(FarEnd())[:3])

    def answer_last(sent: bytes) -> bytes:
        stream.kernel = COUNTERS._replace(total_retrans=3)
        raise DeadlineExceeded

    stream.script.append(answer_last)
    result = make_probe(stream, SIZED)
    assert result.reason is Reason.REPLY_TIMEOUT
    assert result.unfinished is not None
    assert (result.unfinished.phase, result.retrans) == ("sized", 3)
    assert (result.is_sized, result.sized, result.payload_bytes) == (True, None, SIZED_BYTES)
    assert [exchange.resent for exchange in result.exchanges] == [False, False]


def test_what_is_sent_again_in_a_sized_exchange_is_its_own():
    far = FarEnd()
    stream = MemoryStream(*good_script(far, exchanges=3))

    def answer_late(sent: bytes) -> bytes:
        stream.kernel = COUNTERS._replace(total_retrans=1)
        return far(sent)

    stream.script[3] = answer_late
    stream.script.insert(4, DeadlineExceeded())
    result = make_probe(stream, SIZED)
    assert result.reason is Reason.OK
    assert [exchange.resent for exchange in result.exchanges] == [False, False]
    assert result.sized is not None
    assert result.sized.resent


@pytest.mark.parametrize(
    ("plan", "counted", "waits"),
    [
        (SIZED, {"rcv_ooopack": 1}, True),
        (SIZED, {"total_retrans": 1}, True),
        (SIZED, {}, False),
        (PLAN, {"total_retrans": 1}, False),
    ],
)
def test_before_a_goodbye_that_may_overtake_something_there_is_a_silence(plan, counted, waits):
    far, clock = FarEnd(), FakeClock()
    exchanges = plan.exchanges + plan.sized
    stream = MemoryStream(*good_script(far, exchanges), clock=clock)

    def answer(sent: bytes) -> bytes:
        stream.kernel = COUNTERS._replace(**counted)
        return far(sent)

    stream.script[exchanges] = answer
    if waits:
        stream.script.insert(exchanges + 1, DeadlineExceeded())
    result = make_probe(stream, plan, clock=clock)
    assert result.reason is Reason.OK
    waited = {deadline for deadline in stream.deadlines if deadline < max(stream.deadlines)}
    assert waited == ({result.started_ns + 50_000_000} if waits else set())


def test_a_probe_that_ends_before_its_sized_exchange_is_an_ordinary_one():
    result = make_probe(connection_refused(), SIZED)
    assert (result.is_sized, result.payload_bytes) == (False, None)
    result = probe_over(FarEnd(), plan=SIZED)
    assert result.reason is Reason.REPLY_TIMEOUT
    assert (result.is_sized, result.payload_bytes) == (False, 64)
