import os
import resource
import threading
from pathlib import Path

import pytest

from twocans_core.host import procfs
from twocans_core.host.procfs import (
    HostReader,
    HostWatch,
    Memory,
    MemoryLimit,
    RunDelay,
    Throttling,
    listen_counters,
    throttling,
)
from twocans_core.kernel.tcpinfo import NO_HOST_COUNTS, HostCounts

NETSTAT = """\
TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPHPHits
TcpExt: 1 22 333 4444
IpExt: InNoRoutes ListenOverflows
IpExt: 9 9
"""


def netstat(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "netstat"
    path.write_text(text)
    return path


def test_listen_counters_are_read_by_name(tmp_path):
    found = listen_counters(netstat(tmp_path, NETSTAT))
    assert found == {"ListenOverflows": 22, "ListenDrops": 333}


def test_listen_counters_are_found_below_another_protocol(tmp_path):
    lines = NETSTAT.splitlines()
    found = listen_counters(netstat(tmp_path, "\n".join(lines[2:] + lines[:2])))
    assert found == {"ListenOverflows": 22, "ListenDrops": 333}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "TcpExt: ListenOverflows ListenDrops",
        "TcpExt: ListenOverflows ListenDrops\nTcpExt: 1",
        "TcpExt: ListenOverflows ListenDrops\nTcpExt: 1 many",
        "IpExt: InNoRoutes\nIpExt: 9",
    ],
)
def test_a_netstat_that_says_something_else_is_none(tmp_path, text):
    assert listen_counters(netstat(tmp_path, text)) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("TcpExt: ListenDrops\nTcpExt: 3\n", {"ListenDrops": 3}),
        ("TcpExt: ListenOverflows\nTcpExt: 0\n", {"ListenOverflows": 0}),
        ("TcpExt: SyncookiesSent\nTcpExt: 1\n", None),
    ],
)
def test_a_counter_that_a_kernel_does_not_show_is_left_out_alone(tmp_path, text, found):
    assert listen_counters(netstat(tmp_path, text)) == found


SNMP = """\
Ip: Forwarding InCsumErrors
Ip: 1 9
Tcp: RtoAlgorithm InErrs OutRsts InCsumErrors
Tcp: 1 2 3 4294967300
Udp: InDatagrams InCsumErrors
Udp: 7 7
"""


def test_the_hosts_counts_are_read_by_name_modulo_2_to_the_32(tmp_path):
    (tmp_path / "snmp").write_text(SNMP)
    read = HostReader(netstat(tmp_path, NETSTAT), tmp_path / "snmp")
    assert read() == (22, 4)
    (tmp_path / "snmp").write_text(SNMP.replace("4294967300", "4294967301"))
    assert read() == (22, 5)
    assert HostReader(None, tmp_path / "snmp")() == (None, 5)


@pytest.mark.parametrize("text", ["", "Tcp: InErrs\nTcp: 2\n", "Tcp: InCsumErrors\nTcp:\n", "Udp:"])
def test_a_count_that_is_not_there_is_not_known_and_the_other_is(tmp_path, text):
    (tmp_path / "snmp").write_text(text)
    assert HostReader(netstat(tmp_path, NETSTAT), tmp_path / "snmp")() == (22, None)
    assert HostReader(tmp_path / "none", tmp_path / "none")() == NO_HOST_COUNTS


def test_the_hosts_counts_are_at_most_100_ms_old_and_read_no_more_often():
    now_ns, reads = 0, 0

    def read() -> HostCounts:
        nonlocal reads
        reads += 1
        return HostCounts(reads, 0)

    watch = HostWatch(lambda: now_ns, read)
    assert watch() == (1, 0)
    now_ns = 99_999_999
    assert watch() == (1, 0)
    now_ns = 100_000_000
    assert watch() == (2, 0)
    assert watch() == (2, 0)
    assert watch(fresh=True) == (3, 0)
    now_ns += 99_999_999
    assert watch() == (3, 0)


def test_no_netstat_is_none(tmp_path):
    assert listen_counters(tmp_path / "netstat") is None


