"""What the token and the clock add to an order, found out before anything is made."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from carnet.errors import TokenError
from carnet.token.onetime import OneTimeKeys, OneTimePair, pair_label
from carnet.token.session import TokenSession
from carnet.wire.documents import Cover
from provisioning.choice import Choice, choose, suite_on_cover
from provisioning.journal import is_unfinished
from provisioning.keeping import Older
from provisioning.order import MintOrder


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An order as this token will carry it out."""

    now: datetime
    moment: datetime
    """The one in the labels of the pairs."""
    older: Older
    resumed: Mapping[str, OneTimePair]
    """The pairs of a mint that was cut off, from which this one goes on."""
    choice: Choice
    suite_on_cover: int

    @property
    def prefix(self) -> str:
        """What the labels of this mint, and of no other, begin with."""
        return prefix_of(self.moment)


def prefix_of(moment: datetime) -> str:
    """Return what the labels of all pairs of one moment begin with."""
    return pair_label(moment, 0).rpartition(" ")[0] + " "


def draft_of(
    session: TokenSession,
    order: MintOrder,
    kept: Older,
    resumed: Mapping[str, OneTimePair],
    gone: frozenset[str],
) -> Draft:
    """Return the draft; `kept` is what speaks of the token's pairs, but for those of `gone`.

    So the labels begin of a mint that was cut off: its pairs are `resumed`, or are to be destroyed.
    Raises TokenError where these and the ordered ones do not go together.
    """
    pairs = [pair for pair in OneTimeKeys(session).pairs() if not is_unfinished(pair, gone)]
    label = session.token.info.label
    older = kept if pairs else Older()
    _check_older(older.cover, order, label)
    choice = choose(session, order.key_type, order.oaep_hash, order.custody)
    order.host_key(choice)
    now = datetime.now(UTC).replace(microsecond=0)
    return Draft(
        now=now,
        moment=_moment_in(next(iter(resumed))) if resumed else moment_after(pairs, now),
        older=older,
        resumed=resumed,
        choice=choice,
        suite_on_cover=suite_on_cover(choice, pairs, older.cover, label),
    )


def _check_older(older: Cover | None, order: MintOrder, label: str) -> None:
    """Raise TokenError for pairs that the one cover of the token could not speak for too."""
    if older is not None and older.custody != order.custody:
        raise TokenError(
            f"Token {label} holds key pairs in custody {older.custody}; mint in that one, or burn "
            f"them first."
        )
    if older is not None and older.host_keys != order.host_keys:
        raise TokenError(
            f"Token {label} holds key pairs for other keys of the Host; burn them first."
        )


def moment_after(older: list[OneTimePair], now: datetime) -> datetime:
    """Return the moment for the labels: now, or after the newest pair if the clock is behind.

    Raises TokenError where the newest pair's label tells none.
    """
    if not older:
        return now
    try:
        return max(now, _moment_in(older[-1].label) + timedelta(seconds=1))
    except (ValueError, OverflowError) as error:
        raise TokenError(
            f"Key pair {older[-1].key_id.hex()} has a label that minting never gives; burn it."
        ) from error


def _moment_in(label: str) -> datetime:
    """Return the moment in a pair's label; raises ValueError where that is none."""
    return datetime.strptime(label.split()[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
