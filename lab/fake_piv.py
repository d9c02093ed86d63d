"""A fake: a PIV card (NIST SP 800-73-4), since a real one cannot be had in a test.

It has what OpenSC's module needs to offer a token: P-256 keys in slot 9A, which signs,
and slot 9D, which agrees; as many as are wanted in the slots of retired keys (82 to 95),
which sign; their certificates; a PIN with a counter that really locks,
a PUK that unblocks it, and a serial number (the CHUID's GUID). It says of itself that
it is a YubiKey, since OpenSC offers EC keys on no other PIV card.
"""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

ATR = bytes.fromhex("3bf81300008131fe15597562696b657934d4")
"""Of a YubiKey 4."""
MAX_TRIES = 3
DEFAULT_PIN = "471100"
DEFAULT_PUK = "08150815"

_OK = b"\x90\x00"
_NOT_FOUND = b"\x6a\x82"
_LOCKED = b"\x69\x83"
_NOT_ALLOWED = b"\x69\x82"
_WRONG_DATA = b"\x6a\x80"
_UNKNOWN = b"\x6d\x00"
_MORE = 0x61
_TRIES_LEFT = 0x63

_APPLICATION = bytes.fromhex("a000000308")
_PIX = bytes.fromhex("000010000100")
_NO_FASC_N = bytes.fromhex("d4e739da739ced39ce739d836858210842108421c84210c3eb")
"""Agency code 9999: the GUID identifies the card."""
_CHUID = bytes.fromhex("5fc102")
_CERTIFICATES = {0x9A: bytes.fromhex("5fc105"), 0x9D: bytes.fromhex("5fc10b")}
_RETIRED = range(0x82, 0x96)
_CERTIFICATES |= {slot: (0x5FC10D + slot - 0x82).to_bytes(3, "big") for slot in _RETIRED}
_KEY_HISTORY = bytes.fromhex("5fc10c")
_DISCOVERY = b"\x7e"
_P256_ALGORITHM = 0x11
_PIN_REFERENCE = 0x80
_CHUNK = 256
_PIN_SIZE = 8


def tlv(tag: int, value: bytes) -> bytes:
    """Return a BER-TLV (ISO/IEC 7816-4 annex D)."""
    size = len(value)
    if size < 0x80:  # noqa: PLR2004 - the short form of BER
        length = bytes((size,))
    else:
        digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
        length = bytes((0x80 | len(digits),)) + digits
    return tag.to_bytes((tag.bit_length() + 7) // 8, "big") + length + value


def untlv(data: bytes) -> dict[int, bytes]:
    """Take a sequence of BER-TLV with tags of one byte apart."""
    parts = {}
    while data:
        tag, size, start = data[0], data[1], 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(data[2:start], "big")
        parts[tag] = data[start : start + size]
        data = data[start + size :]
    return parts


def _padded(pin: str) -> bytes:
    return pin.encode().ljust(_PIN_SIZE, b"\xff")


@dataclass
class Counter:
    """A PIN or PUK, and how often it may still be wrong."""

    secret: bytes
    tries: int = MAX_TRIES

    def check(self, offered: bytes) -> bytes:
        """Return the status word of one try."""
        if self.tries == 0:
            return _LOCKED
        if secrets.compare_digest(offered, self.secret):
            self.tries = MAX_TRIES
            return _OK
        self.tries -= 1
        return self.told() if self.tries else _LOCKED

    def told(self) -> bytes:
        """Return the status word that tells the tries left."""
        return bytes((_TRIES_LEFT, 0xC0 | self.tries))


@dataclass
class Key:
    """One slot: a P-256 key and the certificate that shows its public half."""

    private: ec.EllipticCurvePrivateKey
    certificate: bytes

    @classmethod
    def made_for(cls, name: str, *, agrees: bool = False) -> "Key":
        """Make a key and have it certify itself, for signing or for agreement."""
        private = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=365))
            .add_extension(_key_usage(agrees=agrees), critical=True)
            .sign(private, hashes.SHA256())
        )
        return cls(private, certificate.public_bytes(Encoding.DER))


