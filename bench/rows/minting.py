"""What minting a pair takes, next to the PKCS#11 calls that it makes in a bare loop.

Both sides work on SoftHSM2 tokens of their own in one directory, which grow alike. What a
mint does once for a batch is left out: journal, batch file, cover, reading back.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag
from pkcs11.mechanisms import MGF

from bench.bare_token import bare_agreement
from bench.comparison import Aim, Row, in_turn
from bench.plan import Plan
from carnet.token import keys
from carnet.token.ec_type import point_of
from carnet.token.finding import find_module
from carnet.token.initialise import initialise_token
from carnet.token.module import Module, load_module
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
_PSS = (Mechanism.SHA256, MGF.SHA256, 32)
_OAEP = (Mechanism.SHA_1, MGF.SHA1, None)
"""With the one hash that SoftHSM2's has."""


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
    """Give the same calls by python-pkcs11 alone; what stays the same is made before."""
    peer = point_of(ec.generate_private_key(ec.SECP256R1()).public_key())
    with _on_token(module, "bare") as session:
        if custody == SPLIT:
            yield partial(_signing_pair, _bare_pairs(session.raw, key_type, MechanismFlag.SIGN))
            return
        agreeing = _bare_pairs(session.raw, "ec-p256", MechanismFlag.DERIVE)
        kek = keys.derive_key_encryption_key(agreeing()[1], peer, MechanismFlag.WRAP)
        use = keys.TYPES[key_type].use
        pairs = _bare_pairs(session.raw, key_type, use, extractable=True)
        yield partial(_wrapped_pair, pairs, kek, peer)


def _bare_pairs(
    raw: Any, key_type: str, use: MechanismFlag, *, extractable: bool = False
) -> Callable[[], tuple[Any, Any]]:
    """Return what generates a pair for the session, with the templates that ours has."""
    type_ = keys.TYPES[key_type]
    options = {
        "capabilities": use,
        "public_template": keys.public_template(use),
        "private_template": keys.private_template(type_, use)
        | {Attribute.EXTRACTABLE: extractable},
    }
    if isinstance(type_, RsaType):
        return partial(raw.generate_keypair, KeyType.RSA, type_.bits, **options)
    curve = {Attribute.EC_PARAMS: keys.P256.parameters}
    parameters = raw.create_domain_parameters(KeyType.EC, curve, local=True)
    return partial(parameters.generate_keypair, **options)


def _signing_pair(pairs: Callable[[], tuple[Any, Any]]) -> None:
    made = pairs()
    kept = _store(made)
    _read_back(made[0], kept, Attribute.NEVER_EXTRACTABLE)
    _sign(kept)
    for half in made:
        half.destroy()


def _wrapped_pair(pairs: Callable[[], tuple[Any, Any]], kek: Any, peer: bytes) -> None:
    made = pairs()
    kek.wrap_key(made[1], mechanism=keys.WRAPPING)
    kept = _store(made)
    _read_back(made[0], kept, Attribute.EXTRACTABLE)
    _sign(kept)
    if kept.key_type == KeyType.EC:
        bare_agreement(kept, peer)
    else:
        ciphertext = bytes(kept.key_length // 8)
        with suppress(pkcs11.PKCS11Error):  # nothing that was encrypted
            kept.decrypt(ciphertext, mechanism=Mechanism.RSA_PKCS_OAEP, mechanism_param=_OAEP)
    for half in made:
        half.destroy()


def _sign(private: Any) -> None:
    if private.key_type == KeyType.EC:
        private.sign(bytes(32), mechanism=Mechanism.ECDSA)
    else:
        private.sign(bytes(32), mechanism=Mechanism.RSA_PKCS_PSS, mechanism_param=_PSS)


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
