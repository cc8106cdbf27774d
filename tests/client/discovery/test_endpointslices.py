import asyncio
import contextlib
import itertools
import json
import logging
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import pytest

from client.api_server import NAMESPACE, SERVICE, TOKEN, ApiServer, endpoint, slice_of
from twocans_client.discovery import apiserver
from twocans_client.discovery import endpointslices as module
from twocans_client.discovery.endpointslices import Timing, Watch
from twocans_client.discovery.slices import Endpoint, parse_page
from twocans_core.net.sockets import Address
from twocans_core.net.sockets import keep_alive as keep

QUICK = Timing(request_s=5.0, backoff_s=(0.001, 0.02))
PATH = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


class World:
    """A watch at work.

    Attributes:
        told: Everything that was told so far, in order: hosts, or a problem's text.
    """

    def __init__(
        self, server: ApiServer, *, waits: threading.Event | None = None, **options: Any
    ) -> None:
        self.told: list[list[str] | str] = []
        self.newest: list[Endpoint] = []
        self.threads: set[int] = set()
        arguments: dict[str, Any] = {
            "account": server.account,
            "environ": server.environ,
            "timing": QUICK,
        }
        namespace = options.pop("namespace", NAMESPACE)
        self.watch = Watch(
            SERVICE,
            namespace,
            5000,
            on_change=self._changed,
            on_problem=self._failed,
            **(arguments | options),
        )
        if waits is not None:
            self.watch._stopping = waits
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.watch.run())

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
            assert self.task.cancelled()

    def _changed(self, endpoints: list[Endpoint]) -> None:
        self.threads.add(threading.get_ident())
        self.newest = endpoints
        self.told.append([found.address.host for found in endpoints])

    def _failed(self, problem: str) -> None:
        self.threads.add(threading.get_ident())
        self.told.append(problem)

    @property
    def lists(self) -> list[list[str]]:
        return [told for told in self.told if isinstance(told, list)]

    @property
    def problems(self) -> list[str]:
        return [told for told in self.told if isinstance(told, str)]


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "endpointslices"]


@contextlib.asynccontextmanager
async def watching(server: ApiServer, **options: Any) -> AsyncIterator[World]:
    world = World(server, **options)
    world.start()
    try:
        yield world
    finally:
        await world.stop()
        for thread in watchers():
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive(), "the thread goes on after the end"


async def until(is_so: Callable[[], Any]) -> None:
    """Wait for something that is about to be so."""
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0.002)


async def settled(server: ApiServer, world: World, *hosts: str) -> None:
    """Wait until these hosts were told, and a watch is under way."""
    await until(lambda: world.told[-1:] == [list(hosts)] and server.watches == 1)


@pytest.fixture
def server(tmp_path):
    with ApiServer(tmp_path / "account") as server:
        server.put(slice_of("a", endpoint("192.0.2.1", "node-1", zone="zone-1")))
        yield server


def run(scene: Callable[..., Any], server: ApiServer, **options: Any) -> None:
    """Play a scene with a watch at work."""

    async def main() -> None:
        async with watching(server, **options) as world:
            await scene(world)

    asyncio.run(main())


def verbs(server: ApiServer) -> list[str]:
    return [request.verb for request in server.requests]


def play(server: ApiServer, *hosts: str, **options: Any) -> World:
    """Watch until these hosts were told and a watch is under way; returns what was told."""
    worlds: list[World] = []

    async def scene(world: World) -> None:
        worlds.append(world)
        await settled(server, world, *hosts)

    run(scene, server, **options)
    return worlds[0]


def first_problem(server: ApiServer, **options: Any) -> str:
    """Watch until there is a problem, and return it."""
    problems: list[str] = []

    async def scene(world: World) -> None:
        await until(lambda: world.problems)
        problems.append(world.problems[0])

    run(scene, server, **options)
    return problems[0]


# --- what there is ------------------------------------------------------------------------


def test_the_list_is_told_with_all_that_is_known_of_each(server):
    async def scene(world):
        await settled(server, world, "192.0.2.1")
        server.put(slice_of("b", endpoint("2001:db8::1", zone="zone-2"), family="IPv6"))
        await until(lambda: len(world.lists) == 2)
        assert world.newest == [
            Endpoint(Address("192.0.2.1", 5000), "node-1", "zone-1"),
            Endpoint(Address("2001:db8::1", 5000), "", "zone-2"),
        ]
        assert world.problems == []

    run(scene, server)


def test_the_requests_are_what_the_api_wants(server):
    play(server, "192.0.2.1")
    first, second = server.requests
    selector = f"kubernetes.io/service-name={SERVICE}"
    assert (first.path, first.token) == (second.path, second.token) == (PATH, TOKEN)
    assert first.query == {"labelSelector": selector, "limit": "10"}
    timeout_s = int(second.query["timeoutSeconds"])
    assert second.query == {
        "labelSelector": selector,
        "watch": "1",
        "resourceVersion": "101",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": str(timeout_s),
    }
    assert 240 <= timeout_s <= 360
    assert first.headers["Accept"] == "application/json"
    assert first.headers["User-Agent"].startswith("twocans-client/")


