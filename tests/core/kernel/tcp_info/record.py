"""Write the fixtures anew, from this machine's kernel: see README.md."""

import json
import re
import socket
import threading
import time
from pathlib import Path
from random import Random

from integration.link import Fate, linked, payload_bytes

# Since which Linux getsockopt(TCP_INFO) returns how many bytes.
LENGTHS = {"4.18": 200, "4.19": 224, "5.4": 232, "6.2": 240, "6.7": 248, "6.18": 280}
COUNTERS_END = {
    "total_retrans": 104,
    "segs_out": 140,
    "segs_in": 144,
    "data_segs_out": 160,
    "data_segs_in": 156,
    "rtt_us": 72,
    "min_rtt_us": 152,
    "rcv_ooopack": 228,
    "reord_seen": 224,
    "dsack_dups": 220,
    "snd_mss": 20,
    "options": 6,
}


def move(sender: socket.socket, receiver: socket.socket, size: int, pause_s: float) -> None:
    thread = threading.Thread(target=sender.sendall, args=(bytes(size),))
    thread.start()
    while size:
        size -= len(receiver.recv(30_000))
        time.sleep(pause_s)
    thread.join()


def converse() -> tuple[bytes, str]:
    """Make a connection that has seen it all; returns its tcp_info and what ss says of it."""
    rng = Random(5)

    def decide(_direction: int, packet: bytes) -> Fate:
        if payload_bytes(packet) < 500:
            return Fate.PASS
        return rng.choices(list(Fate), [90, 2, 2, 6])[0]

    with linked() as (pair, link):
        with pair.server.entered():
            listener = socket.create_server((pair.server.address, 5000))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        with pair.client.entered():
            ours = socket.socket()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        ours.connect(listener.getsockname())
        theirs, _ = listener.accept()
        link.decide = decide
        reverse = threading.Thread(target=move, args=(theirs, ours, 300_000, 0))
        reverse.start()
        move(ours, theirs, 300_000, 0)
        reverse.join()
        link.decide = lambda _direction, _packet: Fate.PASS
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 500_000)
        move(ours, theirs, 600_000, 0.01)
        time.sleep(0.3)
        raw = ours.getsockopt(socket.SOL_TCP, socket.TCP_INFO, 1024)
        said = pair.client.run("ss", "-tinO").splitlines()[1]
        for each in (ours, theirs, listener):
            each.close()
    return raw, said


def number(said: str, pattern: str) -> int:
    found = re.search(rf"\b{pattern}", said)
    if found is None:
        raise SystemExit(f"once more, please: no {pattern} in {said}")
    return round(float(found[1]) * 1000) if "." in found[1] else int(found[1])


def main() -> None:
    raw, said = converse()
    counters = {
        name: number(said, rf"{name}:(\d+)")
        for name in ("segs_out", "segs_in", "data_segs_out", "data_segs_in", "dsack_dups")
    } | {
        "total_retrans": number(said, r"retrans:\d+/(\d+)"),
        "rtt_us": number(said, r"rtt:([\d.]+)/"),
        "min_rtt_us": number(said, r"minrtt:([\d.]+)"),
        "rcv_ooopack": number(said, r"rcv_ooopack:(\d+)"),
        "reord_seen": number(said, r"reord_seen:(\d+)"),
        "snd_mss": number(said, r"mss:(\d+)"),
        "options": 7,  # ss -tinO leaves ts and sack out
    }
    limited = {
        "busy_us": number(said, r"busy:(\d+)ms") * 1000,
        "rwnd_limited_us": number(said, r"rwnd_limited:(\d+)ms") * 1000,
        "sndbuf_limited_us": number(said, r"sndbuf_limited:(\d+)ms") * 1000,
    }
    folder = Path(__file__).parent
    for release, length in LENGTHS.items():
        forward = {name: end <= length for name, end in COUNTERS_END.items()}
        fixture = {
            "bytes": raw[:length].hex(),
            "counters": {name: counters[name] if forward[name] else None for name in forward},
            "limited": limited,
        }
        path = folder / f"linux-{release}.json"
        path.write_text(json.dumps(fixture, indent=1) + "\n")
    (folder / "ss.txt").write_text(said + "\n")


if __name__ == "__main__":
    main()
