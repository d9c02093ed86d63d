"""What minting a pair takes, next to the PKCS#11 calls that it makes in a bare loop.

Both sides work on SoftHSM2 tokens of their own in one directory, which grow alike. What a
mint does once for a batch is left out: journal, batch file, cover, reading back.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute, KeyType, MechanismFlag

from bench.comparison import Aim, Row, in_turn
from bench.plan import Plan
from carnet.token import keys
from carnet.token.ec_type import EcType, point_of
from carnet.token.initialise import initialise_token
from carnet.token.module import Module, find_module, load_module
from carnet.token.pair_type import PairType
from carnet.token.rsa_type import RsaType
from carnet.token.session import TokenSession, open_session
from carnet.wire.envelope import PAIRED, SPLIT
from carnet.wire.keys import encode_public_key
from provisioning.choice import choose
from provisioning.makers import Maker, paired_maker, split_maker
from softhsm.configuration import CONFIGURATION_VARIABLE, prepare
from tests.host.real_host import PIN, SO_PIN

_KINDS = (("ec-p256", PAIRED, 24), ("ec-p256", SPLIT, 24), ("rsa-3072", PAIRED, 6),
          ("rsa-3072", SPLIT, 6))  # fmt: skip
_LABEL = "carnet 20261123T000000Z {:04}"


def rows(plan: Plan) -> Iterator[Row]:
    """Measure pairs a second, by type of key and custody."""
    for key_type, custody, size in _KINDS[:2] if plan.quick else _KINDS:
        rounds = plan.rounds(9)
        directory = plan.place()
        os.environ[CONFIGURATION_VARIABLE] = str(prepare(directory))
        module = load_module(find_module(None))
        module.library.reinitialize()
        count = plan.size(size, 4)
        with (
            _mint(module, key_type, custody) as mint,
            _bare(module, key_type, custody) as bare,
            plan.progress(f"mint {key_type}, {custody}", rounds + 1) as advance,
        ):
            ours, floor = in_turn(
                partial(_a_second, mint, count), partial(_a_second, bare, count), rounds, advance
            )
        yield Row(
            group="Minting",
            name=f"{key_type}, custody {custody}",
            floor_name="the same PKCS#11 calls in a bare loop",
            unit="pairs/s",
            aim=Aim("at least 90 %", least=0.9),
            ours=ours,
            floor=floor,
        )


def _a_second(make: Callable[[], None], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        make()
    return count / (time.perf_counter() - started)


@contextmanager
def _on_token(module: Module, label: str) -> Iterator[TokenSession]:
    serial = initialise_token(module, label=label, so_pin=SO_PIN, pin=PIN)
    with open_session(module.choose(serial), PIN, writable=True) as session:
        yield session


@contextmanager
def _mint(module: Module, key_type: str, custody: str) -> Iterator[Callable[[], None]]:
    peer = encode_public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
    with ExitStack() as stack:
        session = stack.enter_context(_on_token(module, "ours"))
        choice = choose(session, key_type, None, custody)
        maker: Maker = stack.enter_context(
            split_maker(session, peer, choice)
            if custody == SPLIT
            else paired_maker(session, (peer,), choice)
        )
        numbers = iter(range(1, 10000))
        yield lambda: _discard(maker.make(_LABEL.format(next(numbers)), None))


def _discard(_: object) -> None:
    """Do nothing with what was made."""


@contextmanager
def _bare(module: Module, key_type: str, custody: str) -> Iterator[Callable[[], None]]:
    peer = point_of(ec.generate_private_key(ec.SECP256R1()).public_key())
    with _on_token(module, "bare") as session:
        type_ = choose(session, key_type, None, custody).type_
        if custody == SPLIT:
            yield partial(_signing_pair, session, type_)
            return
        _, agreeing = keys.generate_session_pair(
            session, keys.P256, use=MechanismFlag.DERIVE, extractable=False
        )
        kek = keys.derive_key_encryption_key(agreeing, peer, MechanismFlag.WRAP)
        yield partial(_wrapped_pair, session, type_, kek, peer)


def _signing_pair(session: TokenSession, type_: PairType) -> None:
    made = keys.generate_session_pair(session, type_, use=MechanismFlag.SIGN, extractable=False)
    kept = _store(made)
    _read_back(made[0], kept, Attribute.NEVER_EXTRACTABLE)
    type_.sign(kept, bytes(32))
    for half in made:
        half.destroy()


def _wrapped_pair(session: TokenSession, type_: PairType, kek: Any, peer: bytes) -> None:
    made = keys.generate_session_pair(session, type_, use=type_.use, extractable=True)
    kek.wrap_key(made[1], mechanism=keys.WRAPPING)
    kept = _store(made)
    _read_back(made[0], kept, Attribute.EXTRACTABLE)
    type_.sign(kept, bytes(32))
    if isinstance(type_, EcType):
        type_.agree(kept, peer)
    elif isinstance(type_, RsaType):
        type_.decrypt(kept, bytes(type_.bits // 8), hashes.SHA1())  # noqa: S303  as SoftHSM2 has it
    for half in made:
        half.destroy()


def _store(made: tuple[Any, Any]) -> Any:
    """Copy both halves onto the token; return the private one."""
    own = {Attribute.TOKEN: True, Attribute.ID: bytes(16), Attribute.LABEL: "bare"}
    public, private = made
    kept = private.copy(own)
    public.copy(own | {Attribute.PRIVATE: False})
    return kept


def _read_back(public: Any, private: Any, leaving: Attribute) -> None:
    """Read what a mint reads: the type and the key of the public half, and whether it may leave."""
    is_ec = public.key_type == KeyType.EC
    public.get_attributes(
        (Attribute.EC_PARAMS, Attribute.EC_POINT)
        if is_ec
        else (Attribute.MODULUS, Attribute.PUBLIC_EXPONENT)
    )
    _ = private[Attribute.SENSITIVE], private[leaving]
