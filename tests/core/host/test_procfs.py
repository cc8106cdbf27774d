import os
import resource
import threading
from pathlib import Path

import pytest

from twocans_core.host import procfs
from twocans_core.host.procfs import (
    NO_OWN_COUNTS,
    HostReader,
    HostWatch,
    OwnReader,
    RunDelay,
    listen_counters,
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


@pytest.mark.parametrize("text", ["", "Tcp: InErrs\nTcp: 2\n", "Tcp: InCsumErrors\nTcp:\n", "Udp:"])
def test_a_count_that_is_not_there_is_not_known_and_the_other_is(tmp_path, text):
    (tmp_path / "snmp").write_text(text)
    assert HostReader(netstat(tmp_path, NETSTAT), tmp_path / "snmp")() == (22, None)
    assert HostReader(tmp_path / "none", tmp_path / "none")() == NO_HOST_COUNTS


OWN_SNMP = """\
Ip: Forwarding InReceives ForwDatagrams InDelivers OutRequests ReasmReqds ReasmOKs
Ip: 1 1000 100 700 9 60 20
Tcp: RtoAlgorithm InCsumErrors
Tcp: 1 3
"""


def own_counts(snmp):
    counts = OwnReader(snmp)()
    return counts.csum_errors, counts.undelivered


def test_what_our_host_gave_to_nobody_is_what_came_less_what_became_of_it(tmp_path):
    (tmp_path / "snmp").write_text(OWN_SNMP)
    # Of 60 fragments 20 packets were made: 40 were not lost.
    assert own_counts(tmp_path / "snmp") == (3, 1000 - 100 - 700 - 40)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", (None, None)),
        (OWN_SNMP.replace("ReasmOKs", "ReasmOthers"), (3, None)),
        (OWN_SNMP.replace("InCsumErrors", "Others"), (None, 160)),
        (OWN_SNMP.replace("60 20", "60"), (3, None)),
    ],
)
def test_what_a_kernel_does_not_say_of_our_host_is_not_known(tmp_path, text, found):
    (tmp_path / "snmp").write_text(text)
    assert own_counts(tmp_path / "snmp") == found
    assert own_counts(tmp_path / "none") == (None, None)
    assert (NO_OWN_COUNTS.csum_errors, NO_OWN_COUNTS.undelivered) == (None, None)


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
