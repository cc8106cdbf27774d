"""What netem would be told; a kernel that has it is not needed."""

import socket

import pytest
from lab.errors import LabError, UnsupportedError
from lab.namespaces import Namespace
from lab.netem import NetemWire, netem_words
from lab.scene import Base, scene


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ""),
        ({"delay_s": 0.02}, "delay 20000us"),
        ({"delay_s": 0.02, "jitter_s": 0.004}, "delay 22000us 2000us"),
        ({"loss": 0.001}, "loss random 0.1%"),
        ({"blackout": 1.0, "loss": 0.1}, "loss random 100%"),
        ({"burst_enter": 0.01, "burst_leave": 0.25}, "loss gemodel 1% 25% 100% 0%"),
        ({"burst_enter": 0.5, "burst_leave": 1, "loss": 1e-4}, "loss gemodel 50% 100% 100% 0.01%"),
        ({"duplicate": 0.05, "damage": 0.01}, "duplicate 5% corrupt 1%"),
        ({"reorder": 0.1, "reorder_s": 0.005}, "delay 5000us reorder 10%"),
        ({"rate": 2e7}, "rate 20000000bit"),
    ],
)
def test_what_netem_is_told(settings, words):
    assert netem_words(settings) == ["limit", "20000", *words.split()]


def test_its_queue_holds_what_is_under_way_too():
    # 20 Mbit/s for 50 ms and 100 ms: 375 kB, in full packets.
    settings = {"rate": 2e7, "queue_s": 0.1, "delay_s": 0.05}
    _, limit, *_ = netem_words(settings)
    assert limit == "250"


@pytest.mark.parametrize("setting", ["syn_loss", "mtu", "idle_s", "corrupt", "police", "strip_mss"])
def test_what_it_cannot_do_it_says(setting):
    with pytest.raises(UnsupportedError, match=f"netem has no {setting}: take --backend wire"):
        netem_words({setting: 1.0})


class Noted(Namespace):
    """A namespace in which nothing is run."""

    def run(self, *words):
        TOLD.append(f"{self.name}: {' '.join(words)}")
        return ""


TOLD: list[str] = []


def test_each_direction_has_its_qdisc_where_it_leaves():
    wire = NetemWire(Noted("router", ""), Noted("server", ""), "wire0")
    wire.set("both", delay_s=0.01)
    with wire.fault("reverse", loss=0.5):
        pass
    begin = "tc qdisc replace dev wire0 root netem limit 20000 delay 10000us"
    assert [
        f"router: {begin}",
        f"server: {begin}",
        f"server: {begin} loss random 50%",
        f"server: {begin}",
    ] == TOLD
    with pytest.raises(UnsupportedError, match="no log"):
        wire.log()


def test_it_carries_packets_or_says_that_there_is_no_netem(able):
    try:
        with scene(Base(0.01), backend="netem") as its:
            with its.server.entered():
                listener = socket.create_server((its.server.address, 0))
            with listener, its.client.entered(), socket.socket() as near:
                near.settimeout(5)
                near.connect(listener.getsockname())
    except LabError as error:
        said = str(error)
    else:
        return
    assert said.startswith("netem: ")
    assert said.endswith(": take --backend wire")
