"""A name server that knows one address for every name, and delays, drops or denies as told.

dns_stub.py KNOBS HOST ADDRESS
"""

import asyncio
import random
import socket
import struct
import sys
from pathlib import Path
from typing import cast

from .knobs import Knobs

_HEADER = struct.Struct("!HHHHHH")
_A = 1
_ANSWERS = 0x8000  # QR
_TTL_S = 0


class Stub(asyncio.DatagramProtocol):
    """Answers each query by itself."""

    def __init__(self, knobs: Knobs, address: str) -> None:
        self._knobs = knobs
        self._address = socket.inet_aton(address)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where answers go out."""
        # The loop's own is one, without saying so (Python 3.11).
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a query, or do not."""
        if random.random() < self._knobs["dns_drop"]:
            return
        answer = self._answer(data)
        loop = asyncio.get_running_loop()
        loop.call_later(self._knobs["dns_delay_s"], self._transport.sendto, answer, addr)

    def _answer(self, query: bytes) -> bytes:
        number, flags, *_ = _HEADER.unpack_from(query)
        end = query.index(b"\0", _HEADER.size) + 5  # the name, its type and its class
        question = query[_HEADER.size : end]
        kind = int.from_bytes(question[-4:-2])
        code = int(self._knobs["dns_rcode"])
        answers = 1 if kind == _A and not code else 0
        header = _HEADER.pack(number, _ANSWERS | flags & 0x0100 | code, 1, answers, 0, 0)
        record = struct.pack("!HHHIH", 0xC00C, _A, 1, _TTL_S, 4) + self._address
        return header + question + record * answers


async def main(knobs: str, host: str, address: str) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    stub = Stub(Knobs(Path(knobs)), address)
    await loop.create_datagram_endpoint(lambda: stub, (host, 53))
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
