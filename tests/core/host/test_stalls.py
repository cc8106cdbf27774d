import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from fakes import FakeClock
from integration.harness import until
from twocans_core.host import procfs
from twocans_core.host import sleeper as module
from twocans_core.host.cgroup import Throttling
from twocans_core.host.sleeper import Sleeper
from twocans_core.host.stalls import (
    NEVER,
    NOTHING_KNOWN,
    Account,
    Cause,
    Evidence,
    Stalled,
    StallWatch,
    cause_of,
    own_share,
)

MS = 1_000_000
S = 1_000 * MS
NOTHING = Evidence(0, 0, 0, 0, 0, 0, 0)


# --- which cause --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("evidence", "cause"),
    [
        ({}, Cause.BLOCKED),
        ({"throttled": 50}, Cause.THROTTLED),
        ({"throttled": 49}, Cause.BLOCKED),
        ({"run_delay": 50}, Cause.STARVED),
        ({"run_delay": 49}, Cause.BLOCKED),
        ({"sleeper_late": 50}, Cause.STOPPED),
        ({"sleeper_late": 49}, Cause.BLOCKED),
        # A garbage collection holds up the sleeper as well, by the GIL.
        ({"cpu": 50, "own": 50, "sleeper_late": 50}, Cause.BLOCKED),
        ({"cpu": 49, "own": 49, "sleeper_late": 50}, Cause.STOPPED),
        # Who is throttled has run delay, and both are late: the limit is the first cause.
        ({"throttled": 90, "run_delay": 90, "cpu": 5, "sleeper_late": 90}, Cause.THROTTLED),
        ({"throttled": 10, "run_delay": 90, "cpu": 5, "sleeper_late": 90}, Cause.STARVED),
        # CPU used in a stall does not make it ours when others had the CPU for most of it.
        ({"run_delay": 60, "cpu": 60, "own": 40, "sleeper_late": 90}, Cause.STARVED),
        # A stop is what neither a wait nor work accounts for.
        ({"run_delay": 49, "cpu": 10, "sleeper_late": 90}, Cause.BLOCKED),
        ({"run_delay": 20, "cpu": 10, "sleeper_late": 90}, Cause.STOPPED),
        # The sleeper waits for a CPU and holds the GIL: the loop waits, and not for a CPU.
        ({"sleeper_delay": 80, "sleeper_late": 90}, Cause.STARVED),
        # What held up the loop was something else, if the sleeper's wait was short.
        ({"sleeper_delay": 80, "sleeper_late": 90, "cpu": 90}, Cause.BLOCKED),
        # A hypervisor ran somebody else: no thread of this machine waited.
        ({"stolen": 60, "sleeper_late": 90}, Cause.STARVED),
        ({"stolen": 40, "sleeper_late": 90}, Cause.STOPPED),
        # A kernel that does not count waits does not tell a wait from a stop.
        ({"run_delay": None, "sleeper_late": 90}, Cause.BLOCKED),
    ],
)
def test_the_cause_is_what_explains_half_the_stall(evidence, cause):
    made = {f"{name}_ns": value and value * MS for name, value in evidence.items()}
    assert cause_of(100 * MS, NOTHING._replace(**made)) is cause


@pytest.mark.parametrize(
    ("lag_ms", "cause", "cpu_ms", "own_ms"),
    [
        (100, Cause.BLOCKED, 120, 100),
        (30, Cause.BLOCKED, 40, 30),
        # What was computed before the heartbeat was due may be all of it.
        (20, Cause.BLOCKED, 39, 0),
        # A slow call to the system: our doing, maybe, but nothing shows it.
        (100, Cause.BLOCKED, 5, 0),
        # A busy machine makes it longer; without it there would have been one all the same.
        (120, Cause.STARVED, 40, 40),
        # What has piled up while others had the CPU is not what made us wait.
        (121, Cause.STARVED, 40, 0),
        (100, Cause.THROTTLED, 50, 0),
        (100, Cause.STOPPED, 49, 0),
        (100, Cause.SUSPENDED, 50, 0),
    ],
)
def test_our_own_share_is_what_would_be_a_stall_without_any_wait(lag_ms, cause, cpu_ms, own_ms):
    assert own_share(lag_ms * MS, cause, cpu_ms * MS) == own_ms * MS


