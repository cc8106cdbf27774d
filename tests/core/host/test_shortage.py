from twocans_core.host.shortage import KEPT_NS, CpuSums, CpuWatch

MS = 1_000_000
S = 1_000 * MS


class Kernel:
    """Sums that grow by what time has passed: throttled for a tenth of it, waiting for a fifth."""

    def __init__(self) -> None:
        self.now_ns = 100 * S
        self.reads = 0
        self.shows_limit = True

    def read(self) -> CpuSums:
        self.reads += 1
        return CpuSums(self.now_ns // 10 if self.shows_limit else None, self.now_ns // 5)


def watched(seconds: int) -> tuple[Kernel, CpuWatch]:
    """Watch for so long, read every 20 ms."""
    kernel = Kernel()
    watch = CpuWatch(kernel.read)
    for _ in range(seconds * 50):
        watch.read(kernel.now_ns)
        kernel.now_ns += 20 * MS
    return kernel, watch


def test_a_window_begins_at_the_second_before_it():
    kernel, watch = watched(30)
    for back_ms in (1, 500, 999, 5_000):
        found = watch.since(kernel.now_ns - back_ms * MS, kernel.now_ns)
        assert found.throttled_ns is not None
        assert found.run_delay_ns is not None
        window_ns = found.throttled_ns * 10
        assert back_ms * MS <= window_ns + 100 * MS
        assert window_ns <= back_ms * MS + S
        assert found.run_delay_ns == found.throttled_ns * 2


def test_what_is_older_than_two_minutes_is_forgotten():
    kernel, watch = watched(300)
    assert len(watch._past) <= KEPT_NS // S + 1
    found = watch.since(0, kernel.now_ns)
    assert found.throttled_ns is not None
    assert KEPT_NS - 2 * S <= found.throttled_ns * 10 <= KEPT_NS + S


def test_whoever_asks_often_the_kernel_is_asked_ten_times_a_second():
    kernel, watch = watched(2)
    before = kernel.reads
    for _ in range(1_000):
        kernel.now_ns += MS
        watch.since(kernel.now_ns - S, kernel.now_ns)
    assert kernel.reads - before == 10


def test_asked_before_anything_was_read_it_reads_and_nothing_has_grown():
    kernel = Kernel()
    assert CpuWatch(kernel.read).since(0, kernel.now_ns) == CpuSums(0, 0)


def test_what_the_kernel_does_not_say_is_not_known():
    kernel, watch = watched(3)
    kernel.shows_limit = False
    kernel.now_ns += S
    found = watch.since(kernel.now_ns - S, kernel.now_ns)
    assert found.throttled_ns is None
    assert found.run_delay_ns is not None
