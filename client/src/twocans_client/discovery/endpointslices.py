"""Watch a Service's EndpointSlices through the Kubernetes API, in a thread of its own.

One list, then one watch that goes on from it:

    list -> watch -> its time is over -> watch ...
      ^       |
      +-------+ wait, after any failure and when the API server has forgotten our version (410)

Every request is a connection of its own, for which token and CA are read again: both rotate.
"""

import asyncio
import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import NamedTuple

from .apiserver import ACCOUNT, ApiServer, describe, read, read_lines
from .slices import BadAnswer, Change, Endpoint, Expired, merge, parse_change, parse_page

__all__ = ["MAX_ENDPOINTS", "Timing", "Watch"]

log = logging.getLogger(__name__)

MAX_ENDPOINTS = 10_000
# Slices overlap while endpoints move between them.
_MAX_ENTRIES = 2 * MAX_ENDPOINTS
# A slice has 1,000 endpoints at most, of some 350 bytes each; 100 where nobody set another limit.
_MAX_LINE_BYTES = 2 * 1024 * 1024
_MAX_LIST_BYTES = 16 * 1024 * 1024
# Parsing holds the interpreter, so no probe goes on meanwhile: a page is a few milliseconds.
_PAGE_SLICES = 10
_MAX_PAGES = 1_000
# 410 is how the API server says that our version is gone from its cache, which is to be expected
# after a silence. Only one after the other is worth a word.
_USUAL_EXPIRIES = 3


class Timing(NamedTuple):
    """How long things may take, in seconds.

    Attributes:
        watch_s: Shortest and longest watch that is asked for; each is drawn from between.
        grace_s: How long after its time a watch may end.
        request_s: Connecting, the answer's beginning, and a page of a list, each.
        backoff_s: Shortest and longest wait for the next try; the first is at most four times
            the shortest. The longest is also how long a watch must have lasted for the next failure
            to be the first one again. A list grows stale meanwhile, so it is short; each wait is
            drawn from between, so that thousands of clients that lost the same API server do not
            come back at once.
    """

    watch_s: tuple[float, float] = (240.0, 360.0)
    grace_s: float = 15.0
    request_s: float = 10.0
    backoff_s: tuple[float, float] = (1.0, 10.0)


