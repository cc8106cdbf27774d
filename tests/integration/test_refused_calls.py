"""Both cans on a kernel that knows less than ours: what it refuses is not measured, no more."""

import asyncio
import errno
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from integration.harness import eventually, running
from integration.link import Fate, is_syn, linked
from integration.netns import namespaces
from integration.pair import probing
from integration.test_loss import probed
from refusals import needs_seccomp
from twocans_client.evidence.blame import reason_of
from twocans_client.evidence.loss import Segments
from twocans_client.evidence.results import Reason
from twocans_core.kernel.stamps import TX_FLAGS
from twocans_core.kernel.tcpinfo import COUNTERS, TCP_INFO_SIZE
from twocans_core.net.channel import Channel
from twocans_core.net.sockets import Address, HostError

TESTS = Path(__file__).resolve().parent.parent
SO_TIMESTAMPING_NEW = 65
MSG_ERRQUEUE = 0x2000

PAIR = """
import asyncio, json, logging, sys
from integration.harness import eventually, running
from integration.pair import probing
from integration.test_loss import probed
from refusals import refuse

said = []
handler = logging.Handler()
handler.emit = lambda record: said.append(record.msg)
logging.getLogger().addHandler(handler)

async def main():
    async with running() as server, probing(str(server.address)) as client:
        await eventually(lambda: len(client.results) >= 5)
        path = client.client.paths[0]
        results = client.results[:5]
    return {
        "reasons": sorted({result.reason for result in results}),
        "details": sorted({result.detail for result in results}),
        "split": any(each.split for result in results for each in result.exchanges),
        "counted": any(result.segments is not None for result in results),
        "ended": {"/".join(key): count for key, count in server.tally.ended.items() if count},
        "proxy": path.proxy.sign,
        "said": [event for event in said if event in ("stamps_refused", "bug")],
    }

for call, error, arguments in json.loads(sys.argv[1]):
    refuse(call, error, **arguments)
print(json.dumps(asyncio.run(main())))
"""


