"""What a PKCS#11 module really does, found by doing it; runs in a process of its own.

As far as it goes the product's own code does it. Each finding is the text of one cell of
the table in docs/TOKENS.md.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute, ObjectClass

from carnet.errors import TokenError
from carnet.serials import is_own
from carnet.token import keys
from carnet.token.data import read_data, write_data
from carnet.token.ec_type import EcType, point_of
from carnet.token.fitness import ways_out_of
from carnet.token.initialise import initialise_token
from carnet.token.module import load_module
from carnet.token.onetime import OneTimeKeys, pair_label
from carnet.token.pair_type import PairType
from carnet.token.room import room_on
from carnet.token.rsa_type import OAEP_HASHES, RsaType
from carnet.token.session import TokenSession, open_session
from carnet.token.signing import SigningPairs
from carnet.token.transport import MintedPair, agree_transport, host_transport_key, open_transport
from carnet.wire.suites import P256, P384, RSA, RSA_SHA1
from lab.waiting import wait_until
from tests.token.helpers import MINTED

TYPES = (keys.P256, keys.P384, *keys.RSA[:2])
"""RSA of 4096 bits takes too long to make again and again."""
NONE = "no"
_REFUSED = (TokenError, pkcs11.PKCS11Error, AttributeError, ValueError)
_SOURCES = {
    (True, True): "`mint`, `adopt`",
    (False, True): "`mint --cover`, `adopt`",
    (False, False): "`adopt` alone",
}
"""By whether the token keeps data objects, and whether it makes pairs."""
_SUITES = {"ec-p256": P256, "ec-p384": P384}


@dataclass(frozen=True)
class Place:
    """A module, the token to be used, and what its processes have to be told."""

    module: str
    pin: str
    label: str = "traveller"
    so_pin: str | None = None
    """None: the token cannot be initialised here, and is as it is."""
    slot: str | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def enter(self) -> None:
        os.environ.update(self.environment)


def survey(place: Place) -> dict[str, str]:
    """Try everything on the token; return the findings."""
    module = load_module(Path(place.module))
    wait_until(lambda: bool(module.present()), f"a token of {place.module}")
    if place.so_pin is not None:
        initialise_token(
            module,
            label=place.label,
            so_pin=place.so_pin,
            pin=place.pin,
            selector=place.slot,
            force=place.slot is not None,
        )
    surveyed = _Survey()
    # Two, since tpm2-abrmd holds few objects for one session.
    for part in (surveyed.try_keys, surveyed.try_minting):
        with open_session(module.choose(None), place.pin, writable=True) as session:
            part(session)
    return surveyed.findings()


class _Survey:
    """Findings of one token, each with the key types that it holds for."""

    _session: TokenSession

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        self._ways_out: list[str] = []
        self._signing: list[str] = []
        self._oaep: dict[str, list[str]] = {}
        self._kept: dict[str, tuple[Any, Any]] = {}

    def try_keys(self, session: TokenSession) -> None:
        self._session = session
        room = room_on(self._session, keys.P256)
        self._found |= {
            "makes key pairs that stay": self._each(self._makes),
            "makes key pairs of one session": self._each(self._makes_for_session),
            "signs": self._each(self._signs),
            "agrees (ECDH)": self._each(self._agrees),
            "decrypts (RSAES-OAEP)": self._each(self._decrypts),
            "wraps private keys": self._each(self._wraps),
            "takes in what it wrapped": self._each(self._takes_in),
            "destroys private keys": self._destroys(),
            "keeps data objects": self._data_objects(),
            "serial number": self._serial(),
            "room for key pairs": "not told" if room.pairs is None else f"{room.pairs} more",
        }

    def try_minting(self, session: TokenSession) -> None:
        self._session = session
        self._found["makes one-time pairs that sign"] = self._each(self._mints_signing)

    def findings(self) -> dict[str, str]:
        ways = ", ".join(dict.fromkeys(self._ways_out)) or "no way found"
        found = self._found | {"lets a private key out": ways}
        return found | self._custody(found)

    def _each(self, finds: Callable[[PairType], str | None]) -> str:
        """Return the types that it holds for, each with its remark, if there is one."""
        found = []
        for type_ in TYPES:
            with suppress(*_REFUSED):
                remark = finds(type_)
                found += [] if remark is None else [f"{type_.name}{remark}"]
        return ", ".join(found) or NONE

    def _made(self, type_: PairType, *, stored: bool) -> tuple[Any, Any]:
        where = {Attribute.TOKEN: stored}
        private = keys.private_template(type_, type_.use) | where
        public = keys.public_template(type_.use) | where
        return type_.generate(self._session, type_.use, public, private)

    def _makes(self, type_: PairType) -> str:
        """Make one, which is there for what follows, up to its last use: RSA takes long to make."""
        self._kept[type_.name] = self._made(type_, stored=True)
        return ""

    def _makes_for_session(self, type_: PairType) -> str:
        for half in self._made(type_, stored=False):
            keys.destroy(half)
        return ""

    def _keys_of(self, type_: PairType) -> list[tuple[Any, Any]]:
        """Return pairs of a type: one made for this, or those that are on the token anyway."""
        if type_.name in self._kept:
            return [self._kept[type_.name]]
        found = []
        for private in self._session.find(
            ObjectClass.PRIVATE_KEY, {Attribute.KEY_TYPE: type_.key_type}
        ):
            identity = {Attribute.ID: private[Attribute.ID]}
            if keys.is_whole(private, type_):
                publics = self._session.find(ObjectClass.PUBLIC_KEY, identity)
                found += [(public, private) for public in publics]
        return found

    def _with_keys(self, type_: PairType, use: Callable[[Any, Any], Any]) -> str | None:
        """Tell with how many of the keys that are there it works; all is no remark."""
        pairs = self._keys_of(type_)
        works = 0
        for public, private in pairs:
            with suppress(*_REFUSED):
                works += bool(use(public, private))
        if not works:
            return None
        for _, private in pairs:
            self._ways_out += ways_out_of(self._session, private)
        return "" if works == len(pairs) else f" with {works} of {len(pairs)} keys"

    def _signs(self, type_: PairType) -> str | None:
        digest = bytes(type_.hash.digest_size if isinstance(type_, EcType) else 32)
        remark = self._with_keys(type_, lambda _, private: type_.sign(private, digest))
        self._signing += [] if remark is None else [type_.name]
        return remark

    def _agrees(self, type_: PairType) -> str | None:
        if not isinstance(type_, EcType):
            return None
        point = point_of(ec.generate_private_key(type_.curve).public_key())
        return self._with_keys(type_, lambda _, private: type_.agree(private, point))

    def _decrypts(self, type_: PairType) -> str | None:
        if not isinstance(type_, RsaType):
            return None
        able: list[str] = []

        def decrypt(public: Any, private: Any) -> bool:
            key = type_.read(public)
            able.extend(n for n, o in OAEP_HASHES.items() if type_.can_decrypt(private, key, o))
            return bool(able)

        remark = self._with_keys(type_, decrypt)
        self._oaep[type_.name] = able
        return None if remark is None else f" with {' and '.join(able)}{remark}"

    def _mint(self, type_: PairType) -> tuple[MintedPair, bytes]:
        oaep = next(iter(self._oaep.get(type_.name, [])), None)
        with agree_transport(self._session, host_transport_key(self._session)) as wrapping:
            pair = wrapping.mint_pair(
                pair_label(MINTED, 1), None, type_, OAEP_HASHES[oaep] if oaep else None
            )
            return pair, wrapping.ephemeral_public_key

    def _private(self, key_id: bytes) -> Any:
        (private,) = self._session.find(ObjectClass.PRIVATE_KEY, {Attribute.ID: key_id})
        return private

    def _wraps(self, type_: PairType) -> str:
        pair, _ = self._mint(type_)
        self._ways_out += ways_out_of(self._session, self._private(pair.key_id))
        OneTimeKeys(self._session).destroy(pair.key_id)
        return ""

    def _mints_signing(self, type_: PairType) -> str:
        """Mint as in custody `split`."""
        label, last_day = pair_label(MINTED, 1), date(2100, 1, 1)
        minted = SigningPairs(self._session, type_).mint(label, last_day)
        booklet = OneTimeKeys(self._session)
        (pair,) = booklet.pairs()
        assert (pair.public_key, pair.not_after) == (minted, last_day)
        self._ways_out += ways_out_of(self._session, self._private(pair.key_id))
        booklet.destroy(pair.key_id)
        return ""

    def _takes_in(self, type_: PairType) -> str:
        """Import as the Host does what this same token wrapped, the traveller's half gone."""
        pair, ephemeral = self._mint(type_)
        OneTimeKeys(self._session).destroy(pair.key_id)
        oaep = next(iter(self._oaep.get(type_.name, [])), None)
        with open_transport(self._session, ephemeral) as unwrapping:
            taken = unwrapping.import_pair(
                pair.key_id,
                pair_label(MINTED, 1),
                pair.public_key,
                pair.wrapped,
                None,
                OAEP_HASHES[oaep] if oaep else None,
            )
        assert taken
        self._ways_out += ways_out_of(self._session, self._private(pair.key_id))
        OneTimeKeys(self._session).destroy(pair.key_id)
        return ""

    def _destroys(self) -> str:
        for type_ in TYPES:
            for _, private in self._keys_of(type_):
                before = len(self._session.find(ObjectClass.PRIVATE_KEY, {}))
                with suppress(*_REFUSED):
                    private.destroy()
                gone = before - len(self._session.find(ObjectClass.PRIVATE_KEY, {}))
                return "yes" if gone == 1 else NONE
        return NONE

    def _data_objects(self) -> str:
        kept = []
        for name, private in (("public", False), ("private", True)):
            with suppress(*_REFUSED):
                write_data(self._session, "carnet survey", name.encode(), private=private)
                if read_data(self._session, "carnet survey", private=private) == name.encode():
                    kept.append(name)
        return ", ".join(kept) or NONE

    def _serial(self) -> str:
        return "its own" if is_own(self._session.token.info.serial) else "0, as all have"

    def _custody(self, found: dict[str, str]) -> dict[str, str]:
        both = set(_names(found["wraps private keys"]))
        both &= set(_names(found["takes in what it wrapped"]))
        suites = [
            suite.name
            for name in (each.name for each in TYPES if each.name in both)
            for suite in self._suites(name)
        ]
        minted = _names(found["makes one-time pairs that sign"])
        elsewhere = [f"{name}, made elsewhere" for name in self._signing if name not in minted]
        mintable = found["keeps data objects"] == "public, private"
        paired = ", ".join(dict.fromkeys(suites))
        return {
            "suites in custody `paired`": (paired if mintable else "") or NONE,
            "key types in custody `split`": ", ".join([*minted, *elsewhere]) or NONE,
            "pairs come from": _SOURCES[mintable, bool(minted)],
        }

    def _suites(self, name: str) -> list[Any]:
        if name in _SUITES:
            return [_SUITES[name]]
        by_hash = {"sha-256": RSA, "sha-1": RSA_SHA1}
        return [by_hash[each] for each in self._oaep[name]]


def _names(cell: str) -> list[str]:
    return [] if cell == NONE else [part.split()[0] for part in cell.split(", ")]
