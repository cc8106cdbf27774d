import asyncio
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
from bench.cost import report, usage
from bench.cost.report import EVERYTHING, cost, last_line, markdown, order
from bench.cost.scrapes import Address, get, scrape_all
from bench.cost.turn import BLACKBOX, CLIENT, SERVER, Load, Measured
from bench.cost.usage import Used, children, memory_bytes, used

# A name may hold blanks and brackets: utime 21 and stime 34 are the 14th and 15th field.
STAT = "77 (a ) S 9 (b) S 4 77 77 0 -1 4194560 1 2 3 4 21 34 55 89 20 0 3 0 144 1 2 3\n"
STATUS = "Name:\tpython\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\nRssAnon:\t    4096 kB\n"


def test_ticks_are_found_behind_any_name():
    assert usage.ticks(STAT) == (21, 34)


def test_the_parent_is_found_behind_any_name():
    assert usage.parent(STAT) == 4


def test_resident_memory_is_not_the_highest_that_it_was():
    assert memory_bytes(STATUS) == 10_240 * 1024


def test_a_process_without_memory_is_no_process_of_ours():
    with pytest.raises(ValueError, match="VmRSS"):
        memory_bytes("Name:\tkthreadd\n")


def test_cpu_time_is_what_the_process_itself_reads():
    thread = threading.Thread(target=lambda: sum(range(100_000)))
    thread.start()
    thread.join()  # what it used counts, though it has ended

    before_ns = time.process_time_ns()
    read = used(os.getpid())

    assert time.thread_time_ns() < before_ns <= read.cpu_ns <= time.process_time_ns()


def test_children_are_found_and_no_others():
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            assert process.pid in children(os.getpid())
            assert os.getpid() not in children(process.pid)
            assert children(process.pid) == []
        finally:
            process.kill()


def test_usage_is_of_the_time_between():
    assert Used(900, 5, 7).since(Used(300, 2, 3)) == Used(600, 3, 4)


def test_targets_are_addresses_of_this_host_and_no_two_alike():
    targets = Load(500, 2.0, 1.0).targets(5000)

    assert targets[:2] == ["127.0.0.1:5000", "127.0.0.2:5000"]
    assert targets[200] == "127.0.1.1:5000"
    assert len(set(targets)) == 500


def measured(
    client_us: float, server_us: float, probes: float = 100, role: str = CLIENT
) -> Measured:
    spent = {
        role: Used(round(client_us * probes * 1e3), 3, 1),
        SERVER: Used(round(server_us * probes * 1e3), 1, 1),
    }
    return Measured(probes, spent, {})


def test_the_cost_is_over_all_rounds_and_not_the_mean_of_their_means():
    found = cost([measured(400, 100, probes=100), measured(500, 200, probes=300)])

    assert found is not None
    assert found["probes"] == 400
    assert found[CLIENT]["us"] == pytest.approx(475)
    assert found[CLIENT]["turns_us"] == pytest.approx([400, 500])
    assert found[CLIENT]["kernel_share"] == pytest.approx(0.25)
    assert found[SERVER]["us"] == pytest.approx(175)


def test_in_a_round_the_two_that_are_compared_come_twice_and_next_to_each_other():
    assert order(["all", "rival", "a", "b", "c"]) == ["all", "rival", "a", "all", "rival", "b", "c"]
    assert order(["all", "rival"]) == ["all", "rival"] * 2


def test_what_was_not_measured_has_no_cost():
    assert cost([]) is None


def results(**costs: list[Measured]) -> dict[str, object]:
    return {
        "date": "2026-11-23",
        "kernel": "6.1.0",
        "cpus": 2,
        "versions": {"twocans": "0.1.0", "blackbox_exporter": "0.23.0"},
        "rate": 200.0,
        "paths": 20,
        "interval_ms": 100.0,
        "exchanges": 1,
        "rounds": 3,
        "seconds": 15.0,
        "scrape_every_s": 15.0,
        "memory_s": 20.0,
        "memory_interval_s": 2.0,
        "memory_mib": {"10": {"twocans client": 30.2, "blackbox_exporter": None}},
        "cost": {name.replace("_", " "): cost(turns) for name, turns in costs.items()},
    }


BOTH = results(
    everything_on=[measured(us, 100) for us in (200, 200, 195, 205, 250, 270)],
    blackbox=[measured(700, 50, role=BLACKBOX), measured(740, 50, role=BLACKBOX)],
    without_stamps=[measured(190, 90), measured(195, 80), measured(200, 80)],
    without_held=[],
)


def test_the_last_line_is_of_the_client_and_says_the_ratio():
    assert EVERYTHING in BOTH["cost"]  # type: ignore[operator]
    assert last_line(BOTH) == "cost: 220 us CPU per probe, blackbox 720 us, ratio 0.31"


def test_the_last_line_without_blackbox():
    alone = results(everything_on=[measured(200, 100)], blackbox=[])

    assert last_line(alone) == (
        "cost: 200 us CPU per probe, blackbox not measured, ratio not measured"
    )


def test_the_page_has_every_figure():
    page = markdown(BOTH)

    assert "| twocans | client | 220 | 25% | 195 | 270 |" in page
    assert "| blackbox_exporter | exporter | 720 | 25% | 700 | 740 |" in page
    assert "| blackbox_exporter | twocans server | 50 | 50% | 50 | 50 |" in page
    assert "| without stamps | 195 | 10 (5 to 60) | 83 | 20 (10 to 20) |" in page
    assert "| without held | not measured |" in page
    assert "| 10 | 30 | not measured |" in page
    assert "{" not in page


def test_the_page_says_nothing_of_this_machine():
    text = Path(report.__file__).with_name("page.md").read_text() + markdown(BOTH)

    assert os.uname().nodename not in text.split()
    assert str(Path.cwd()) not in text


async def answering(pages: list[str], requests: list[str]) -> tuple[asyncio.Server, Address]:
    """Serve these pages in turn, over as many connections as come."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
                page = pages[(len(requests) - 1) % len(pages)]
                writer.write(page.encode())
                if "Connection: close" in page:
                    return
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, Address("127.0.0.1", server.sockets[0].getsockname()[1])


LENGTH = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
CHUNKS = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n"
CLOSING = LENGTH.replace("Content", "Connection: close\r\nContent")
WRONG = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("page", [LENGTH, CHUNKS])
def test_a_page_is_read_to_its_end(page: str):
    async def main() -> bytes:
        server, address = await answering([page], [])
        async with server:
            return await get(address, "/metrics")

    assert asyncio.run(main()) == b"body"


def test_a_page_that_is_none_ends_the_bench():
    async def main() -> None:
        server, address = await answering([WRONG], [])
        async with server:
            await get(address, "/metrics")

    with pytest.raises(SystemExit, match="503"):
        asyncio.run(main())


@pytest.mark.parametrize("pages", [[LENGTH, CHUNKS], [CLOSING]])
def test_every_answer_of_every_path_is_counted(pages: list[str]):
    requests: list[str] = []

    async def main() -> int:
        server, address = await answering(pages, requests)
        async with server:
            until_s = asyncio.get_running_loop().time() + 0.2
            return await scrape_all(address, ["/a", "/b"], 0.02, until_s)

    answers = asyncio.run(main())

    assert answers == len(requests) > 2
    asked = {request.split()[1] for request in requests}
    assert asked == {"/a", "/b"}
    assert all("Accept-Encoding: gzip\r\n" in request for request in requests)