@dataclass
class FakePIV:
    """The card's side of every APDU; what it holds survives being pulled out."""

    name: str
    """Whose card it is; OpenSC makes the token's label of it."""
    guid: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    pin: Counter = field(default_factory=lambda: Counter(_padded(DEFAULT_PIN)))
    puk: Counter = field(default_factory=lambda: Counter(_padded(DEFAULT_PUK)))
    keys: dict[int, Key] = field(default_factory=dict)
    retired: int = 0
    """In how many of the slots for retired keys there is one."""
    log: list[str] = field(default_factory=list)
    """Every command's class, instruction and parameters; never its data."""
    _verified: bool = False
    _chained: bytes = b""
    _unsent: bytes = b""

    def __post_init__(self) -> None:
        for slot in (_SIGNS, _AGREES, *_RETIRED[: self.retired]):
            self.keys.setdefault(slot, Key.made_for(self.name, agrees=slot == _AGREES))

    def renew(self) -> None:
        """Have the first PIN and PUK again, and all tries of both."""
        self.pin, self.puk = Counter(_padded(DEFAULT_PIN)), Counter(_padded(DEFAULT_PUK))

    def tries(self) -> int:
        """Return how often PIN and PUK together may still be wrong."""
        return self.pin.tries + self.puk.tries

    def reset(self) -> None:
        """Forget the login, as when power comes or goes."""
        self._verified = False
        self._chained = self._unsent = b""

    def transmit(self, apdu: bytes) -> bytes:
        """Answer one command APDU (ISO/IEC 7816-4)."""
        self.log.append(apdu[:4].hex())
        chaining, instruction, p1, p2 = apdu[0] & 0x10, apdu[1], apdu[2], apdu[3]
        data = self._chained + _body(apdu)
        self._chained = data if chaining else b""
        if chaining:
            return _OK
        handler = _HANDLERS.get(instruction)
        return self._in_pieces(handler(self, p1, p2, data)) if handler else _UNKNOWN

    def _in_pieces(self, answer: bytes) -> bytes:
        """Return what fits into a short answer; GET RESPONSE fetches the rest."""
        content, status = answer[:-2], answer[-2:]
        if len(content) <= _CHUNK:
            self._unsent = b""
            return answer
        self._unsent = content[_CHUNK:] + status
        left = len(content) - _CHUNK
        return content[:_CHUNK] + bytes((_MORE, left if left < _CHUNK else 0))

    def get_response(self, _p1: int, _p2: int, _data: bytes) -> bytes:
        """Return the rest of a long answer."""
        return self._unsent or _UNKNOWN

    def select(self, _p1: int, _p2: int, data: bytes) -> bytes:
        """SELECT: this card has the PIV application alone."""
        if not data.startswith(_APPLICATION):
            return _NOT_FOUND
        authority = tlv(0x79, tlv(0x4F, _APPLICATION))
        return tlv(0x61, tlv(0x4F, _PIX) + authority) + _OK

    def version(self, _p1: int, _p2: int, _data: bytes) -> bytes:
        """Yubico's GET VERSION: 4.4.5, which has ECC in every slot."""
        return b"\x04\x04\x05" + _OK

    def get_data(self, _p1: int, _p2: int, data: bytes) -> bytes:
        """GET DATA: discovery, CHUID and certificates; nothing else is on the card."""
        wanted = untlv(data).get(0x5C, b"")
        found = self._objects().get(wanted)
        return found + _OK if found else _NOT_FOUND

    def _objects(self) -> dict[bytes, bytes]:
        chuid = tlv(0x30, _NO_FASC_N) + tlv(0x34, self.guid) + tlv(0x35, b"20401231")
        certificates = {
            _CERTIFICATES[slot]: tlv(
                0x53, tlv(0x70, key.certificate) + tlv(0x71, b"\x00") + tlv(0xFE, b"")
            )
            for slot, key in self.keys.items()
        }
        discovery = tlv(0x7E, tlv(0x4F, _APPLICATION + _PIX) + tlv(0x5F2F, b"\x40\x00"))
        return {
            _CHUID: tlv(0x53, chuid + tlv(0x3E, b"") + tlv(0xFE, b"")),
            _DISCOVERY: discovery,
            _KEY_HISTORY: tlv(
                0x53, tlv(0xC1, bytes((self.retired,))) + tlv(0xC2, b"\x00") + tlv(0xFE, b"")
            ),
            **certificates,
        }

    def verify(self, p1: int, p2: int, data: bytes) -> bytes:
        """VERIFY: a try of the PIN; without data, only how many are left."""
        if p2 != _PIN_REFERENCE:
            return b"\x6a\x88"
        if p1:
            self._verified = False
            return _OK
        if not data:
            return _OK if self._verified else self.pin.told() if self.pin.tries else _LOCKED
        answer = self.pin.check(data)
        self._verified = answer == _OK
        return answer

    def change_pin(self, _p1: int, p2: int, data: bytes) -> bytes:
        """CHANGE REFERENCE DATA: the old PIN, then the new one."""
        counter = self.pin if p2 == _PIN_REFERENCE else self.puk
        answer = counter.check(data[:_PIN_SIZE])
        if answer == _OK:
            counter.secret = data[_PIN_SIZE:]
        return answer

    def unblock(self, _p1: int, _p2: int, data: bytes) -> bytes:
        """RESET RETRY COUNTER: the PUK, then a new PIN."""
        answer = self.puk.check(data[:_PIN_SIZE])
        if answer == _OK:
            self.pin = Counter(data[_PIN_SIZE:])
            self._verified = False
        return answer

    def authenticate(self, p1: int, p2: int, data: bytes) -> bytes:
        """GENERAL AUTHENTICATE: ECDH in 9D, ECDSA elsewhere, behind the PIN."""
        if not self._verified:
            return _NOT_ALLOWED
        if p1 != _P256_ALGORITHM or p2 not in self.keys:
            return _WRONG_DATA
        wish = untlv(untlv(data).get(0x7C, b""))
        private = self.keys[p2].private
        if p2 != _AGREES and 0x81 in wish:  # noqa: PLR2004 - the challenge
            return _dynamic(_signature(private, wish[0x81])) + _OK
        if p2 == _AGREES and 0x85 in wish:  # noqa: PLR2004 - the exponentiation
            return _dynamic(_agreed(private, wish[0x85])) + _OK
        return _WRONG_DATA