def test_watches_do_not_all_last_as_long(server):
    async def scene(world):
        while len(server.requests) < 9:
            server.end_watches()
            await asyncio.sleep(0.001)

    run(scene, server, rng=Random(1))
    times = {request.query.get("timeoutSeconds") for request in server.requests}
    assert len(times) > 4


def test_a_service_without_endpoints_is_told_too(server):
    server.delete("a")
    play(server)


def test_a_list_of_many_pages_is_told_once_and_whole(server):
    for number, name in enumerate("bcde", 2):
        server.put(slice_of(name, endpoint(f"192.0.2.{number}")))
    server.page_slices = 2
    hosts = [f"192.0.2.{number}" for number in range(1, 6)]
    world = play(server, *hosts)
    assert world.told == [hosts]
    assert verbs(server) == ["list"] * 3 + ["watch"]
    assert [request.query.get("continue") for request in server.requests[:3]] == [None, "2", "4"]


def test_slices_come_and_go_and_change(server):
    async def scene(world):
        await settled(server, world, "192.0.2.1")
        server.put(slice_of("b", endpoint("192.0.2.2"), endpoint("192.0.2.3")))
        await settled(server, world, "192.0.2.1", "192.0.2.2", "192.0.2.3")
        leaving = {"ready": False, "serving": True, "terminating": True}
        server.put(slice_of("b", endpoint("192.0.2.2", conditions=leaving), endpoint("192.0.2.3")))
        await settled(server, world, "192.0.2.1", "192.0.2.3")
        server.delete("a")
        await settled(server, world, "192.0.2.3")
        server.delete("b")
        await settled(server, world)
        assert verbs(server) == ["list", "watch"], "one watch tells it all"
        assert world.problems == []

    run(scene, server)


def test_an_endpoint_that_moves_between_slices_is_there_all_the_time(server):
    async def scene(world):
        await settled(server, world, "192.0.2.1")
        server.put(slice_of("b", endpoint("192.0.2.1"), endpoint("192.0.2.2")))
        await settled(server, world, "192.0.2.1", "192.0.2.2")
        server.put(slice_of("a"))
        server.put(slice_of("c", endpoint("192.0.2.3")))
        await settled(server, world, "192.0.2.1", "192.0.2.2", "192.0.2.3")
        assert all("192.0.2.1" in hosts for hosts in world.lists)

    run(scene, server)


def test_what_happens_between_list_and_watch_is_not_lost(server):
    def list_and_change(handler):
        handler.list()
        server.put(slice_of("b", endpoint("192.0.2.2")))

    server.steps.append(list_and_change)
    play(server, "192.0.2.1", "192.0.2.2")


def test_a_change_that_makes_no_difference_is_not_told(server):
    async def scene(world):
        await settled(server, world, "192.0.2.1")
        server.put(slice_of("a", endpoint("192.0.2.1", "node-1", zone="zone-1")))
        server.put(slice_of("b"))
        server.put(slice_of("c", endpoint("192.0.2.3")))
        await settled(server, world, "192.0.2.1", "192.0.2.3")
        assert len(world.told) == 2

    run(scene, server)


def test_everything_is_told_on_the_loop(server):
    async def scene(world):
        await settled(server, world, "192.0.2.1")
        server.say(b"x\n")
        await until(lambda: len(world.told) == 3)
        assert world.threads == {threading.get_ident()}

    run(scene, server)


def test_a_loop_that_was_held_up_is_told_the_newest_once(server):
    async def scene(world):
        await settled(server, world, "192.0.2.1")
        for number in range(50):
            server.put(slice_of(f"s{number}", endpoint(f"192.0.2.{number + 100}")))
        end = time.monotonic() + 20
        while len(world.watch._slices) < 51 and time.monotonic() < end:
            time.sleep(0.002)  # noqa: ASYNC251 - the loop is held up
        await asyncio.sleep(0.05)
        assert [len(hosts) for hosts in world.lists] == [1, 51]

    run(scene, server)


def test_after_a_problem_the_list_is_told_even_to_a_loop_that_was_held_up(server):
    async def scene(world):
        await settled(server, world, "192.0.2.1")
        before = len(server.requests)
        server.put(slice_of("b", endpoint("192.0.2.2")))
        server.end_watches(cut=True)
        end = time.monotonic() + 20
        while (len(server.requests) < before + 2) and time.monotonic() < end:
            time.sleep(0.002)  # noqa: ASYNC251 - the loop is held up
        await until(lambda: len(world.problems) == 1)
        await asyncio.sleep(0.05)
        assert world.told[-1] == ["192.0.2.1", "192.0.2.2"]

    run(scene, server)


