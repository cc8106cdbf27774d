"""Containers for the tests of the images.

The images are those that ``make images`` built, or a release candidate's: the tests only run
them. All of a session's containers are on one Docker network, and carry its label, so that the
end of the session removes what a test left behind; there is no reaper here (Ryuk is one more
image to pull).
"""

import contextlib
from collections.abc import Generator, Iterator
from typing import NamedTuple

import docker
import pytest
from testcontainers.core.labels import LABEL_SESSION_ID, SESSION_ID
from testcontainers.core.network import Network

from system.cans import Can, Site

# Every can that is there, for the logs that a failure shows.
_started: list[Can] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections += [(f"end of the log of {can.name}", can.tail()) for can in _started]
    return report


class Pair(NamedTuple):
    """A server and a client that probes it, shared by the tests that leave both as they are."""

    server: Can
    client: Can


@pytest.fixture(scope="session")
def network(images: dict[str, str]) -> Iterator[Network]:
    """Give the Docker network that the session's containers are on."""
    engine = docker.from_env()
    label = {"label": f"{LABEL_SESSION_ID}={SESSION_ID}"}
    try:
        with Network() as network:
            yield network
            for container in engine.containers.list(all=True, filters=label):
                container.remove(force=True, v=True)
    finally:
        for left in engine.networks.list(filters=label):
            left.remove()
        engine.close()


@pytest.fixture
def site(images: dict[str, str], network: Network) -> Iterator[Site]:
    """Start containers that are gone when the test is over."""
    with contextlib.ExitStack() as stack:
        yield Site(images, network, stack, _started)


@pytest.fixture(scope="session")
def pair(images: dict[str, str], network: Network) -> Iterator[Pair]:
    """Give the shared server and client; the server is called ``server``."""
    with contextlib.ExitStack() as stack:
        site = Site(images, network, stack, _started)
        yield Pair(site.server("server"), site.client("client", "server:5000"))
