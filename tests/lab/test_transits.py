import pytest
from lab.agreement import network
from lab.judge import judge
from lab.outcome import Fault, Name, Outcome
from lab.page import details
from lab.score import score
from lab.transits import Noted, network_errors
from lab.wire import Fate, Packet

CLIENT, SERVER, PORT = "10.0.0.1", "10.0.0.2", 5000
THROTTLED = Name("cpu_throttled", "server_host")
SYN, ACK = 2, 16


def packet(way, in_ns, out_ns, fate=Fate.PASSED, *, near=40_000, payload=172, flags=ACK):
    ends = [(CLIENT, near), (SERVER, PORT)]
    source, destination = ends if way == "forward" else ends[::-1]
    return Packet(
        1, way, in_ns, out_ns, *source, *destination, 6, 40 + payload, flags, payload, 1, 1, fate
    )  # fmt: skip


def exchange(at, *, there=1_000, served=500, back=2_000, **more):
    """A request, what the server took for it, and its reply."""
    replied = at + there + served
    return [
        packet("forward", at, at + there, **more),
        packet("reverse", replied, replied + back, **more),
    ]


def test_the_error_is_the_clients_share_less_the_wires_transits():
    noted = Noted(40_000, 10, 3_600, 3_090)  # the stamps' own: 10 before the wire, 80 after it
    assert network_errors([noted], exchange(20), PORT) == [(10, 90)]


def test_a_kernel_may_have_its_stamp_before_the_wires_write_returns():
    noted = Noted(40_000, 10, 3_510, 2_990)
    assert network_errors([noted], exchange(20), PORT) == [(10, -10)]


def test_each_exchange_of_a_connection_has_its_own_packets():
    packets = [*exchange(100, there=7), *exchange(10_000), *exchange(20_000, back=9)]
    noted = [Noted(40_000, 9_990, 13_510, 3_000), Noted(40_000, 19_990, 21_520, 1_010)]
    assert network_errors(noted, packets, PORT) == [(9_990, 0), (19_990, 1)]


def test_other_connections_are_not_looked_at():
    packets = [*exchange(20), *exchange(15, near=40_001)]
    assert network_errors([Noted(40_000, 10, 3_600, 3_000)], packets, PORT) == [(10, 0)]


@pytest.mark.parametrize(
    "other",
    [
        packet("forward", 12, 5_000, payload=0),  # an acknowledgement
        packet("forward", 12, None, Fate.LOST),
        packet("forward", 12, 5_000, Fate.DAMAGED),
        packet("reverse", 3_000, 9_000, Fate.DUPLICATED),
    ],
)
def test_what_no_kernel_took_for_the_exchange_is_none_of_it(other):
    noted = Noted(40_000, 10, 3_600, 3_000)
    assert network_errors([noted], [other, *exchange(20)], PORT) == [(10, 0)]


@pytest.mark.parametrize("packets", [[], exchange(20)[:1], exchange(20)[1:], exchange(4_000)])
def test_what_the_wire_did_not_carry_is_left_out(packets):
    assert network_errors([Noted(40_000, 10, 3_600, 3_000)], packets, PORT) == []


def outcome(*errors_us, at_s=25.0, faults=()):
    transits = tuple((at_s, error / 1e6) for error in errors_us)
    return Outcome("run", "twocans", faults, (), 45.0, transits=transits)


def throttled(*errors_us, **more):
    fault = Fault("cpu_throttled_server", THROTTLED, 20.0, 40.0)
    return outcome(*errors_us, faults=(fault,), **more)


def test_errors_have_no_sign_and_are_pooled_over_runs_and_by_fault():
    rows = network(map(judge, [throttled(-30, 10, 20), throttled(50), outcome(40)]))
    assert rows["cpu_throttled server_host"] == {
        "runs": 2,
        "exchanges": 4,
        "p50_s": 20e-6,
        "p95_s": 50e-6,
        "run_p50_max_s": 50e-6,
    }
    assert rows["all"]["exchanges"] == 5
    assert rows["healthy"]["p50_s"] == 40e-6


def test_what_was_before_and_after_a_fault_does_not_count_for_it():
    assert network(map(judge, [throttled(9, at_s=19.0), throttled(9, at_s=41.0)])) == {}


def test_they_are_among_the_details():
    lines = list(details(score([throttled(30, 70)]), {}))
    said = "network time less the wire's, the server short of its CPU quota: p50 30 us, p95 70 us"
    assert f"{said}, n=2" in lines
    assert not any("network time" in line for line in details(score([outcome()]), {}))
