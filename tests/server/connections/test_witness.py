import errno

from hypothesis import given
from hypothesis import strategies as st

from server.scripted import ADDRESS, CLIENT, COUNTERS, GOODBYE, SECOND_NS, Peer, World, request
from twocans_core.protocol import witness
from twocans_core.protocol.frames import Frame, Kind, encode
from twocans_core.protocol.messages import Hello
from twocans_core.protocol.witness import UNKNOWN, Asked, Fate, Seen, Witness

HOST, PORT = ADDRESS
STRANGER = CLIENT._replace(instance=b"x" * 16)


def reset() -> OSError:
    return ConnectionResetError(errno.ECONNRESET, "reset")


def come(world: World, connection: int = 7, port: int = PORT, host: str = HOST) -> Peer:
    """Let a client come and greet."""
    peer = world.connect(address=(host, port))
    peer.arrive(encode(Frame(Kind.HELLO, 0, Hello(CLIENT, connection).encode())))
    return peer


def ask(
    world: World, *asked: Asked, since_s: float = 0, instance: bytes = b"", host: str = HOST
) -> witness.Testimony:
    question = Witness(int(since_s * 1e9), asked)
    return world.records.testify(question, instance or CLIENT.instance, host)


def seen_of(world: World, connection: int = 7, port: int = PORT, **who: object) -> Seen:
    (seen,) = ask(world, Asked(connection, port), **who).seen  # type: ignore[arg-type]
    return seen


def test_of_an_open_connection_is_told_what_it_is_now():
    world = World()
    peer = come(world)
    world.pass_s(1)
    peer.arrive(request(1))
    world.pass_s(2)
    sent, received = len(peer.wire.sent), peer.connection._outbox.received
    assert seen_of(world) == Seen(
        fate=Fate.OPEN,
        greeted=True,
        peer=ADDRESS,
        in_vain=0,
        accepted_ns=3 * SECOND_NS,
        heard_ns=2 * SECOND_NS,
        ended_ns=None,
        received=received,
        sent=sent,
        exchanges=1,
        counters=COUNTERS,
        kind="framed",
        ending="",
        reason="",
    )


def test_of_one_that_was_reset_is_told_how_and_when_it_ended():
    world = World()
    peer = come(world)
    world.pass_s(1)
    peer.wire.kernel = COUNTERS._replace(segs_in=99)
    peer.wire.in_vain = 5
    peer.arrive(reset())
    world.pass_s(2)
    seen = seen_of(world)
    assert (seen.fate, seen.kind, seen.ending) == (Fate.ENDED, "framed", "reset")
    assert (seen.reason, seen.in_vain, seen.counters.segs_in) == ("econnreset", 5, 99)
    assert (seen.accepted_ns, seen.heard_ns, seen.ended_ns) == (
        3 * SECOND_NS,
        3 * SECOND_NS,
        2 * SECOND_NS,
    )


def test_one_that_was_accepted_and_never_greeted_is_found_by_its_port():
    world = World()
    peer = world.connect()
    seen = seen_of(world)
    assert (seen.fate, seen.greeted, seen.kind, seen.heard_ns) == (Fate.OPEN, False, "new", None)
    peer.arrive(b"\xfc")
    assert seen_of(world, connection=0).received == 1
    peer.arrive(b"")
    seen = seen_of(world)
    assert (seen.fate, seen.greeted, seen.ending, seen.reason) == (
        Fate.ENDED,
        False,
        "refused",
        "truncated",
    )


def test_a_plain_connection_is_remembered_too():
    world = World()
    world.connect().arrive(b"hello", b"")
    assert seen_of(world, connection=0).kind == "plain"


