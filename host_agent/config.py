"""The Host's configuration file."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Self

from msgspec import Meta

from carnet.config import LocalAddress, NotEmpty, Section, check_once, load_config
from carnet.database.place import FilePlace, Place, PostgresPlace
from carnet.files import read_private
from carnet.link import LinkSection
from carnet.observation import ObservationSection
from carnet.observation import Place as ObserversPlace
from carnet.wire.documents import HOST_AND_PORT
from carnet.wire.fields import Name
from carnet.wire.suites import ALL_SUITES, SuiteName
from host_agent.store_name import KeyStoreName

DEFAULT_PATH = Path("/etc/carnet/host.toml")
PATH_VARIABLE = "CARNET_HOST_CONFIG"
_FILE = "keys.sqlite"

_TEMPLATE = """\
# Carnet's Host: the trusted machine that knows the one-time key pairs.

# What stands behind the @ of the users that this Host speaks for.
name = {name}

# Where travellers' requests arrive; the messages protect themselves.
listen = "0.0.0.0"
port = 8470

# Key Database and accounts: a SQLite file in this directory.
directory = "/var/lib/carnet-host"
# For several Hosts on several machines, a PostgreSQL database in its place. The password
# stands in a file of the owner's alone, or in PGPASSFILE; docs/OPERATING.md tells more.
# database = "postgresql://carnet@database.example.org/carnet?sslrootcert=/etc/carnet/db.crt"
# database_password_file = "database.password"

# The security officer's certificate: whose batches of key pairs are taken.
officer = "officer.crt"

# Which suites of key pairs are served, in batches and in requests: "p-256", "p-384",
# "rsa" (RSA encryption is OAEP with SHA-256) and "rsa-sha1" (OAEP with SHA-1, for
# tokens, such as SoftHSM2, that have no other). Targets have this setting too.
suites = {suites}

[token]
# The HSM token, by label or serial number; left out: the only one there is.
# token = "carnet-host"
# Its PKCS#11 module; left out: SoftHSM2.
# module = "/usr/lib/softhsm/libsofthsm2.so"
# Where the private keys of batches imported from now on are kept. "token": each an object
# of its own on the HSM, destroyed there when its pair is used. "wrapped": encrypted in the
# Key Database, under one key a batch that the HSM holds, for HSMs with few places and for
# many travellers; docs/OPERATING.md says when to choose it.
# key_store = "token"

[limits]
# Over a limit a Client is told to wait (429), and does. All are asked before a key pair
# is looked up. Written like 50/second, 60/10 second or 300/minute.
# Requests of one address, or of one IPv6 network of 64 bits. A whole office may stand
# behind one address; so does everybody, where a reverse proxy stands before this Host:
# then let the proxy limit each address, and set this to what all may ask together.
# per_address = "60/10 second"
# Requests of all together that the HSM token must open. SoftHSM2 does some hundreds a
# second; set this to about half of what another token does.
# hsm = "50/second"
# Connections at the same time, of all and of one address.
# connections = 256
# connections_per_address = 64

[observation]
# Where /metrics (Prometheus), /healthz and /readyz are, for observers on this machine: a
# Unix socket, or an address and port. Nobody is asked who he is. "off": nowhere. Left
# out: observers-PORT.sock in `directory`.
# listen = "/run/carnet-host/observers.sock"
# listen = "127.0.0.1:9470"
# The log: "json", one object a line, or "text".
# log = "json"

[link]
# Made by `carnet-provision certificates host NAME`; relative to this file.
certificate = "link.crt"
key = "link.key"
authority = "officer.crt"

# The security officer's own door, over mutually authenticated TLS: batches, revocations.
# Off unless this table is there. She certifies it by `carnet-provision certificates
# interface NAME`; nobody but her gets in, by the certificate `officer` above.
# [interface]
# listen = "0.0.0.0"
# port = 8472
# certificate = "interface/link.crt"
# key = "interface/link.key"

