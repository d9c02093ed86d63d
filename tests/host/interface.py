"""A Host with its officer's interface: `carnet-host serve`, as an operator starts it."""

import contextlib
import os
import signal
import socket
import ssl
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPSConnection
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from carnet.database.place import FilePlace
from carnet.interface import interface_name
from carnet.token.initialise import initialise_token
from carnet.token.session import open_session
from carnet.token.transport import agree_transport, host_transport_key
from carnet.wire.documents import BatchPair
from host_agent.keydb import KeyDatabase
from lab.errors import LabError
from lab.waiting import wait_until
from provisioning.authority import Role, agent_certificate
from tests.commands import run, start
from tests.host.batches import label, sealing_key, split_batch
from tests.host.real_host import PIN, SO_PIN, new_module, read_all
from tests.officers import make_officer
from tests.target.conftest import free_port

PASSPHRASE = "staple battery horse correct"
_PLACE = Path(sys.executable).parent
_CONFIGURATION = """
name = "office"
listen = "127.0.0.1"
port = {port}
directory = "state"
{database}
officer = "officer/officer.crt"
[token]
token = "hsm"
[link]
certificate = "host.crt"
key = "host.key"
authority = "officer/officer.crt"
[interface]
listen = "127.0.0.1"
port = {interface}
certificate = "interface.crt"
key = "interface.key"
[targets.work]
url = "https://127.0.0.1:1"
"""


@dataclass
class Answer:
    status: int
    body: bytes


class Interface:
    """The Host, its HSM token, its officer, and the certificates that she made."""

    def __init__(self, directory, place, database, monkeypatch):
        self.directory, self.place = directory, place
        self.officer = make_officer(directory / "officer", PASSPHRASE)
        for role, name in ((Role.HOST, "host"), (Role.INTERFACE, "interface")):
            self.certify(role, name, "office")
        self.module = new_module(directory, monkeypatch)
        for token in ("hsm", "alice"):
            initialise_token(self.module, label=token, so_pin=SO_PIN, pin=PIN)
        with self.session("hsm") as session:
            self.transport_key = host_transport_key(session)
            self.host_key = sealing_key(session)
        for file, secret in (("pin", PIN), ("passphrase", PASSPHRASE)):
            (directory / file).touch(mode=0o600)
            (directory / file).write_text(secret)
        self.port, self.requests = free_port(), free_port()
        self.config = directory / "host.toml"
        self.config.touch(mode=0o600)
        self.config.write_text(
            _CONFIGURATION.format(port=self.requests, interface=self.port, database=database)
        )
        self.log = directory / "host.log"
        self.process = None

    def session(self, token):
        """Open a session on a token of the directory, where the Host has one of its own."""
        return open_session(self.module.choose(token), PIN, writable=True)

    def split_batch(self, pairs, **changes):
        """Return a batch of pairs in custody `split`, for this Host's key."""
        return split_batch(pairs, host_transport_key=self.host_key, **changes)

    def paired_batch(self, count):
        """Mint pairs on alice's token; return their batch."""
        with self.session("alice") as session:
            wrapping = agree_transport(session, self.transport_key)
            minted = [wrapping.mint_pair(label(number), None) for number in range(count)]
        pairs = tuple(
            BatchPair(label=label(number), public_key=pair.public_key, wrapped=pair.wrapped)
            for number, pair in enumerate(minted)
        )
        return split_batch(
            pairs,
            custody="paired",
            host_transport_key=self.transport_key,
            ephemeral_key=wrapping.ephemeral_public_key,
        )

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}"

    def certify(self, role, file, name, officer=None):
        """Have the officer certify a key; return the files of certificate and key."""
        officer = officer or self.officer
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = agent_certificate(
            officer.key, officer.certificate, key.public_key(), name, role, timedelta(days=1)
        )
        return self.write(file, certificate, key)

    def write(self, file, certificate, key):
        paths = self.directory / f"{file}.crt", self.directory / f"{file}.key"
        paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        paths[1].touch(mode=0o600)
        paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return paths

    def start(self, *within, **extra):
        """Start it, as an argument of the command `within` if there is one."""
        already = self.said().count('"event": "ready"')
        with self.log.open("ab") as log:
            self.begin(log, *within, **extra)

        def is_ready():
            if self.process.poll() is not None:
                raise LabError(f"carnet-host does not start: {self.said()}")
            return self.said().count('"event": "ready"') > already

        wait_until(is_ready, "carnet-host to be ready", 60)

    def begin(self, log, *within, **extra):
        """Do so, and wait for nothing; `log` is a file that it writes to."""
        self.process = start(
            [*within, _PLACE / "carnet-host", "--config", self.config, "serve",
             "--pin-file", self.directory / "pin"],
            os.environ | extra, log,
        )  # fmt: skip

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def said(self):
        return self.log.read_text() if self.log.exists() else ""

    def connect(self, certificate=None):
        """Return a TLS connection of whoever has this certificate, the officer unless given."""
        context = ssl.create_default_context(cafile=self.directory / "officer" / "officer.crt")
        context.load_cert_chain(*(certificate or self.own))
        plain = socket.create_connection(("127.0.0.1", self.port), 60)
        return context.wrap_socket(plain, server_hostname=interface_name("office"))

    @property
    def own(self):
        """The officer's certificate and key."""
        where = self.directory / "officer"
        return where / "officer.crt", where / "officer.key", PASSPHRASE

    def ask(self, method, path, body=None, certificate=None):
        """Ask, and return the answer."""
        connection = HTTPSConnection("127.0.0.1", self.port, timeout=60)
        connection.sock = self.connect(certificate)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return Answer(response.status, response.read())
        finally:
            connection.close()

    def heard_by(self, certificate):
        """Return what somebody hears who asks for the counts; b"" where TLS ends it."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if certificate:
            context.load_cert_chain(*certificate)
        with socket.create_connection(("127.0.0.1", self.port), 60) as plain:
            try:
                with context.wrap_socket(plain) as connection:
                    connection.sendall(b"GET /v1/pairs HTTP/1.1\r\nHost: a\r\n\r\n")
                    return read_all(connection)
            except OSError:
                return b""

    def provision(self, *arguments, **extra):
        """Run the officer's command."""
        return run(
            [_PLACE / "carnet-provision", *arguments, "--directory", self.directory / "officer",
             "--passphrase-file", self.directory / "passphrase"],
            os.environ | extra,
        )  # fmt: skip

    @property
    def host(self):
        return "--host", "office", self.url

    def counts(self, user=None):
        """Return how many pairs there are in each state, of one user or of all."""
        with KeyDatabase.opened(self.place) as database:
            counted = Counter()
            for each in database.count(user):
                counted[each.state] += each.pairs
            return dict(counted)

    def spooled(self):
        """Return the lengths of the files without a name that it has open in its directory."""
        lengths = []
        state = str(self.directory / "state")
        for each in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed just now
                target = str(each.readlink())
                if target.startswith(state) and "(deleted)" in target:
                    lengths.append(each.stat().st_size)
        return lengths


@contextlib.contextmanager
def host_with_interface(directory, place, monkeypatch):
    """Make a Host in a directory that does not serve yet; it is stopped at the end."""
    office = directory / "office"
    office.mkdir()
    made = Interface(office, place, database_setting(place), monkeypatch)
    try:
        yield made
    finally:
        made.stop()


def database_setting(place):
    """Return the lines of a Host's configuration that name its Key Database."""
    if isinstance(place, FilePlace):
        return f'database = "{place.path}"'
    url = place.url.render_as_string(hide_password=False)
    return f'database = "{url}"\ndatabase_password_file = "{place.password_file}"'
