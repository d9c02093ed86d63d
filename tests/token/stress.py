"""Eight threads on one module: `python -m tests.token.stress SECONDS DIRECTORY`, on its own.

Two real SoftHSM2 tokens, a traveller's and a Host's. The threads do whatever the agents
do, each now on the session that all share and now on one of its own, and check every
result. Prints how often each was done, as JSON; ends with 1 where a result was wrong,
and by a signal where the module crashed.
"""

import hashlib
import json
import os
import random
import secrets
import sys
import time
import traceback
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock, Thread

from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute, ObjectClass

from carnet.errors import TokenError
from carnet.token import keys
from carnet.token.finding import find_module
from carnet.token.initialise import initialise_token
from carnet.token.module import load_module
from carnet.token.onetime import OneTimeKeys, pair_label
from carnet.token.session import TokenSession, _mapper, open_session
from carnet.token.transport import agree_transport, host_transport_key, open_transport
from softhsm.configuration import CONFIGURATION_VARIABLE, prepare
from tests.token.helpers import MINTED, PIN, SO_PIN, load, point_of, verify

THREADS = 8
AT_FIRST = 16
AT_LEAST = 8
"""Pairs that are left alone by who destroys, so that there is always work for the others."""


class Shared:
    """What all threads use: two logged-in tokens, and what became of each pair."""

    def __init__(self, traveller, host):
        self.sessions = {"traveller": traveller, "host": host}
        self.transport_key = host_transport_key(host)
        self._lock = Lock()
        self._number = 0
        self.alive = {}
        self.doomed = Counter()
        self.destroyed = Counter()
        self.done = Counter()

    def next_label(self):
        with self._lock:
            self._number += 1
            return pair_label(MINTED, self._number)

    def choose(self, rng):
        with self._lock:
            return rng.choice(list(self.alive.items()))

    def doom(self, rng):
        """Take one pair out of use; or one that others are about to destroy as well."""
        with self._lock:
            if self.doomed and rng.random() < 0.7:
                key_id = rng.choice(list(self.doomed)[-3:])
            elif len(self.alive) > AT_LEAST:
                key_id, _ = self.alive.popitem()
            else:
                return None
            self.doomed[key_id] += 1
            return key_id

    def count(self, what, key_id=None):
        with self._lock:
            self.done[what] += 1
            if key_id is not None:
                self.destroyed[key_id] += 1

    def add(self, pair):
        with self._lock:
            self.alive[pair.key_id] = pair.public_key


