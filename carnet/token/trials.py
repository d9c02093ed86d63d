"""Private keys that are made to be tried, each on the way on which one-time keys come to be.

A module may keep a key that it generated, and none that was copied or unwrapped. All of
them are gone at the end. Raise TokenError, TokenCannotError where the token makes none so.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from pkcs11 import Attribute, KeyType, MechanismFlag

from carnet.token import keys
from carnet.token.pair_type import PairType
from carnet.token.session import TokenSession
from carnet.token.translation import translated, tried

Making = Callable[[TokenSession, PairType], AbstractContextManager[Any]]


@contextmanager
def generated(session: TokenSession, type_: PairType) -> Iterator[Any]:
    """Make a key that stays from the start, as in custody `split`."""
    with translated(), keys.trial_pair(session, type_) as (_, private):
        yield private


@contextmanager
def copied(session: TokenSession, type_: PairType) -> Iterator[Any]:
    """Copy one that may leave, as the traveller's token does in custody `paired`."""
    with translated(), ExitStack() as temporary:
        private = _extractable(session, type_, temporary)
        with tried("copy a private key as one that stays"):
            kept = private.copy({Attribute.TOKEN: False, Attribute.EXTRACTABLE: False})
        temporary.callback(keys.destroy, kept)
        yield kept


@contextmanager
def unwrapped(session: TokenSession, type_: PairType) -> Iterator[Any]:
    """Unwrap one, as the Host's token does in custody `paired`."""
    with translated(), ExitStack() as temporary:
        private = _extractable(session, type_, temporary)
        with tried("wrap a private key and unwrap it"):
            kek = session.raw.generate_key(
                KeyType.AES, 256, capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP,
                template={},
            )  # fmt: skip
            temporary.callback(keys.destroy, kek)
            wrapped = kek.wrap_key(private, mechanism=keys.WRAPPING)  # type: ignore[attr-defined]
            taken = keys.unwrap_private_key(kek, b"trial", "", wrapped, type_, store=False)
        temporary.callback(keys.destroy, taken)
        yield taken


@contextmanager
def without_login(session: TokenSession, type_: PairType) -> Iterator[Any]:
    """Make a key that everybody may see: all that some tokens make without the PIN."""
    private_half = keys.private_template(type_, type_.use) | {Attribute.PRIVATE: False}
    with translated(), ExitStack() as temporary:
        made = type_.generate(session, type_.use, keys.public_template(type_.use), private_half)
        for half in made:
            temporary.callback(keys.destroy, half)
        yield made[1]


def _extractable(session: TokenSession, type_: PairType, temporary: ExitStack) -> Any:
    made = keys.generate_session_pair(session, type_, use=type_.use, extractable=True)
    for half in made:
        temporary.callback(keys.destroy, half)
    return made[1]
