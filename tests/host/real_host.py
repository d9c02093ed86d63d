"""A Host as it serves: real HTTP, a real Key Database, and its keys on a real SoftHSM2 token.

It runs on a thread of the test's own process, so that a test can count what reaches the
token. No Target is there; a request for a Target that the Host does not know is answered
by the Host itself, sealed and signed like any other.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
from dataclasses import replace
from datetime import UTC, datetime

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from pkcs11 import Attribute, KeyType, ObjectClass

from carnet.service import serving
from carnet.token import keys
from carnet.token.finding import find_module
from carnet.token.initialise import initialise_token
from carnet.token.module import load_module
from carnet.token.onetime import pair_label
from carnet.token.session import open_session
from carnet.wire.envelope import seal_request
from carnet.wire.keys import key_id_of
from carnet.wire.suites import P256
from host_agent.admission import Admission
from host_agent.config import LimitsSection, TargetSection, TokenSection
from host_agent.door import door_rules
from host_agent.exchange import Parts
from host_agent.hsm import open_hsm
from host_agent.keydb import KeyDatabase, NewPair
from host_agent.leases import Leases
from host_agent.server import HostService
from host_agent.target_link import TargetLink
from softhsm.configuration import CONFIGURATION_VARIABLE, prepare
from tests.unit.examples import SoftwareKey, make_request

PIN = "hsm-of-the-test-4711"
SO_PIN = "hsm-of-the-test-0815"
UNLIMITED = LimitsSection(
    per_address="100000/second", hsm="100000/second", connections=256, connections_per_address=256
)
MINTED = datetime(2026, 11, 23, tzinfo=UTC)


def new_module(directory, monkeypatch):
    """Have the process's PKCS#11 module start again on tokens in this directory."""
    monkeypatch.setenv(CONFIGURATION_VARIABLE, str(prepare(directory / "softhsm")))
    module = load_module(find_module(None))
    module.library.reinitialize()
    return module


class Counting:
    """A part that works as ever, and counts what is asked of it."""

    def __init__(self, part):
        self.part = part
        self.calls = []

    def __getattr__(self, name):
        method = getattr(self.part, name)

        def counted(*arguments, **named):
            if name != "require":  # asks nothing of the token
                self.calls.append(name)
            return method(*arguments, **named)

        return counted


class RealHost:
    """A Host with a token and a Key Database; a context manager serves it.

    The token is made where there is none. The database is a file in the directory, unless
    it has another place. What reaches either is counted; not where its memory is looked at.
    """

    def __init__(self, directory, module, limits=UNLIMITED, *, place=None, counted=True, **rules):
        self.limits = limits
        self._counting = Counting if counted else lambda part: part
        self._rules = replace(door_rules(limits), **rules)
        self.port = 0
        self.hsm = None
        if not any(info.initialised for info in module.tokens()):
            initialise_token(module, label="hsm", so_pin=SO_PIN, pin=PIN)
        self._token = module.choose("hsm")
        self._path = place or directory / "keys.sqlite"
        self._count = 0
        self.database = None
        self._closing = contextlib.ExitStack()

    def add_pairs(self, *pairs, **changes):
        """Put key pairs on the token and into the Key Database; only while not serving."""
        numbered = list(enumerate(pairs, self._count + 1))
        self._count += len(pairs)
        with open_session(self._token, PIN, writable=True) as session:
            for number, pair in numbered:
                _store(session, pair, pair_label(MINTED, number))
        with KeyDatabase.opened(self._path) as database:
            database.add_pairs(_new_pair(pair, number, changes) for number, pair in numbered)

    def __enter__(self):
        self.database = self._counting(self._closing.enter_context(KeyDatabase.opened(self._path)))
        ready = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._run, args=(ready,))
        self._thread.start()
        ready.wait(30)
        if self._failure:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._closing.close()

    def _run(self, ready):
        try:
            asyncio.run(self._serve(ready))
        except BaseException as error:  # noqa: BLE001  raised again by who waits
            self._failure = error
            ready.set()

    async def _serve(self, ready):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with open_hsm(TokenSection(token="hsm"), PIN) as hsm:
            self.hsm = self._counting(hsm)
            nowhere = {"work": TargetSection(url="https://127.0.0.1:1")}
            link = TargetLink(nowhere, ssl.create_default_context())
            self.admission = Admission(self.limits)
            leases = Leases(self.database)
            parts = Parts(self.database, self.hsm, link, leases, self.admission)
            self.service = HostService(parts)
            runner = web.ServerRunner(self.service.server())
            try:
                async with serving(runner, self._rules, "127.0.0.1", 0) as port:
                    self.port = port
                    ready.set()
                    await self._stop.wait()
            finally:
                await self.service.stop()
                await link.close()

    def send(self, data, source="127.0.0.1"):
        """Send these bytes on a connection of their own; return all that comes back."""
        with self.connect(source) as connection:
            connection.sendall(data)
            return read_all(connection)

    def post(self, body, source="127.0.0.1"):
        """Send a body as a Client does; return the whole raw response."""
        return self.send(http(body), source)

    def connect(self, source="127.0.0.1"):
        """Return a connection from that address."""
        return socket.create_connection(("127.0.0.1", self.port), 30, (source, 0))


