"""The Host's public keys, in files that its operator made and a person compared."""

import re
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from carnet.errors import UsageError
from carnet.files import read_small
from carnet.wire.fault import WireError
from carnet.wire.keys import encode_public_key, load_public_key
from carnet.wire.split import couples_of
from carnet.wire.suites import P256, P384

_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
_MOST_KEYS = 8


def read_transport_key(path: Path) -> bytes:
    """Return the Host's transport key, a DER SubjectPublicKeyInfo on P-256; raises UsageError."""
    data = _read(path)
    if len(_PEM.findall(data)) > 1:
        raise UsageError(
            f"{path} holds several keys, as `carnet-host host-keys` prints for custody split; give "
            f"the one that `carnet-host transport-key` prints."
        )
    load = load_pem_public_key if data.lstrip().startswith(b"-----") else load_der_public_key
    try:
        key = load(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{path} holds no public key; get it with `carnet-host transport-key`."
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise UsageError(f"The key in {path} is not on P-256; have the Host make one that is.")
    return encode_public_key(key)


def read_host_keys(path: Path) -> tuple[bytes, ...]:
    """Return the Host's long-term keys as a cover lists them; raises UsageError."""
    try:
        keys = tuple(encode_public_key(_load(pem)) for pem in _PEM.findall(_read(path)))
        for couple in couples_of(keys):
            suite = P256 if _is_on_p256(couple.sealing) else P384
            load_public_key(couple.sealing, suite)
            load_public_key(couple.signing, suite)
    except (ValueError, UnsupportedAlgorithm, WireError) as error:
        raise UsageError(
            f"{path} does not hold the Host's long-term keys; get it with `carnet-host host-keys`."
        ) from error
    if len(keys) > _MOST_KEYS:
        raise UsageError(f"{path} holds more keys than a cover takes; give one generation.")
    return keys


def _read(path: Path) -> bytes:
    try:
        return read_small(path)
    except OSError as error:
        raise UsageError(f"Cannot read {path} ({error.strerror}); correct the path.") from error


def _load(pem: bytes) -> ec.EllipticCurvePublicKey:
    key = load_pem_public_key(pem)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("not a key on a curve")  # noqa: TRY004 - what the caller says it is
    return key


def _is_on_p256(public_key: bytes) -> bool:
    try:
        load_public_key(public_key, P256)
    except WireError:
        return False
    return True
