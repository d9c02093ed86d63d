"""The token operations of a request with nothing of Carnet around them: the floor of a Host."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pkcs11 import KDF, Attribute, KeyType, Mechanism, MechanismFlag

from carnet.token.finding import find_module
from carnet.token.initialise import initialise_token
from carnet.token.module import Module, load_module
from carnet.token.session import TokenSession, open_session
from softhsm.configuration import CONFIGURATION_VARIABLE, prepare
from tests.host.real_host import PIN, SO_PIN


def module_with_tokens_in(directory: Path) -> Module:
    """Return SoftHSM2 with its tokens in this directory; sessions with others are over."""
    os.environ[CONFIGURATION_VARIABLE] = str(prepare(directory))
    module = load_module(find_module(None))
    module.library.reinitialize()
    return module


@contextmanager
def bare_token(module: Module, pairs: int) -> Iterator[Callable[[int], float]]:
    """Give what does a request's token operations so many times; it returns them a second."""
    serial = initialise_token(module, label=f"bare {pairs}", so_pin=SO_PIN, pin=PIN)
    with open_session(module.choose(serial), PIN, writable=True) as session:
        left = iter([bare_pair(session) for _ in range(pairs)])
        yield partial(_operations_a_second, left)


def bare_pair(session: TokenSession) -> tuple[Any, Any]:
    """Make a pair for the session and copy it: SoftHSM2 stores a copy much faster."""
    curve = {Attribute.EC_PARAMS: bytes.fromhex("06082a8648ce3d030107")}
    parameters = session.raw.create_domain_parameters(KeyType.EC, curve, local=True)
    uses = MechanismFlag.SIGN | MechanismFlag.DERIVE
    made = parameters.generate_keypair(capabilities=uses)
    public, private = (half.copy({Attribute.TOKEN: True}) for half in made)
    for half in made:
        half.destroy()
    return public, private


def _operations_a_second(left: Iterator[tuple[Any, Any]], count: int) -> float:
    pairs = [next(left) for _ in range(count)]
    started = time.perf_counter()
    for public, private in pairs:
        bare_request(public, private)
    return count / (time.perf_counter() - started)


def bare_request(public: Any, private: Any) -> None:
    """Agree, sign, and destroy both halves."""
    bare_agreement(private, public[Attribute.EC_POINT][2:])
    private.sign(bytes(32), mechanism=Mechanism.ECDSA)
    private.destroy()
    public.destroy()


def bare_agreement(private: Any, point: bytes) -> None:
    """Agree with a point by ECDH, read what was agreed, and destroy that."""
    secret = private.derive_key(
        KeyType.GENERIC_SECRET,
        256,
        mechanism=Mechanism.ECDH1_DERIVE,
        mechanism_param=(KDF.NULL, None, point),
        template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True},
    )
    bytes(secret[Attribute.VALUE])
    secret.destroy()
