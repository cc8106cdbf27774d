"""Whatever ends the lab, nothing of it is left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lab.errors import LabError
from lab.guardian import guardian

from lab_ends import until

ROOT = Path(__file__).parent.parent.parent
# A scene with all that a case may make, and a process that hears no signal but SIGKILL.
PROGRAM = """
import signal, sys, time
from lab.faults.hosts import quota
from lab.scene import Base, scene
with scene(Base()) as its:
    its.write_etc(its.client, "resolv.conf", "")
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    its.server_process = its.as_nobody(its.server, sys.executable, "-c", deaf)
    with quota(its, "server", 0.5) as cgroup:
        etc, process = its.etc(its.client), its.server_process.pid
        print(its.client.name, its.server.name, cgroup, etc, its.folder, process, flush=True)
        time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_a_runner_that_was_ended(able, number):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
    ) as runner:  # fmt: skip
        assert runner.stdout is not None
        client, server, cgroup, etc, folder, process = runner.stdout.readline().split()
        made = [Path("/run/netns", client), Path("/run/netns", server), Path("/proc", process)]
        made += [Path(cgroup), Path(etc), Path(folder)]
        assert all(path.exists() for path in made)
        runner.send_signal(number)
        runner.wait(30)
        until(lambda: not any(path.exists() for path in made), "all is removed")


def test_it_says_what_it_could_not_remove(able, tmp_path):
    kept = tmp_path / "kept"
    (kept / "within").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(kept / "within")], check=True)
    try:
        with pytest.raises(LabError, match=str(kept)), guardian() as guard:
            guard.watch("folder", str(kept))
    finally:
        subprocess.run(["umount", str(kept / "within")], check=True)


def test_what_it_was_not_told_of_is_left_alone(able, tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    with guardian() as guard:
        guard.watch("folder", str(ours))
    assert (ours.exists(), theirs.exists()) == (False, True)


def test_a_signal_does_not_end_it_before_its_work_is_done(able, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with guardian() as guard:
        guard.watch("folder", str(folder))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(guard.pid, number)
    assert not folder.exists()
