"""`carnet tokens`: what the tokens tell without a PIN, to be shown and not relied upon."""

from collections import Counter
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any

from carnet.counting import counted
from carnet.cover import (
    COVER_LABEL,
    read_cover,
    read_cover_file,
    read_unverified_cover,
    shown_cover_file,
)
from carnet.errors import TokenAwayError, TokenError
from carnet.token.data import read_all_data
from carnet.token.finding import find_module
from carnet.token.frozen import unless_frozen
from carnet.token.module import Module, Token, TokenInfo, load_module
from carnet.token.session import TokenSession, open_public_session
from carnet.token.shown import ShownPair, public_keys, shown_pairs
from carnet.wire.documents import Cover
from carnet.wire.fault import WireError
from carnet.wire.keys import key_id_of
from carnet.wire.suites import suite_of_key
from softhsm.configuration import use_default
from token_client.booklet import pinned_key, read_cover_bytes
from token_client.config import ClientConfig
from token_client.memory import memory_directory
from token_client.pending import asked_with_here, spent_here

_NO_SUITE = 0


@dataclass(frozen=True)
class PairsLeft:
    """How many pairs of one kind are left."""

    key_type: str
    """A name in carnet.token.keys.TYPES."""
    suite: str | None
    """Its name; None where the key alone does not tell, and the cover does not either."""
    custody: str | None
    """As the cover has it."""
    count: int


@dataclass(frozen=True)
class TokenFacts:
    """One token; user, Targets and pairs are not verified without the PIN."""

    label: str
    serial: str
    model: str
    pin: str
    user_id: str | None
    targets: tuple[str, ...]
    hosts: tuple[str, ...]
    pairs: tuple[PairsLeft, ...]
    oldest_expiry: date | None
    """The last day of the pair that expires first."""

    @property
    def pairs_left(self) -> int:
        """How many pairs are left, of any kind."""
        return sum(pairs.count for pairs in self.pairs)


def load(config: ClientConfig) -> Module:
    """Load the module of this machine's tokens; raises TokenError."""
    use_default()
    return load_module(find_module(config.module))


@unless_frozen()
def list_tokens(config: ClientConfig, tell: Callable[[str], None]) -> list[TokenFacts]:
    """Return the tokens that may hold key pairs; raises TokenError if the module fails.

    One that is pulled meanwhile is left out; of one that fails it is told, and no other is
    hidden by it.
    """
    listed = []
    for token in load(config).present():
        try:
            info = token.info
            if info.initialised and info.login_required:
                listed.append(read_facts(token, config))
        except TokenAwayError:
            continue
        except TokenError as error:
            tell(f"The token in {token.slot_name} cannot be listed: {error.sentence}")
    return listed


def read_facts(token: Token, config: ClientConfig) -> TokenFacts:
    """Ask a token what it tells; raises TokenError."""
    info = token.info
    with open_public_session(token) as session:
        cover, shown = _shown(session, config)
    here = memory_directory()
    taken = spent_here(here, info.identity) | asked_with_here(here, info.identity)
    left = [pair for pair in shown if _is_left(pair, taken)]
    return TokenFacts(
        label=info.label,
        serial=info.serial,
        model=info.model,
        pin=pin_state(info),
        user_id=cover.user_id if cover else None,
        targets=cover.targets if cover else (),
        hosts=cover.hosts if cover else (),
        pairs=_count(left, cover),
        oldest_expiry=min((pair.not_after for pair in left if pair.not_after), default=None),
    )


def _is_left(pair: ShownPair, taken: AbstractSet[bytes]) -> bool:
    today = datetime.now(UTC).date()
    is_valid = pair.not_after is None or pair.not_after >= today
    return is_valid and key_id_of(pair.public_key) not in taken


def checked_cover(session: TokenSession, config: ClientConfig) -> Cover | None:
    """Return the cover, as far as it can be checked without the PIN; None if there is none.

    The officer's signature can be where her certificate is at hand. Raises TokenError for
    what a connection would refuse, UsageError.
    """
    key, serial = pinned_key(config), session.token.info.serial
    if config.cover is not None:
        data = read_cover_bytes(config.cover)
        if key is not None:
            return read_cover_file(data, key, serial).cover
        file = shown_cover_file(data)
        return _of_this_token(file.cover if file else None, "cover file", serial)
    if key is not None or not read_all_data(session, COVER_LABEL, private=False):
        return read_cover(session, key)
    return _of_this_token(read_unverified_cover(session), "cover", serial)


def _of_this_token(cover: Cover | None, what: str, serial: str) -> Cover:
    if cover is None or cover.token_serial != serial:
        why = f"made for token {cover.token_serial}" if cover else "cut off or changed"
        raise TokenError(
            f"The {what} is not what the security officer signed for this token ({why}); do not "
            f"use it, and tell her."
        )
    return cover


def _shown(session: TokenSession, config: ClientConfig) -> tuple[Cover | None, list[ShownPair]]:
    file = shown_cover_file(read_cover_bytes(config.cover)) if config.cover else None
    if file is None or file.cover.token_serial != session.token.info.serial:
        return read_unverified_cover(session), shown_pairs(session)
    listed = {pair.public_key: pair for pair in file.pairs}
    return file.cover, [
        ShownPair(listed[key].key_type, key, listed[key].not_after)
        for key in public_keys(session)
        if key in listed
    ]


def facts(token: TokenFacts) -> dict[str, Any]:
    """Return a token's facts, for scripts."""
    return {**asdict(token), "pairs_left": token.pairs_left}


def describe(token: TokenFacts) -> str:
    """Return a token as one line for a person."""
    cover = f"{token.user_id} to {', '.join(token.targets)}" if token.user_id else "no cover"
    kinds = [
        f"{pairs.count} {pairs.key_type}, suite {pairs.suite or 'unknown'}, "
        f"custody {pairs.custody or 'unknown'}"
        for pairs in token.pairs
    ]
    left = f"{counted(token.pairs_left, 'pair')} left"
    if kinds:
        left += f" ({'; '.join(kinds)})"
    if token.oldest_expiry:
        left += f", the first until {token.oldest_expiry}"
    return f"{token.label}  serial {token.serial}  {token.model}  PIN {token.pin}  {cover}  {left}"


def pin_state(info: TokenInfo) -> str:
    """Say what a token tells of its PIN."""
    if info.pin_locked:
        return "locked"
    if info.pin_final_try:
        return "one try left"
    if info.pin_count_low:
        return "mistyped before"
    return "set" if info.pin_set else "not set"


def _count(left: list[ShownPair], cover: Cover | None) -> tuple[PairsLeft, ...]:
    custody = cover.custody if cover else None
    numbers = Counter((pair.key_type, _suite(pair, cover)) for pair in left)
    return tuple(
        PairsLeft(key_type, suite, custody, number)
        for (key_type, suite), number in sorted(numbers.items())
    )


def _suite(pair: ShownPair, cover: Cover | None) -> str | None:
    try:
        return suite_of_key(pair.public_key, cover.suite if cover else _NO_SUITE).name
    except WireError:
        return None