def run(*refusals):
    done = subprocess.run(
        [sys.executable, "-c", PAIR, json.dumps(refusals)],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def tcp(option):
    return {"a1": socket.IPPROTO_TCP, "a2": option}


@needs_seccomp
@pytest.mark.slow
def test_a_kernel_that_refuses_a_stamped_send_is_probed_without_stamps():
    found = run(("sendmsg", errno.EINVAL, {}))
    assert (found["reasons"], found["split"], found["counted"]) == (["ok"], False, True)
    assert found["said"] == ["stamps_refused"], "once for the process, not for each connection"


@needs_seccomp
@pytest.mark.slow
@pytest.mark.parametrize(
    ("refusals", "split", "counted"),
    [
        ([("setsockopt", errno.ENOPROTOOPT, {"a1": socket.IPPROTO_TCP})], True, True),
        ([("setsockopt", errno.ENOPROTOOPT, {"a1": socket.SOL_IP})], True, True),
        ([("setsockopt", errno.ENOPROTOOPT, {"a2": SO_TIMESTAMPING_NEW})], False, True),
        ([("recvmsg", errno.EINVAL, {"a2": MSG_ERRQUEUE})], False, True),
        ([("getsockopt", errno.ENOPROTOOPT, tcp(socket.TCP_INFO))], True, False),
    ],
    ids=["no TCP option", "no ICMP messages", "no stamps", "no error queue", "no TCP_INFO"],
)
def test_what_a_kernel_does_not_know_is_not_measured_and_fails_nothing(refusals, split, counted):
    found = run(*refusals)
    assert (found["reasons"], found["details"]) == (["ok"], [""])
    assert (found["split"], found["counted"]) == (split, counted)
    assert set(found["ended"]) == {"framed/done"}
    assert (found["proxy"], found["said"]) == ("", [])


@pytest.mark.parametrize("end", ["server", "client", "both"])
def test_a_kernel_that_fills_nothing_in_makes_no_proxy_and_no_count(monkeypatch, end):
    """gVisor returns the whole structure, and in it a round trip and a segment size."""
    told = Channel._tcp_info
    empty = bytearray(TCP_INFO_SIZE)
    for name, value in (("rtt_us", 300), ("snd_mss", 1448)):
        offset, size = COUNTERS[name]
        empty[offset : offset + size] = value.to_bytes(size, sys.byteorder)

    async def main():
        async with running() as server:

            def tcp_info(channel):
                is_client = channel.peer[1] == server.address.port
                has_less = end in ("both", "client" if is_client else "server")
                return bytes(empty) if has_less else told(channel)

            monkeypatch.setattr(Channel, "_tcp_info", tcp_info)
            async with probing(str(server.address)) as client:
                await eventually(lambda: len(client.results) >= 25)
                path = client.client.paths[0]
                client.client._intake.flush()
                return client.results, path

    results, path = asyncio.run(main())
    assert {result.reason for result in results} <= {Reason.OK, Reason.SHUTDOWN}
    assert all(result.segments is None for result in results)
    assert (path.proxy.sign, path.is_counted, path.segments) == ("", False, Segments())
    assert path.resenders == {"server": {"client"}, "client": {"server"}, "both": set()}[end]


CONNECTS = {
    # Where to: reason, and what is said of it.
    "192.0.2.7": (Reason.UNREACHABLE, "blackhole"),
    "192.0.2.9": (Reason.UNREACHABLE, None),
    "198.51.100.1": (Reason.UNREACHABLE, None),  # no route at all
    "fe80::1": (Reason.UNREACHABLE, "names no interface"),
}


def trouble(host):
    with pytest.raises(OSError) as caught:  # noqa: PT011 - which one is what is asked
        Channel.open(Address(host, 5000))
    return caught.value


def test_what_our_own_host_says_is_told_from_what_the_path_does():
    with namespaces(cable=False) as (here, _):
        here.run("ip", "link", "set", "lo", "up")
        here.run("ip", "route", "add", "blackhole", "192.0.2.7")
        here.run("ip", "route", "add", "unreachable", "192.0.2.9")
        with here.entered():
            for host, (reason, said) in CONNECTS.items():
                error = trouble(host)
                assert reason_of(error, Reason.CONNECT_TIMEOUT) is reason, host
                assert said is None or said in error.strerror
        here.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        here.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=50000 50000")
        with here.entered(), socket.socket() as listener:
            error = trouble("2001:db8::1")
            assert isinstance(error, HostError)
            assert reason_of(error, Reason.CONNECT_TIMEOUT) is Reason.NO_ADDRESS
            assert error.strerror == "this host has no IPv6 address to send from"
            listener.bind(("127.0.0.1", 5000))
            listener.listen()
            taken = Channel.open(Address("127.0.0.1", 5000))
            error = trouble("127.0.0.1")
            taken.close()
            assert not isinstance(error, HostError)
            assert reason_of(error, Reason.CONNECT_TIMEOUT) is Reason.NO_PORTS


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOPROTOOPT, errno.EPROTO])
def test_what_no_path_causes_is_not_the_paths(number):
    error = HostError(number, "no")
    assert reason_of(error, Reason.CONNECT_TIMEOUT) is Reason.INTERNAL_ERROR


def test_before_linux_6_2_exchanges_are_split_too_though_the_handshake_takes_time(monkeypatch):
    """There ids count from the first byte not acknowledged, which is our SYN while we connect."""
    # Refused, as every flag that a kernel does not know.
    monkeypatch.setattr("twocans_core.net.channel.TX_FLAGS", TX_FLAGS | 1 << 30)

    with linked() as (pair, link):
        # 5 ms late, so that we are still connecting when we ask for timestamps.
        link.decide = lambda _, packet: Fate.OVERTAKEN if is_syn(packet) else Fate.PASS
        results = probed(pair, 3, exchanges=3)
    assert {result.reason for result in results} == {Reason.OK}
    split = [exchange.split is not None for result in results for exchange in result.exchanges]
    # The kernel may leave out the first timestamps of a connection.
    assert sum(split) >= len(split) - 1
