"""Put 10 ms each way before a server, so that probes are always under way.

    python far_away.py 5000

Passes connections on to that port of this machine; prints the port that it listens on itself.
"""

import asyncio
import contextlib
import sys

WAY_S = 0.01


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            loop.call_later(WAY_S, writer.write, data)
    loop.call_later(WAY_S, writer.close)


async def main(port: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        forward, reverse = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pass_on(reader, reverse), pass_on(forward, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
