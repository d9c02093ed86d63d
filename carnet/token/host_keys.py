"""The Host's long-term keys on its HSM, for pairs in custody `split`.

They come in generations, so that an operator can have new ones while tokens in use still
go by the old. A generation has a couple for each curve: one key that agrees, to which
requests are sealed, and one that signs the answers; neither can do the other's work.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass

from carnet.errors import KeyNotSeenError, TokenCannotError, TokenError
from carnet.token import keys, longterm
from carnet.token.ec_type import EcType
from carnet.token.session import TokenSession
from carnet.token.translation import translated

_USES = {"seal": MechanismFlag.DERIVE, "sign": MechanismFlag.SIGN}
_TYPES: tuple[EcType, ...] = (keys.P256, keys.P384)
_LABEL = re.compile(r"carnet host (seal|sign) (ec-p256|ec-p384) (\d{4})")
_LAST_GENERATION = 9999


class UnknownHostKeyError(KeyNotSeenError):
    """The HSM holds no key of the Host of that name, or not the one that belongs to it."""


@dataclass(frozen=True, kw_only=True)
class HostCouple:
    """One couple: a key to seal to, and one to verify under; DER SubjectPublicKeyInfo."""

    generation: int
    key_type: str
    """A name in carnet.token.keys.TYPES."""
    sealing: bytes
    signing: bytes

    @property
    def key_id(self) -> bytes:
        """By which the couple is known: the key id of the sealing key."""
        return keys.key_id(self.sealing)


@dataclass(frozen=True)
class _Held:
    couple: HostCouple
    type_: EcType
    agrees: Any
    signs: Any


class HostKeys:
    """The couples on an HSM, listed once: searching a token is slow.

    One that another process made meanwhile is looked for when it is asked for. Every
    method raises TokenError if the token fails.
    """

    def __init__(self, session: TokenSession) -> None:
        self._session = session
        self._held = self._search()

    def couples(self) -> list[HostCouple]:
        """Return the couples, the oldest generation first."""
        couples = [held.couple for held in self._held.values()]
        return sorted(couples, key=lambda couple: (couple.generation, couple.key_type))

    def sealing_key(self, key_id: bytes) -> bytes:
        """Return the public half of a sealing key; raises UnknownHostKeyError."""
        return self._find(key_id).couple.sealing

    def agree(self, key_id: bytes, point: bytes) -> bytes:
        """Return the x-coordinate of ECDH between a sealing key and a point.

        Raises UnknownHostKeyError, ValueError for a point that is not on its curve.
        """
        return self._use(key_id, lambda held: held.type_.agree(held.agrees, point))

    def sign(self, key_id: bytes, digest: bytes) -> bytes:
        """Return ECDSA, r and s side by side, by the signing key beside that sealing key.

        Raises UnknownHostKeyError.
        """
        return self._use(key_id, lambda held: held.type_.sign(held.signs, digest))

    def _use(self, key_id: bytes, work: Callable[[_Held], bytes]) -> bytes:
        held = self._find(key_id)
        try:
            with translated():
                return work(held)
        except TokenError:
            # Another process may have destroyed the key since it was listed.
            self._held = self._search()
            self._find(key_id)
            raise

    def _find(self, key_id: bytes) -> _Held:
        if key_id not in self._held:
            self._held = self._search()
        try:
            return self._held[key_id]
        except KeyError:
            raise UnknownHostKeyError(
                f"The HSM does not hold the Host's key {key_id.hex()}; have key pairs minted for "
                f"those that `carnet-host host-keys` prints."
            ) from None

    def _search(self) -> dict[bytes, _Held]:
        found: dict[bytes, _Held] = {}
        with translated():
            for generation in sorted({number for number, _, _ in _listed(self._session)}):
                for type_ in _TYPES:
                    held = _read(self._session, generation, type_)
                    if held is not None:
                        found[held.couple.key_id] = held
        self._session.check()
        return found


def make_host_keys(session: TokenSession, *, anew: bool = False) -> list[HostCouple]:
    """Return the newest generation; it is made when missing, or where a new one is wanted.

    Interrupted, it leaves a generation that the next call completes. Needs a writable
    session. Raises TokenError; a token without P-384 has the couple on P-256 alone.
    """
    with session.token.module.undisturbed(), translated():
        newest = max((number for number, _, _ in _listed(session)), default=0)
        generation = newest + 1 if anew or not newest else newest
        if generation > _LAST_GENERATION:
            raise TokenError("The HSM has had too many keys of the Host; use another HSM.")
        _make_couple(session, generation, keys.P256)
        with suppress(TokenCannotError):
            _make_couple(session, generation, keys.P384)
    return [each for each in HostKeys(session).couples() if each.generation == generation]


def destroy_host_keys(session: TokenSession, generation: int) -> int:
    """Destroy a generation, the private keys first; return how many objects there were.

    Needs a writable session. Raises TokenError.
    """
    labels = {_label(use, type_, generation) for use in _USES for type_ in _TYPES}
    destroyed = 0
    with session.token.module.undisturbed(), translated():
        for object_class in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
            for label in sorted(labels):
                found = session.find(object_class, {Attribute.LABEL: label})
                destroyed += sum(keys.destroy(each) for each in found)
    return destroyed


def _make_couple(session: TokenSession, generation: int, type_: EcType) -> None:
    for use, flag in _USES.items():
        longterm.find_or_make(session, _label(use, type_, generation), flag, type_)


def _listed(session: TokenSession) -> Iterator[tuple[int, str, str]]:
    """Yield generation, use and type of every private key of the Host's."""
    for private in session.find(ObjectClass.PRIVATE_KEY, {Attribute.KEY_TYPE: KeyType.EC}):
        match = _LABEL.fullmatch(private[Attribute.LABEL])
        if match:
            yield int(match[3]), match[1], match[2]


def _read(session: TokenSession, generation: int, type_: EcType) -> _Held | None:
    """Return a couple; None where a half is missing, as after an interruption."""
    halves = {}
    for use in _USES:
        label = _label(use, type_, generation)
        private = longterm.find_private(session, label, type_)
        if private is None:
            return None
        halves[use] = (private, longterm.public_half(session, label, private))
    couple = HostCouple(
        generation=generation,
        key_type=type_.name,
        sealing=halves["seal"][1],
        signing=halves["sign"][1],
    )
    return _Held(couple, type_, halves["seal"][0], halves["sign"][0])


def _label(use: str, type_: EcType, generation: int) -> str:
    return f"carnet host {use} {type_.name} {generation:04}"
