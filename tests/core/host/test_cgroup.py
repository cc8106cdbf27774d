from pathlib import Path

import pytest

from twocans_core.host.cgroup import Memory, MemoryLimit, Throttling, throttling


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
