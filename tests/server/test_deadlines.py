from hypothesis import given
from hypothesis import strategies as st

from twocans_server.deadlines import DeadlineWheel

SECOND_NS = 1_000_000_000


class Thing:
    def __init__(self, deadline_ns: int) -> None:
        self.deadline_ns = deadline_ns


def at(seconds: float) -> int:
    return int(seconds * SECOND_NS)


def due(wheel: DeadlineWheel[Thing], now_ns: int) -> list[Thing]:
    return [thing for found in wheel.due(now_ns, 2) for thing in found]


def test_a_thing_is_due_at_its_deadline_and_not_before():
    wheel: DeadlineWheel[Thing] = DeadlineWheel()
    thing = Thing(at(10.5))
    wheel.put(thing)
    assert due(wheel, at(10.5) - 1) == []
    assert due(wheel, at(10.5)) == [thing]


def test_a_thing_stays_due_until_it_is_removed_or_put_again():
    wheel: DeadlineWheel[Thing] = DeadlineWheel()
    thing = Thing(at(1))
    wheel.put(thing)
    assert due(wheel, at(60)) == due(wheel, at(61)) == [thing]
    thing.deadline_ns = at(70)
    wheel.put(thing)
    assert due(wheel, at(69)) == []
    wheel.remove(thing)
    assert due(wheel, at(99)) == []


def test_a_deadline_that_moved_later_is_found_there_without_being_put():
    wheel: DeadlineWheel[Thing] = DeadlineWheel()
    thing = Thing(at(1))
    wheel.put(thing)
    thing.deadline_ns = at(100)
    assert [due(wheel, at(second)) for second in range(100)] == [[]] * 100
    assert wheel._where[thing] == 100, "it is looked at in vain every time"
    assert due(wheel, at(100)) == [thing]


def test_a_deadline_that_moved_earlier_is_found_once_it_is_put():
    wheel: DeadlineWheel[Thing] = DeadlineWheel()
    thing = Thing(at(100))
    wheel.put(thing)
    thing.deadline_ns = at(2)
    wheel.put(thing)
    assert due(wheel, at(2)) == [thing]


def test_removing_what_is_not_there_is_no_error():
    wheel: DeadlineWheel[Thing] = DeadlineWheel()
    thing = Thing(at(1))
    wheel.remove(thing)
    wheel.put(thing)
    wheel.remove(thing)
    wheel.remove(thing)
    assert due(wheel, at(2)) == []


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["put", "later", "earlier", "remove", "wait"]),
        st.integers(0, 4),
        st.integers(0, 5 * SECOND_NS),
    ),
    max_size=60,
)


@given(OPERATIONS)
def test_a_wheel_finds_what_a_look_at_every_thing_would(operations):
    wheel: DeadlineWheel[Thing] = DeadlineWheel()
    things = [Thing(0) for _ in range(5)]
    watched: set[Thing] = set()
    now_ns = at(1_000)
    for name, index, ns in operations:
        thing = things[index]
        match name:
            case "put":
                thing.deadline_ns = now_ns + ns
                wheel.put(thing)
                watched.add(thing)
            case "later":
                thing.deadline_ns += ns
            case "earlier":
                thing.deadline_ns -= ns
                if thing in watched:
                    wheel.put(thing)
            case "remove":
                wheel.remove(thing)
                watched.discard(thing)
            case "wait":
                now_ns += ns
        found = due(wheel, now_ns)
        assert len(found) == len(set(found))
        assert set(found) == {thing for thing in watched if thing.deadline_ns <= now_ns}
    for thing in things:
        wheel.remove(thing)
    assert not wheel._slots, "slots are left behind"


def test_of_thousands_that_are_due_together_each_list_has_a_few():
    wheel: DeadlineWheel[Thing] = DeadlineWheel()
    things = {Thing(at(5)) for _ in range(1_000)}
    for thing in things:
        wheel.put(thing)
    found = list(wheel.due(at(6), 16))
    assert max(map(len, found)) == 16
    assert {thing for batch in found for thing in batch} == things


def test_what_went_or_was_put_off_between_two_lists_is_not_due():
    wheel: DeadlineWheel[Thing] = DeadlineWheel()
    things = [Thing(at(5)) for _ in range(10)]
    for thing in things:
        wheel.put(thing)
    batches = wheel.due(at(6), 1)
    (first,) = next(batches)
    gone, later, earlier, *rest = (thing for thing in things if thing is not first)
    wheel.remove(gone)
    later.deadline_ns = at(99)
    earlier.deadline_ns = at(2)
    wheel.put(earlier)
    assert {thing for batch in batches for thing in batch} == set(rest)
