"""The demo says what is wrong, on whatever machine it finds itself."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_without_a_loopback_the_report_says_so_and_nothing_is_a_traceback(tmp_path):
    alone = ["unshare", "--net"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("no network namespaces: not root here")
    demo = [sys.executable, str(ROOT / "scripts/demo.py"), "--seconds", "1"]
    done = subprocess.run(
        [*alone, *demo], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "\nfail         localhost:5000 " in done.stdout
    assert "Look next:" in done.stdout
    assert "could not be read: " in done.stdout
