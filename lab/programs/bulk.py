"""Somebody else's transfer over the same path.

bulk.py sink PORT               takes everything
bulk.py source HOST PORT FLOWS  sends as much as TCP lets it, on so many connections
"""

import socket
import sys
import threading

_BLOCK = bytes(64 * 1024)


def sink(port: str) -> None:
    """Take what comes."""
    listener = socket.create_server(("", int(port)))
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=drain, args=(connection,), daemon=True).start()


def drain(connection: socket.socket) -> None:
    """Read one connection to its end."""
    with connection:
        while connection.recv(1 << 20):
            pass


def source(host: str, port: str, flows: str) -> None:
    """Send for ever."""
    connections = [socket.create_connection((host, int(port))) for _ in range(int(flows))]
    print("ready", flush=True)
    threads = [threading.Thread(target=pour, args=(each,)) for each in connections]
    for thread in threads:
        thread.start()


def pour(connection: socket.socket) -> None:
    """Send on one connection."""
    while True:
        connection.sendall(_BLOCK)


if __name__ == "__main__":
    if sys.argv[1] == "sink":
        sink(*sys.argv[2:])
    else:
        source(*sys.argv[2:])
