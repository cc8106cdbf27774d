"""What stands beside the wire does what its case says, seen from a socket or by a real client."""

import contextlib
import errno
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from lab.cases import CASES
from lab.faults.middleboxes import VIRTUAL
from lab.faults.tools import turned
from lab.scene import ROUTER_FAR, Base, scene

from lab_ends import Log, connected, counter, dial, listening, until


@contextlib.contextmanager
def on(its, name, **drawn):
    """A case's fault, with what it needs around it."""
    with CASES[name].prepare(its, drawn), CASES[name].inject(its, drawn) as truth:
        yield truth


def peers(its, host, count=1):
    """Whom a server on port 5000 takes its clients for; "" where none came through."""
    found = []
    with listening(its, 5000) as listener:
        listener.settimeout(2)
        for _ in range(count):
            try:
                with dial(its, listener, wait_s=0.2, host=host):
                    far, (peer, _) = listener.accept()
                    far.close()
            except TimeoutError:
                peer = ""
            found.append(peer)
    return found


def failure(its, listener):
    """The errno with which a connection fails."""
    with pytest.raises(OSError, match="Errno") as failed:
        dial(its, listener)
    return failed.value.errno


# --- the way --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "number"),
    [
        ("tcp-reset", errno.ECONNREFUSED),
        ("icmp-port-unreachable", errno.ECONNREFUSED),
        ("icmp-admin-prohibited", errno.EHOSTUNREACH),
        ("icmp-host-prohibited", errno.EHOSTUNREACH),
    ],
)
def test_a_firewall_rejects_and_the_server_hears_nothing(its, by, number):
    before = counter(its.server, "snmp", "Tcp", "InSegs")
    with listening(its, 5000) as listener, on(its, "rejected_midpath", by=by):
        assert failure(its, listener) == number
    assert counter(its.server, "snmp", "Tcp", "InSegs") == before


def test_a_nat_hides_the_client_and_may_run_out_of_ports(its):
    case = CASES["nat_port_exhaustion"]
    drawn = {"ports": 2}
    with case.prepare(its, drawn):
        assert peers(its, its.server.address) == [ROUTER_FAR]
        with (
            listening(its, 5000) as listener,
            case.inject(its, drawn),
            pytest.raises(TimeoutError),
        ):
            dial(its, listener, wait_s=0.2)
        assert peers(its, its.server.address) == [ROUTER_FAR]


def test_a_balancer_passes_on_and_a_proxy_does_not(its):
    case = CASES["tcp_terminated"]
    with case.prepare(its, {}):
        assert peers(its, VIRTUAL) == [its.client.address]
        with case.inject(its, {}):
            assert peers(its, VIRTUAL) == [ROUTER_FAR]
        assert peers(its, VIRTUAL) == [its.client.address]


def test_a_proxy_accepts_for_a_dead_back_end(its):
    with (
        listening(its, 5000) as listener,
        on(its, "backend_dead"),
        dial(its, listener, host=VIRTUAL) as near,
    ):
        assert near.recv(1) == b""


def test_one_of_two_back_ends_is_dead(its):
    log = Log(its)
    with on(its, "stale_endpoint", of=2):
        assert set(peers(its, VIRTUAL, 12)) == {"", its.client.address}
    # Nobody has that address, and nobody says so.
    dead = {"10.80.2.77"}
    assert {packet.destination for packet in log.packets()} >= dead
    assert [packet for packet in log.packets("reverse") if packet.protocol != 6] == []


def test_a_gateway_that_is_gone_cannot_be_reached(its):
    with listening(its) as listener:
        with on(its, "neighbour_unreachable"):
            assert failure(its, listener) == errno.EHOSTUNREACH
        dial(its, listener).close()


# --- names ----------------------------------------------------------------------------------

LOOK_UP = """
import socket, time
begin = time.monotonic()
try:
    print(socket.getaddrinfo("can.lab.test", 80, type=socket.SOCK_STREAM)[0][4][0], end=" ")
except socket.gaierror as error:
    print(error.errno, end=" ")
print(time.monotonic() - begin)
"""
EAI_NONAME, EAI_AGAIN = "-2", "-3"