# --- how a watch ends ---------------------------------------------------------------------


def end_at_once(handler):
    """A step: a watch whose time is over."""
    handler.begin_watch()
    handler.wfile.write(b"0\r\n\r\n")


def test_a_watch_whose_time_is_over_goes_on_without_a_list_and_loses_nothing(server):
    async def scene(world):
        await settled(server, world, "192.0.2.1", "192.0.2.2")
        assert verbs(server) == ["list", "watch", "watch"]
        server.end_watches()
        await until(lambda: len(server.requests) == 4)
        assert world.problems == []

    def end_and_change(handler):
        end_at_once(handler)
        server.put(slice_of("b", endpoint("192.0.2.2")))

    server.steps.extend([lambda handler: handler.list(), end_and_change])
    run(scene, server)
    versions = [request.query.get("resourceVersion") for request in server.requests]
    assert versions == [None, "101", "101", "102"]


def test_a_bookmark_moves_the_version_and_tells_nothing(server):
    async def scene(world):
        await settled(server, world, "192.0.2.1")
        server.bookmark(500)
        await until(lambda: world.watch._version == "500")
        server.end_watches()
        await until(lambda: len(server.requests) == 3)
        assert server.requests[2].query["resourceVersion"] == "500"
        assert world.told == [["192.0.2.1"]]

    run(scene, server)


def say_too_old(server):
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    server.say(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")


@pytest.mark.parametrize(
    ("grow_old", "asked"),
    [(ApiServer.forget, ["watch", "list", "watch"]), (say_too_old, ["list", "watch"])],
    ids=["refused", "an event"],
)
def test_a_version_too_old_is_no_problem_but_a_new_list(server, grow_old, asked):
    async def scene(world):
        await settled(server, world, "192.0.2.1")
        grow_old(server)
        await until(lambda: verbs(server) == ["list", "watch", *asked])
        await until(lambda: len(world.told) == 2)
        assert world.told == [["192.0.2.1"]] * 2

    run(scene, server)


def test_a_list_that_grows_too_old_between_its_pages_begins_again(server):
    server.put(slice_of("b", endpoint("192.0.2.2")))
    server.page_slices = 1
    server.steps.extend([lambda handler: handler.list(), lambda handler: handler.refuse(410)])
    world = play(server, "192.0.2.1", "192.0.2.2")
    assert world.problems == []
    continued = [request.query.get("continue") for request in server.requests]
    assert continued == [None, "1", None, "1", None]


def test_a_server_for_which_all_is_too_old_is_a_problem(server):
    async def scene(world):
        await until(lambda: world.problems)
        assert world.problems[0] == "the API server says 410, too old, whatever we ask for"
        assert len(server.requests) >= 5
        await settled(server, world, "192.0.2.1")

    server.steps.extend([lambda handler: handler.refuse(410)] * 8)
    run(scene, server, timing=QUICK._replace(backoff_s=(0.001, 10.0)))


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"x\n", "the API server's answer is wrong: not JSON, or cut off"),
        (b'{"type": "ADDED", "object": {}}\n', "the API server's answer is wrong"),
        (
            b'{"type": "ERROR", "object": {"code": 500, "message": "etcd is down"}}\n',
            "the API server's answer is wrong: the watch ended with an error: etcd is down",
        ),
        (b'{"type": ' + b"[" * 100_000 + b"\n", "the API server's answer is wrong: not JSON"),
        (b"x" * 3 * 1024 * 1024, "the API server's answer is wrong: too long a line"),
    ],
)
def test_after_an_odd_event_there_is_a_problem_and_a_new_list(server, said, problem):
    async def scene(world):
        await settled(server, world, "192.0.2.1")
        server.say(said)
        await until(lambda: len(world.told) == 3)
        assert world.told[1].startswith(problem)
        assert world.told[2] == ["192.0.2.1"]
        assert verbs(server)[:3] == ["list", "watch", "list"]

    run(scene, server)


@pytest.mark.parametrize(
    ("said", "is_cut", "problem"),
    [
        (b"", True, "the API server: "),
        (b'{"type": "ADDED", ', True, "the API server: "),
        (
            b'{"type": "ADDED", ',
            False,
            "the API server's answer is wrong: the watch was cut off within a line",
        ),
    ],
)
def test_a_watch_that_is_cut_off_is_a_problem_and_a_new_list(server, said, is_cut, problem):
    async def scene(world):
        await settled(server, world, "192.0.2.1")
        if said:
            server.say(said)
        server.end_watches(cut=is_cut)
        await until(lambda: len(world.told) == 3)
        assert world.told[1].startswith(problem)
        assert world.told[2] == ["192.0.2.1"]

    run(scene, server)


