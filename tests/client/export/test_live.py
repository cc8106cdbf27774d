import asyncio
import logging
import re
import sys

import pytest

from client.far_end import SERVER, SPLIT, ended, target
from client.timeless import run_timeless
from twocans_client.evidence.results import Reason
from twocans_client.export.live import Notes, _table, show_paths
from twocans_client.paths.path import Path
from twocans_client.report.shown import show_ns
from twocans_client.verdicts.either_host import CPU_THROTTLED
from twocans_client.verdicts.engine import Verdict
from twocans_client.verdicts.verdict import Culprit, Finding


def paths():
    good, bad = (Path(target(text), drain_grace_ns=0) for text in ("good:1", "bad:2"))
    for path, reason in ((good, Reason.OK), (good, Reason.OK), (bad, Reason.REFUSED)):
        path.scheduled += 1
        path.begin()
        path.record(ended(reason, connect_ns=1_500, exchanges=[SPLIT], server=SERVER))
    bad.missed += 7
    return [good, bad]


def test_without_a_terminal_each_path_is_a_line_every_second(capfd):
    async def main(loop):
        task = loop.create_task(show_paths(paths, Notes()))
        await asyncio.sleep(2.5)
        task.cancel()

    run_timeless(main)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 4
    assert re.match("good:1 ok: 2 probes,? 2 ok,? 0 fail,? 0 void,? 0 missed", lines[0])
    assert re.match("bad:2 refused: 1 probes,? 0 ok,? 1 fail,? 0 void,? 7 missed", lines[1])
    assert f"connect {show_ns(1_500)}" in lines[0]


def test_the_table_has_a_row_for_each_path_and_fits_eighty_columns():
    console = pytest.importorskip("rich.console").Console(width=80, file=sys.stderr)
    with console.capture() as capture:
        console.print(_table(paths()))
    text = capture.get()
    assert "good:1" in text
    assert "bad:2" in text
    assert "refused" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_verdict_that_stands_is_shown_below_and_goes_when_it_ends(capfd):
    shown = paths()
    finding = Finding(CPU_THROTTLED, Culprit.SERVER_HOST, "it stood still for 0.2 s")
    shown[1].verdicts = {finding.key: Verdict(finding, 0, 0)}

    async def main(loop):
        task = loop.create_task(show_paths(lambda: shown, Notes()))
        await asyncio.sleep(1.5)
        shown[1].verdicts = {}
        await asyncio.sleep(1.0)
        task.cancel()

    line = "bad:2: cpu_throttled (server_host): it stood still for 0.2 s"
    console = pytest.importorskip("rich.console").Console(width=80, file=sys.stderr)
    with console.capture() as capture:
        console.print(_table(shown, ["a note"]))
    assert line in capture.get()
    assert "a note" in capture.get()
    run_timeless(main)
    lines = capfd.readouterr().out.splitlines()
    assert [text[:4] for text in lines] == ["good", "bad:", "bad:", "good", "bad:"]
    assert lines[2] == line


def test_a_path_that_was_never_probed_has_a_line():
    path = Path(target("new:1"), drain_grace_ns=0)
    pytest.importorskip("rich")
    assert _table([path]).row_count == 1


def test_what_the_log_says_and_no_row_shows_is_below_the_table(capfd):
    notes, log = Notes(), logging.getLogger("notes")
    log.addHandler(notes)
    fields = {"file.path": "/gone", "error.message": "No such file or directory"}
    log.error("targets_file_refused", extra=fields)
    log.error("targets_file_refused", extra=fields)
    log.warning("path_failing", extra={"twocans.target": "bad:2"})
    log.removeHandler(notes)
    line = "targets_file_refused: /gone, No such file or directory"
    assert notes.lines == [line]
    for number in range(9):
        notes.emit(logging.makeLogRecord({"msg": f"event-{number}", "levelno": 40}))
    assert [text[-1] for text in notes.lines] == list("45678")

    async def main(loop):
        task = loop.create_task(show_paths(list, notes))
        await asyncio.sleep(2.5)
        task.cancel()

    run_timeless(main)
    assert capfd.readouterr().out.splitlines() == notes.lines
    console = pytest.importorskip("rich.console").Console(width=80, file=sys.stderr)
    with console.capture() as capture:
        console.print(_table([], notes.lines))
    assert "event-8" in capture.get()
