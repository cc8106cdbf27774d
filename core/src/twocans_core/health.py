"""The container's check: ask a can on this machine whether it is well.

It runs every few seconds in a process of its own, so it imports next to nothing.
"""

import http.client

__all__ = ["check_health"]


_EVERY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}  # noqa: S104


def check_health(port: int, host: str = "", *, timeout_s: float = 2.0) -> str | None:
    """Ask the can that serves HTTP there; None when it is well, else why not.

    Args:
        port: Its HTTP port.
        host: The address that it binds; every address is reached by loopback.
        timeout_s: Seconds to wait.
    """
    host = _EVERY_ADDRESS.get(host, host)
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"port {port}: {error}"
    finally:
        connection.close()
    return None if status == http.client.OK else f"port {port}: /healthz says {status}"