def test_a_line_may_come_in_parts_and_several_lines_in_one(server):
    async def scene(world):
        await settled(server, world, "192.0.2.1")
        version = itertools.count(500)

        def added(name, host):
            item = slice_of(name, endpoint(host))
            item["metadata"]["resourceVersion"] = str(next(version))
            return json.dumps({"type": "ADDED", "object": item}).encode() + b"\n"

        line = added("b", "192.0.2.2")
        for part in (line[:1], line[1:50], line[50:-1]):
            server.say(part)
            await asyncio.sleep(0.02)
        assert len(world.told) == 1
        last = added("e", "192.0.2.5")
        server.say(line[-1:] + added("c", "192.0.2.3") + added("d", "192.0.2.4") + last[:9])
        await settled(server, world, *(f"192.0.2.{number}" for number in range(1, 5)))
        assert len(world.told) == 2
        server.say(last[9:])
        await settled(server, world, *(f"192.0.2.{number}" for number in range(1, 6)))
        assert world.watch._version == "501"

    run(scene, server)


# --- who may, and with whom ---------------------------------------------------------------


def test_a_token_that_rotated_is_read_again_for_the_next_watch(server):
    async def scene(world):
        await settled(server, world, "192.0.2.1")
        (server.account / "token").write_text("token-2")
        server.token = "token-2"
        server.end_watches()
        await until(lambda: len(server.requests) == 3 and server.watches == 1)
        assert [request.token for request in server.requests] == [TOKEN, TOKEN, "token-2"]
        assert world.problems == []

    run(scene, server)


def test_a_token_that_is_refused_is_a_problem_until_the_file_has_a_new_one(server):
    async def scene(world):
        await settled(server, world, "192.0.2.1")
        server.token = "token-2"
        server.end_watches(cut=True)
        await until(lambda: len(world.problems) > 3)
        assert world.lists == [["192.0.2.1"]], "the last good list stays"
        problem = world.problems[-1]
        assert problem.startswith(f"HTTP 401 for the endpointslices of namespace {NAMESPACE}; ")
        assert "does not take our token" in problem
        assert problem.endswith("the API server says: Unauthorized")
        assert TOKEN not in problem
        (server.account / "token").write_text("token-2")
        await until(lambda: len(world.lists) == 2)

    run(scene, server)


def test_a_ca_that_rotated_is_read_again(server):
    async def scene(world):
        await settled(server, world, "192.0.2.1")
        server.present("rotated")
        server.end_watches()
        await until(lambda: world.problems)
        asked = len(server.requests)
        assert world.problems[0].startswith("the API server's certificate is not good by our ca")
        await until(lambda: len(world.problems) > 2)
        assert len(server.requests) == asked, "our token was shown to a stranger"
        server.trust("rotated")
        await until(lambda: len(world.lists) == 2)

    run(scene, server)


def test_a_certificate_of_another_host_is_refused(server):
    server.present("elsewhere")
    problem = first_problem(server)
    assert "certificate is not good" in problem
    assert "mismatch" in problem
    assert "[SSL" not in problem
    assert (server.requests, server.handshakes_failed > 0) == ([], True)


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine's loopback")
def test_the_api_server_may_have_an_ipv6_address(tmp_path):
    async def scene(world):
        await settled(six, world, "192.0.2.1")

    with ApiServer(tmp_path / "account", host="::1") as six:
        six.put(slice_of("a", endpoint("192.0.2.1")))
        run(scene, six)
        assert six.requests[0].headers["Host"] == f"[::1]:{six.server_address[1]}"


def test_without_a_namespace_it_is_the_service_accounts(server):
    play(server, "192.0.2.1", namespace="")


def test_a_namespace_is_one_part_of_the_path(server):
    async def scene(world):
        await until(lambda: world.problems)

    run(scene, server, namespace="a/../b?c")
    assert server.requests[0].path.endswith("/namespaces/a%2F..%2Fb%3Fc/endpointslices")