class Worker:
    """One of the threads."""

    def __init__(self, shared, number):
        self.shared = shared
        self.rng = random.Random(number)  # noqa: S311  chooses chores
        self.booklets = {name: OneTimeKeys(session) for name, session in shared.sessions.items()}

    @contextmanager
    def session(self, name):
        """Give the session that all share, or one of this thread's own."""
        shared = self.shared.sessions[name]
        if self.rng.random() < 0.5:
            yield shared
            return
        raw = shared.token.handle.open(rw=True, attribute_mapper=_mapper())
        try:
            yield TokenSession(shared.token, raw, logged_in=True)
        finally:
            raw.close()

    def anywhere(self):
        return self.rng.choice(list(self.booklets))

    def sign(self):
        key_id, public_key = self.shared.choose(self.rng)
        digest = hashlib.sha256(secrets.token_bytes(8)).digest()
        with self.unless_doomed(key_id):
            signature = self.booklets[self.anywhere()].sign(key_id, digest)
            verify(public_key, signature, digest)
            self.shared.count("sign")

    def agree(self):
        key_id, public_key = self.shared.choose(self.rng)
        ours = ec.generate_private_key(ec.SECP256R1())
        with self.unless_doomed(key_id):
            agreed = self.booklets[self.anywhere()].agree(key_id, point_of(ours.public_key()))
            assert agreed == ours.exchange(ec.ECDH(), load(public_key)), "a wrong secret"
            self.shared.count("agree")

    def list_pairs(self):
        before = dict(self.shared.alive)
        with self.session(self.anywhere()) as session:
            listed = {pair.key_id: pair.public_key for pair in OneTimeKeys(session).pairs()}
        for key_id in before.keys() & self.shared.alive.keys():
            assert listed[key_id] == before[key_id], "a pair is not listed as it was made"
        self.shared.count("list")

    def mint(self):
        """Mint on the traveller's token, wrapped; unwrap on the Host's."""
        label = self.shared.next_label()
        with self.session("traveller") as traveller, self.session("host") as host:
            with agree_transport(traveller, self.shared.transport_key) as wrapping:
                pair = wrapping.mint_pair(label, None)
                ephemeral = wrapping.ephemeral_public_key
            with open_transport(host, ephemeral) as unwrapping:
                assert unwrapping.import_pair(
                    pair.key_id, label, pair.public_key, pair.wrapped, None
                ), "a new pair is said to be known"
        self.shared.add(pair)
        self.shared.count("mint, wrap, unwrap")

    def destroy(self):
        """Destroy both private keys of a pair, at the same time as others do."""
        key_id = self.shared.doom(self.rng)
        if key_id is None:
            return
        for name in self.booklets:
            with self.session(name) as session:
                template = {Attribute.ID: key_id}
                for key in session.find(ObjectClass.PRIVATE_KEY, template):
                    with session.token.module.undisturbed():
                        destroyed = keys.destroy(key)
                    if destroyed:
                        self.shared.count("destroy", (name, key_id))
                self.booklets[name].destroy(key_id)

    @contextmanager
    def unless_doomed(self, key_id):
        """Forgive what fails under a pair that another thread destroys meanwhile."""
        try:
            yield
        except TokenError:
            if key_id not in self.shared.doomed:
                raise

    def work(self, deadline):
        chores = [self.sign, self.agree, self.list_pairs, self.mint, self.destroy]
        while time.monotonic() < deadline:
            self.rng.choices(chores, weights=[30, 30, 2, 4, 4])[0]()


def settled(shared):
    """Check what is left on both tokens, asked in new sessions: no more, no less."""
    for name, shared_session in shared.sessions.items():
        booklet = OneTimeKeys(shared_session)
        assert {pair.key_id: pair.public_key for pair in booklet.pairs()} == shared.alive, name
        assert not booklet.halves(), name
        for key_id, public_key in shared.alive.items():
            verify(
                public_key,
                booklet.sign(key_id, hashlib.sha256(b"last").digest()),
                hashlib.sha256(b"last").digest(),
            )
    expected = {(name, key_id): 1 for name in shared.sessions for key_id in shared.doomed}
    assert shared.destroyed == expected, "a key was destroyed not once"


def stress(shared, seconds):
    workers = [Worker(shared, number) for number in range(THREADS)]
    for _ in range(AT_FIRST):
        workers[0].mint()
    deadline = time.monotonic() + seconds
    failures = []

    def run(worker):
        try:
            worker.work(deadline)
        except Exception:  # noqa: BLE001  told by the main thread
            failures.append(traceback.format_exc())

    threads = [Thread(target=run, args=[worker]) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def main(seconds, directory):
    # At the usual 5 ms the threads would mostly wait for the interpreter's lock.
    sys.setswitchinterval(1e-5)
    with ExitStack() as stack:
        os.environ[CONFIGURATION_VARIABLE] = str(prepare(directory))
        module = load_module(find_module(None))
        for label in ("traveller", "host"):
            initialise_token(module, label=label, so_pin=SO_PIN, pin=PIN)
        tokens = [module.choose(label) for label in ("traveller", "host")]
        sessions = [
            stack.enter_context(open_session(token, PIN, writable=True)) for token in tokens
        ]
        shared = Shared(*sessions)
        failures = stress(shared, seconds)
        if failures:
            sys.exit("\n".join(failures))
        settled(shared)
    sys.stdout.write(json.dumps(shared.done))


if __name__ == "__main__":
    main(float(sys.argv[1]), Path(sys.argv[2]))
