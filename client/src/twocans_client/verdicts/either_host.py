"""Verdicts about either host: about ours by what we see, about the server's by its witness."""

from .verdict import Culprit, Kind

__all__ = ["CPU_STARVED", "CPU_THROTTLED", "DESCRIPTORS", "PROCESS_PAUSED"]

DESCRIPTORS = Kind(
    "descriptors_exhausted",
    "a process or its host has no file descriptor left",
    (Culprit.CLIENT_HOST, Culprit.SERVER_HOST),
    needs="here: socket() failed with EMFILE or ENFILE. At the server, by its witness: accept() "
    "failed for lack of descriptors or memory",
    apart="backlog_overflow: the accept queue fills because the server cannot accept, so it comes "
    "later",
    threshold="the first errno is enough: it leaves no doubt",
    look="`ulimit -n` of the process that the culprit names",
)
CPU_THROTTLED = Kind(
    "cpu_throttled",
    "a CPU limit stops a process",
    (Culprit.CLIENT_HOST, Culprit.SERVER_HOST),
    needs="how long the process stood still, and the cgroup's throttled time in that time",
    apart="process_paused: there is no throttled time; delay_increase: the network's share grows, "
    "by the kernels' timestamps",
    threshold="here: at least two stalls in 15 s, 150 ms (1 %) in all. At the server: 50 ms, and "
    "two probes that waited. Throttled time has no other cause",
    look="the CPU limit of that container; `cpu.stat`",
)
CPU_STARVED = Kind(
    "cpu_starved",
    "a process waits for a CPU that others use",
    (Culprit.CLIENT_HOST, Culprit.SERVER_HOST),
    needs="how long the process stood still, and in that time the run delay of its threads "
    "(`schedstat`) or the steal time of a CPU",
    apart="cpu_throttled: the cgroup has throttled time; slow_app: the thread did not want to run",
    threshold="here: at least two stalls in 15 s, 150 ms (1 %) in all. At the server: 50 ms, and "
    "two probes that waited. Run delay has no other cause",
    look="what else runs on that node; CPU requests; the steal time of a virtual machine",
)
PROCESS_PAUSED = Kind(
    "process_paused",
    "a process or its host was stopped",
    (Culprit.CLIENT_HOST, Culprit.SERVER_HOST),
    needs="every thread of the process stood still, and none wanted to run. This needs a kernel "
    "that counts run delay",
    apart="cpu_throttled: the cgroup has throttled time; cpu_starved: a thread waited for a CPU, "
    "or the hypervisor ran others; app_hung: the process still runs",
    threshold="one stop of 150 ms in 15 s. Shorter ones here: two, 150 ms in all; at the server: "
    "50 ms, and two probes that waited. Neither waits nor work explain half of it, and nothing "
    "else makes a sleeping thread wake late",
    look="what pauses it: a freezer, `docker pause`, a live migration, a debugger",
)
