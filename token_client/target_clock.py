"""Target's clock, by which it says when a session ends, and which may be wrong."""

import msgspec

from carnet.durations import format_duration
from carnet.errors import IPsecError
from token_client.asking import Asking

_SKEW = 60
"""Seconds by which a clock may be off without a word."""
_LEAST_SKEW = 5
_SMALL_PART = 10
"""By such a part of a session, too, its clock may be off: a minute may be all of a short one."""


class Counted(msgspec.Struct, frozen=True):
    """When a session ends, by this machine's clock with `clock_behind` added."""

    expires: int
    """Seconds since 1970, UTC."""
    clock_behind: int
    target_ahead: int = 0
    """Seconds by which Target's clock is ahead of this machine's, where it is wrong."""


def counted(asking: Asking, expires: int, now: float, clock_behind: int) -> Counted:
    """Return when a session ends of which Target says that it ends at `expires`.

    Target grants the lifetime that is asked for, or none, so its clock is known then: by it the
    session began after the request was made, and before `now`. Where that is so neither by this
    machine's clock nor by the Host's, what was asked for is counted here, by this machine's
    alone; that is from when it was asked for on. Where it is so by this machine's, the Host's says
    nothing: that one is wrong, or its date was forged. Raises IPsecError where no lifetime was
    asked for, and all of it would be over.
    """
    lifetime, clocks = asking.request.request_info.lifetime, (now, now + clock_behind)
    if lifetime is None:
        _refuse_what_is_over(asking.request.request_info.target, expires, min(clocks))
        return Counted(expires, clock_behind)
    skew = min(_SKEW, max(_LEAST_SKEW, lifetime // _SMALL_PART))
    off, by_host = (_off(expires - lifetime, clock, asking.age, skew) for clock in clocks)
    if not off or not by_host:
        return Counted(expires, clock_behind if off else 0)
    return Counted(int(now) - int(asking.age) + lifetime, 0, off)


def _refuse_what_is_over(target: str, expires: int, now: float) -> None:
    if expires + _SKEW < now:
        raise IPsecError(
            f"Target {target}'s clock is wrong, since by it the new session was over"
            f" {format_duration(int(now) - expires)} ago, and nothing is up; tell its operator, or"
            f" name a lifetime, such as `--lifetime 8h`, which is counted here."
        )


def _off(begun: int, now: float, age: float, skew: int) -> int:
    """Return by how much more than `skew` a session began after now, or before it was due."""
    ahead, behind = begun - now, now - age - begun
    return int(ahead if ahead > skew else -behind if behind > skew else 0)
