"""Docker for those tests that are marked with it, and a last word on what was skipped.

The marked tests run the images; ``make images`` builds them, and so does the fixture below when
one is missing. Without an engine they are skipped, and the summary says so; with
TWOCANS_REQUIRE_DOCKER=1 they fail instead.
"""

import functools
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from needs import lacking

# No test asserts a time, and a machine may be busy.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

ROOT = Path(__file__).resolve().parent.parent
TAG = os.environ.get("TWOCANS_TAG", "dev")
IMAGES = (f"twocans-server:{TAG}", f"twocans-client:{TAG}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("docker") and (problem := _engine_problem()):
        lacking(problem)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    # Around pytest's own, which prints its summary: these are the last lines.
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not reporter.stats.get("skipped"):
        return
    skipped = reporter.stats["skipped"]
    # (path, line, "Skipped: why"), as pytest keeps it.
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    reporter.write_line(f"{len(skipped)} skipped:")
    for reason, count in reasons.most_common():
        reporter.write_line(f"{count:5} x {reason}")


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """Give the images' names by can, ``server`` and ``client``; build those that are missing.

    Only for tests with the mark ``docker``.
    """
    # Here and not above: tests that need no Docker run without testcontainers.
    from testcontainers.core.config import testcontainers_config

    # Ryuk, the reaper, is one more image to pull, from a registry that an offline machine
    # cannot reach. Every container here is closed by a context manager.
    testcontainers_config.ryuk_disabled = True
    if any(not _image_exists(image) for image in IMAGES):
        _build_images()
    return {"server": IMAGES[0], "client": IMAGES[1]}


def _build_images() -> None:
    build = subprocess.run(
        ["make", "images", f"TAG={TAG}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if build.returncode:
        end = "\n".join((build.stdout + build.stderr).splitlines()[-15:])
        lacking(f"{' or '.join(IMAGES)} is missing, and make images fails:\n{end}")


def _image_exists(image: str) -> bool:
    command = ["docker", "image", "inspect", image]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@functools.cache
def _engine_problem() -> str | None:
    try:
        engine = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            timeout=20,
            check=False,
        )
    except FileNotFoundError:
        return "there is no docker here"
    except subprocess.TimeoutExpired:
        return "the Docker engine does not answer"
    return "no Docker engine answers" if engine.returncode else None
