"""What memory a token keeps of a request's operations: `python -m bench.token_memory FEW MANY`.

The operations are those of a request in key store `wrapped`, with nothing of Carnet around
them: a private key is unwrapped for the session, agrees or signs, and is destroyed.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from pkcs11 import Mechanism

from bench.bare_token import bare_agreement, module_with_tokens_in
from carnet.token import keys
from carnet.token.ec_type import point_of
from carnet.token.finding import find_module
from carnet.token.initialise import initialise_token
from carnet.token.module import load_module
from carnet.token.session import open_session
from tests.host.filled import Traveller
from tests.host.real_host import PIN, SO_PIN


def kibibytes(directory: Path, few: int, many: int) -> float:
    """Return what a new process takes more for each request, from `few` to `many` of them."""
    module = module_with_tokens_in(directory)
    serial = initialise_token(module, label="bare", so_pin=SO_PIN, pin=PIN)
    argv = [sys.executable, "-m", "bench.token_memory", serial, str(few), str(many)]
    said = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
    early, late = json.loads(said)
    return float(1024 * (late - early) / (many - few))


def resident_mebibytes(pid: int) -> float:
    """Return the memory that a process has in RAM, in MiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) / 1024 if found else 0.0


def main(serial: str, few: int, many: int) -> None:
    """Be that process: print what it takes after so many requests, and after so many."""
    traveller = Traveller(1, 1)
    (_, (row,)), (key,) = traveller.rows(), traveller.keys
    peer = point_of(key.key.public_key())
    with open_session(load_module(find_module(None)).choose(serial), PIN, writable=True) as session:
        kek = session.raw.create_object(traveller.object())

        def unwrapped() -> Any:
            return keys.unwrap_private_key(
                kek, row["key_id"], "", row["wrapped"], keys.P256, store=False
            )

        seen = []
        for number in range(1, many + 1):
            _agree(unwrapped(), peer)
            _sign(unwrapped())
            if number in (few, many):
                seen.append(resident_mebibytes(os.getpid()))
    print(json.dumps(seen))  # noqa: T201


def _agree(private: Any, point: bytes) -> None:
    bare_agreement(private, point)
    private.destroy()


def _sign(private: Any) -> None:
    private.sign(bytes(32), mechanism=Mechanism.ECDSA)
    private.destroy()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
