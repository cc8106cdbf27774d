"""One plain echo (RFC 862) with any echo server: connect, send, read it back, close."""

from .probe import Attempt, Ended
from .results import Exchange, Reason, Stamps

__all__ = ["PlainAttempt"]


class PlainAttempt(Attempt):
    """As ``Attempt``, but without a protocol: nothing is known of the far end but its bytes.

    The kernel's stamps of our own end are taken; without the server's there is no split.
    """

    async def talk(self) -> None:
        self.timeout_reason = Reason.REPLY_TIMEOUT
        text = self.plan.payload or b""
        begun_ns, t1u = self.clock.mono_ns(), self.clock.real_ns()
        await self.stream.send_all(text, self.deadline_ns)
        end = self.stream.sent_bytes
        reply = b""
        while len(reply) < len(text):
            received = await self._receive()
            if not received.data:
                detail = f"after {len(reply)} of {len(text)} bytes"
                raise Ended(Reason.CLOSED_EARLY, detail)
            reply += received.data
        t1k = self.stream.take_tx_ns(end)
        stamps = Stamps(t1u, t1k, None, None, None, None, self._rx_ns, self._read_real_ns)
        result = self.result
        result.reply = reply
        if reply != text:
            raise Ended(Reason.WRONG_BYTES, f"{len(text)} bytes sent, {len(reply)} came back")
        if text:
            result.exchanges.append(Exchange(1, self._read_ns - begun_ns, stamps))
        await self._close_plainly()

    async def _close_plainly(self) -> None:
        # Our FIN asks for theirs, as RFC 862 has it: read to the end, then close.
        self.timeout_reason = Reason.CLOSE_TIMEOUT
        begun_ns = self.clock.mono_ns()
        self.stream.end_output()
        if (await self._receive()).data:
            raise Ended(Reason.WRONG_BYTES, "more came back than was sent")
        self.result.close_ns = self._read_ns - begun_ns