def test_a_proxy_in_the_environment_is_not_asked(server, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    play(server, "192.0.2.1")


def test_a_redirect_is_not_followed(server):
    server.steps.append(lambda handler: handler.answer(b"", 302, Location="/elsewhere"))
    world = play(server, "192.0.2.1")
    assert world.problems == [f"HTTP 302 for the endpointslices of namespace {NAMESPACE}"]
    assert {request.path for request in server.requests} == {PATH}


FORBIDDEN = 'endpointslices.discovery.k8s.io is forbidden: User "x" cannot list resource'


@pytest.mark.parametrize(
    ("code", "said", "problem"),
    [
        (
            403,
            FORBIDDEN,
            f"HTTP 403 for the endpointslices of namespace {NAMESPACE}; the service account may "
            "not do this; apply the component k8s/components/endpointslices; "
            f"the API server says: {FORBIDDEN}",
        ),
        (404, "", "HTTP 404 .*Kubernetes 1.21 and later have$"),
        (500, "etcd is down", "HTTP 500 .*; the API server says: etcd is down$"),
        (429, "slow down", "HTTP 429 .*; the API server says: slow down$"),
    ],
)
@pytest.mark.parametrize("verb", ["list", "watch"])
def test_a_refusal_is_told_with_what_to_do_and_the_next_try_may_go_well(
    server, code, said, problem, verb
):
    async def scene(world):
        await until(lambda: world.problems)
        await settled(server, world, "192.0.2.1")
        assert len(world.problems) == 1
        if code == 403:
            assert world.problems == [problem]
        else:
            assert re.match(problem, world.problems[0])

    if verb == "watch":
        server.steps.append(lambda handler: handler.list())
    server.steps.append(lambda handler: handler.refuse(code, said))
    run(scene, server)


@pytest.mark.parametrize(
    "body", [b"xyz", b"", b"5\r\n{", b"20000\r\n" + b"x" * 131_072 + b"\r\n0\r\n\r\n"]
)
def test_a_refusal_whose_words_cannot_be_read_is_told_without(server, body):
    async def scene(world):
        await until(lambda: world.problems)
        assert world.problems[0].startswith(
            f"HTTP 403 for the endpointslices of namespace {NAMESPACE}; "
        )
        assert world.problems[0].endswith("apply the component k8s/components/endpointslices")

    server.steps.append(raw(b"HTTP/1.1 403\r\nTransfer-Encoding: chunked\r\n\r\n" + body))
    run(scene, server)


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("token", None, "No such file or directory; the pod has no service account's token: apply"),
        ("token", b" \n", "token is empty"),
        ("token", b"a\nb", "token holds no token"),
        ("token", "tökén".encode(), "token holds no token"),
        ("token", b"\xff", "token is no text"),
        ("ca.crt", None, "ca.crt: No such file or directory"),
        ("ca.crt", b"", "ca.crt holds no certificate"),
        ("ca.crt", b"x", "ca.crt holds no certificate"),
        ("ca.crt", "ö".encode(), "ca.crt holds no certificate"),
        (
            "ca.crt",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "ca.crt holds no certificate",
        ),
        ("namespace", None, "namespace: No such file or directory"),
        ("namespace", b"\n", "namespace is empty"),
    ],
)
def test_a_service_account_that_is_not_whole_is_a_problem_until_it_is(server, name, data, problem):
    file = server.account / name
    whole = file.read_bytes()

    async def scene(world):
        await until(lambda: len(world.problems) > 1)
        assert problem in world.problems[0]
        assert (server.requests, server.handshakes_failed) == ([], 0)
        file.write_bytes(whole)
        await settled(server, world, "192.0.2.1")

    if data is None:
        file.unlink()
    else:
        file.write_bytes(data)
    run(scene, server, namespace="")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"KUBERNETES_SERVICE_HOST": ""}, "not in a Kubernetes cluster: KUBERNETES_SERVICE_HOST"),
        ({"KUBERNETES_SERVICE_PORT": ""}, "KUBERNETES_SERVICE_PORT is no port"),
        ({"KUBERNETES_SERVICE_PORT": "0"}, "KUBERNETES_SERVICE_PORT is no port"),
        ({"KUBERNETES_SERVICE_PORT": "65536"}, "KUBERNETES_SERVICE_PORT is no port"),
        ({"KUBERNETES_SERVICE_PORT": "²"}, "KUBERNETES_SERVICE_PORT is no port"),
        ({"KUBERNETES_SERVICE_PORT": "1" * 9_999}, "KUBERNETES_SERVICE_PORT is no port"),
        ({"KUBERNETES_SERVICE_PORT": "tcp://192.0.2.1:443"}, "KUBERNETES_SERVICE_PORT is no port"),
        ({"KUBERNETES_SERVICE_HOST": "a b"}, "the API server: "),
    ],
)
def test_who_is_in_no_cluster_is_told_so(server, changes, problem):
    assert first_problem(server, environ=server.environ | changes).startswith(problem)
    assert server.requests == []


# --- servers that do not behave -----------------------------------------------------------


def raw(data: bytes) -> Any:
    """A step that sends these bytes, and no more."""

    def step(handler):
        handler.wfile.write(data)

    return step


GOOD = b'{"metadata": {"resourceVersion": "7"}, "items": []}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n{",
        b"HTTP/1.1 200\r\nContent-Length: -5\r\n\r\n{",
        b"HTTP/1.1 200\r\n" + b"a: b\r\n" * 200 + b"\r\n" + GOOD,
        b"HTTP/1.1 200\r\na: " + b"b" * 70_000 + b"\r\n\r\n" + GOOD,
        b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n",
        b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n" + GOOD,
        b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 70_000,
        b"HTTP/1.1 200\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x00",
        b"HTTP/1.1 204\r\n\r\n",
        b"HTTP/1.1 403\r\nContent-Length: 5\r\n\r\n{",
        b"HTTP/1.1 200\r\n\r\n<html>",
        b"HTTP/1.1 200\r\n\r\n" + b'{"items": ' + b"[" * 100_000,
    ],
)
def test_an_odd_answer_is_a_problem_and_the_next_try_may_go_well(server, data, caplog):
    server.steps.append(raw(data))
    world = play(server, "192.0.2.1")
    assert len(world.problems) == 1
    assert "bug" not in world.problems[0]
    assert caplog.records == []


