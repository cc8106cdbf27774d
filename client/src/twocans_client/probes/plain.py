"""One plain echo (RFC 862) with any echo server: connect, send, read it back, close."""

from twocans_client.evidence.results import Exchange, Reason
from twocans_client.evidence.split import Stamps

from .conversation import Conversation
from .probe import Attempt
from .trouble import Ended

__all__ = ["PlainAttempt"]


class PlainAttempt(Attempt):
    """As ``Attempt``, but without a protocol: nothing is known of the far end but its bytes.

    The kernel's timestamps of our own end are taken; without the server's there is no split.
    """

    async def converse(self, talk: Conversation) -> None:
        result, clock, stream = self.result, self.clock, talk.stream
        text = self.plan.payload or b""
        self.begin("exchange")
        talk.ask(Reason.REPLY_TIMEOUT)
        begun_ns, t1u = clock.mono_ns(), clock.real_ns()
        await stream.send_all(text, talk.deadline_ns, stamped=True)
        end = stream.sent_bytes
        reply, t4k = b"", None
        # An echo comes in any pieces: TCP keeps the order of bytes, not the bounds of writes.
        while len(reply) < len(text):
            received = await talk.receive()
            if not received.data:
                detail = f"after {len(reply)} of {len(text)} bytes"
                raise Ended(Reason.CLOSED_EARLY, detail)
            reply += received.data
            t4k = received.rx_ns
        t1s, t1k = stream.take_transmit(end)
        result.reply = reply
        if reply != text:
            raise Ended(Reason.WRONG_BYTES, f"{len(text)} bytes sent, {len(reply)} came back")
        if text:
            stamps = Stamps(t1u, t1s, t1k, None, None, None, None, t4k, talk.read_real_ns)
            talk.exchanges.append(Exchange.of(1, talk.read_ns - begun_ns, stamps))
        await self._close_plainly(talk)

    async def _close_plainly(self, talk: Conversation) -> None:
        # Our FIN asks for theirs, as RFC 862 has it: read to the end, then close.
        self.begin("close")
        talk.ask(Reason.CLOSE_TIMEOUT)
        talk.stream.end_output()
        if (await talk.receive()).data:
            raise Ended(Reason.WRONG_BYTES, "more came back than was sent")
        self.result.close_ns = self.lasted_ns(talk)
