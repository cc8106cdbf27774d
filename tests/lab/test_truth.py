"""The command that makes the table."""

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab import truth
from lab_ends import until

ROOT = Path(__file__).parent.parent.parent


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_a_table_that_was_interrupted(able, number):
    words = [sys.executable, "-m", "lab.truth", "--without-others", "--scenes", "3"]
    words += ["--only", "healthy", "loss_forward", "dns_slow"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:

        def runs():
            """How far it is: their namespaces have the names of the processes that made them."""
            named = [f"twocans-lab-{pid}-" for pid in made]
            there = os.listdir("/run/netns") if Path("/run/netns").exists() else []
            return [name for name in there if name.startswith(tuple(named))]

        until(lambda: len(children(process.pid)) == 3, "three runs have begun")
        made = children(process.pid)
        until(lambda: len(runs()) == 9, "their scenes are set")
        process.send_signal(number)
        assert process.wait(60) == 130
        assert runs() == []
        assert [pid for pid in made if Path(f"/proc/{pid}").exists()] == []


def test_the_results_are_a_whole_file_at_any_time(tmp_path, monkeypatch):
    monkeypatch.setattr(truth, "RESULTS", tmp_path)
    options = argparse.Namespace(repeats=0)
    truth._write({"scores": 1}, options)
    whole = (tmp_path / "truth.json").read_text()
    assert json.loads(whole) == {"scores": 1}

    def half(path: Path, text: str) -> None:
        with path.open("w") as file:
            file.write(text[:5])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt):
        truth._write({"scores": 2}, options)
    assert (tmp_path / "truth.json").read_text() == whole
