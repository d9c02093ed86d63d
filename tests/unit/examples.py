"""Keys and messages that unit tests share."""

import functools
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from carnet.token.module import TokenInfo
from carnet.wire.keys import encode_public_key
from carnet.wire.messages import ClientDriver, Request, RequestInfo, TunnelingInfo
from carnet.wire.session_key import EphemeralKey
from carnet.wire.suites import P256, P384, RSA, RSA_SHA1

ALL_SUITES = (P256, RSA, P384, RSA_SHA1)
INFO = TokenInfo(
    label="alice",
    serial="1",
    manufacturer="m",
    model="m",
    initialised=True,
    pin_set=True,
    pin_count_low=False,
    pin_final_try=False,
    pin_locked=False,
    protected_authentication_path=False,
)
"""What a token says of itself."""
_RSA_KEYS = Path(__file__).parents[1] / "vectors" / "keys"


class SoftwareKey:
    """A private key in software: the three operations that a token has.

    An RSA key takes long to make, so that is one of the vectors'. What was asked of the
    key is counted.
    """

    def __init__(self, suite=P256, key=None, file="rsa-2048"):
        made = {P256: new_ec_key, P384: new_ec_key, RSA: rsa_key, RSA_SHA1: rsa_key}
        self.suite = suite
        self.key = key or made[suite](suite, file)
        self.public_key = encode_public_key(self.key.public_key())
        self.operations = []

    def sign(self, digest):
        self.operations.append("sign")
        prehashed = utils.Prehashed(self.suite.hash)
        if not isinstance(self.key, ec.EllipticCurvePrivateKey):
            scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
            return self.key.sign(digest, scheme, prehashed)
        parts = utils.decode_dss_signature(self.key.sign(digest, ec.ECDSA(prehashed)))
        return b"".join(part.to_bytes(self.suite.coordinate, "big") for part in parts)

    def agree(self, point):
        self.operations.append("agree")
        peer = ec.EllipticCurvePublicKey.from_encoded_point(self.key.curve, point)
        return self.key.exchange(ec.ECDH(), peer)

    def decrypt(self, ciphertext, oaep):
        self.operations.append("decrypt")
        try:
            return self.key.decrypt(ciphertext, padding.OAEP(padding.MGF1(oaep), oaep, None))
        except ValueError:
            return None


def new_ec_key(suite, _):
    return ec.generate_private_key(suite.curve)


@functools.cache
def _load_rsa(file):
    return load_pem_private_key((_RSA_KEYS / f"{file}.pem").read_bytes(), None)


def rsa_key(_, file):
    return _load_rsa(file)


EPHEMERAL = EphemeralKey(bytes(range(96)))


def make_request(**changes):
    info = {
        "target": "work",
        "networks": None,
        "lifetime": 3600,
        "drivers": (
            ClientDriver(
                name="strongswan", ike_versions=(2,), objectives=(3,), modes=("tunnel",), ppk=True
            ),
        ),
        "nat": None,
        "ephemeral_key": EPHEMERAL.public,
    }
    request = {
        "request_id": bytes(range(16)),
        "user_id": "alice@office",
        "objective_id": 3,
    }
    for name, value in changes.items():
        (info if name in info else request)[name] = value
    return Request(request_info=RequestInfo(**info), **request)


def make_tunneling_info(**changes):
    fields = {
        "target_addresses": ("198.51.100.2",),
        "client_identity": "client-00.carnet",
        "target_identity": "target-00.carnet",
        "objective_id": 3,
        "mode": "tunnel",
        "ike_version": 2,
        "ike_proposals": ("aes256gcm16-prfsha256-x25519",),
        "esp_proposals": ("aes256gcm16-x25519",),
        "ah_proposals": (),
        "ppk_id": None,
        "networks": ("10.20.0.0/16",),
        "virtual_address": "10.99.0.1",
        "dns": (),
        "mtu": None,
        "force_udp": False,
        "initiate_within": 120,
        "expires": 2_000_000_000,
    }
    return TunnelingInfo(**(fields | changes))