def test_this_kernel_has_listen_counters():
    found = listen_counters()
    if found is None:
        pytest.skip("this kernel, or sandbox, shows no /proc/net/netstat")
    assert found.keys() == {"ListenOverflows", "ListenDrops"}


def test_run_delay_is_the_second_number_as_it_is_now(tmp_path):
    path = tmp_path / "schedstat"
    path.write_text("5000 700 3\n")
    delay = RunDelay(path)
    assert delay.read_ns() == 700
    path.write_text(f"{2**64 - 1} {2**64 - 2} {2**64 - 3}\n")
    assert delay.read_ns() == 2**64 - 2
    delay.close()
    delay.close()
    assert delay.read_ns() is None


@pytest.mark.parametrize("text", ["", "12", "12 many 3", "0 0 0"])
def test_a_schedstat_that_says_something_else_is_none(tmp_path, text):
    (tmp_path / "schedstat").write_text(text)
    assert RunDelay(tmp_path / "schedstat").read_ns() is None


def test_no_schedstat_is_none(tmp_path):
    assert RunDelay(tmp_path / "schedstat").read_ns() is None


def test_run_delay_is_of_the_thread_that_made_it():
    read = []

    def make() -> None:
        delay = RunDelay()
        read.append((threading.get_native_id(), os.readlink(f"/proc/self/fd/{delay._fd}")))

    thread = threading.Thread(target=make)
    if RunDelay().read_ns() is None:
        pytest.skip("this kernel, or sandbox, shows no /proc/thread-self/schedstat")
    thread.start()
    thread.join()
    ((thread_id, path),) = read
    assert path.endswith(f"/task/{thread_id}/schedstat")
    assert thread_id != threading.get_native_id()


def test_nobody_has_to_close_it():
    delay = RunDelay()
    fd = delay._fd
    if fd < 0:
        pytest.skip("this kernel, or sandbox, shows no /proc/thread-self/schedstat")
    del delay
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


class Cgroups:
    """A /proc/self/cgroup and a /sys/fs/cgroup of a test's own."""

    def __init__(self, tmp_path: Path) -> None:
        self.cgroups = tmp_path / "cgroup"
        self.root = tmp_path / "fs"
        self.root.mkdir()

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def read(self) -> Throttling | None:
        return throttling(self.cgroups, self.root)


V2 = "usage_usec 5\nnr_periods 9\nnr_throttled 4\nthrottled_usec 1500000\n"
V1 = "nr_periods 9\nnr_throttled 4\nthrottled_time 1500000000\n"
EXPECTED = Throttling(4, 1.5)


@pytest.fixture
def cgroups(tmp_path: Path) -> Cgroups:
    return Cgroups(tmp_path)


def test_version_2_below_the_root(cgroups):
    cgroups.cgroups.write_text("0::/system.slice/twocans.service\n")
    cgroups.write("system.slice/twocans.service/cpu.stat", V2)
    cgroups.write("cpu.stat", V2.replace("4", "77"))
    assert cgroups.read() == EXPECTED


def test_version_2_at_the_root_as_in_a_container(cgroups):
    cgroups.cgroups.write_text("0::/../../elsewhere\n")
    cgroups.write("cpu.stat", V2)
    assert cgroups.read() == EXPECTED


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize("path", ["docker/abc/", ""])
def test_version_1(cgroups, mount, path):
    cgroups.cgroups.write_text("5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n")
    cgroups.write(f"{mount}/{path}cpu.stat", V1)
    assert cgroups.read() == EXPECTED


def test_without_a_limit_there_is_none(cgroups):
    cgroups.cgroups.write_text("0::/\n")
    cgroups.write("cpu.stat", "usage_usec 5\nuser_usec 3\n")
    assert cgroups.read() is None


@pytest.mark.parametrize("text", ["", "nonsense\n", "0::/x\nnonsense\n\n"])
def test_a_cgroup_file_that_says_something_else_is_no_error(cgroups, text):
    cgroups.cgroups.write_text(text)
    assert cgroups.read() is None
    cgroups.write("cpu.stat", V2)
    assert cgroups.read() == EXPECTED


@pytest.mark.parametrize("text", ["", "three words here\n", "nr_throttled many\n"])
def test_a_stat_file_that_says_something_else_is_none(cgroups, text):
    cgroups.write("cpu.stat", text)
    assert cgroups.read() is None


