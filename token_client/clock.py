"""This machine's clock, which may be wrong: what the booklet says of it, and what it is asked."""

from carnet.durations import LONGEST_SECONDS
from carnet.moments import format_moment
from carnet.wire.documents import Cover


def slowness(cover: Cover, now: float) -> str | None:
    """Return the sentence for a clock by which the booklet is not yet minted; None otherwise."""
    if now >= cover.issued_at:
        return None
    return (
        f"This machine's clock is slow: the booklet was minted at "
        f"{format_moment(cover.issued_at)}, and it is not that late here yet; set it."
    )


def lifetime_from(now: float, expires: int, clock_behind: int, asked: int | None) -> int:
    """Return for how many seconds a session that ends at `expires` may live from `now` on.

    The longer one by this machine's clock and by the Host's, whose date anybody on the way may
    have written: no wrong clock makes a session shorter. Nor does one make it longer than
    was asked for, or than any may be. Target ends it in time.
    """
    left = expires - int(now) - min(0, clock_behind)
    return max(1, min(left, asked or LONGEST_SECONDS))
