"""Keys and messages that unit tests share."""

from cryptography.hazmat.primitives.asymmetric import ec, utils

from carnet.wire.keys import encode_public_key
from carnet.wire.messages import ClientDriver, Request, RequestInfo, TunnelingInfo
from carnet.wire.session_key import EphemeralKey
from carnet.wire.suites import P256


class SoftwareKey:
    """A private key in software: the two operations that a token has."""

    def __init__(self, curve=None):
        self.key = ec.generate_private_key(curve or P256.curve)
        self.public_key = encode_public_key(self.key.public_key())

    def sign(self, digest):
        der = self.key.sign(digest, ec.ECDSA(utils.Prehashed(P256.hash)))
        r, s = utils.decode_dss_signature(der)
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def agree(self, point):
        peer = ec.EllipticCurvePublicKey.from_encoded_point(self.key.curve, point)
        return self.key.exchange(ec.ECDH(), peer)


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
