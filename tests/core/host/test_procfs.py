import os
import resource
import threading
from pathlib import Path

import pytest

from twocans_core.host import procfs
from twocans_core.host.procfs import (
    HostReader,
    HostWatch,
    LocalPorts,
    RunDelay,
    TcpReader,
    listen_counters,
    local_ports,
)
from twocans_core.kernel.tcpinfo import NO_HOST_COUNTS, HostCounts, TcpCounts

NETSTAT = """\
TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPHPHits
TcpExt: 1 22 333 4444
IpExt: InNoRoutes ListenOverflows
IpExt: 9 9
"""


ALL_TCP = """\
Icmp: InMsgs
Icmp: 1
Tcp: MaxConn ActiveOpens InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors
Tcp: -1 11 12 13 14 15 16 17
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


def test_the_descriptor_limit_is_the_soft_one():
    assert procfs.descriptor_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@pytest.mark.parametrize(
    ("bounds", "reserved", "found"),
    [
        ("32768\t60999\n", "\n", LocalPorts(32_768, 60_999)),
        (
            "1024 1030\n",
            "1025,1027-1028\n",
            LocalPorts(1_024, 1_030, frozenset({1025, 1027, 1028})),
        ),
        ("60999 32768\n", "\n", None),
        ("0 99999\n", "\n", None),
        ("nonsense\n", "\n", None),
        ("32768 60999\n", "x-y\n", None),
    ],
)
def test_local_ports_are_those_of_the_kernel(tmp_path, bounds, reserved, found):
    for name, text in (("bounds", bounds), ("reserved", reserved)):
        (tmp_path / name).write_text(text)
    assert local_ports(tmp_path / "bounds", tmp_path / "reserved") == found
    assert local_ports(tmp_path / "nowhere", tmp_path / "reserved") is None


def test_all_tcp_counts_are_read_by_name_each_time_anew(tmp_path):
    page = netstat(tmp_path, "TcpExt: TCPSynRetrans ListenDrops ListenOverflows\nTcpExt: 1 2 3\n")
    snmp = tmp_path / "snmp"
    snmp.write_text(ALL_TCP)
    read = TcpReader(page, snmp)
    assert read() == TcpCounts(3, 2, 1, 12, 13, 14, 17, 16)
    snmp.write_text(ALL_TCP.replace(" 14 ", " 99999999999 "))
    assert read() == TcpCounts(3, 2, 1, 12, 13, 99_999_999_999, 17, 16)


def test_tcp_counts_that_a_kernel_does_not_show_are_none(tmp_path):
    page = netstat(tmp_path, NETSTAT)  # no TCPSynRetrans
    assert TcpReader(page, tmp_path / "none")() == TcpCounts(22, 333, *[None] * 6)


def test_our_own_kernel_shows_all_tcp_counts():
    assert None not in TcpReader()()


def test_the_options_that_tcp_offers_here(tmp_path):
    for name in ("tcp_timestamps", "tcp_sack", "tcp_window_scaling"):
        (tmp_path / name).write_text("0\n")
    assert procfs.tcp_options(tmp_path) == 0
    (tmp_path / "tcp_timestamps").write_text("2\n")
    (tmp_path / "tcp_window_scaling").write_text("1\n")
    assert procfs.tcp_options(tmp_path) == 5
    (tmp_path / "tcp_sack").unlink()
    assert procfs.tcp_options(tmp_path) is None
    assert procfs.tcp_options() in range(8)


def test_what_a_hypervisor_took_is_told_of_each_cpu(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu  38378 0 13659 194376 299 0 1150 38 0 0\n"
        "cpu0 18766 0 6458 98166 21 0 542 17 0 0\n"
        "cpu1 19612 0 7201 96210 278 0 608 21 0 0\n"
        "intr 1 2 3\n"
    )
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    assert procfs.stolen_ns(stat) == (17 * tick_ns, 21 * tick_ns)
    assert procfs.stolen_ns(tmp_path / "nothing") == ()
    stat.write_text("cpu  1 2 3\ncpu0 1 2 3\n")
    assert procfs.stolen_ns(stat) == ()