# --- windows ------------------------------------------------------------------------------


class Told:
    """A stall watch on a loop that only remembers; a test makes its heartbeats and evidence."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.account = Account(0, 0, 0, 0, 0, 0)
        self.throttled: Throttling | None = Throttling(0, 0.0)
        self.stolen = (0, 0)
        self.looks = 0
        self.watch = StallWatch(
            self.clock.clock(),
            account=lambda: self.account,
            throttling=self._look,
            stolen=lambda: self.stolen,
        )
        self.watch.attention.attend()

    def _look(self) -> Throttling | None:
        self.looks += 1
        return self.throttled

    def call_later(self, *_: object) -> None:
        pass

    def beat(self, lag_ms: int = 0, **grown_ms: int) -> None:
        """Beat so late; what an account has grown by meanwhile, in ms."""
        grown = {f"{name}_ns": value * MS for name, value in grown_ms.items()}
        self.account = Account(
            *(
                (now or 0) + grown.pop(name, 0)
                for name, now in zip(Account._fields, self.account, strict=True)
            )
        )
        assert grown == {}
        beats = self.watch._beats
        self.clock.mono_ns = beats._due_ns + lag_ms * MS
        beats._beat(self)  # type: ignore[arg-type]

    @property
    def now_ns(self) -> int:
        return self.clock.mono_ns

    def counted(self) -> dict[Cause, int]:
        return {cause: count for cause, count in self.watch.counts.items() if count}


@pytest.fixture
def told() -> Told:
    return Told()


def test_stalls_add_up_over_a_window(told):
    marks = []
    for lag_ms in (30, 0, 90, 19, 90):
        marks.append(told.now_ns)
        told.beat(lag_ms)
    found = [told.watch.since(mark) for mark in marks]
    assert [stalled.total_ns // MS for stalled in found] == [210, 180, 180, 90, 90]
    assert {stalled.worst_ns for stalled in found} == {90 * MS}
    assert told.watch.since(told.now_ns + 1) == NEVER


def test_a_loop_that_is_only_busy_does_not_stand_still(told):
    mark = told.now_ns
    for _ in range(100):
        told.beat(19)
    assert told.watch.since(mark) == NEVER
    assert told.counted() == {}
    told.beat(20)
    assert told.watch.since(mark).total_ns == 20 * MS
    assert told.counted() == {Cause.BLOCKED: 1}


def test_only_what_lies_within_the_window_counts(told):
    told.beat(0)
    told.beat(300, run_delay=300)
    # Whoever began 19 ms before the stall's end stood still for 19 of its 300 ms.
    assert told.watch.since(told.now_ns - 19 * MS) == Stalled(19 * MS, 19 * MS, None)
    assert told.watch.since(told.now_ns - 20 * MS) == Stalled(20 * MS, 20 * MS, Cause.STARVED)
    assert told.watch.since(told.now_ns) == NEVER


def test_the_cause_is_that_of_the_longest_stretch(told):
    mark = told.now_ns
    told.beat(400, run_delay=400)
    told.beat(25)
    assert told.watch.since(mark).cause is Cause.STARVED
    told.beat(500)
    told.beat(30, run_delay=30)
    assert told.watch.since(mark).cause is Cause.BLOCKED


def test_evidence_is_of_this_stall_and_of_no_time_before(told):
    for _ in range(1_000):  # a busy machine, for 20 s
        told.beat(0, run_delay=15, sleeper_late=5, cpu=5)
    told.beat(500)
    assert told.counted() == {Cause.BLOCKED: 1}


def test_a_stop_in_the_midst_of_a_heartbeat_is_the_next_ones(told: Told) -> None:
    told.beat(0)
    read = told.watch._read_account

    def stopped_meanwhile() -> Account:
        told.clock.advance(3 * S)
        told.account = told.account._replace(sleeper_late_ns=3 * S)
        return told.account

    told.watch._read_account = stopped_meanwhile
    told.beat(0)
    told.watch._read_account = read
    assert told.counted() == {}
    told.beat(3_000)
    assert told.counted() == {Cause.STOPPED: 1}


def test_a_cpu_limit_is_read_once_a_second_and_at_every_stall(told):
    for _ in range(50 * 10):
        told.beat(0)
    assert told.looks == pytest.approx(10, abs=1)
    before = told.looks
    told.throttled = Throttling(1, 0.09)
    told.beat(90, run_delay=90, sleeper_late=90)
    assert told.looks == before + 1
    assert told.counted() == {Cause.THROTTLED: 1}


def test_throttling_that_is_over_explains_no_later_stall(told):
    told.throttled = Throttling(9, 900.0)
    for _ in range(60):
        told.beat(0)
    told.beat(100, sleeper_late=100)
    assert told.counted() == {Cause.STOPPED: 1}


def test_what_our_host_did_to_us_is_known_where_no_stall_shows_it(told):
    for _ in range(50 * 3):
        told.beat(0)
    mark = told.now_ns
    told.throttled = Throttling(5, 0.06)
    for _ in range(50 * 2):
        told.beat(15)
    found = told.watch.own_host_since(mark)
    assert (found.throttled_ns, found.stalled) == (60 * MS, NEVER)
    told.beat(90, sleeper_late=90)
    found = told.watch.own_host_since(mark)
    assert (found.throttled_ns, found.stalled) == (
        60 * MS,
        Stalled(90 * MS, 90 * MS, Cause.STOPPED),
    )
    told.throttled = None
    told.beat(120)
    assert told.watch.own_host_since(mark).throttled_ns is None


def test_where_nobody_watches_nothing_is_known():
    assert NOTHING_KNOWN == (None, None, NEVER)


def test_what_was_used_before_somebody_left_explains_no_later_stall(told):
    async def main() -> None:
        told.watch.attention.leave()
        told.watch.start()
        for _ in range(100):
            told.clock.advance(10 * MS)
            told.watch.attention.attend()
            told.clock.advance(10 * MS)
            told.account = told.account._replace(cpu_ns=told.account.cpu_ns + 15 * MS)
            told.watch.attention.leave()
        told.beat(200, sleeper_late=200)
        told.watch.stop()

    asyncio.run(main())
    assert told.counted() == {Cause.STOPPED: 1}


def test_where_the_kernel_shows_no_limit_there_is_none(told):
    told.throttled = None
    told.beat(90, run_delay=90)
    assert told.counted() == {Cause.STARVED: 1}


def test_a_suspend_is_seen_though_no_heartbeat_was_late(told):
    mark = told.now_ns
    told.beat(0)
    told.beat(0, asleep=60_000)
    assert told.watch.since(mark) == Stalled(60 * S, 60 * S, Cause.SUSPENDED)
    assert told.watch.ns[Cause.SUSPENDED] == 60 * S
    told.beat(0)
    assert told.watch.since(told.now_ns) == NEVER
    assert told.counted() == {Cause.SUSPENDED: 1}


def test_clocks_that_are_read_one_after_the_other_are_no_suspend(told):
    told.beat(0, asleep=99)
    told.beat(0, asleep=-99)
    assert told.counted() == {}


@pytest.mark.parametrize("kept_ns", [200 * MS, S])
def test_whoever_is_kept_from_running_between_two_readings_was_not_suspended(kept_ns):
    clock = FakeClock()
    kept = [0]

    def boot_ns() -> int:
        clock.advance(kept[0])
        value = clock.boot_ns
        clock.advance(kept[0])
        return value

    watch = StallWatch(clock.clock()._replace(boot_ns=boot_ns))
    before = watch._read_account()
    kept[0] = kept_ns
    assert watch._read_account().asleep_ns == before.asleep_ns
    kept[0] = 0
    assert watch._read_account().asleep_ns == before.asleep_ns
    clock.suspend(S)
    assert watch._read_account().asleep_ns == before.asleep_ns + S


@pytest.mark.parametrize("read_ns", [123, None])
def test_the_account_is_of_this_process(read_ns, monkeypatch):
    clock = FakeClock()
    watch = StallWatch(clock.clock())
    monkeypatch.setattr(watch, "run_delay_ns", lambda: read_ns)
    monkeypatch.setattr(watch._sleeper, "late_ns", lambda: 456)
    before = watch._read_account()
    spin(0.01)
    clock.suspend(S)
    after = watch._read_account()
    assert (after.run_delay_ns, after.sleeper_late_ns) == (read_ns, 456)
    assert after.own_ns - before.own_ns >= 10 * MS
    assert after.asleep_ns - before.asleep_ns == S
    assert after.cpu_ns - before.cpu_ns >= 10 * MS


def test_our_own_share_adds_up_over_a_window(told):
    mark = told.now_ns
    told.beat(100, own=100, cpu=100)
    told.beat(60, run_delay=60)
    told.beat(80, own=50, run_delay=30, cpu=50)
    assert told.watch.since(mark).own_ns == 150 * MS
    # Of what is only partly within, no more than that part.
    assert told.watch.since(told.now_ns - 10 * MS).own_ns == 10 * MS


def test_what_a_hypervisor_took_is_of_one_cpu_and_of_lately(told):
    told.watch._take_host_ns()
    told.stolen = (50 * MS, 50 * MS)
    told.beat(90, sleeper_late=90)  # either CPU for half of it
    told.beat(90, sleeper_late=90)
    assert told.counted() == {Cause.STARVED: 1, Cause.STOPPED: 1}


def test_what_stalls_lasted_adds_up_by_cause(told):
    told.beat(100, run_delay=100)
    told.beat(200, run_delay=200)
    told.beat(50)
    assert told.watch.ns[Cause.STARVED] == 300 * MS
    assert told.watch.ns[Cause.BLOCKED] == 50 * MS
    assert set(told.watch.counts) == set(told.watch.ns) == set(Cause)


def test_two_minutes_are_kept_and_no_more(told):
    mark = told.now_ns
    told.beat(500)
    for _ in range(119 * 50):
        told.beat(0)
    assert told.watch.since(mark).total_ns == 500 * MS
    for _ in range(2 * 50):
        told.beat(0)
    assert told.watch.since(mark) == NEVER
    assert len(told.watch._stalls) == 0


def test_a_stall_is_said_with_its_cause_and_length(told, caplog):
    told.beat(1_500, run_delay=1_500)
    (record,) = caplog.records
    assert (record.msg, record.levelno) == ("stalled", logging.WARNING)
    fields = vars(record)
    assert fields["twocans.stall.cause"] == "starved"
    assert fields["twocans.stall.duration_s"] == 1.5
    assert fields["limited"]


def test_who_prints_reports_says_nothing(caplog):
    told = Told()
    told.watch._say = False
    told.beat(1_500)
    assert caplog.records == []


# --- for real -----------------------------------------------------------------------------


def on_a_loop(stall):
    """Let something stall a real loop; returns the watch, and how it stood still meanwhile."""

    async def main():
        watch = StallWatch()
        watch.start()
        try:
            await asyncio.sleep(0.1)
            begun_ns = time.monotonic_ns()
            stall()
            at_once = watch.since(begun_ns)
            await asyncio.sleep(0.05)
            return watch, at_once, watch.since(begun_ns)
        finally:
            watch.stop()

    return asyncio.run(main())


def spin(seconds: float = 0.3) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def hold_the_gil() -> None:
    # One call into C that gives nobody else a turn.
    begun = time.monotonic()
    rounds = 20_000_000
    while time.monotonic() - begun < 0.3:
        sum(range(rounds))


@pytest.mark.slow
@pytest.mark.parametrize("stall", [lambda: time.sleep(0.3), spin, hold_the_gil])
def test_own_code_that_holds_the_loop_is_seen_at_once_and_only_once(stall):
    watch, at_once, later = on_a_loop(stall)
    # A machine that gives us half a CPU makes it run delay: then it is not only our own code.
    assert later.cause in (Cause.BLOCKED, Cause.STARVED, Cause.THROTTLED)
    assert at_once.worst_ns > 200 * MS
    assert at_once.total_ns <= later.total_ns
    assert len([each for each in watch._stalls if each.lag_ns > 200 * MS]) == 1
    assert watch.counts[Cause.STOPPED] == 0


def test_a_loop_that_computes_is_our_own_doing_on_a_busy_machine_too():
    _, _, later = on_a_loop(spin)
    if later.total_ns > 800 * MS or later.cause is Cause.THROTTLED:
        pytest.skip("a machine that gives us less than a third of a CPU")
    assert later.own_ns > 200 * MS


def test_a_loop_that_sleeps_in_a_call_is_blocked():
    _, stalled, _ = on_a_loop(lambda: time.sleep(0.3))
    assert stalled.cause is Cause.BLOCKED


STOPPED = """
import asyncio, sys
from twocans_core.host.stalls import StallWatch
async def main():
    watch = StallWatch()
    watch.start()
    await asyncio.sleep(0.2)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.sleep(0.05)
    print({str(cause): count for cause, count in watch.counts.items() if count})
    print({str(cause): ns for cause, ns in watch.ns.items() if ns})
    watch.stop()