class Watch:
    """Tell of a Service's ready endpoints until cancelled.

    The newest list holds while nothing else is said: ``on_problem`` means that it may be out of
    date from now on, and the next ``on_change`` that it is not. So ``on_change`` is also called
    after a problem that changed nothing.

    Args:
        service: The Service.
        namespace: Its namespace; ``""`` for that of our own service account.
        port: What every endpoint's address gets, whatever ports the Service has.
        on_change: Called on the loop with every ready endpoint, sorted by address, each address
            once; at most 10,000.
        on_problem: Called on the loop with what went wrong, and what to do where that is known.
        account: The service account's folder.
        environ: The environment.
        rng: For the jitter.
        timing: How long things may take.
    """

    def __init__(
        self,
        service: str,
        namespace: str,
        port: int,
        *,
        on_change: Callable[[list[Endpoint]], None],
        on_problem: Callable[[str], None],
        account: Path = ACCOUNT,
        environ: Mapping[str, str] = os.environ,
        rng: Random | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._namespace = namespace
        self._port = port
        self._on_change = on_change
        self._on_problem = on_problem
        self._rng = rng or Random()  # noqa: S311 - jitter, no secret
        self._timing = timing or Timing()
        self._selector = {"labelSelector": f"kubernetes.io/service-name={service}"}
        self._api = ApiServer(account, environ, self._timing.request_s)
        self._stopping = threading.Event()
        # The thread's own:
        self._slices: dict[str, list[Endpoint]] = {}
        self._version = ""
        self._begun_s = math.inf
        # Of both sides:
        self._newest: list[Endpoint] = []
        self._is_told_soon = False

    async def run(self) -> None:
        """Watch until cancelled; to be called once."""
        self._loop = asyncio.get_running_loop()
        try:
            while not self._start():  # noqa: ASYNC110 - nobody could set an event
                await asyncio.sleep(self._timing.backoff_s[1])
            await self._loop.create_future()
        finally:
            self._stopping.set()
            self._api.stop()

    def _start(self) -> bool:
        # A daemon: while it connects nothing can wake it, and a process that stops does not
        # wait for it. At any other time it ends as soon as it is told to.
        thread = threading.Thread(target=self._work, name="endpointslices", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._on_problem(f"cannot watch EndpointSlices: {error}")
            return False
        return True

    # --- in the thread --------------------------------------------------------------------

    def _work(self) -> None:
        failures = 0
        shortest_s, longest_s = self._timing.backoff_s
        while not self._stopping.is_set():
            self._begun_s = math.inf
            try:
                if not self._version:
                    self._list()
                self._watch()
            except Expired:  # as it may be after a long silence
                self._version = ""
                if failures > _USUAL_EXPIRIES:
                    self._tell("the API server says 410, too old, whatever we ask for")
            except Exception as error:  # whatever it is, the next try may go better
                # What the broken watch has told may have a hole at its end. Only a list is whole
                # for sure.
                self._version = ""
                if not self._stopping.is_set():  # else we have cut the connection ourselves
                    self._report(error)
            # Also after a watch that ended well: a server that ends each at once is not to be
            # asked all the time.
            failures = 0 if time.monotonic() - self._begun_s >= longest_s else failures + 1
            at_most_s = min(shortest_s * 2 ** min(failures + 2, 10), longest_s)
            self._stopping.wait(self._rng.uniform(shortest_s, at_most_s))

    def _list(self) -> None:
        """Learn of everything that is there."""
        slices: dict[str, list[Endpoint]] = {}
        more = ""
        left = _MAX_LIST_BYTES
        for _ in range(_MAX_PAGES):
            query = {**self._selector, "limit": str(_PAGE_SLICES)}
            if more:
                query["continue"] = more
            # The pages of one list have one version, whatever happens between two requests:
            # ``continue`` says which. A list that takes minutes ends with 410, as a watch does.
            with self._api.get_slices(self._namespace, query, self._timing.request_s) as response:
                data = read(response, left, self._timing.request_s)
            left -= len(data)
            page = parse_page(data, self._port)
            slices |= page.slices
            _check_size(slices)
            more = page.more
            if not more:
                self._slices, self._version = slices, page.version
                self._announce()
                return
        raise BadAnswer(f"a list of more than {_MAX_PAGES} pages")

    def _watch(self) -> None:
        """Follow the changes until the API server ends the watch, as it is asked to."""
        watch_s = int(self._rng.uniform(*self._timing.watch_s))
        longest_s = watch_s + self._timing.grace_s
        query = {
            **self._selector,
            "watch": "1",
            "resourceVersion": self._version,
            # Bookmarks tell the newest version while no slice changes. Without them a quiet
            # Service's next watch would begin with one that has been forgotten, and cost a list.
            "allowWatchBookmarks": "true",
            # Drawn by us: clients that began together, after an outage, do not stay together.
            "timeoutSeconds": str(watch_s),
        }
        with self._api.get_slices(self._namespace, query, longest_s) as response:
            self._begun_s = time.monotonic()
            for lines in read_lines(response, _MAX_LINE_BYTES, longest_s):
                changes = [parse_change(line, self._port) for line in lines]
                if self._apply(changes):
                    self._announce()

    def _apply(self, changes: list[Change]) -> bool:
        """Take note of changes; returns whether they make any difference."""
        before = self._slices.copy()
        for change in changes:
            self._version = change.version
            self._slices.pop(change.name, None)
            if change.endpoints:
                self._slices[change.name] = change.endpoints
        _check_size(self._slices)
        return self._slices != before

    def _announce(self) -> None:
        endpoints = merge(self._slices)
        if len(endpoints) > MAX_ENDPOINTS:
            self._tell(f"{len(endpoints)} endpoints; {MAX_ENDPOINTS} of them are used")
        # First the list, then the flag. ``_changed`` takes down the flag and then looks at the
        # list. So whatever comes in between is told, at worst twice.
        self._newest = endpoints[:MAX_ENDPOINTS]
        if not self._is_told_soon:  # else the call that is under way takes the newest
            self._is_told_soon = True
            self._call(self._changed)

    def _report(self, error: Exception) -> None:
        text = describe(error)
        if text is None:
            log.error("bug", exc_info=error, extra={"limited": True})
        self._tell(text or f"a bug of ours: {type(error).__name__}")

    def _tell(self, problem: str) -> None:
        self._is_told_soon = False  # the next change is to be told after the problem
        self._call(self._failed, problem)

    def _call(self, function: Callable[..., None], *args: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: we have stopped
            self._loop.call_soon_threadsafe(function, *args)

    # --- on the loop ----------------------------------------------------------------------

    def _changed(self) -> None:
        self._is_told_soon = False  # before the look at the newest, so that none is missed
        if not self._stopping.is_set():
            self._on_change(self._newest)

    def _failed(self, problem: str) -> None:
        if not self._stopping.is_set():
            self._on_problem(problem)


def _check_size(slices: Mapping[str, list[Endpoint]]) -> None:
    if sum(map(len, slices.values())) > _MAX_ENTRIES:
        raise BadAnswer(f"more than {_MAX_ENTRIES} endpoints")
