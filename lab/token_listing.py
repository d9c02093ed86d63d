"""What a token holds, asked of the token: `python -m lab.token_listing --pin-fd N`.

Prints each private key of a one-time pair with what the token says of it, as JSON.
"""

import json
import sys
from dataclasses import dataclass

import click
from pkcs11 import Attribute, ObjectClass

from carnet.secret_sources import read_secret, secret_options
from carnet.token.finding import find_module
from carnet.token.module import load_module
from carnet.token.onetime import is_pair_label
from carnet.token.session import open_session
from softhsm.configuration import use_default


@dataclass(frozen=True)
class PrivateKeyFacts:
    """One private key as its token describes it."""

    key_id: str
    label: str
    sensitive: bool
    extractable: bool


@click.command()
@secret_options("pin", "the PIN of the token")
def main(pin_fd: int | None, pin_file: None) -> None:
    """List the private keys of one-time pairs."""
    use_default()
    pin = read_secret(
        "the PIN of the token", option="pin", fd=pin_fd, file=pin_file, variable="CARNET_PIN"
    )
    token = load_module(find_module(None)).choose(None)
    with open_session(token, pin, writable=False) as session:
        keys = [
            {
                "key_id": key[Attribute.ID].hex(),
                "label": key[Attribute.LABEL],
                "sensitive": bool(key[Attribute.SENSITIVE]),
                "extractable": bool(key[Attribute.EXTRACTABLE]),
            }
            for key in session.find(ObjectClass.PRIVATE_KEY, {})
            if is_pair_label(key[Attribute.LABEL])
        ]
    json.dump(sorted(keys, key=lambda key: key["label"]), sys.stdout)


if __name__ == "__main__":
    main()
