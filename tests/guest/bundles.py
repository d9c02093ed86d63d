"""A peer that asks for AH and ESP in one Quick Mode, which no implementation here would send.

Of IKEv1 just that: main mode with a pre-shared key (RFC 2409 section 5.4), and the first
message of Quick Mode (section 5.5) with one proposal of as many protocols as one likes, as
racoon has it (RFC 2408 section 4.2).
"""

import hmac
import secrets
import socket
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from hashlib import sha256

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

NO_PROPOSAL_CHOSEN = 14
_ERRORS = range(1, 8192)
_BLOCK = 16
_PORT = 500
_SECONDS = 9.0

_SA, _KE, _ID, _HASH, _NONCE, _NOTIFY = 1, 4, 5, 8, 10, 11
_MAIN, _INFORMATIONAL, _QUICK = 2, 5, 32
_ENCRYPTED = 1
_IPV4 = b"\x01\0\0\0"
_DOI_AND_SITUATION = struct.pack(">II", 1, 1)
_GROUP = 14
_IKE = {1: 7, 14: 256, 2: 4, 3: 1, 4: _GROUP, 11: 1, 12: 3600}
"""AES-256, SHA-256, pre-shared key, modp2048, an hour (RFC 2409 appendix A)."""


class Protocol(IntEnum):
    """Of IPsec, as a proposal names it (RFC 2407 section 4.4.1)."""

    AH = 2
    ESP = 3


_TRANSFORMS = {
    # SHA-256 and an hour, in transport mode, with a group (RFC 2407 section 4.5).
    Protocol.AH: (5, {1: 1, 2: 3600, 3: _GROUP, 4: 2, 5: 5}),
    Protocol.ESP: (12, {1: 1, 2: 3600, 3: _GROUP, 4: 2, 5: 5, 6: 256}),
}
"""What follows from `aes256-sha256-modp2048` for each."""


