"""Which key pair `carnet connect` takes next, and what there is to say where it finds none."""

from collections.abc import Set as AbstractSet

from carnet.counting import counted
from carnet.durations import format_duration
from carnet.errors import CarnetError, NoKeyPairLeftError, UnreachableError
from carnet.token.onetime import OneTimePair
from token_client.means import Means
from token_client.pending import Elsewhere

_WHO_SAID_NO = "or something on this network answers in the Host's place"


def usable(means: Means) -> list[OneTimePair]:
    """Return the pairs in order of use that have not expired, and are not known to be spent."""
    spent = means.store.spent()
    return [pair for pair in means.booklet.usable() if pair.key_id not in spent]


def next_pair(means: Means, tried: AbstractSet[bytes]) -> OneTimePair | None:
    """Return the next pair in order of use; those set aside come last, each in its turn.

    Else those that the Host does not know would keep a good one behind them for ever. One under
    which another Target was asked is not for this one: its answer may still be gone on with. None
    where all were tried.
    """
    taken = tried | means.store.elsewhere().keys()
    turns = {key_id: turn for turn, key_id in enumerate(means.store.aside(), 1)}
    untried = [pair for pair in usable(means) if pair.key_id not in taken]
    return min(untried, key=lambda pair: turns.get(pair.key_id, 0), default=None)


def no_pair(means: Means, refused: AbstractSet[bytes]) -> CarnetError:
    """Say why no pair led anywhere; `refused` are those that got an unsealed no in this run.

    The Host answers so to whoever it cannot authenticate, and has no key left to sign for a
    pair that is spent; who else answers so, nobody can tell.
    """
    label, elsewhere = means.booklet.token.label, means.store.elsewhere()
    never = refused | elsewhere.keys() | {*means.store.aside()}
    left = sum(pair.key_id not in never for pair in usable(means))
    if not refused:
        kept = [elsewhere[pair.key_id] for pair in usable(means) if pair.key_id in elsewhere]
        return _kept_elsewhere(label, kept) if kept else means.booklet.empty()
    if not left:
        return UnreachableError(
            f"Each key pair that is left on token {label} got an unsealed no: all are spent or "
            f"revoked at the Host, as on a token that was restored from a copy, {_WHO_SAID_NO}; "
            f"try another network, and if it is the same there, ask the security officer for a "
            f"new booklet."
        )
    aside = "is set aside, not destroyed: it is"
    if len(refused) != 1:
        aside = "are set aside, not destroyed: they are"
    return UnreachableError(
        f"{counted(len(refused), 'key pair')} got an unsealed no and {aside} "
        f"spent, revoked or unknown at the Host, {_WHO_SAID_NO}; run `carnet connect` again, from "
        f"another network if you can, for the {left} that were not tried yet."
    )


def _kept_elsewhere(label: str, kept: list[Elsewhere]) -> CarnetError:
    """Say that whatever pair is left is that of a request to another Target.

    What is kept is of use as long as that Target waits. Waiting helps where Host never got the
    request, which nothing here tells: else its pair is spent.
    """
    first = min(kept, key=lambda each: each.seconds)
    return NoKeyPairLeftError(
        f"Each key pair that is left on token {label} is that of a request to another Target which"
        f" is kept, and spent if the Host has got that; run `carnet connect {first.target}` with"
        f" the options that it had, which goes on with it while that Target waits, or ask the"
        f" security officer for a new booklet; a pair that is not spent can be used again in"
        f" {format_duration(first.seconds)}."
    )
