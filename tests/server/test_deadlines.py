from hypothesis import given
from hypothesis import strategies as st

from twocans_server.deadlines import DeadlineWheel

SECOND_NS = 1_000_000_000


class Thing:
    def __init__(self, deadline_ns: int) -> None:
        self.deadline_ns = deadline_ns


def at(seconds: float) -> int:
    return int(seconds * SECOND_NS)


def test_a_thing_is_due_at_its_deadline_and_not_before():
    wheel: DeadlineWheel[Thing] = DeadlineWheel()
    thing = Thing(at(10.5))
    wheel.put(thing)
    assert wheel.due(at(10.5) - 1) == []
    assert wheel.due(at(10.5)) == [thing]


def test_a_thing_stays_due_until_it_is_removed_or_put_again():
    wheel: DeadlineWheel[Thing] = DeadlineWheel()
    thing = Thing(at(1))
    wheel.put(thing)
    assert wheel.due(at(60)) == wheel.due(at(61)) == [thing]
    thing.deadline_ns = at(70)
    wheel.put(thing)
    assert wheel.due(at(69)) == []
    wheel.remove(thing)
    assert wheel.due(at(99)) == []


def test_a_deadline_that_moved_later_is_found_there_without_being_put():
    wheel: DeadlineWheel[Thing] = DeadlineWheel()
    thing = Thing(at(1))
    wheel.put(thing)
    thing.deadline_ns = at(100)
    assert [wheel.due(at(second)) for second in range(100)] == [[]] * 100
    assert wheel._where[thing] == 100, "it is looked at in vain every time"
    assert wheel.due(at(100)) == [thing]


def test_a_deadline_that_moved_earlier_is_found_once_it_is_put():
    wheel: DeadlineWheel[Thing] = DeadlineWheel()
    thing = Thing(at(100))
    wheel.put(thing)
    thing.deadline_ns = at(2)
    wheel.put(thing)
    assert wheel.due(at(2)) == [thing]


def test_removing_what_is_not_there_is_no_error():
    wheel: DeadlineWheel[Thing] = DeadlineWheel()
    thing = Thing(at(1))
    wheel.remove(thing)
    wheel.put(thing)
    wheel.remove(thing)
    wheel.remove(thing)
    assert wheel.due(at(2)) == []


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
        due = wheel.due(now_ns)
        assert len(due) == len(set(due))
        assert set(due) == {thing for thing in watched if thing.deadline_ns <= now_ns}
    for thing in things:
        wheel.remove(thing)
    assert not wheel._slots, "slots are left behind"