def _pi(bits: int) -> int:
    """Return pi in units of 2**-bits, rounded down (Machin's formula)."""
    unit = 1 << bits + 64

    def arctangent(inverse: int) -> int:
        term, total, number, sign = unit // inverse, 0, 1, 1
        while term:
            total += sign * (term // number)
            term, number, sign = term // inverse**2, number + 2, -sign
        return total

    return 4 * (4 * arctangent(5) - arctangent(239)) >> 64


PRIME = 2**2048 - 2**1984 - 1 + 2**64 * (_pi(1918) + 124476)
"""modp2048 (RFC 3526 section 3)."""


def _payloads(*parts: tuple[int, bytes]) -> bytes:
    following = [kind for kind, _ in parts[1:]] + [0]
    return b"".join(
        struct.pack(">BBH", then, 0, 4 + len(body)) + body
        for (_, body), then in zip(parts, following, strict=True)
    )


def _parsed(first: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    kind = first
    while kind:
        then, _, length = struct.unpack_from(">BBH", data)
        yield kind, data[4:length]
        kind, data = then, data[length:]


def _attributes(values: dict[int, int]) -> bytes:
    return b"".join(struct.pack(">HH", 0x8000 | kind, value) for kind, value in values.items())


def _proposal(protocol: int, transform: int, attributes: dict[int, int], spi: bytes) -> bytes:
    """Return the body of a proposal with one transform; its number is 1 whatever it is."""
    inner = _payloads((3, struct.pack(">BBH", 1, transform, 0) + _attributes(attributes)))
    return struct.pack(">BBBB", 1, protocol, len(spi), 1) + spi + inner


def _sa(*proposals: bytes) -> bytes:
    return _DOI_AND_SITUATION + _payloads(*((2, each) for each in proposals))


class BundlePeer:
    """One IKE_SA with a Target, from an address; a context manager that lets go of its socket."""

    def __init__(self, network, here: str, there: str, psk: bytes) -> None:
        """`network` is a context in which sockets are of the peer's machine."""
        with network:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((here, 0))
        self._socket.connect((there, _PORT))
        self._socket.settimeout(_SECONDS)
        self._here, self._psk = here, psk
        self._cookies = secrets.token_bytes(8), bytes(8)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._socket.close()

    def main_mode(self) -> None:
        """Authenticate both; raises AssertionError or TimeoutError if that comes to no end."""
        offer = _sa(_proposal(1, 1, _IKE, b""))
        self._send(_MAIN, (_SA, offer))
        self._receive()
        private, nonce = secrets.randbits(512), secrets.token_bytes(32)
        ours = pow(2, private, PRIME).to_bytes(256, "big")
        self._send(_MAIN, (_KE, ours), (_NONCE, nonce))
        found = dict(self._receive()[2])
        theirs = found[_KE]
        shared = pow(int.from_bytes(theirs, "big"), private, PRIME).to_bytes(256, "big")
        skeyid = _prf(self._psk, nonce + found[_NONCE])
        self._derive(skeyid, shared)
        self._iv = sha256(ours + theirs).digest()[:_BLOCK]
        name = _IPV4 + socket.inet_aton(self._here)
        proof = _prf(skeyid, ours + theirs + b"".join(self._cookies) + offer + name)
        self._send(_MAIN, (_ID, name), (_HASH, proof), message=0)
        answer = dict(self._receive()[2])
        back = theirs + ours + b"".join(self._cookies[::-1]) + offer + answer[_ID]
        assert hmac.compare_digest(answer[_HASH], _prf(skeyid, back))

    def _derive(self, skeyid: bytes, shared: bytes) -> None:
        """SKEYID_d, _a and _e (RFC 2409 section 5)."""
        known = shared + b"".join(self._cookies)
        derived = _prf(skeyid, known + b"\0")
        self._skeyid_a = _prf(skeyid, derived + known + b"\1")
        self._key = _prf(skeyid, self._skeyid_a + known + b"\2")

    def quick_mode(self, protocols: Sequence[Protocol]) -> int | None:
        """Ask for one bundle of these; return the error that is notified, None if it is had."""
        phase1, message = self._iv, secrets.randbits(32) or 1
        bundle = [_proposal(each, *_TRANSFORMS[each], secrets.token_bytes(4)) for each in protocols]
        share = pow(2, secrets.randbits(512), PRIME).to_bytes(256, "big")
        rest = [(_SA, _sa(*bundle)), (_NONCE, secrets.token_bytes(32)), (_KE, share)]
        proof = _prf(self._skeyid_a, struct.pack(">I", message) + _payloads(*rest))
        self._iv = _first_iv(phase1, message)
        self._send(_QUICK, (_HASH, proof), *rest, message=message)
        answered = self._answer_of(phase1, message)
        self._iv = phase1
        return answered

    def _answer_of(self, phase1: bytes, message: int) -> int | None:
        while True:
            exchange, theirs, parts = self._receive(phase1, message)
            if exchange == _QUICK and theirs == message:
                return None
            errors = [each for each in map(_notified, parts) if each in _ERRORS]
            if errors:
                return errors[0]

    def _send(self, exchange: int, *parts: tuple[int, bytes], message: int | None = None) -> None:
        body, flags = _payloads(*parts), 0
        if message is not None:
            body, flags = self._encrypted(body), _ENCRYPTED
        head = struct.pack(
            ">BBBBII", parts[0][0], 0x10, exchange, flags, message or 0, 28 + len(body)
        )
        self._socket.send(b"".join(self._cookies) + head + body)

    def _receive(self, phase1: bytes = b"", message: int = 0):
        """Return the next message: its exchange, its number, its payloads."""
        data = self._socket.recv(4096)
        self._cookies = self._cookies[0], data[8:16]
        first, _, exchange, flags, number = struct.unpack_from(">BBBBI", data, 16)
        body = data[28:]
        if flags & _ENCRYPTED:
            is_ours = number == message
            body = self._decrypted(body, self._iv if is_ours else _first_iv(phase1, number))
            self._iv = data[-_BLOCK:] if is_ours else self._iv
        return exchange, number, list(_parsed(first, body))

    def _encrypted(self, body: bytes) -> bytes:
        padded = body + bytes(-len(body) % _BLOCK)
        encryptor = Cipher(AES(self._key), CBC(self._iv)).encryptor()
        done = encryptor.update(padded) + encryptor.finalize()
        self._iv = done[-_BLOCK:]
        return done

    def _decrypted(self, body: bytes, iv: bytes) -> bytes:
        decryptor = Cipher(AES(self._key), CBC(iv)).decryptor()
        return decryptor.update(body) + decryptor.finalize()


def _notified(payload: tuple[int, bytes]) -> int:
    """Return what a payload notifies of; 0 if it is of another kind."""
    kind, body = payload
    return int(struct.unpack_from(">H", body, 6)[0]) if kind == _NOTIFY else 0


def _first_iv(phase1: bytes, message: int) -> bytes:
    return sha256(phase1 + struct.pack(">I", message)).digest()[:_BLOCK]


def _prf(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")
