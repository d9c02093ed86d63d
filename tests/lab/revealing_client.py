"""The Client's command with its session keys handed to a test: python -m ... FD ARGUMENTS.

The product has no way to show them, so a test that must look for them takes them here.
"""

import os
import sys

from carnet.wire.session_key import SessionSecrets
from token_client.cli import main

_derive = SessionSecrets.derive


def reveal(session_key, binding):
    derived = _derive(session_key, binding)
    secrets = {"session_key": session_key, "psk": derived.psk, "ppk": derived.ppk}
    with os.fdopen(int(_FD), "w") as pipe:
        for name, secret in secrets.items():
            pipe.write(f"{name} {secret.hex()}\n")
    return derived


if __name__ == "__main__":
    _FD = sys.argv.pop(1)
    SessionSecrets.derive = reveal
    main()