_SIGNS, _AGREES = 0x9A, 0x9D

_HANDLERS: dict[int, Callable[[FakePIV, int, int, bytes], bytes]] = {
    0x20: FakePIV.verify,
    0x24: FakePIV.change_pin,
    0x2C: FakePIV.unblock,
    0x87: FakePIV.authenticate,
    0xA4: FakePIV.select,
    0xC0: FakePIV.get_response,
    0xCB: FakePIV.get_data,
    0xFD: FakePIV.version,
}


def _key_usage(*, agrees: bool) -> x509.KeyUsage:
    """Say what a key does; OpenSC goes by it."""
    return x509.KeyUsage(
        digital_signature=not agrees,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=agrees,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _body(apdu: bytes) -> bytes:
    """Return a command's data, of a short APDU or an extended one."""
    rest = apdu[4:]
    if len(rest) <= 1:
        return b""
    if rest[0] == 0 and len(rest) > 3:  # noqa: PLR2004 - three bytes of extended length
        return rest[3 : 3 + int.from_bytes(rest[1:3], "big")]
    return rest[1 : 1 + rest[0]]


def _dynamic(value: bytes) -> bytes:
    return tlv(0x7C, tlv(0x82, value))


def _signature(private: ec.EllipticCurvePrivateKey, digest: bytes) -> bytes:
    padded = digest.rjust(hashlib.sha256().digest_size, b"\x00")
    return private.sign(padded, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


def _agreed(private: ec.EllipticCurvePrivateKey, point: bytes) -> bytes:
    peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    return private.exchange(ec.ECDH(), peer)
