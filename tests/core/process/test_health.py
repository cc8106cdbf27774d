"""A check that is started beside a can finds it, and no other."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from twocans_core.process import health
from twocans_core.process.health import HttpPlace, check_health, find_place
from twocans_core.process.http import HttpServer
from twocans_core.process.telemetry import make_registry

DEFAULT = HttpPlace("", 5001)
PROG = "twocans-server"


@pytest.fixture(autouse=True)
def container(monkeypatch):
    """As in a PID namespace of this test's own."""
    monkeypatch.setattr(health, "_pid_namespace", lambda: os.getpid())


@contextlib.contextmanager
def serving(host: str = "127.0.0.1", role: str = "server") -> Iterator[HttpPlace]:
    site = HttpServer(
        host, 0, make_registry(), role=role, is_healthy=lambda: True, is_ready=lambda: True
    )
    site.start()
    try:
        yield HttpPlace(*site.address)
    finally:
        site.close()


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "127.0.0.2", "::1"])
def test_a_can_is_found_wherever_it_serves(host):
    with serving(host) as place:
        found = find_place(PROG, DEFAULT)
        assert found == place
        assert check_health(found) is None


def test_the_configured_one_is_asked_where_none_tells():
    with serving() as gone:
        pass
    assert find_place(PROG, DEFAULT) == DEFAULT
    assert check_health(gone) is not None


def test_the_other_can_of_a_shared_namespace_is_not_asked():
    with serving(role="client"):
        assert find_place(PROG, DEFAULT) == DEFAULT


def test_a_can_of_another_container_on_the_same_network_is_not_asked(monkeypatch):
    with serving():
        monkeypatch.setattr(health, "_pid_namespace", lambda: 1)
        assert find_place(PROG, DEFAULT) == DEFAULT


def test_of_several_the_configured_one_is_asked_or_none():
    with serving() as one, serving("") as other:
        assert find_place(PROG, one) == one
        assert find_place(PROG, HttpPlace("", other.port)).near == other.near
        with pytest.raises(LookupError, match=r"several .* choose one by --http-port"):
            find_place(PROG, DEFAULT)


def test_on_a_machine_of_many_cans_the_configured_one_is_asked(monkeypatch):
    # Not the machine's own number: other tests may run processes in it.
    monkeypatch.setattr(health, "_MACHINES_NAMESPACE", os.getpid())
    with serving() as place:
        assert find_place(PROG, DEFAULT) == DEFAULT
        assert find_place(PROG, HttpPlace("", 0)) == place, "a port of the kernel's choice"


IN_CONTAINER = """
ip link set lo up || exit 9
"$@" >/dev/null 2>&1 &
for _ in $(seq 100); do
    said=$("$PYTHON" -m "$MODULE" health) && break
    sleep 0.1
done
echo "$said"
kill $!
wait $!
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["twocans_server", "--port=0", "--http-port=0", "--http-host=::1", "--drain-accept-s=0"],
        ["twocans_client", "run", "--target=127.0.0.1:1", "--http-port=0", "--output=json"],
    ],
    ids=["server", "client"],
)
def test_in_a_container_the_check_needs_no_setting_of_the_cans(command):
    unshare = ["unshare", "--pid", "--net", "--fork", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], check=False).returncode:
        pytest.skip("no PID namespace can be made")
    done = subprocess.run(
        [*unshare, "sh", "-c", IN_CONTAINER, "sh", sys.executable, "-m", *command],
        env={**os.environ, "PYTHON": sys.executable, "MODULE": command[0]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
