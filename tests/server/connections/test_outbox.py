import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.scripted import ADDRESS, ScriptedWire, World
from twocans_core.protocol.session import ALLOWANCE_BYTES
from twocans_server.connections.outbox import Outbox


def outbox(room: int | None = None) -> tuple[Outbox, ScriptedWire]:
    wire = ScriptedWire(World(), ADDRESS)
    wire.room = room
    return Outbox(wire), wire


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("take"), st.integers(1, 3_000)),
            st.tuples(st.just("room"), st.integers(0, 3_000)),
            st.tuples(st.just("came"), st.integers(1, 3_000)),
        )
    )
)
def test_what_is_taken_is_sent_in_order_and_the_bound_is_never_passed(steps):
    box, wire = outbox(room=0)
    taken = bytearray()
    for number, (what, count) in enumerate(steps):
        if what == "came":
            box.received += count
        elif what == "room":
            wire.room = count
            before = len(wire.sent)
            assert box.flush() == len(wire.sent) - before
        else:
            data = bytes((number % 256,)) * count
            end = box.take(data)
            is_allowed = len(taken) + count <= box.received + ALLOWANCE_BYTES
            assert (end is not None) is is_allowed
            if end is not None:
                taken += data
                assert end == len(taken) == box.sent
        assert len(wire.sent) + len(box.unsent or b"") == len(taken)
    wire.room = None
    box.flush()
    assert wire.sent == taken
    assert box.unsent is None


@pytest.mark.parametrize(("received", "size"), [(0, 4_096), (10, 4_106)])
def test_the_allowance_is_reached_and_not_passed(received, size):
    box, wire = outbox()
    box.received = received
    assert box.take(bytes(size + 1)) is None
    assert (box.sent, box.unsent, len(wire.sent)) == (0, None, 0), "nothing of it is sent"
    assert box.take(bytes(size)) == size
    assert box.take(b"x") is None


def test_a_stamp_is_asked_for_where_it_is_wanted():
    box, wire = outbox()
    box.take(b"no stamp")
    end = box.take(b"a stamp", stamped=True)
    wire.room = 2
    box.take(b"in pieces", stamped=True)
    wire.room = None
    box.flush(stamped=True)
    assert wire.stamped == [end, 17, box.sent]


def test_what_waits_is_sent_before_what_comes_later():
    box, wire = outbox(room=1)
    box.take(b"one")
    wire.room = None
    assert box.take(b"two") == 6
    assert wire.sent == b"o", "it stands behind what waits"
    assert box.flush() == 5
    assert box.flush() == 0
    assert wire.sent == b"onetwo"
