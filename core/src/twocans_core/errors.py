"""The exceptions of twocans.

    TwocansError
    ├── ConfigError            the user's input; its text says what to do
    ├── OutputError            stdout did not take all of our output
    └── ProtocolError          the wire, split by blame
        ├── LocalProtocolError     we were about to break the protocol: a bug of ours
        └── RemoteProtocolError    the peer broke it

What a network or a peer can do is a result, not an exception, outside of the modules that
read the wire and the socket.
"""

__all__ = [
    "ConfigError",
    "LocalProtocolError",
    "OutputError",
    "ProtocolError",
    "RemoteProtocolError",
    "TwocansError",
]


class TwocansError(Exception):
    """Base of everything that twocans raises."""


class ConfigError(TwocansError):
    """A setting is missing, unknown or refused.

    Its text is for the user and lists every problem, not just the first.
    """


class OutputError(TwocansError):
    """Not all of what was to be said on stdout was written. Its text is for the user."""


class ProtocolError(TwocansError):
    """The wire's rules were broken.

    Args:
        reason: A stable token, safe as a metric label and on the wire.
        detail: For people, and not to be parsed. Never holds raw bytes of a peer.
        hint: A token for our own programs, of what is more than the reason and not on the wire:
            ``echoed_hello``, a client's HELLO came back to it; ``magic``, it is what was damaged.
    """

    def __init__(self, reason: str, detail: str = "", hint: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.hint = hint


class LocalProtocolError(ProtocolError):
    """Our side was about to break the protocol."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol."""
