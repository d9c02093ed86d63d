"""The traveller's configuration file; most machines have none, and need none.

It can only narrow or override what the cover on the token says.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from msgspec import Meta, structs

from carnet.config import NotEmpty, Section, load_config
from carnet.ipsec.drivers import Choice, DriverName
from carnet.ipsec.helper.place import find_helper
from carnet.objectives import required_by
from carnet.wire.documents import Url

PATH_VARIABLE = "CARNET_CLIENT_CONFIG"


class OnRemoval(StrEnum):
    """What happens when the token is pulled while its tunnel stands."""

    END = "end"
    """The tunnel ends: who takes her token and goes leaves nothing open behind her."""
    KEEP = "keep"
    """The tunnel stays; that the token was pulled is only said."""
    LOCK = "lock"
    """The screen is locked, and the tunnel stays; it ends if the screen cannot be locked."""


class Least(str):
    """An IPsec option or a security objective, of which no less is accepted."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, text: str, _: Path) -> Self:
        """Read it; raises ValueError if it names neither."""
        required_by((text,))
        return cls(text)


class ClientConfig(Section, frozen=True, kw_only=True):
    """All of the file; every key may be left out."""

    module: NotEmpty | None = None
    """PKCS#11 module; left out: CARNET_PKCS11_MODULE, else SoftHSM2."""
    token: NotEmpty | None = None
    """Which token, by label or serial number."""
    hosts: tuple[Url, ...] = ()
    """Host addresses to use in place of the cover's."""
    cover: Path | None = None
    """The cover of a token that stores none, as the officer gave it."""
    officer: Path | None = None
    """The officer's certificate, to accept no other officer's covers."""
    driver: DriverName | None = None
    """Which IPsec implementation; left out: the first that answers."""
    vici: Path | None = None
    """strongSwan's VICI socket."""
    pluto: Path | None = None
    """Libreswan's control socket."""
    helper: Path | None = None
    """carnet-helper's socket; left out: the usual one, if it is there and this is not root."""
    minimum: tuple[Least, ...] = ()
    """IPsec options and security objectives; what satisfies less is refused."""
    nat: bool | None = None
    """Whether this machine is behind NAT; left out: a Host is asked where it matters."""
    block: bool = True
    """Whether packets meant for a tunnel are held back while it is down."""
    dns: bool = True
    """Whether names are looked up at the tunnel's name servers while the session lives."""
    force_udp: bool = False
    """UDP encapsulation even where no NAT is found: for networks that let no ESP through."""
    resume: bool = True
    """Whether a tunnel that was lost comes back without a new key pair: the pre-shared key then
    stays in the IPsec daemon's memory until the session ends."""
    dead_peer_seconds: Annotated[int, Meta(ge=1, le=3600)] = 30
    """Silence after which Target is asked whether it is alive."""
    patience: Annotated[int, Meta(ge=1, le=3600)] = 60
    """Seconds after which nothing is sent any more; what was sent may take 20 s more."""
    on_removal: OnRemoval = OnRemoval.END
    """What happens when the token is pulled while its tunnel stands."""
    agent: bool = True
    """Whether an agent stays with a tunnel in the background: to notice that the token is
    pulled, to say why and how soon the tunnel ends, and to clear what it leaves."""
    lock_command: Annotated[tuple[str, ...], Meta(min_length=1)] = ("loginctl", "lock-session")
    """Program and arguments that lock the screen, for `on_removal = "lock"`, and then end."""
    few_pairs: Annotated[int, Meta(ge=0)] = 5
    """A connection that leaves fewer key pairs than this warns of it."""

    @property
    def drivers(self) -> Choice:
        """Which driver is meant, and where its daemon is."""
        sockets = {DriverName.STRONGSWAN: self.vici, DriverName.LIBRESWAN: self.pluto}
        return Choice(self.driver, sockets, find_helper(self.helper))


def load(**changed: Path | str | bool | None) -> ClientConfig:
    """Return the configuration, empty where there is no file; raises UsageError.

    `changed` is what the command line says, where it says it.
    """
    given = {name: value for name, value in changed.items() if value is not None}
    return structs.replace(_read(), **given)


def _read() -> ClientConfig:
    named = os.environ.get(PATH_VARIABLE)
    if named:
        return load_config(Path(named), ClientConfig)
    import platformdirs  # noqa: PLC0415  not where the file is named

    path = platformdirs.user_config_path("carnet") / "client.toml"
    return load_config(path, ClientConfig) if path.exists() else ClientConfig()
