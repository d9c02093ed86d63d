"""The Host's configuration file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from carnet.config import Section, load_config
from carnet.link import LinkSection
from carnet.wire.fields import Name

DEFAULT_PATH = Path("/etc/carnet/host.toml")
PATH_VARIABLE = "CARNET_HOST_CONFIG"

_TEMPLATE = """\
# Carnet's Host: the trusted machine that knows the one-time key pairs.

# What stands behind the @ of the users that this Host speaks for.
name = {name}

# Where travellers' requests arrive; the messages protect themselves.
listen = "0.0.0.0"
port = 8470

# Key Database and accounts.
directory = "/var/lib/carnet-host"

# The security officer's certificate: whose batches of key pairs are taken.
officer = "officer.crt"

[token]
# The HSM token, by label or serial number; left out: the only one there is.
# token = "carnet-host"
# Its PKCS#11 module; left out: SoftHSM2.
# module = "/usr/lib/softhsm/libsofthsm2.so"

[link]
# Made by `carnet-provision certificates host NAME`; relative to this file.
certificate = "link.crt"
key = "link.key"
authority = "officer.crt"

# One table for each Target, by the name that users ask for.
{targets}"""


def render(name: str, targets: Sequence[tuple[str, str]]) -> str:
    """Return a commented configuration file."""
    tables = "".join(
        f"[targets.{json.dumps(target)}]\nurl = {json.dumps(url)}\n" for target, url in targets
    )
    return _TEMPLATE.format(name=json.dumps(name), targets=tables)


class TokenSection(Section, frozen=True, kw_only=True):
    """Which token is the HSM."""

    token: str | None = None
    module: str | None = None


class TargetSection(Section, frozen=True, kw_only=True):
    """Where one Target is."""

    url: Annotated[str, Meta(pattern=r"\Ahttps://[^/\s]+\Z")]


class HostConfig(Section, frozen=True, kw_only=True):
    """All of the file; paths are relative to it."""

    name: Name
    listen: str
    port: Annotated[int, Meta(ge=1, le=65535)]
    directory: Path
    officer: Path
    link: LinkSection
    targets: Annotated[dict[str, TargetSection], Meta(min_length=1)]
    token: TokenSection = TokenSection()

    @property
    def database(self) -> Path:
        """The Key Database's file."""
        return self.directory / "keys.sqlite"


def load(path: Path) -> HostConfig:
    """Return the configuration; raises UsageError."""
    return load_config(path, HostConfig)