def look_up(its):
    with its.as_nobody(
        its.client, sys.executable, "-c", LOOK_UP, stdout=subprocess.PIPE, text=True
    ) as process:
        said, _ = process.communicate()
    found, took = said.split()
    return found, float(took)


@pytest.mark.parametrize(
    ("name", "drawn", "found", "least_s"),
    [
        ("dns_slow", {"delay_s": 0.3}, "10.80.2.2", 0.3),
        ("dns_loss", {"share": 1.0}, EAI_AGAIN, 1),
        ("dns_failing", {"answer": "NXDOMAIN"}, EAI_NONAME, 0),
        ("dns_failing", {"answer": "SERVFAIL"}, EAI_AGAIN, 0),
    ],
)
def test_a_name_server_is_late_silent_or_denies(its, name, drawn, found, least_s):
    case = CASES[name]
    with case.prepare(its, drawn):
        assert look_up(its)[0] == its.server.address
        with case.inject(its, drawn):
            said, took_s = look_up(its)
            assert said == found
            assert took_s >= least_s
        assert look_up(its)[0] == its.server.address


# --- hosts ----------------------------------------------------------------------------------


def test_no_local_port_is_left(its):
    with listening(its) as listener:
        with on(its, "local_ports_exhausted", ports=3):
            assert failure(its, listener) == errno.EADDRNOTAVAIL
        dial(its, listener).close()