def test_nobody_learns_of_the_connections_of_others():
    world = World()
    come(world, port=1)
    come(world, connection=8, port=2).arrive(reset())
    world.connect(address=(HOST, 3))
    world.connect(address=(HOST, 4)).arrive(b"plain", b"")
    asked = [Asked(7, 1), Asked(8, 2), Asked(0, 1), Asked(0, 2), Asked(0, 3), Asked(9, 4)]
    elsewhere = ask(world, *asked, instance=STRANGER.instance, host="192.0.2.8")
    assert elsewhere.seen == (UNKNOWN,) * 6
    # From the same address, only those that greeted nobody: behind a NAT that is not known.
    beside = ask(world, *asked, instance=STRANGER.instance)
    assert [seen.fate for seen in beside.seen] == [Fate.UNKNOWN] * 4 + [Fate.OPEN, Fate.ENDED]
    # From another address, its own all the same: a NAT gives it one or another.
    moved = ask(world, *asked, host="192.0.2.8")
    assert [seen.fate for seen in moved.seen] == [Fate.OPEN, Fate.ENDED] + [Fate.UNKNOWN] * 4


def test_of_two_from_one_port_the_later_is_told():
    world = World()
    world.connect().arrive(reset())
    world.pass_s(1)
    world.connect().arrive(b"x", b"")
    assert seen_of(world, connection=0).ending == "done"
    assert seen_of(world, connection=0).ended_ns == 0


def test_who_ends_last_from_one_port_takes_nothing_from_the_other():
    world = World()
    first, second = come(world, connection=1), come(world, connection=2)
    first.arrive(reset())
    assert seen_of(world, connection=1).fate is Fate.ENDED
    assert seen_of(world, connection=2).fate is Fate.OPEN
    second.arrive(reset())
    assert world.records._living == {}
    assert world.records._peers == {}


def test_those_that_ended_done_are_forgotten_first():
    world = World(witness_connections=3)
    come(world, connection=1, port=1).arrive(reset())
    for number in range(2, 10):
        world.pass_s(1)
        come(world, connection=number, port=number).arrive(GOODBYE, b"")
    fates = [seen_of(world, number, number).fate for number in range(1, 10)]
    assert fates == [Fate.ENDED] + [Fate.UNKNOWN] * 6 + [Fate.ENDED] * 2
    said = ask(world)
    assert said.memory_of_done_ns == 2 * SECOND_NS  # since the one that was forgotten last
    assert said.memory_ns == 8 * SECOND_NS  # since the server began


def test_the_memory_reaches_as_far_back_as_the_process_and_the_limit():
    world = World(witness_s=60.0)
    world.pass_s(10)
    assert ask(world).memory_ns == ask(world).memory_of_done_ns == 10 * SECOND_NS
    world.pass_s(100)
    assert ask(world).memory_ns == ask(world).memory_of_done_ns == 60 * SECOND_NS
    assert world.tally.limit_hits["witness_s"] == 0


def test_a_server_that_began_later_than_it_is_asked_about_has_reached_no_limit():
    world = World(witness_s=60.0)
    world.pass_s(10)
    assert seen_of(world, since_s=20).fate is Fate.UNKNOWN
    assert world.tally.limit_hits["witness_s"] == 0


def test_the_host_is_asked_about_the_same_past_and_for_who_asks():
    host = ask(World(), since_s=5, host="192.0.2.9").host
    assert (host.since_ns, host.cause) == (5 * SECOND_NS, "192.0.2.9")


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from(["come", "go", "reset"])),
        max_size=40,
    )
)
def test_no_more_is_kept_than_the_limit_and_who_is_here(steps):
    world = World(witness_connections=2)
    here: list[Peer] = []
    for connection, port, what in steps:
        world.pass_s(1)
        if what == "come":
            here.append(come(world, connection, port))
        elif here:
            here.pop(port % len(here)).arrive(*([GOODBYE, b""] if what == "go" else [reset()]))
    records = world.records
    assert len(records._done.ended) + len(records._others.ended) <= 2
    assert len(records._living) <= len(here)
    assert len(records._peers) <= len(here)
