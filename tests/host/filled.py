"""A Host in a process of its own with many pairs, of key store `wrapped`.

As `python -m tests.host.filled DIRECTORY TRAVELLERS EACH SAMPLE [URL PASSWORD_FILE]`, it prints
its port and so many private keys as JSON; ends when standard input does. What a traveller's
token and an import do for each pair is done in bulk: the batch's key is put on the token with
a value known here.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pkcs11 import Attribute, KeyType, ObjectClass
from sqlalchemy import insert

from carnet.database.place import PostgresPlace
from carnet.service import start_log
from carnet.token.batch_keys import batch_key_label
from carnet.token.finding import find_module
from carnet.token.module import load_module
from carnet.token.onetime import pair_label
from carnet.token.session import open_session
from host_agent import schema
from host_agent.config import LimitsSection
from host_agent.keydb import KeyDatabase
from softhsm.configuration import CONFIGURATION_VARIABLE, prepare
from tests.host.booklets import MINTED, wrap
from tests.host.conftest import new_pair
from tests.host.real_host import PIN, RealHost, http, read_all
from tests.unit.examples import SoftwareKey

LIMITS = LimitsSection(per_address="100000/second", hsm="100000/second")
_USES = {"SIGN", "VERIFY", "ENCRYPT", "DECRYPT", "WRAP", "DERIVE", "EXTRACTABLE"}


class Traveller:
    """One booklet, its batch's key, and the rows that an import leaves."""

    def __init__(self, number, each):
        self.kek = secrets.token_bytes(32)
        self.kek_id, self.batch_id = secrets.token_bytes(16), secrets.token_bytes(16)
        self.keys = [SoftwareKey() for _ in range(each)]
        self._whose = {"user_id": f"user{number}@office", "token_serial": f"{number:016}"}

    def object(self):
        return {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.AES,
            Attribute.TOKEN: True,
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.UNWRAP: True,
            **{Attribute[use]: False for use in _USES},
            Attribute.LABEL: batch_key_label(self.batch_id),
            Attribute.ID: self.kek_id,
            Attribute.VALUE: self.kek,
        }

    def rows(self):
        pairs, wrapped = [], []
        for number, key in enumerate(self.keys):
            pair = new_pair(
                key, batch_id=self.batch_id, label=pair_label(MINTED, number), **self._whose
            )
            row = {**vars(pair), "state": "valid", "imported_at": 0, "key_store": "wrapped"}
            pairs.append(row)
            wrapped.append(
                {"key_id": pair.key_id, "kek_id": self.kek_id, "wrapped": wrap(self.kek, key)}
            )
        return pairs, wrapped

    def batch_key(self):
        return {
            "kek_id": self.kek_id,
            "token_serial": "hsm",
            "batch_id": self.batch_id,
            "imported_at": 0,
        }


def fill(host, travellers, each, sample):
    """Put pairs into the Key Database and keys of batches onto the token; return a sample."""
    chosen = []
    # Of a few travellers each some, for what a batch's first pair alone costs.
    some = min(travellers, sample // 2)
    with (
        KeyDatabase.opened(host._path) as database,
        open_session(host._token, PIN, writable=True) as session,
        database.engine.begin() as connection,
    ):
        for number in range(travellers):
            one = Traveller(number, each)
            session.raw.create_object(one.object())
            pairs, wrapped = one.rows()
            connection.execute(insert(schema.key_pairs), pairs)
            connection.execute(insert(schema.wrapped_keys), wrapped)
            connection.execute(insert(schema.batch_keys), one.batch_key())
            if number % (travellers // some) == 0:
                chosen += one.keys[
                    : min(-(-sample // some), each - 1)
                ]  # the batch's key shall stay
    return chosen[:sample]


@contextmanager
def filled_host(directory, travellers, each, sample, place=None, **extra):
    """Run such a process; give its port, the private keys and its process ID.

    Its Key Database is a file in the directory, unless it has a place on a server.
    """
    directory.mkdir(exist_ok=True)
    numbers = map(str, (travellers, each, sample))
    at = [] if place is None else [str(place), str(place.password_file)]
    command = [sys.executable, "-m", "tests.host.filled", str(directory), *numbers, *at]
    with (
        (directory / "host.log").open("w") as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            env={**os.environ, **extra},
        ) as process,
    ):  # fmt: skip
        told = json.loads(process.stdout.readline())
        texts = told["keys"]
        keys = [SoftwareKey(key=load_pem_private_key(text.encode(), None)) for text in texts]
        try:
            yield told["port"], keys, process.pid
        finally:
            process.stdin.close()


def post(port, body):
    """Send a body as a Client does; return the whole raw response."""
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(http(body))
        return read_all(connection)


def main(directory, travellers, each, sample, *at):
    os.environ[CONFIGURATION_VARIABLE] = str(prepare(directory / "softhsm"))
    start_log()  # to standard error: nobody reads what else stands on standard output
    place = replace(PostgresPlace.parse(at[0]), password_file=Path(at[1])) if at else None
    module = load_module(find_module(None))
    host = RealHost(directory, module, LIMITS, place=place, counted=False)
    keys = fill(host, travellers, each, sample)
    pem = [k.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for k in keys]
    with host:
        print(  # noqa: T201
            json.dumps({"port": host.port, "keys": [each.decode() for each in pem]}), flush=True
        )
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]), *sys.argv[5:])