# One table for each Target, by the name that users ask for.
{targets}"""


def render(name: str, targets: Sequence[tuple[str, str]]) -> str:
    """Return a commented configuration file."""
    tables = "".join(
        f"[targets.{json.dumps(target)}]\nurl = {json.dumps(url)}\n" for target, url in targets
    )
    return _TEMPLATE.format(name=json.dumps(name), suites=json.dumps(ALL_SUITES), targets=tables)


_LIMIT = r"\A[1-9][0-9]{0,5}/([1-9][0-9]{0,3} )?(second|minute|hour)\Z"
Limit = Annotated[str, Meta(pattern=_LIMIT, description="a limit such as 10/minute or 5/2 hour")]
"""How much in how long, as the library `limits` reads it."""


class TokenSection(Section, frozen=True, kw_only=True):
    """Which token is the HSM, and what is kept on it."""

    token: NotEmpty | None = None
    module: NotEmpty | None = None
    key_store: KeyStoreName = KeyStoreName.TOKEN


class TargetSection(Section, frozen=True, kw_only=True):
    """Where one Target is."""

    url: Annotated[
        str,
        Meta(
            pattern=rf"\Ahttps://{HOST_AND_PORT}\Z",
            description="https://… with a host's name or address, and no path behind it",
        ),
    ]


class DatabaseSetting:
    """`database`: a PostgreSQL URL, a SQLite file, or a directory for one."""

    def __init__(self, place: Place) -> None:
        self.place = place

    @classmethod
    def from_setting(cls, text: str, base: Path) -> Self:
        """Read it; raises ValueError."""
        if "://" in text:
            return cls(PostgresPlace.parse(text))
        path = base / text
        try:
            is_directory = path.is_dir() or text.endswith("/")
        except OSError as error:
            raise ValueError(
                f"expected a path, got one that cannot be: {error.strerror}"
            ) from error
        return cls(FilePlace(path / _FILE if is_directory else path))


class LimitsSection(Section, frozen=True, kw_only=True):
    """How much is let near the token, and how many connections there may be."""

    per_address: Limit = "60/10 second"
    """Well-formed requests of one address."""
    hsm: Limit = "50/second"
    """Requests of all together that the token must open."""
    connections: Annotated[int, Meta(ge=8, le=4096)] = 256
    connections_per_address: Annotated[int, Meta(ge=4, le=4096)] = 64


class InterfaceSection(Section, frozen=True, kw_only=True):
    """The officer's interface."""

    listen: LocalAddress
    port: Annotated[int, Meta(ge=1, le=65535)]
    certificate: Path
    key: Path


class HostConfig(Section, frozen=True, kw_only=True):
    """All of the file; paths are relative to it."""

    name: Name
    listen: LocalAddress
    port: Annotated[int, Meta(ge=1, le=65535)]
    directory: Path = Path("/var/lib/carnet-host")
    database: DatabaseSetting | None = None
    database_password_file: Path | None = None
    officer: Path
    link: LinkSection
    targets: Annotated[dict[Name, TargetSection], Meta(min_length=1)]
    suites: Annotated[tuple[SuiteName, ...], Meta(min_length=1)] = ALL_SUITES
    token: TokenSection = TokenSection()
    limits: LimitsSection = LimitsSection()
    interface: InterfaceSection | None = None
    observation: ObservationSection = ObservationSection()

    def __post_init__(self) -> None:
        """Refuse a suite that is named twice."""
        check_once("suites", self.suites)

    @property
    def observers(self) -> ObserversPlace:
        """Where the service is seen from outside; processes in one directory differ by port."""
        default = ObserversPlace(path=self.directory / f"observers-{self.port}.sock")
        return self.observation.place(default)

    @property
    def key_database(self) -> Place:
        """Where the Key Database is."""
        place = self.database.place if self.database else FilePlace(self.directory / _FILE)
        if isinstance(place, PostgresPlace):
            return replace(place, password_file=self.database_password_file)
        return place


def load(path: Path) -> HostConfig:
    """Return the configuration; raises UsageError."""
    config = load_config(path, HostConfig, init="carnet-host init")
    place = config.key_database
    if isinstance(place, PostgresPlace) and place.holds_password:
        read_private(path, "the database's password")
    return config
