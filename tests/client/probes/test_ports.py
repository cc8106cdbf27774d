from collections import Counter

import pytest

from twocans_client.probes.ports import CLASSES, Ports

LOW, HIGH = 32_768, 60_999


def chosen(ports: Ports, count: int) -> list[int]:
    """What comes first of each that is not left to the kernel."""
    return [taken[0] for taken in (ports.take() for _ in range(count)) if taken]


@pytest.mark.parametrize("start", [0, 1, 7, 65_535])
@pytest.mark.parametrize("low", [LOW, LOW + 1, 1_024])
def test_every_other_probe_has_a_port_and_32_have_all_classes(low, start):
    ports = chosen(Ports(low, HIGH, start=start), 2 * CLASSES)
    assert sorted(port % CLASSES for port in ports) == list(range(CLASSES))
    assert all(low <= port <= HIGH for port in ports)


def test_no_port_comes_again_before_all_had_their_turn():
    ports = chosen(Ports(LOW, HIGH), 2 * 28_000)
    assert max(Counter(ports).values()) == 1


def test_what_is_tried_instead_is_of_the_same_class_and_another_port():
    ports = Ports(LOW, HIGH)
    for taken in (ports.take() for _ in range(2 * CLASSES)):
        assert len(set(taken)) == len(taken)
        assert len({port % CLASSES for port in taken}) <= 1
        assert not taken or len(taken) > 1


def test_a_port_that_is_wanted_comes_next_and_not_all_that_are_wanted_are_kept():
    ports = Ports(LOW, HIGH)
    ports.want(50_001)
    ports.want(50_001)
    assert chosen(ports, 4)[0] == 50_001
    assert 50_001 not in chosen(ports, 4)
    for port in range(1_000):
        ports.want(port)
    wanted = [port for port in chosen(ports, 200) if port < LOW]
    assert wanted == list(range(984, 1_000))


def test_what_is_reserved_is_left_to_others():
    reserved = frozenset(range(LOW, HIGH - 1_000))
    ports = Ports(LOW, HIGH, reserved)
    taken = [port for _ in range(2_000) for port in ports.take()]
    assert taken
    assert not reserved & set(taken)


@pytest.mark.parametrize(("low", "high"), [(40_000, 40_003), (40_000, 40_000), (1, 65_535)])
def test_any_range_is_walked_within_its_bounds(low, high):
    ports = Ports(low, high, start=65_535)
    taken = [port for _ in range(100) for port in ports.take()]
    assert all(low <= port <= high for port in taken)
    assert bool(taken) is (high - low >= CLASSES)
