"""One version for all three packages, and one list of what they need."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest

import twocans_core

ROOT = Path(__file__).resolve().parent.parent
PROJECTS = {
    can: tomllib.loads((ROOT / can / "pyproject.toml").read_text())["project"]
    for can in ("core", "server", "client")
}
VERSION = PROJECTS["core"]["version"]


def requirements(name: str) -> set[str]:
    """The lines of a requirements file, without comments and references to other files."""
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    kept = (line.partition("#")[0].strip() for line in lines)
    return {line for line in kept if line and not line.startswith("-")}


@pytest.mark.parametrize("can", PROJECTS)
def test_all_packages_have_one_version(can):
    assert PROJECTS[can]["version"] == VERSION
    assert PROJECTS[can]["name"] == f"twocans-{can}"


def test_the_code_says_the_packages_version():
    assert twocans_core.__version__ == VERSION


@pytest.mark.parametrize("can", ["server", "client"])
def test_an_image_built_without_arguments_says_the_packages_version(can):
    assert f"ARG VERSION={VERSION}\n" in (ROOT / can / "Dockerfile").read_text()


def test_a_release_is_a_plain_version():
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", VERSION)


@pytest.mark.parametrize("can", ["server", "client"])
def test_both_cans_need_exactly_this_core(can):
    assert PROJECTS[can]["dependencies"] == [f"twocans-core=={VERSION}"]


@pytest.mark.parametrize("can", PROJECTS)
def test_all_packages_need_the_same_python(can):
    assert PROJECTS[can]["requires-python"] == ">=3.11"


def test_what_the_images_contain_is_what_core_needs():
    assert requirements("run.in") == set(PROJECTS["core"]["dependencies"])


def test_the_demo_has_what_the_terminal_extra_needs():
    assert requirements("demo.in") == set(PROJECTS["client"]["optional-dependencies"]["tui"])


@pytest.mark.parametrize("can", ["server", "client"])
def test_the_commands_are_where_the_packages_say(can):
    ((command, target),) = PROJECTS[can]["scripts"].items()
    module, function = target.split(":")
    assert command == f"twocans-{can}"
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("name", ["run", "build", "demo", "dev", "lock"])
def test_every_locked_package_has_its_hash(name):
    text = (ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", " ")
    locked = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert locked
    assert [line for line in locked if "--hash=sha256:" not in line] == []


@pytest.mark.parametrize("name", ["run", "build", "demo"])
def test_each_lock_pins_what_dev_pins(name):
    def pins(file: str) -> set[str]:
        text = (ROOT / "requirements" / file).read_text()
        return set(re.findall(r"^([a-z0-9._-]+==[^ \\;]+)", text, re.MULTILINE | re.IGNORECASE))

    assert pins(f"{name}.txt")
    assert pins(f"{name}.txt") <= pins("dev.txt")
