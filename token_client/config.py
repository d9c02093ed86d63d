"""The traveller's configuration file; most machines have none, and need none.

It can only narrow or override what the cover on the token says.
"""

import os
from pathlib import Path
from typing import Annotated

import platformdirs
from msgspec import Meta

from carnet.config import Section, load_config
from carnet.wire.documents import Url

PATH_VARIABLE = "CARNET_CLIENT_CONFIG"


class ClientConfig(Section, frozen=True, kw_only=True):
    """All of the file; every key may be left out."""

    module: str | None = None
    """PKCS#11 module; left out: CARNET_PKCS11_MODULE, else SoftHSM2."""
    token: str | None = None
    """Which token, by label or serial number."""
    hosts: tuple[Url, ...] = ()
    """Host addresses to use in place of the cover's."""
    officer: Path | None = None
    """The officer's certificate, to accept no other officer's covers."""
    vici: Path | None = None
    """strongSwan's VICI socket."""
    patience: Annotated[int, Meta(ge=1, le=3600)] = 60
    """Seconds after which nothing is sent any more; what was sent may take 20 s more."""


def load() -> ClientConfig:
    """Return the configuration, empty where there is no file; raises UsageError."""
    named = os.environ.get(PATH_VARIABLE)
    path = Path(named) if named else platformdirs.user_config_path("carnet") / "client.toml"
    if not named and not path.exists():
        return ClientConfig()
    return load_config(path, ClientConfig)
