"""The container's check: ask a can on this machine whether it is well.

It runs every few seconds in a process of its own, so it imports next to nothing.
"""

import http.client

__all__ = ["check_health"]


def check_health(port: int, *, timeout_s: float = 2.0) -> str | None:
    """Ask the can whose HTTP port this is; None when it is well, else why not."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"port {port}: {error}"
    finally:
        connection.close()
    return None if status == http.client.OK else f"port {port}: /healthz says {status}"
