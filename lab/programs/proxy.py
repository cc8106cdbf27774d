"""A proxy that ends TCP itself, and makes a connection of its own to the back end.

    proxy.py HOST PORT BACKEND_HOST BACKEND_PORT

Where the back end refuses, the client's connection is closed after it was accepted.
"""

import asyncio
import contextlib
import sys


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand on one direction, and its end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def main(host: str, port: str, backend_host: str, backend_port: str) -> None:
    """Serve until killed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            back_reader, back_writer = await asyncio.open_connection(backend_host, backend_port)
            await asyncio.gather(carry(reader, back_writer), carry(back_reader, writer))
            back_writer.close()
        writer.close()

    await asyncio.start_server(serve, host, int(port), backlog=1024)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
