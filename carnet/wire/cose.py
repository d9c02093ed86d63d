"""Signatures: COSE_Sign1 (RFC 9052 section 4.2), untagged, payload attached.

The private key is on a token, so signing takes a function from a digest to the
raw signature.
"""

from collections.abc import Callable

from carnet.wire import cbor
from carnet.wire.fault import Fault, WireError
from carnet.wire.suite import K, Suite

Sign = Callable[[bytes], bytes]
"""A private-key operation: digest in, raw signature out (ECDSA's r ‖ s, or RSASSA-PSS)."""

_ALGORITHM = 1
_PARTS = 4
_MOST_ITEMS = 16
"""Few, but more than a COSE_Sign1 has, so that what is a little wrong is still named exactly."""


def sign1(payload: bytes, external_aad: bytes, suite: Suite[K], sign: Sign) -> bytes:
    """Return the COSE_Sign1 over a payload and what it is bound to."""
    protected = cbor.encode({_ALGORITHM: suite.cose_algorithm})
    signature = sign(_digest(protected, external_aad, payload, suite))
    return cbor.encode([protected, {}, payload, signature])


def verify1(
    signed: bytes,
    external_aad: bytes,
    suite: Suite[K],
    public_key: K,
    limit: int = cbor.MAX_MESSAGE,
) -> bytes:
    """Return the payload of a COSE_Sign1 that this key signed for this purpose.

    Raises WireError: FRAMING or CANONICAL for what is no COSE_Sign1 of ours,
    SUITE for another algorithm, SIGNATURE where the signature does not hold.
    """
    protected, payload, signature = _take_apart(signed, limit)
    if protected != cbor.encode({_ALGORITHM: suite.cose_algorithm}):
        raise WireError(Fault.SUITE, "signed with another algorithm than the suite's")
    if len(signature) != suite.signature_length(public_key):
        raise WireError(Fault.SIGNATURE, "a signature of another length")
    digest = _digest(protected, external_aad, payload, suite)
    if not suite.verify(signature, digest, public_key):
        raise WireError(Fault.SIGNATURE, "the signature does not hold")
    return payload


def payload_of(signed: bytes, limit: int = cbor.MAX_MESSAGE) -> bytes:
    """Return the payload of a COSE_Sign1 without verifying anything."""
    return _take_apart(signed, limit)[1]


def _take_apart(signed: bytes, limit: int) -> tuple[bytes, bytes, bytes]:
    if len(signed) <= limit:
        cbor.check_items(signed, _MOST_ITEMS)
    parts = cbor.decode(signed, limit)
    if not isinstance(parts, list) or len(parts) != _PARTS or parts[1] != {}:
        raise WireError(Fault.FRAMING, "not a COSE_Sign1")
    protected, _, payload, signature = parts
    if not all(isinstance(part, bytes) for part in (protected, payload, signature)):
        raise WireError(Fault.FRAMING, "not a COSE_Sign1")
    return protected, payload, signature


def _digest(protected: bytes, external_aad: bytes, payload: bytes, suite: Suite[K]) -> bytes:
    """Hash the Sig_structure of RFC 9052 section 4.4."""
    return suite.digest(cbor.encode(["Signature1", protected, external_aad, payload]))
