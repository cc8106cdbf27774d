"""One handshake with any TCP server, and nothing said: connect, close."""

from .conversation import Conversation
from .probe import Attempt

__all__ = ["ConnectAttempt"]


class ConnectAttempt(Attempt):
    """As ``Attempt``, but only the handshake: the far end need not speak our protocol."""

    async def converse(self, talk: Conversation) -> None:
        # The kernels have said all that there is to know without a word of ours.
        talk.waiting_for = None
