"""Verdicts that may be about either host: of ours we say them, of the server its witness does."""

from .verdict import Culprit, Kind

__all__ = ["CPU_STARVED", "CPU_THROTTLED", "DESCRIPTORS", "PROCESS_PAUSED"]

DESCRIPTORS = Kind(
    "descriptors_exhausted",
    "a process or its host is out of descriptors",
    (Culprit.CLIENT_HOST, Culprit.SERVER_HOST),
    needs="socket() failed with EMFILE or ENFILE here, or accept() at the server, by its witness",
    apart="backlog_overflow follows from it where the server cannot accept: this comes first",
    threshold="the errno is decisive: the first one is enough",
    look="`ulimit -n` of the process that the culprit names",
)
CPU_THROTTLED = Kind(
    "cpu_throttled",
    "a CPU limit stops a process",
    (Culprit.CLIENT_HOST, Culprit.SERVER_HOST),
    needs="how long the process stood still, and the cgroup's throttled time meanwhile",
    apart="process_paused: no throttled time; delay_increase: the kernels' network time grows too",
    threshold="throttled for 1 % of 15 s, twice at least; throttled time has no other cause",
    look="the CPU limit of that container; `cpu.stat`",
)
CPU_STARVED = Kind(
    "cpu_starved",
    "a process waits for a CPU that others have",
    (Culprit.CLIENT_HOST, Culprit.SERVER_HOST),
    needs="how long the process stood still, and meanwhile its threads' run delay (`schedstat`) or "
    "the steal time of a CPU",
    apart="cpu_throttled: the cgroup has throttled time; slow_app: the thread did not want to run",
    threshold="starved for 1 % of 15 s, twice at least; run delay has no other cause",
    look="what else runs on that node; CPU requests; steal time of a virtual machine",
)
PROCESS_PAUSED = Kind(
    "process_paused",
    "a process was stopped, or its host",
    (Culprit.CLIENT_HOST, Culprit.SERVER_HOST),
    needs="every thread of the process stood still and none wanted to run; where the kernel counts "
    "no run delay, nothing is said",
    apart="cpu_throttled: the cgroup has throttled time; cpu_starved: a thread waited for a CPU, "
    "or the hypervisor ran others; app_hung: it goes on",
    threshold="one stop of 150 ms or longer in 15 s, of which no wait and no work explains half; "
    "a sleeping thread wakes late of nothing else",
    look="who pauses it: a freezer, `docker pause`, a live migration, a debugger",
)
