"""What the images are made of, and how they behave as PID 1."""

import json
import re
import subprocess

import pytest

from system.cans import PYTHON_IMAGE
from twocans_core import __version__

pytestmark = pytest.mark.docker

MOST_MB_OVER_BASE = 25
KINDS = ("server", "client")

LABELS = {
    "title": r"twocans-(server|client)",
    "description": r".{20,}",
    "source": r"https://\S+",
    "licenses": r"Apache-2\.0",
    "version": re.escape(__version__),
    "revision": r"[0-9a-f]{40}|unknown",
    "created": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "base.name": re.escape(PYTHON_IMAGE),
}

# Run by the image's own Python: what it finds is what could be used in there.
WHAT_IS_IN_IT = """
import glob, importlib.util, json, os, shutil, subprocess
pythons = {shutil.which("python"), "/usr/local/bin/python", "/usr/bin/python3"}
probe = "import importlib.util as u; print([n for n in ('pip', 'ensurepip') if u.find_spec(n)])"
found = {
    "commands": [name for name in (
        "pip pip3 gcc g++ cc c++ clang ld as make cargo rustc go curl wget git"
    ).split() if shutil.which(name)],
    "modules": [name for name in (
        "twocans_core twocans_server twocans_client pytest testcontainers docker"
    ).split() if importlib.util.find_spec(name)],
    "installers": [
        (python, found) for python in pythons if os.path.exists(python)
        for found in [subprocess.check_output([python, "-c", probe], text=True).strip()]
        if found != "[]"
    ],
    "caches": [path for path in (
        "/root/.cache", "/home/*/.cache", "/.cache", "/tmp/*", "/wheels", "/src"
    ) if glob.glob(path)],
}
print(json.dumps(found))
"""


def inspect(image):
    """Return what the engine knows about an image."""
    command = ["docker", "image", "inspect", image]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[0]


@pytest.fixture(scope="session")
def contents(pair):
    """Give what is in each image, by kind."""
    return {
        kind: json.loads(can.exec(["python", "-c", WHAT_IS_IN_IT]).output)
        for kind, can in zip(KINDS, pair, strict=True)
    }


@pytest.fixture(params=KINDS)
def kind(request):
    """Give one kind of can after the other."""
    return request.param


@pytest.fixture
def status(pair, kind):
    """Give /proc/1/status of a running can."""
    can = getattr(pair, kind)
    text = can.exec(["python", "-c", "print(open('/proc/1/status').read())"]).output.decode()
    return dict(re.findall(r"(\w+):\s*(.*)", text))


def test_the_process_is_user_65532_and_no_other(images, kind, status):
    assert inspect(images[kind])["Config"]["User"] == "65532:65532"
    assert status["Uid"].split() == ["65532"] * 4
    assert status["Gid"].split() == ["65532"] * 4


def test_the_process_has_no_capabilities_and_can_gain_none(status):
    sets = {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd")}
    assert sets == {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": 0}
    assert status["NoNewPrivs"] == "1"


def test_a_can_works_where_nothing_can_be_written(pair, kind):
    can = getattr(pair, kind)
    write = "import tempfile; tempfile.NamedTemporaryFile()"
    assert can.exec(["python", "-c", write]).exit_code != 0
    assert can.exec([f"twocans-{kind}", "health"]) == (0, b"ok\n")


def test_sigterm_ends_pid_1_with_0_and_a_last_line(site, kind):
    can = site.server("stops") if kind == "server" else site.client("stops", "127.0.0.1:9")
    assert can.end("SIGTERM") == 0
    assert can.events()[-1]["event.name"] == "stopped"


def test_an_image_is_at_most_25_mb_over_its_base(images, kind):
    size, base = inspect(images[kind])["Size"], inspect(PYTHON_IMAGE)["Size"]
    assert (size - base) / 1e6 <= MOST_MB_OVER_BASE


def test_nothing_is_there_to_install_or_compile_with(contents, kind):
    found = contents[kind]
    assert found["commands"] == []
    assert found["installers"] == []
    assert found["caches"] == []


def test_an_image_has_its_own_can_and_not_the_other(contents, kind):
    assert contents[kind]["modules"] == ["twocans_core", f"twocans_{kind}"]


def test_an_image_says_where_it_comes_from(images, kind):
    labels = inspect(images[kind])["Config"]["Labels"]
    for name, pattern in LABELS.items():
        value = labels.get(f"org.opencontainers.image.{name}", "")
        assert re.fullmatch(pattern, value), f"{name}: {value!r}"
    assert labels["org.opencontainers.image.title"] == f"twocans-{kind}"


def test_the_health_check_is_the_cans_own_command(images, kind):
    assert inspect(images[kind])["Config"]["Healthcheck"]["Test"] == [
        "CMD",
        f"twocans-{kind}",
        "health",
    ]
