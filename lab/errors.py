"""What can go wrong in the lab itself."""

__all__ = ["LabError", "UnsupportedError"]


class LabError(Exception):
    """The lab cannot do this here; the message says why, for a person."""


class UnsupportedError(LabError):
    """This backend has no such fault; another one may."""
