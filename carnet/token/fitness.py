"""Whether a token keeps what it is told to keep: found by trying to take a key out.

A module may take EXTRACTABLE=False, show it, and let the key out all the same (NSS's
softoken does). So its word counts for nothing here: a key came out if its bytes did.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import chain
from typing import Any

from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag

from carnet.errors import TokenCannotError
from carnet.token import keys
from carnet.token.pair_type import PairType
from carnet.token.session import TokenSession
from carnet.token.translation import translated, tried
from carnet.token.trials import Making, generated

_SECRETS = {
    KeyType.EC: (Attribute.VALUE,),
    KeyType.RSA: (Attribute.PRIVATE_EXPONENT, Attribute.PRIME_1),
}
_VECTOR = bytes(16)
_WRAPPINGS = (
    (Mechanism.AES_KEY_WRAP_PAD, None),
    (Mechanism.AES_KEY_WRAP, None),
    (Mechanism.AES_CBC_PAD, _VECTOR),
)
_LOOSENED = ((Attribute.EXTRACTABLE, True), (Attribute.SENSITIVE, False))


def ways_out(session: TokenSession, types: Iterable[PairType], *makings: Making) -> list[str]:
    """Return by which ways keys came out that were made to stay; none on a token that is fit.

    For each way of making one that is tried with the first of the types of which the token
    makes one so; they are generated, unless something else is said. Raises TokenError.
    """
    possible = tuple(types)
    found = (_of_first(session, possible, making) for making in makings or (generated,))
    return list(dict.fromkeys(chain.from_iterable(found)))


def warning(label: str, ways: Iterable[str]) -> str:
    """Say of the token of that label that keys came out of it, without a full stop."""
    return (
        f"Token {label} lets private keys out that it was told to keep ({', '.join(ways)}): "
        f"whoever has its PIN can copy them"
    )


def _of_first(session: TokenSession, types: tuple[PairType, ...], making: Making) -> list[str]:
    for type_ in types:
        try:
            with making(session, type_) as private:
                return ways_out_of(session, private)
        except TokenCannotError:
            continue
    return []


def ways_out_of(session: TokenSession, private: Any) -> list[str]:
    """Return by which ways this private key comes out, which was made to stay.

    Trying may loosen the key, so it is for keys that are destroyed afterwards. Raises
    TokenError.
    """
    ways: list[str] = []
    with translated(), ExitStack() as temporary:
        wrapping = _tried(lambda: _wrapping_key(session))
        if wrapping is not None:
            temporary.callback(keys.destroy, wrapping)
        for how, key in _forms(private, temporary):
            if _reads(key):
                ways.append(f"reading {how}")
            if wrapping is not None and _wraps(wrapping, key):
                ways.append(f"wrapping {how}")
    return list(dict.fromkeys(ways))


def _forms(private: Any, temporary: ExitStack) -> Iterator[tuple[str, Any]]:
    """Yield the key as it is, copies of it that are allowed more, and at last itself loosened."""
    yield "it", private
    for attribute, value in _LOOSENED:
        copy = _tried(partial(private.copy, {attribute: value, Attribute.TOKEN: False}))
        if copy is not None:
            temporary.callback(keys.destroy, copy)
            yield "a copy of it", copy
    for attribute, value in _LOOSENED:
        _tried(partial(private.__setitem__, attribute, value))
    yield "it once its attributes were changed", private


def _wrapping_key(session: TokenSession) -> Any:
    template = {} if session.logged_in else {Attribute.PRIVATE: False}
    return session.raw.generate_key(
        KeyType.AES, 256, capabilities=MechanismFlag.WRAP, template=template
    )


def _reads(private: Any) -> bool:
    return any(_tried(partial(private.__getitem__, part)) for part in _SECRETS[private.key_type])


def _wraps(wrapping: Any, private: Any) -> bool:
    return any(
        _tried(partial(wrapping.wrap_key, private, mechanism, parameter))
        for mechanism, parameter in _WRAPPINGS
    )


def _tried(attempt: Callable[[], Any]) -> Any | None:
    """Return what came of it; None if the token refused. Errors of its state go on."""
    try:
        with tried("let a key out"):
            return attempt()
    except TokenCannotError:
        return None
