"""What each reason proves, and where to look next. No I/O.

Said in the reports, and in docs/logs.md, which is made from this.
"""

from typing import NamedTuple

from twocans_client.evidence.results import OUTCOMES, Outcome, Reason

__all__ = ["NEXT_STEPS", "Step", "how_it_ended", "next_step"]


class Step(NamedTuple):
    """What to make of a reason. Markdown.

    Attributes:
        proves: What it says of the path.
        look: Where to look next.
    """

    proves: str
    look: str


NEXT_STEPS: dict[Reason, Step] = {
    Reason.DNS_FAILURE: Step(
        "the name does not resolve; nothing is known about the path",
        "the name as it is written; the resolver",
    ),
    Reason.DNS_TIMEOUT: Step(
        "the resolver does not answer; nothing is known about the path",
        "the resolver, and the path to it",
    ),
    Reason.REFUSED: Step(
        "something answered: a host without a listener, or a firewall",
        "whether the server is running and listens on that port; the event `listening` in its log"
        " has the port",
    ),
    Reason.UNREACHABLE: Step(
        "there is no route, or a router or firewall said so; the detail says if a route of our own"
        " host drops it",
        "routes, policies",
    ),
    Reason.CONNECT_TIMEOUT: Step(
        "no answer to any SYN",
        "`twocans_server_listen_overflows_total` and `twocans_server_accept_queue_connections`: a"
        " server that does not accept looks like a dead path. If neither grows: the network",
    ),
    Reason.GREETING_TIMEOUT: Step(
        "the server's kernel answers but its program does not, or it is not a twocans server",
        "`twocans_server_loop_lag_seconds`, its CPU limit; `send --plain`",
    ),
    Reason.REPLY_TIMEOUT: Step(
        "the path or the server stopped midway",
        "retransmits; if only large payloads fail: the path's MTU",
    ),
    Reason.CLOSE_TIMEOUT: Step(
        "everything was answered, then the path or the server stopped",
        "retransmits; the server's log",
    ),
    Reason.RESET: Step(
        "the connection was reset while the path was alive; after a silence it would be a time-out",
        "the server's log; if it has nothing about it, a middlebox",
    ),
    Reason.CLOSED_EARLY: Step(
        "the far end closed the connection too early",
        "the server's log; whether it is a twocans server",
    ),
    Reason.WRONG_BYTES: Step(
        "a payload was damaged; the detail says in which direction",
        "`twocans_server_damaged_requests_total`",
    ),
    Reason.DAMAGED: Step(
        "a frame was damaged, or other bytes came between frames; the detail says in which"
        " direction, if that is known",
        "`twocans_server_damaged_frames_total`; network card offload, middleboxes",
    ),
    Reason.PROTOCOL_ERROR: Step(
        "the two do not understand each other",
        "the detail; both versions; whether it is a twocans server",
    ),
    Reason.BUSY: Step("the server has reached a limit", "`twocans_server_limit_hits_total`"),
    Reason.SELF_STALL: Step(
        "our own process stalled; nothing is known about the path",
        "our CPU and its limit, `twocans_client_stalls_total`",
    ),
    Reason.NO_PORTS: Step(
        "our host has no local port left to connect from",
        "`net.ipv4.ip_local_port_range`; who holds them: `ss -tan`",
    ),
    Reason.NO_ADDRESS: Step(
        "our own host has no address of that family to send from, so no packet was sent",
        "whether IPv6 is switched off here; `--family`",
    ),
    Reason.NO_DESCRIPTORS: Step("our process, or our host, is out of descriptors", "`ulimit -n`"),
    Reason.NO_MEMORY: Step(
        "our kernel has no memory left for a socket or a thread",
        "our host's memory; `net.ipv4.tcp_mem`; the thread limit",
    ),
    Reason.DENIED: Step(
        "a rule on our own host forbids it", "our host's firewall; network policies"
    ),
    Reason.CLOCK_STEP: Step(
        "our clock was stepped, or our host suspended", "our host's time service"
    ),
    Reason.DRAINING: Step(
        "the server announced that it would stop, and did",
        "whether a new one is coming up; its orchestrator",
    ),
    Reason.SHUTDOWN: Step("we were stopped during the probe", ""),
    Reason.INTERNAL_ERROR: Step("a bug of ours", "`bug` in our log; please report it"),
}


def next_step(reason: Reason) -> str:
    """Return both for a terminal, in two sentences; ``""`` of a good probe."""
    step = NEXT_STEPS.get(reason)
    if step is None:
        return ""
    void = OUTCOMES[reason] is Outcome.VOID and reason is not Reason.DRAINING
    is_silent = void and "nothing is known" not in step.proves
    proves = f"{'Says nothing about the path: ' if is_silent else ''}{step.proves}"
    look = f" Look next: {step.look}." if step.look else ""
    return f"{proves[0].upper()}{proves[1:]}.{look}".replace("`", "")


def how_it_ended(reason: Reason) -> str:
    """Return what a phase without an end had instead of one."""
    if reason is Reason.SHUTDOWN:
        return "no answer yet"
    return "no answer" if reason.endswith("_timeout") else reason
