"""The set-up: what a lock names is what is installed, whatever the user's surroundings are.

Run with pip 23.0.1, as Debian 12 has it, and with the newest; both come from the index that the
set-up itself used.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _wheel(folder: Path, name: str, version: str, *needs: str) -> Path:
    """Write a wheel of one module, which says its version."""
    about = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{about}/METADATA": "\n".join(
            [
                "Metadata-Version: 2.1",
                f"Name: {name}",
                f"Version: {version}",
                *(["Provides-Extra: toml"] if name == "inner" else []),
                *(f"Requires-Dist: {need}" for need in needs),
                "",
            ]
        ),
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = f"{about}/RECORD"
    lines = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        lines.append(f"{path},sha256={digest.decode()},{len(text)}")
    files[record] = "\n".join([*lines, f"{record},,", ""])
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


def _locked(*wheels: Path) -> str:
    return "".join(
        f"{'=='.join(wheel.name.split('-')[:2])} \\\n"
        f"    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
        for wheel in wheels
    )


@pytest.fixture(scope="module", params=["23.0.1", "newest"])
def venv(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment with a certain pip."""
    folder = tmp_path_factory.mktemp("venv") / ".venv"
    subprocess.run([sys.executable, "-I", "-m", "venv", folder], check=True)
    wanted = "pip" if request.param == "newest" else f"pip=={request.param}"
    pip = [str(folder / "bin/python"), "-I", "-m", "pip", "install", "--quiet", "--upgrade"]
    done = subprocess.run([*pip, wanted], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no index that has {wanted}: {done.stderr.strip()[-200:]}")
    return folder


@pytest.fixture
def house(tmp_path: Path, venv: Path) -> Path:
    """Make a project with our set-up, and a lock that is older than what its index holds."""
    house = tmp_path / "house"
    index = tmp_path / "index"
    index.mkdir()
    locked = _wheel(index, "outer", "1.0", 'inner[toml]>=1; python_version>="3"')
    older = _wheel(index, "inner", "1.0", "leaf>=1")
    leaf = _wheel(index, "leaf", "1.0")
    _wheel(index, "inner", "2.0", "leaf>=1")
    _wheel(index, "leaf", "2.0")
    (house / "requirements").mkdir(parents=True)
    (house / "requirements/demo.txt").write_text(_locked(locked, older, leaf))
    (house / "scripts").mkdir()
    shutil.copy(ROOT / "Makefile", house)
    shutil.copy(ROOT / "scripts/install.py", house / "scripts")
    shutil.copytree(venv, house / ".venv", symlinks=True)
    (tmp_path / "elsewhere").mkdir()
    return house


def _make(house: Path, **surroundings: str) -> subprocess.CompletedProcess[str]:
    outer = {name: text for name, text in os.environ.items() if not name.startswith("PIP_")}
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(house.parent / "index")}
    return subprocess.run(
        ["make", f"PYTHON={sys.executable}", ".venv/.demo"],
        cwd=house,
        env=outer | index | surroundings,
        check=False,
        capture_output=True,
        text=True,
    )


def _versions(house: Path) -> str:
    code = "import inner, leaf, outer; print(outer.version, inner.version, leaf.version)"
    done = subprocess.run(
        [house / ".venv/bin/python", "-I", "-c", code],
        check=False,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or done.stderr


@pytest.mark.slow
def test_an_index_that_has_newer_releases_does_not_matter(house: Path) -> None:
    done = _make(house)
    assert done.returncode == 0, done.stderr
    assert _versions(house) == "1.0 1.0 1.0"


ELSEWHERE = "{tmp}/elsewhere"
SURROUNDINGS = {
    "pip's environment": {
        "PIP_USER": "1",
        "PIP_TARGET": ELSEWHERE,
        "PIP_PREFIX": ELSEWHERE,
        "PIP_ROOT": ELSEWHERE,
        "PIP_DRY_RUN": "1",
        "PIP_CONSTRAINT": "{tmp}/constraint.txt",
        "PIP_REQUIRE_VIRTUALENV": "1",
    },
    "a named pip.conf": {"PIP_CONFIG_FILE": "{tmp}/pip.conf"},
    "the user's pip.conf": {"HOME": "{tmp}/home", "XDG_CONFIG_HOME": "{tmp}/home/.config"},
    "another python-json-logger": {"PYTHONPATH": ELSEWHERE},
    "Python's environment": {
        "PYTHONHOME": ELSEWHERE,
        "PYTHONUSERBASE": ELSEWHERE,
        "PYTHONWARNINGS": "error",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("named", SURROUNDINGS)
def test_the_users_surroundings_do_not_matter(house: Path, named: str) -> None:
    tmp = house.parent
    config = f"[global]\nuser = true\ntarget = {tmp}/elsewhere\n[install]\ndry-run = true\n"
    (tmp / "pip.conf").write_text(config)
    (tmp / "home/.config/pip").mkdir(parents=True)
    (tmp / "home/.config/pip/pip.conf").write_text(config)
    (tmp / "constraint.txt").write_text("inner==2.0\n")
    (tmp / "elsewhere/inner.py").write_text("version = 'another'\n")
    done = _make(
        house, **{name: text.format(tmp=tmp) for name, text in SURROUNDINGS[named].items()}
    )
    assert done.returncode == 0, done.stderr
    assert _versions(house) == "1.0 1.0 1.0"


@pytest.mark.slow
def test_how_the_user_reaches_packages_is_kept(house: Path) -> None:
    tmp = house.parent
    (tmp / "pip.conf").write_text(
        f"[global]\nuser = true\nno-index = true\nfind-links = {tmp}/index\n"
        "[install]\nprefix = /nowhere\n"
    )
    done = _make(house, PIP_CONFIG_FILE=f"{tmp}/pip.conf", PIP_NO_INDEX="", PIP_FIND_LINKS="")
    assert done.returncode == 0, done.stderr
    assert _versions(house) == "1.0 1.0 1.0"


@pytest.mark.slow
def test_a_lock_that_does_not_fit_together_is_refused(house: Path) -> None:
    lock = house / "requirements/demo.txt"
    lock.write_text(lock.read_text().partition("leaf==")[0])
    done = _make(house)
    assert done.returncode != 0
    assert "inner 1.0 requires leaf, which is not installed" in done.stderr
