"""One target for each decoder of bytes that somebody else wrote.

A target raises nothing but what it says; what it reads, it gives back encoded again, and
that must be the very bytes. Imported with atheris's instrumentation.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import cbor2
from pkcs11 import Attribute, KeyType

from carnet.config import load_config
from carnet.durations import format_duration, parse_duration
from carnet.errors import TokenError, UsageError
from carnet.token import keys, session
from carnet.token.identity import Identity
from carnet.token.onetime import is_pair_label
from carnet.token.pair_type import spki_of
from carnet.wire import cbor
from carnet.wire.documents import MAX_COVER, MAX_SIGNED_ENDING, Batch, Ending
from carnet.wire.fault import WireError
from carnet.wire.fields import printable
from carnet.wire.session_key import (
    EPHEMERAL_KEY_LENGTH,
    EphemeralKey,
    SessionBinding,
    make_session_key,
)
from carnet.wire.suites import P256
from host_agent.config import HostConfig
from host_agent.config import render as render_host
from target_agent.config import TargetConfig
from tests.hostile import decoders
from token_client import pending, record, sessions
from token_client.config import ClientConfig
from token_client.host import _seconds
from token_client.sessions import SessionStore
from token_client.steps import Steps
from token_client.vault import PairVault

_PLACE = Path(tempfile.gettempdir())
_BINDING = SessionBinding(
    request_id=bytes(16), user_id="alice@office", target="work", objective_id=3
)
_EPHEMERAL = EphemeralKey(bytes(range(96)))


@dataclass(frozen=True)
class Target:
    """A decoder, what it may raise, and how many bytes are worth trying."""

    decode: Callable[[bytes], bytes | None]
    expected: tuple[type[Exception], ...] = (WireError,)
    seeds: tuple[bytes, ...] = ()
    most: int = 4096
    is_cbor: bool = False
    """Then what can be read as CBOR of any form is tried in the deterministic form too."""

    def __call__(self, data: bytes) -> None:
        self._try(data)
        if self.is_cbor and (written_anew := deterministic(data)) not in (None, data):
            self._try(written_anew)

    def _try(self, data: bytes) -> None:
        try:
            again = self.decode(data)
        except self.expected:
            return
        if again is not None and again != data:
            raise AssertionError(f"read, and encoded again to other bytes: {again.hex()}")


def deterministic(data: bytes) -> bytes | None:
    """Return the deterministic encoding of what a lenient decoder reads, None where it does not."""
    try:
        return cbor2.dumps(cbor2.loads(data, max_depth=20), canonical=True)
    except Exception:  # noqa: BLE001  whatever it is: it is not ours that is tried here
        return None


def batch_payload(data):
    return cbor.pack(cbor.unpack(data, Batch, MAX_COVER))


def ending_payload(data):
    return cbor.pack(cbor.unpack(data, Ending, MAX_SIGNED_ENDING))


def session_key(data):
    _EPHEMERAL.open(data, _BINDING)


def ephemeral_key(data):
    sealed, _ = make_session_key(data[:EPHEMERAL_KEY_LENGTH], _BINDING)
    _EPHEMERAL.open(sealed, _BINDING)


class Public(dict):
    """A public key object, as far as it is read."""

    def __init__(self, key_type, first, second, named):
        super().__init__(zip(named, (first, second), strict=True))
        self.key_type = key_type

    def get_attributes(self, named):
        return {each: self[each] for each in named}


_HALVES = {
    KeyType.EC: (Attribute.EC_PARAMS, Attribute.EC_POINT),
    KeyType.RSA: (Attribute.MODULUS, Attribute.PUBLIC_EXPONENT),
}


def token_public_key(data):
    """What a token says of a public key: parameters and point, or modulus and exponent."""
    length = int.from_bytes(data[:2], "big")
    for key_type, named in _HALVES.items():
        public = Public(key_type, data[2 : 2 + length], data[2 + length :], named)
        read = keys.read_public_key(public)
        if read is not None and keys.type_and_key(read[1])[0] is not read[0]:
            raise AssertionError("a key of another type than its attributes say")


def spki(data):
    type_, key = keys.type_and_key(data)
    if keys.type_and_key(spki_of(key)) != (type_, key):
        raise AssertionError("another key when written again")


def point(data):
    for type_ in (keys.P256, keys.P384):
        try:
            type_.load_point(data)
        except ValueError:
            continue


def token_text(data):
    """What a token says of itself and of its objects: labels, dates."""
    mapper = session._mapper()
    label = mapper.unpack_attributes(Attribute.LABEL, data)
    is_pair_label(label)
    mapper.unpack_attributes(Attribute.END_DATE, data)


def sentence(data):
    text = printable(data.decode(errors="replace"))
    if printable(text) != text or any(ord(each) < 32 for each in text):
        raise AssertionError("a sentence that a terminal obeys")


def pending_outside(data):
    return cbor.pack(cbor.unpack(data, pending._Outside))


def pending_inside(data):
    inside = cbor.unpack(data, pending._Inside)
    EphemeralKey(inside.ephemeral_secret)


class NoKeys:
    """A token from which the pair is gone."""

    def private_key(self, key_id):
        raise TokenError("gone")


def pending_file(data):
    with tempfile.TemporaryDirectory(dir=_PLACE) as name:
        vault = PairVault(NoKeys(), lambda _: P256)
        store = pending.PendingStore(Path(name), Identity("1", "alice"), vault, "work")
        store._pending.write_bytes(data)
        store._aside.write_bytes(data)
        store.aside()
        if store.find() is not None or store._pending.exists():
            raise AssertionError("a pending request that is none")


def session_file(data):
    with tempfile.TemporaryDirectory(dir=_PLACE) as name:
        path = Path(name) / "session-carnet-x.json"
        path.write_bytes(data)
        store = SessionStore(Path(name))
        with mock.patch.object(sessions, "sleep"):  # nobody is just writing it
            found = store.all()
        if not found and path.exists():
            raise AssertionError("what cannot be read is kept")
        for each in found:
            if record.decode(record.encode(each)).stage != each.stage:
                raise AssertionError("another state when written again")


def configuration(type_):
    def read(data):
        with tempfile.NamedTemporaryFile(dir=_PLACE, suffix=".toml") as file:
            file.write(data)
            file.flush()
            load_config(Path(file.name), type_)

    return read


def server_timing(data):
    steps = Steps(quiet=True)
    steps.answered(data.decode("latin-1"), 0.5)


def retry_after(data):
    seconds = _seconds(data.decode("latin-1"))
    if not 1 <= seconds <= 9999:
        raise AssertionError(f"{seconds} seconds")


def duration(data):
    seconds = parse_duration(data.decode("latin-1"))
    if parse_duration(format_duration(seconds)) != seconds:
        raise AssertionError(f"{seconds} seconds, written and read, are another time")


_CBOR = (b"\x80", b"\xa0", b"\x84\x01\x01\x50", b"\x9f\xff", b"\xc2\x41\x00")

TARGETS = {
    **{decode.__name__: Target(decode, is_cbor=True) for decode in decoders.DECODERS},
    "batch_payload": Target(batch_payload, is_cbor=True),
    "ending_payload": Target(ending_payload, is_cbor=True),
    "session_key": Target(session_key),
    "ephemeral_key": Target(ephemeral_key, seeds=(_EPHEMERAL.public,)),
    "token_public_key": Target(
        token_public_key, expected=(), seeds=(b"\x00\x0a" + keys.P256.parameters,)
    ),
    "spki": Target(spki, expected=(ValueError,), seeds=(decoders._SPKI,)),
    "point": Target(point, expected=(), seeds=(decoders._SPKI[-65:],)),
    "token_text": Target(
        token_text, expected=(), seeds=(b"20261124", b"carnet 20261123T101500Z 0001")
    ),
    "sentence": Target(sentence, expected=()),
    "pending_outside": Target(pending_outside, seeds=_CBOR, is_cbor=True),
    "pending_inside": Target(
        pending_inside, expected=(WireError, ValueError), seeds=_CBOR, is_cbor=True
    ),
    "pending_file": Target(pending_file, expected=(), seeds=_CBOR),
    "session_file": Target(
        session_file, expected=(), seeds=(b'{"name": "carnet-x", "target": "work"}',)
    ),
    "host_toml": Target(
        configuration(HostConfig),
        expected=(UsageError,),
        seeds=(
            render_host("office", [("work", "https://a:1")]).encode(),
            b"[limits]\nhsm = '1/second'",
        ),
    ),
    "target_toml": Target(
        configuration(TargetConfig), expected=(UsageError,), seeds=(b"[tunnels]\nmtu = 1",)
    ),
    "client_toml": Target(
        configuration(ClientConfig), expected=(UsageError,), seeds=(b"patience = 2\n",)
    ),
    "server_timing": Target(
        server_timing, expected=(), seeds=(b"step2;dur=1.5, target;dur=3, step4;dur=0.1",)
    ),
    "retry_after": Target(retry_after, expected=(), seeds=(b"2", b"-1", b"9999999999")),
    "duration": Target(duration, expected=(ValueError,), seeds=(b"8h", b"1d2h3m4s")),
}
