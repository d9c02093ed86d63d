"""What this machine has of a tunnel besides IPsec: its name servers, and how long packets may be.

As with the packet filter, one machine has one way to set these: by oneself where there are
the privileges, or through carnet-helper.
"""

from carnet.ipsec.inside.here import Here, Inside

__all__ = ["Here", "Inside", "inside", "use"]

_inside: Inside = Here(None)


def inside() -> Inside:
    """Return this process's way to set these."""
    return _inside


def use(instead: Inside) -> None:
    """Have this process take another way: one that has a directory, or the privileges."""
    global _inside  # noqa: PLW0603  one machine, one way
    _inside = instead
