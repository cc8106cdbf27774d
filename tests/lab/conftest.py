import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.namespaces import command
from lab.scene import Base, Scene, scene

from needs import lacking


@pytest.fixture(scope="session")
def able() -> None:
    """Skip the test where no scene can be set."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    for tool in ("ip", "tc", "iptables", "nsenter", "unshare", "setpriv", "cc"):
        if shutil.which(tool) is None:
            lacking(f"there is no {tool} here")
    if not Path("/dev/net/tun").exists():
        pytest.skip("there is no /dev/net/tun here")
    name = f"twocans-{os.getpid()}-can"
    try:
        command("ip", "netns", "add", name)
    except OSError as error:
        pytest.skip(f"no network namespace can be had: {error}")
    command("ip", "netns", "delete", name)


@pytest.fixture(scope="module")
def its(able: None) -> Iterator[Scene]:
    """One scene for a whole module: every test leaves it as it was."""
    with scene(Base()) as its:
        yield its
