"""How proofs put figures. No I/O."""

from twocans_client.evidence.intervals import wilson

from .case import Case

__all__ = ["counted", "share", "shares", "span"]


def counted(count: int, what: str) -> str:
    """Say how many of a thing that has a plain plural."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def share(count: int, of: int) -> str:
    """Say a share, with what is certain of it at 95 %."""
    low, high = wilson(count, of)
    return f"{count / max(1, of):.2%} ({low:.2%} to {high:.2%})"


def shares(count: int, of: int) -> dict[str, float]:
    """Return the same as figures."""
    low, high = wilson(count, of)
    return {"sent": of, "share": count / max(1, of), "share_low": low, "share_high": high}


def span(case: Case, began_ns: int) -> str:
    """Say how long something has lasted."""
    return f"{max(0, case.window.now_ns - began_ns) / 1e9:.1f} s"
