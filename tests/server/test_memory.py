from typing import NamedTuple

import pytest

from twocans_core.host import cgroup
from twocans_server.limits import CONNECTION_BYTES
from twocans_server.memory import _LOOK_BYTES, Memory, shed

MIB = 1024 * 1024


class One(NamedTuple):
    """A connection; the smallest goes last."""

    is_open_session: bool = True
    held_bytes: int = 0
    idle_since_ns: int = 0


STRANGER = One(is_open_session=False, idle_since_ns=9)
SILENT_STRANGER = One(is_open_session=False, idle_since_ns=8)
HOLDER = One(held_bytes=10_000, idle_since_ns=9)
SILENT, BUSY = One(idle_since_ns=1), One(idle_since_ns=9)
ALL = [BUSY, HOLDER, STRANGER, SILENT, SILENT_STRANGER]


def test_strangers_go_first_then_who_holds_most_then_who_is_longest_silent():
    assert list(shed(ALL, 1 << 40)) == [SILENT_STRANGER, STRANGER, HOLDER, SILENT, BUSY]


@pytest.mark.parametrize(
    ("excess", "count"),
    [
        (0, 0),
        (1, 1),
        (CONNECTION_BYTES, 1),
        (CONNECTION_BYTES + 1, 2),
        (3 * CONNECTION_BYTES + 10_000, 3),
        (3 * CONNECTION_BYTES + 10_001, 4),
    ],
)
def test_no_more_go_than_there_is_need_for(excess, count):
    assert len(list(shed(ALL, excess))) == count


@pytest.mark.parametrize(
    ("memory", "excess"),
    [
        (None, 0),
        (cgroup.Memory(64 * MIB, 56 * MIB), 0),
        (cgroup.Memory(64 * MIB, 56 * MIB + 7), 7),
    ],
)
def test_an_eighth_of_the_limit_is_kept_free(monkeypatch, memory, excess):
    monkeypatch.setattr(cgroup.MemoryLimit, "read", lambda _: memory)
    ours = Memory()
    assert not ours.is_full, "nobody has looked yet"
    assert ours.look(0) == excess
    assert ours.is_full is (excess > 0)
    assert ours.limit_bytes == (memory and memory.limit)


def test_a_look_is_due_when_much_came_in_since_the_last():
    memory = Memory()
    assert not memory.is_due(_LOOK_BYTES - 1)
    assert memory.is_due(_LOOK_BYTES)
    memory.look(_LOOK_BYTES)
    assert not memory.is_due(2 * _LOOK_BYTES - 1)
