"""What ``make dist`` makes runs where there is nothing but a Python."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from scripts import dist

from integration.harness import PATIENCE_S, until

ROOT = Path(__file__).parents[1]
IMAGE = "python:3.13-slim-trixie"
# No packages but the standard library's, and nothing of the user's.
ALONE = ["-I", "-S"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "dist"
    script = ROOT / "scripts/dist.py"
    subprocess.run([sys.executable, "-I", script, folder], check=True, capture_output=True)
    return folder


def pythons() -> list[str]:
    """Return the oldest and the newest Python here that we support."""
    found = {sys.version_info[:2]: sys.executable}
    for minor in range(11, 30):
        path = shutil.which(f"python3.{minor}")
        if (
            path
            and subprocess.run([path, "-c", ""], check=False, capture_output=True).returncode == 0
        ):
            found.setdefault((3, minor), path)
    return list(dict.fromkeys((found[min(found)], found[max(found)])))


@pytest.mark.slow
@pytest.mark.parametrize("python", pythons(), ids=lambda path: Path(path).name)
def test_one_file_each_measures_with_nothing_installed(made, python, tmp_path):
    log = tmp_path / "log"
    flags = ["--port=0", "--http-port=0", "--http-host=127.0.0.1", "--host=127.0.0.1"]
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [python, *ALONE, made / "twocans-server.pyz", *flags], stdout=out
        ) as server,
    ):
        try:
            until(lambda: '"listening"' in log.read_text())
            port = log.read_text().split('"server.port": ')[1].split(",")[0]
            client = [python, *ALONE, made / "twocans-client.pyz"]
            probe = [*client, "probe", f"127.0.0.1:{port}", "--count=2"]
            done = subprocess.run(
                probe, capture_output=True, text=True, timeout=PATIENCE_S, check=False
            )
        finally:
            server.terminate()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"ok           127.0.0.1:{port}: 2 probes, 2 ok")
    assert server.returncode == 0


@pytest.mark.docker
@pytest.mark.slow
def test_one_file_each_measures_in_a_bare_python_image(made):
    script = (
        "python /dist/twocans-server.pyz >/tmp/log &"
        " until python /dist/twocans-server.pyz health; do sleep 0.1; done;"
        " exec python /dist/twocans-client.pyz probe 127.0.0.1 --count 2"
    )
    bare = ["docker", "run", "--rm", "--network=none", f"--volume={made}:/dist:ro", IMAGE]
    done = subprocess.run(
        [*bare, "sh", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 probes, 2 ok" in done.stdout


@pytest.mark.slow
def test_nothing_of_this_machine_is_in_it(made):
    for file in made.iterdir():
        with zipfile.ZipFile(file) as archive:
            texts = [archive.read(name) for name in archive.namelist()]
        for here in (str(ROOT), str(made), sys.prefix):
            assert not any(here.encode() in text for text in texts), file.name
    assert len({file.name.partition("-0")[0] for file in made.iterdir()}) == 5


def test_the_same_sources_give_the_same_bytes(tmp_path):
    (tmp_path / "tree").mkdir()
    for name in ("b.py", "a.py"):
        (tmp_path / "tree" / name).write_text(name)
    dist.write_pyz(tmp_path / "tree", tmp_path / "one")
    shutil.copytree(tmp_path / "tree", tmp_path / "later")
    os.utime(tmp_path / "later/a.py", (0, 0))
    (tmp_path / "later/a.py").chmod(0o600)
    dist.write_pyz(tmp_path / "later", tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