def test_the_descriptor_limit_is_the_soft_one():
    assert procfs.descriptor_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


MIB = 1024 * 1024


def memory_v2(cgroups: Cgroups, folder: str, limit: object, used: int) -> None:
    cgroups.write(f"{folder}/memory.max", f"{limit}\n")
    cgroups.write(f"{folder}/memory.current", f"{used + MIB}\n")
    cgroups.write(f"{folder}/memory.stat", f"anon {used}\nfile {MIB}\ninactive_file {MIB}\n")


def memory_v1(cgroups: Cgroups, folder: str, limit: object, used: int) -> None:
    limit = 9223372036854771712 if limit == "max" else limit
    cgroups.write(f"memory/{folder}/memory.limit_in_bytes", f"{limit}\n")
    cgroups.write(f"memory/{folder}/memory.usage_in_bytes", f"{used + MIB}\n")
    cgroups.write(f"memory/{folder}/memory.stat", f"inactive_file 5\ntotal_inactive_file {MIB}\n")


VERSIONS = [
    pytest.param("0::{}\n", memory_v2, id="v2"),
    pytest.param("5:memory:{}\n4:cpu,cpuacct:/other\n0::/other\n", memory_v1, id="v1"),
]


@pytest.mark.parametrize(("lines", "make"), VERSIONS)
@pytest.mark.parametrize(
    ("ours", "around", "expected"),
    [
        (128 * MIB, "max", Memory(128 * MIB, 20 * MIB)),
        ("max", "max", None),
        ("max", 256 * MIB, Memory(256 * MIB, 90 * MIB)),
        (128 * MIB, 256 * MIB, Memory(128 * MIB, 20 * MIB)),
        (512 * MIB, 256 * MIB, Memory(256 * MIB, 90 * MIB)),
        (128 * MIB, 128 * MIB, Memory(128 * MIB, 20 * MIB)),
    ],
)
def test_the_least_memory_limit_around_us_holds(cgroups, lines, make, ours, around, expected):
    cgroups.cgroups.write_text(lines.format("/kubepods/pod1/twocans"))
    make(cgroups, "kubepods/pod1/twocans", ours, 20 * MIB)
    make(cgroups, "kubepods/pod1", "max", 25 * MIB)
    make(cgroups, "kubepods", around, 90 * MIB)
    assert MemoryLimit(cgroups.cgroups, cgroups.root).read() == expected


@pytest.mark.parametrize(("lines", "make"), VERSIONS)
@pytest.mark.parametrize("path", ["/", "/docker/abc", "/../../elsewhere"])
def test_a_container_has_its_memory_limit_at_the_root(cgroups, lines, make, path):
    cgroups.cgroups.write_text(lines.format(path))
    make(cgroups, ".", 128 * MIB, 20 * MIB)
    assert MemoryLimit(cgroups.cgroups, cgroups.root).read() == Memory(128 * MIB, 20 * MIB)


@pytest.mark.parametrize(("lines", "make"), VERSIONS)
def test_a_memory_limit_is_read_anew(cgroups, lines, make):
    cgroups.cgroups.write_text(lines.format("/x"))
    make(cgroups, "x", 128 * MIB, 20 * MIB)
    limit = MemoryLimit(cgroups.cgroups, cgroups.root)
    make(cgroups, "x", 64 * MIB, 30 * MIB)
    assert limit.read() == Memory(64 * MIB, 30 * MIB)


@pytest.mark.parametrize("text", ["", "many\n", "-\n"])
@pytest.mark.parametrize("name", ["memory.max", "memory.current", "memory.stat"])
def test_a_memory_file_that_says_something_else_is_none(cgroups, name, text):
    cgroups.cgroups.write_text("0::/x\n")
    memory_v2(cgroups, "x", 128 * MIB, 20 * MIB)
    cgroups.write(f"x/{name}", text)
    assert MemoryLimit(cgroups.cgroups, cgroups.root).read() is None


def test_no_memory_cgroup_is_none(cgroups):
    assert MemoryLimit(cgroups.cgroups, cgroups.root).read() is None