def test_an_answer_without_a_length_ends_with_the_connection(server):
    async def scene(world):
        await until(lambda: world.told)
        assert world.told == [[]]

    server.steps.append(raw(b"HTTP/1.0 200 OK\r\n\r\n" + GOOD))
    run(scene, server)


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_a_server_that_says_nothing_is_given_up(server, verb):
    async def scene(world):
        await until(lambda: world.problems)
        assert "timed out" in world.problems[0]
        await settled(server, world, "192.0.2.1")

    if verb == "watch":
        server.steps.append(lambda handler: handler.list())
    server.steps.append(lambda handler: handler.hang())
    timing = QUICK._replace(request_s=0.3, watch_s=(0, 0), grace_s=0.3)
    run(scene, server, timing=timing)


def test_a_watch_that_is_not_even_accepted_is_given_up_as_soon_as_a_list(server):
    async def scene(world):
        await until(lambda: world.problems)
        assert "timed out" in world.problems[0]
        await settled(server, world, "192.0.2.1")

    server.steps.extend([lambda handler: handler.list(), lambda handler: handler.hang()])
    run(scene, server, timing=QUICK._replace(request_s=0.3))


def test_a_watch_without_news_is_ended_after_its_time_and_some_grace(server):
    assert "timed out" in first_problem(server, timing=QUICK._replace(watch_s=(0, 0), grace_s=0.2))


def test_a_watch_may_be_silent_for_longer_than_a_list(server):
    async def scene(world):
        await settled(server, world, "192.0.2.1")
        await asyncio.sleep(0.8)
        assert verbs(server) == ["list", "watch"]

    run(scene, server, timing=QUICK._replace(request_s=0.5))


def test_a_server_that_never_shakes_hands_is_given_up(server):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        environ = server.environ | {"KUBERNETES_SERVICE_PORT": port}
        assert "timed out" in first_problem(
            server, environ=environ, timing=QUICK._replace(request_s=0.2)
        )


def test_a_server_that_is_not_there_is_a_problem(server):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = str(gone.getsockname()[1])
    assert (
        first_problem(server, environ=server.environ | {"KUBERNETES_SERVICE_PORT": port})
        == "the API server: Connection refused"
    )