def read_all(connection):
    """Return what comes until the connection is closed."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def http(body=b"", line="POST /v1/requests HTTP/1.1", headers=()):
    """Return an HTTP request."""
    fields = ["Host: host.example", "Content-Type: application/cbor"]
    fields += [f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([line, *fields, "", ""]).encode("latin-1") + body


def status_of(response):
    """Return the status of a raw response."""
    return int(response.split(b" ", 2)[1])


def sealed(pair, **changes):
    """Return a sealed request of alice's, for a Target that this Host does not know."""
    changes = {"target": "elsewhere"} | changes
    return seal_request(make_request(**changes), pair.public_key, P256, pair)


def spoiled(request):
    """Return the request with a seal that does not open."""
    return request[:-1] + bytes([request[-1] ^ 1])


def _store(session, pair: SoftwareKey, label):
    """Make both halves for the session and copy them: SoftHSM2 stores a copy much faster."""
    private = session.raw.create_object(
        {
            Attribute.CLASS: ObjectClass.PRIVATE_KEY,
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
            Attribute.SIGN: True,
            Attribute.ID: key_id_of(pair.public_key),
            Attribute.LABEL: label,
            **(_rsa(pair) if isinstance(pair.key, rsa.RSAPrivateKey) else _on_curve(pair)),
        }
    )
    type_, key = keys.type_and_key(pair.public_key)
    public = session.raw.create_object(
        {
            Attribute.CLASS: ObjectClass.PUBLIC_KEY,
            Attribute.KEY_TYPE: type_.key_type,
            Attribute.PRIVATE: False,
            **type_.public_attributes(key),
        }
    )
    keys.keep_public_half(public, pair.public_key, label, None)
    private.copy({Attribute.TOKEN: True})
    for half in (public, private):
        half.destroy()


def _new_pair(pair, number, changes):
    fields = {
        "key_id": key_id_of(pair.public_key),
        "user_id": "alice@office",
        "token_serial": "1",
        "batch_id": bytes(16),
        "label": pair_label(MINTED, number),
        "custody": "paired",
        "suite": 1,
        "public_key": pair.public_key,
        "not_after": None,
    }
    return NewPair(**(fields | changes))


def _on_curve(pair: SoftwareKey):
    value = pair.key.private_numbers().private_value
    return {
        Attribute.KEY_TYPE: KeyType.EC,
        Attribute.DERIVE: True,
        Attribute.EC_PARAMS: keys.type_and_key(pair.public_key)[0].parameters,
        Attribute.VALUE: value.to_bytes(pair.suite.coordinate, "big"),
    }


def _rsa(pair: SoftwareKey):
    numbers = pair.key.private_numbers()
    parts = {
        Attribute.MODULUS: numbers.public_numbers.n,
        Attribute.PUBLIC_EXPONENT: numbers.public_numbers.e,
        Attribute.PRIVATE_EXPONENT: numbers.d,
        Attribute.PRIME_1: numbers.p,
        Attribute.PRIME_2: numbers.q,
        Attribute.EXPONENT_1: numbers.dmp1,
        Attribute.EXPONENT_2: numbers.dmq1,
        Attribute.COEFFICIENT: numbers.iqmp,
    }
    octets = {name: each.to_bytes((each.bit_length() + 7) // 8) for name, each in parts.items()}
    return {Attribute.KEY_TYPE: KeyType.RSA, Attribute.DECRYPT: True, **octets}
