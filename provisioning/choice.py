"""Which keys a mint is about: the type that was ordered, and the suite that it makes.

The Client takes the suite of a pair from its key, and where that does not say it, for
RSA keys, from the cover. So a token holds RSA pairs of one suite at a time.
"""

from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes

from carnet.errors import TokenError
from carnet.token import keys
from carnet.token.onetime import OneTimePair
from carnet.token.pair_type import PairType
from carnet.token.rsa_type import OAEP_HASHES, RsaType
from carnet.token.session import TokenSession
from carnet.wire.documents import Cover
from carnet.wire.envelope import PAIRED
from carnet.wire.suites import P256, P384, RSA, RSA_SHA1, AnySuite

KEY_TYPES = tuple(keys.TYPES)
OAEP_NAMES = tuple(OAEP_HASHES)

_BY_OAEP: dict[str, AnySuite] = {"sha-256": RSA, "sha-1": RSA_SHA1}
_BY_CURVE: dict[str, AnySuite] = {"ec-p256": P256, "ec-p384": P384}
_SIGNING_ONLY: AnySuite = RSA
"""The suite of RSA pairs to which nothing is ever encrypted, in custody `split`."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The type of the pairs to be minted, and how they are used."""

    type_: PairType
    oaep_hash: str | None
    """A name in OAEP_NAMES, for RSA pairs in custody `paired`."""

    @property
    def suite(self) -> AnySuite:
        """The suite of the pairs."""
        if self.oaep_hash:
            return _BY_OAEP[self.oaep_hash]
        return _BY_CURVE.get(self.type_.name, _SIGNING_ONLY)

    @property
    def oaep(self) -> hashes.HashAlgorithm | None:
        """The hash that RSA pairs are tried with."""
        return OAEP_HASHES[self.oaep_hash] if self.oaep_hash else None


def is_rsa(key_type: str) -> bool:
    """Tell whether pairs of that type are RSA pairs."""
    return isinstance(keys.TYPES[key_type], RsaType)


def choose(
    session: TokenSession, key_type: str, oaep_hash: str | None, custody: str = PAIRED
) -> Choice:
    """Return what is to be minted; where no hash was ordered, the strongest the token has.

    In custody `split` there is none. Raises TokenError if the token fails,
    TokenCannotError if it lacks what RSA needs.
    """
    type_ = keys.TYPES[key_type]
    if isinstance(type_, RsaType) and oaep_hash is None and custody == PAIRED:
        oaep_hash = keys.find_oaep(session, type_)
    return Choice(type_=type_, oaep_hash=oaep_hash)


def suite_on_cover(
    choice: Choice, pairs: list[OneTimePair], older: Cover | None, label: str
) -> int:
    """Return the suite that the new cover names: the RSA pairs', if there are any.

    An EC pair needs no cover to tell its suite. Raises TokenError if the token holds RSA
    pairs of another suite than the one to be minted.
    """
    if older is None or not any(is_rsa(pair.key_type) for pair in pairs):
        return choice.suite.number
    if choice.oaep_hash and choice.suite.number != older.suite:
        raise TokenError(
            f"Token {label} holds RSA key pairs of another suite than {choice.suite.name}; choose "
            f"the other --oaep-hash, or burn them first."
        )
    return older.suite