asyncio.run(main())
"""


@pytest.mark.slow
def test_a_stopped_process_knows_that_it_was_stopped():
    command = [sys.executable, "-c", STOPPED]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate("\n")
    counts, lasted = (eval(line) for line in out.splitlines())
    assert counts["stopped"] == 1
    assert lasted["stopped"] > 400 * MS


def test_a_sleeper_that_gets_its_turn_is_hardly_late():
    def late_in_300_ms() -> int:
        before_ns = sleeper.late_ns()
        time.sleep(0.3)
        return sleeper.late_ns() - before_ns

    sleeper = Sleeper()
    sleeper.start()
    try:
        # On a busy machine once in a while is enough: one that never wakes never is.
        until(lambda: late_in_300_ms() < 100 * MS)
    finally:
        sleeper.stop()


def test_a_sleeper_that_is_overdue_has_said_so_before_it_wakes():
    sleeper = Sleeper()  # not started: it never wakes
    time.sleep(0.1)
    first = sleeper.late_ns()
    time.sleep(0.05)
    assert 40 * MS < first < sleeper.late_ns()


class Rounds:
    """A ``time`` in which a process is stopped for 3 s after the n-th look at the clock."""

    def __init__(self, stopped_after: int) -> None:
        self.now_ns, self.looks, self.rounds = 0, 0, 0
        self.stopped_after = stopped_after
        self.sleeper: Sleeper

    def monotonic_ns(self) -> int:
        seen_ns = self.now_ns
        self.looks += 1
        if self.looks == self.stopped_after:
            self.now_ns += 3 * S
        return seen_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)
        self.rounds += 1
        if self.rounds == 8:
            self.sleeper.stop()


@pytest.mark.parametrize("stopped_after", range(2, 8))
def test_a_stop_is_in_the_sum_wherever_in_a_round_it_came(stopped_after, monkeypatch):
    rounds = Rounds(stopped_after)
    monkeypatch.setattr(module, "time", rounds)
    rounds.sleeper = Sleeper()
    rounds.sleeper._watch()
    assert rounds.sleeper.late_ns() >= 2.95 * S
    rounds.now_ns += S
    assert rounds.sleeper.late_ns() >= 3.9 * S, "and it would be overdue by now"


def test_after_stop_no_file_is_open_and_nothing_is_known():
    async def main():
        gc.collect()
        before = set(os.listdir("/proc/self/fd"))
        watch = StallWatch()
        watch.start()
        known = watch.run_delay_ns()
        watch.stop()
        return before, set(os.listdir("/proc/self/fd")), known, watch.run_delay_ns()

    before, after, known, unknown = asyncio.run(main())
    assert after == before
    assert unknown is None
    if procfs.RunDelay().read_ns() is not None:
        assert known is not None
