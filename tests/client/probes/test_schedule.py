from hypothesis import given
from hypothesis import strategies as st

from twocans_client.probes.schedule import Schedule, SizedTurns, phase_ns

intervals = st.integers(1_000_000, 10_000_000_000)
starts = st.integers(0, 10**18)
SECOND = 1_000_000_000


@st.composite
def schedules(draw):
    interval_ns = draw(intervals)
    phase = draw(st.integers(0, interval_ns - 1))
    now_ns = draw(starts)
    return Schedule(interval_ns, phase, now_ns), interval_ns, phase, now_ns


def slots(first_ns: int, last_ns: int, interval_ns: int, phase: int) -> int:
    """How many slots start after one moment and not after another, by arithmetic alone."""
    return (last_ns - phase) // interval_ns - (first_ns - phase) // interval_ns


@given(schedules(), st.lists(st.integers(0, 30_000_000_000), max_size=30))
def test_every_slot_is_counted_once_whenever_one_looks(made, steps):
    schedule, interval_ns, phase, begun_ns = made
    now_ns = begun_ns
    scheduled = taken = missed = 0
    for step in steps:
        now_ns += step
        found = schedule.take(now_ns)
        scheduled += found.scheduled
        missed += found.missed
        taken += found.intended_ns is not None
        assert found.scheduled == found.missed + (found.intended_ns is not None)
    assert scheduled == taken + missed == slots(begun_ns, now_ns, interval_ns, phase)


@given(schedules(), st.lists(st.integers(0, 30_000_000_000), max_size=30))
def test_the_grid_never_drifts(made, steps):
    schedule, interval_ns, phase, now_ns = made
    for step in steps:
        now_ns += step
        found = schedule.take(now_ns)
        if found.intended_ns is not None:
            assert found.intended_ns % interval_ns == phase
            assert 0 <= now_ns - found.intended_ns <= interval_ns // 2
        assert schedule.next_ns % interval_ns == phase
        assert 0 < schedule.next_ns - now_ns <= interval_ns


@given(schedules())
def test_who_is_punctual_misses_nothing(made):
    schedule, interval_ns, _, _ = made
    for _ in range(10):
        due_ns = schedule.next_ns
        assert schedule.take(due_ns - 1) == (None, 0, 0)
        assert schedule.take(due_ns) == (due_ns, 1, 0)
        assert schedule.take(due_ns) == (None, 0, 0)
        assert schedule.next_ns == due_ns + interval_ns


def test_half_an_interval_late_is_in_time_and_more_is_not():
    for late_ns, found in ((500, (1_000, 1, 0)), (501, (None, 1, 1))):
        schedule = Schedule(1_000, 0, 0)
        assert schedule.take(1_000 + late_ns) == found


def test_a_freeze_of_a_hundred_slots_misses_them_all_but_the_newest():
    schedule = Schedule(1_000, 0, 0)
    assert schedule.take(100_250) == (100_000, 100, 99)


def test_a_phase_is_the_same_after_a_restart():
    assert phase_ns("a", "b:5000", 10**9) == phase_ns("a", "b:5000", 10**9)
    # What `b2sum -l 64` says: of this version and of the next ones.
    assert phase_ns("client", "server:5000", 10**9) == 823_386_699


def test_phases_spread_over_the_interval():
    counts = [0] * 10
    for number in range(2_000):
        counts[phase_ns("client", f"10.0.{number >> 8}.{number & 255}:5000", 1_000) // 100] += 1
    assert min(counts) > 140, counts
    assert max(counts) < 260, counts


names = st.text(max_size=20)


@given(names, st.lists(names, min_size=2, max_size=5), intervals, st.integers(1, 10**9))
def test_all_slots_of_a_client_lie_on_one_grid(client, targets, interval_ns, grid_ns):
    phases = [phase_ns(client, target, interval_ns, grid_ns) for target in targets]
    assert all(0 <= phase < interval_ns for phase in phases)
    wide_ns = min(grid_ns, interval_ns)
    assert len({phase % wide_ns for phase in phases}) == 1


def test_a_grid_is_used_in_all_its_places_and_each_client_has_its_own():
    phases = [phase_ns("client", f"10.0.0.{number}:5000", 1_000, 100) for number in range(500)]
    assert len(set(phases)) == 10
    grids = {phase_ns(f"node-{number}", "server", 10**9, 5 * 10**7) % 10**7 for number in range(50)}
    assert len(grids) == 50


def test_two_clients_do_not_probe_one_target_in_step():
    phases = {phase_ns(f"node-{number}", "server:5000", 10**9) for number in range(100)}
    assert len(phases) == 100


# --- sized probes --------------------------------------------------------------------------


def sized_of(turns: SizedTurns, seconds: range, lasting: float = 0.1) -> list[int]:
    """The seconds whose probe is a sized one, each of which takes so many seconds."""
    found: list[int] = []
    for second in seconds:
        if found and second >= found[-1] + lasting:
            turns.end()
        if turns.take(second * SECOND):
            found.append(second)
    return found


def test_the_second_probe_is_a_sized_one_and_then_one_a_minute():
    turns = SizedTurns(Schedule(60 * SECOND, 7 * SECOND, 100 * SECOND))
    assert sized_of(turns, range(101, 400)) == [102, 127, 187, 247, 307, 367]


def test_two_paths_have_their_sized_probes_at_different_times():
    seconds = [
        sized_of(SizedTurns(Schedule(60 * SECOND, phase * SECOND, 0)), range(1, 200))[1]
        for phase in (20, 40)
    ]
    assert seconds == [20, 40]


def test_what_is_wanted_comes_next_but_never_twice_in_a_row():
    turns = SizedTurns(Schedule(60 * SECOND, 59 * SECOND, 0))
    found = []
    for second in range(1, 9):
        turns.want()
        if turns.take(second * SECOND):
            found.append(second)
            turns.end()
    assert found == [1, 3, 5, 7], "between two there is a control"


def test_no_other_is_sized_while_one_is_under_way():
    turns = SizedTurns(Schedule(2 * SECOND, 0, 0))
    assert sized_of(turns, range(1, 12), lasting=5) == [2, 7]


def test_without_a_schedule_none_is_sized():
    turns = SizedTurns(None)
    turns.want()
    assert sized_of(turns, range(10)) == []