def drip(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(2_000):
            handler.wfile.write(b" ")
            time.sleep(0.01)


def test_a_list_that_comes_in_drips_is_given_up(server):
    server.steps.append(drip)
    assert (
        first_problem(server, timing=QUICK._replace(request_s=0.5))
        == "the API server: the answer takes too long"
    )


def test_a_watch_that_does_not_end_by_itself_is_ended_and_goes_on(server):
    async def scene(world):
        await until(lambda: world.told)
        while len(server.requests) < 3:
            server.bookmark(server.version + 1)
            await asyncio.sleep(0.01)
        assert verbs(server) == ["list", "watch", "watch"]
        assert world.problems == []

    run(scene, server, timing=QUICK._replace(watch_s=(0, 0), grace_s=0.5))


def test_a_list_is_bounded_in_bytes_over_all_its_pages(server, monkeypatch):
    async def scene(world):
        await until(lambda: world.problems)
        assert world.told == ["the API server's answer is wrong: too many bytes"]

    server.put(slice_of("b", endpoint("192.0.2.2")))
    server.page_slices = 1
    monkeypatch.setattr(module, "_MAX_LIST_BYTES", 600)
    run(scene, server)
    assert [request.query.get("continue") for request in server.requests[:2]] == [None, "1"]


def test_a_list_without_end_is_given_up(server, monkeypatch):
    async def scene(world):
        await until(lambda: world.problems)
        assert world.told == ["the API server's answer is wrong: a list of more than 3 pages"]

    page = b'{"metadata": {"resourceVersion": "7", "continue": "x"}, "items": []}'
    server.steps.extend([lambda handler: handler.answer(page)] * 3)
    monkeypatch.setattr(module, "_MAX_PAGES", 3)
    run(scene, server)


def crowd(name, first, count):
    hosts = (f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(first, first + count))
    return slice_of(name, *(endpoint(host, f"node-{host}") for host in hosts))


def test_ten_thousand_endpoints_are_told(server):
    async def scene(world):
        await until(lambda: world.lists)
        assert len(world.newest) == len({found.node for found in world.newest}) == 10_000
        assert world.problems == []

    server.delete("a")
    for number in range(100):
        server.put(crowd(f"c{number}", number * 100, 100))
    run(scene, server)


def test_of_more_than_ten_thousand_the_first_are_told_after_a_problem(server):
    async def scene(world):
        await until(lambda: len(world.told) == 2)
        assert world.told[0] == "10011 endpoints; 10000 of them are used"
        assert len(world.newest) == 10_000

    for number in range(11):
        server.put(crowd(f"c{number}", number * 910, 910))
    run(scene, server)


@pytest.mark.parametrize("when", ["at first", "later"])
def test_more_than_twenty_thousand_entries_are_refused(server, when):
    def grow():
        for number in range(21):
            server.put(crowd(f"c{number}", 0, 1_000))

    async def scene(world):
        if when == "later":
            await settled(server, world, "192.0.2.1")
            grow()
        refusal = "the API server's answer is wrong: more than 20000 endpoints"
        await until(lambda: refusal in world.problems)
        assert all(len(hosts) <= 1_001 for hosts in world.lists)

    if when == "at first":
        grow()
    run(scene, server)


# --- our own side -------------------------------------------------------------------------


def watch_and_hang(handler):
    handler.begin_watch()
    handler.hang()


@pytest.mark.parametrize("step", [lambda handler: handler.hang(), watch_and_hang])
def test_it_ends_at_once_though_it_waits_for_the_server(server, step):
    async def scene(world):
        await until(lambda: world.lists and len(server.requests) == 2)
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        await world.stop()
        for thread in watchers():
            await asyncio.to_thread(thread.join, 5)
        assert time.monotonic() - begun < 2
        await until(lambda: server.connected == 0)
        assert world.told == [["192.0.2.1"]]

    server.steps.extend([lambda handler: handler.list(), step])
    run(scene, server)


def test_it_ends_at_once_though_it_waits_for_its_next_try(server):
    async def scene(world):
        await until(lambda: world.problems)
        begun = time.monotonic()
        await world.stop()
        for thread in watchers():
            await asyncio.to_thread(thread.join, 5)
        assert time.monotonic() - begun < 2

    server.token = None
    run(scene, server, timing=Timing(backoff_s=(50.0, 100.0)))


def test_who_is_told_to_stop_while_it_connects_asks_for_nothing(server, monkeypatch):
    connecting, stopped = threading.Event(), threading.Event()
    accept = server.finish_request

    def late(request, client_address):
        connecting.set()
        assert stopped.wait(10)
        accept(request, client_address)

    monkeypatch.setattr(server, "finish_request", late)

    async def scene(world):
        await until(connecting.is_set)
        await world.stop()
        stopped.set()

    run(scene, server)
    assert server.requests == []


def test_nothing_is_told_after_the_end(server):
    async def main():
        world = World(server)
        world.start()
        await settled(server, world, "192.0.2.1")
        assert world.task is not None
        world.task.cancel()
        world.watch._tell("late")
        world.watch._announce()
        await world.stop()
        for thread in watchers():
            await asyncio.to_thread(thread.join, 10)
        world.watch._tell("later")
        world.watch._announce()
        await asyncio.sleep(0.01)
        return world

    world = asyncio.run(main())
    assert world.told == [["192.0.2.1"]]
    world.watch._tell("the loop is closed")


class Waits(threading.Event):
    """An event that is waited for in no time, and notes for how long it should have been."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.asked.append(timeout)
        return super().wait(0.001)


def test_back_off_grows_to_10_seconds_with_jitter(server):
    waits = Waits()

    async def scene(world):
        await until(lambda: len(waits.asked) >= 40)
        for wait_s, most_s in zip(waits.asked, [8, *[10] * 99], strict=False):
            assert 1 <= wait_s <= most_s
        assert max(waits.asked) > 8
        assert len({round(wait_s, 3) for wait_s in waits.asked}) > 30, "no jitter"

    server.token = None
    run(scene, server, waits=waits, timing=Timing(), rng=Random(1))


class Outage:
    """A watch in virtual time, whose API server is away from second 100 on.

    Attributes:
        tries: When each try began.
        back_s: When the first try went well after it.
    """

    def __init__(self, monkeypatch, *, away_s: float, try_s: float, seed: int) -> None:
        self.now_s = 0.0
        self.tries: list[float] = []
        self.back_s = 0.0
        self._end_s, self._try_s = 100 + away_s, try_s
        self._watch = watch = Watch(
            "s", "n", 1, on_change=print, on_problem=print, rng=Random(seed)
        )
        outage = self

        class Stopping(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                outage.now_s += timeout or 0
                return False

        watch._stopping = Stopping()
        monkeypatch.setattr(watch, "_list", self._request)
        monkeypatch.setattr(watch, "_watch", self._follow)
        monkeypatch.setattr(watch, "_tell", lambda _: None)
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)
        self._stop = watch._stopping.set
        watch._work()

    def _request(self) -> None:
        self.tries.append(self.now_s)
        if 100 <= self.now_s < self._end_s:
            # A try that is under way when the server is back goes well.
            self.now_s += self._try_s
            if self.now_s < self._end_s:
                raise TimeoutError("timed out")
        if self.now_s >= self._end_s:
            self.back_s = self.now_s
            self._stop()

    def _follow(self) -> None:
        if self.now_s < 100:
            self._watch._begun_s = self.now_s
            self.now_s = 100.0
            raise ConnectionResetError


@pytest.mark.parametrize("try_s", [0.0, 10.0])
@pytest.mark.parametrize("away_s", [1, 20, 112, 600])
def test_it_is_back_within_ten_seconds_however_long_the_server_was_away(monkeypatch, try_s, away_s):
    late_s = [
        Outage(monkeypatch, away_s=away_s, try_s=try_s, seed=seed).back_s - 100 - away_s
        for seed in range(200)
    ]
    assert 0 <= min(late_s) < max(late_s) <= 10 + try_s


def test_clients_that_lost_their_watch_together_do_not_come_back_together(monkeypatch):
    outages = [Outage(monkeypatch, away_s=112, try_s=0.0, seed=seed) for seed in range(1_000)]
    by_second = Counter(int(try_s) for one in outages for try_s in one.tries if try_s > 0)
    assert max(by_second.values()) < 400
    assert max(Counter(int(one.back_s) for one in outages).values()) < 250


def test_back_off_begins_anew_after_a_watch_that_lasted(server):
    waits = Waits()

    async def scene(world):
        await settled(server, world, "192.0.2.1")
        server.steps.extend([lambda handler: handler.refuse(500)] * 10)
        server.end_watches()
        await until(lambda: len(waits.asked) > 10 and server.watches == 1)
        assert max(waits.asked) > 0.05
        await asyncio.sleep(0.6)
        before = len(waits.asked)
        server.end_watches()
        await until(lambda: len(waits.asked) > before)
        assert 0.01 <= waits.asked[before] <= 0.04

    timing = QUICK._replace(backoff_s=(0.01, 0.5))
    run(scene, server, waits=waits, timing=timing, rng=Random(1))


def test_a_server_that_ends_each_watch_at_once_is_not_asked_all_the_time(server):
    waits = Waits()

    async def scene(world):
        await until(lambda: len(waits.asked) >= 20)
        assert max(waits.asked) > 8
        assert min(waits.asked) >= 1

    server.steps.extend([lambda handler: handler.list(), *[end_at_once] * 20])
    run(scene, server, waits=waits, timing=Timing(), rng=Random(1))


def test_a_bug_of_ours_is_logged_and_the_next_try_may_go_well(server, monkeypatch, caplog):
    faults = [ZeroDivisionError("x")]

    def parse_badly(data, port):
        if faults:
            raise faults.pop()
        return parse_page(data, port)

    monkeypatch.setattr(module, "parse_page", parse_badly)
    world = play(server, "192.0.2.1")
    assert world.problems == ["a bug of ours: ZeroDivisionError"]
    assert [(record.msg, record.levelno) for record in caplog.records] == [("bug", logging.ERROR)]


def test_what_breaks_because_we_stop_is_no_bug(server, monkeypatch, caplog):
    reading, stopped = threading.Event(), threading.Event()

    def read_late(*_):
        reading.set()
        assert stopped.wait(10)
        raise AttributeError("of a connection that was cut")

    async def scene(world):
        await until(reading.is_set)
        await world.stop()
        stopped.set()

    monkeypatch.setattr(module, "read", read_late)
    run(scene, server)
    assert caplog.records == []


def test_a_thread_that_cannot_start_is_tried_again(server, monkeypatch):
    class Unstartable(threading.Thread):
        left = 3

        def start(self):
            if self.name == "endpointslices" and Unstartable.left:
                Unstartable.left -= 1
                raise RuntimeError("can't start new thread")
            super().start()

    monkeypatch.setattr(threading, "Thread", Unstartable)
    world = play(server, "192.0.2.1")
    assert world.problems == ["cannot watch EndpointSlices: can't start new thread"] * 3


def test_a_watch_whose_server_is_gone_without_a_word_fails_within_half_a_minute(
    server, monkeypatch
):
    """By the kernel's keepalive: a read time-out would be minutes."""
    kept: list[socket.socket] = []

    def keep_and_tell(sock):
        keep(sock)
        kept.append(sock)

    monkeypatch.setattr(apiserver, "keep_alive", keep_and_tell)

    async def main():
        async with watching(server) as world:
            await until(lambda: world.lists)
            await until(lambda: len(kept) >= 2)
            watch = kept[-1]
            assert watch.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            idle_s = watch.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            every_s = watch.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
            count = watch.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
            assert idle_s + every_s * count <= 30

    asyncio.run(main())