OPENER = """
import sys
print(flush=True)
for _ in sys.stdin:
    try:
        open("/dev/null").close()
        print("opened", flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""


@contextlib.contextmanager
def nobodys(its, end, code):
    """A process of nobody's in the place of one end of the pair."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    namespace = its.client if end == "client" else its.server
    with its.as_nobody(namespace, sys.executable, "-c", code, **pipes) as process:
        setattr(its, f"{end}_process", process)
        try:
            process.stdout.readline()
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("end", ["client", "server"])
def test_no_descriptor_is_left(its, end):
    with nobodys(its, end, OPENER) as process:

        def ask():
            process.stdin.write("\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        assert ask() == "opened"
        with on(its, f"descriptors_exhausted_{end}"):
            assert ask() == str(errno.EMFILE)
        assert ask() == "opened"


SPINNER = "print(flush=True)\nwhile True: pass"


@pytest.mark.parametrize("end", ["client", "server"])
def test_a_quota_is_used_up_by_who_computes(its, end):
    with nobodys(its, end, "import time; print(flush=True); time.sleep(60)"):
        with on(its, f"cpu_throttled_{end}", quota=0.2) as truth:
            time.sleep(0.5)
        assert truth.figures["throttled_periods"] >= 1


@pytest.mark.parametrize("end", ["client", "server"])
def test_a_process_is_stopped_and_goes_on(its, end):
    with nobodys(its, end, SPINNER) as process:

        def state():
            stat = Path(f"/proc/{process.pid}/stat").read_text()
            return stat.rpartition(")")[2].split()[0]

        with on(its, f"process_paused_{end}", pause_s=0.05, every_s=0.05) as truth:
            until(lambda: state() == "T", "it is stopped")
            until(lambda: state() == "R", "it goes on")
            until(lambda: truth.figures["pauses"] >= 3, "it is stopped again and again")
        assert state() != "T"


@pytest.mark.parametrize(
    ("name", "sysctl"),
    [
        ("sender_limited", "wmem"),
        ("window_limited", "window_scaling"),
    ],
)
def test_a_limit_of_tcp_is_set_and_taken_back(able, name, sysctl):
    with scene(Base()) as its:
        host = its.client if name == "sender_limited" else its.server
        before = host.sysctl(f"net.ipv4.tcp_{sysctl}")
        with on(its, name, buffer=8192):
            assert host.sysctl(f"net.ipv4.tcp_{sysctl}") != before
            assert its.wire.setting("forward", "delay_s") == 0.02
            with connected(its):
                pass
        assert host.sysctl(f"net.ipv4.tcp_{sysctl}") == before


# --- the programs ---------------------------------------------------------------------------


@pytest.fixture
def served(able):
    """A scene with the server, as odd as its knobs say."""
    with scene(Base()) as its, CASES["slow_app"].prepare(its, {}):
        flags = ["--port", "5000", "--http-port", "0", "--drain-accept-s", "0.1"]
        words = [sys.executable, *its.server_program, *flags]
        with its.as_nobody(its.server, *words, stdout=subprocess.PIPE) as process:
            its.server_process = process
            assert process.stdout is not None
            assert b"listening" in process.stdout.readline()
            try:
                yield its
            finally:
                process.kill()


def probed(its, *flags):
    words = [sys.executable, "-m", "twocans_client", "probe", "10.80.2.2:5000", "--json"]
    words += ["--count", "2", "--interval-s", "0.1", *flags]
    with its.as_nobody(its.client, *words, stdout=subprocess.PIPE, text=True) as process:
        said, _ = process.communicate()
    return json.loads(said)


@pytest.mark.parametrize("knob", ["answer_cpu_s", "answer_wait_s"])
def test_the_odd_server_is_late_in_its_application(served, knob):
    with turned(served, **{knob: 0.03}):
        app = probed(served)["phases"]["server_app"]["user"]
        stall = probed(served)["phases"]["server_stall"]["user"]
    slow = app if knob == "answer_cpu_s" else stall
    assert slow["p50_s"] >= 0.02


def test_the_odd_server_has_a_small_receive_buffer(served):
    with turned(served, receive_bytes=8192):
        probed(served)  # from now on who listens has it, and hands it on
        with served.client.entered(), socket.create_connection(("10.80.2.2", 5000)):
            # The kernel doubles it.
            said = served.server.run("ss", "-tmnH", "state", "established", "sport = :5000")
            assert "rb16384," in said


def test_the_odd_server_closes_or_stands_still(served):
    with turned(served, close_share=1):
        reasons = probed(served, "--count", "20")["reasons"]
        assert reasons.keys() == {"reset", "closed_early"}
    with turned(served, hang=1):
        assert probed(served, "--timeout-s", "0.3")["outcomes"]["ok"] == 0
    assert probed(served)["outcomes"]["ok"] == 2


def test_the_odd_server_has_a_clock_of_its_own(served):
    def offset_s():
        direction = probed(served)["direction"]
        return direction["offset_s"], direction["offset_bound_s"]

    offset, bound = offset_s()
    assert abs(offset) <= bound
    with turned(served, clock_s=0.5):
        offset, bound = offset_s()
        assert abs(offset - 0.5) <= bound


def test_the_servers_process_may_be_gone_and_come_back(served):
    with on(served, "refused_by_server"):
        assert probed(served)["reasons"] == {"refused": 2}
    until(lambda: probed(served)["outcomes"]["ok"] == 2, "it is back")


def test_the_servers_host_may_die_and_come_back(served):
    with on(served, "peer_lost", duration_s=60):
        assert probed(served, "--timeout-s", "0.3")["reasons"] == {"connect_timeout": 2}
    until(lambda: probed(served)["outcomes"]["ok"] == 2, "it is back")


# --- all cases ------------------------------------------------------------------------------

# Issue 11's words for them.
CULPRITS = {
    *("client_host", "server_host", "server_app", "path_forward", "path_reverse", "path"),
    *("middlebox", "dns", "configuration", "clock", "tool"),
}


def test_culprits_and_directions_agree():
    for case in CASES.values():
        for _, culprit, direction in case.expected:
            assert culprit in CULPRITS
            assert direction == (culprit.removeprefix("path_") if "path_" in culprit else "")


def test_a_case_draws_the_same_from_the_same_seed_and_how_bad_it_is_first():
    for case in CASES.values():
        drawn = case.draw(Random(1))
        assert drawn == case.draw(Random(1))
        assert [*drawn] == [*case.draw(Random(2))]


def test_two_faults_keep_their_figures_apart():
    case = CASES["loss_forward+cpu_throttled_server"]
    assert [*case.draw(Random(1))] == ["share", "second_quota"]
    assert {one.verdict for one in case.expected} == {"loss", "cpu_throttled"}
    assert case.draw(Random(1))["share"] == CASES["loss_forward"].draw(Random(1))["share"]


def test_enough_is_healthy_and_enough_is_two_faults_at_once():
    assert len([case for case in CASES.values() if not case.expected]) >= 8
    assert len([case for case in CASES.values() if len(case.expected) == 2]) >= 4
