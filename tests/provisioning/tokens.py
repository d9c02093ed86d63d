"""What the tests do on tokens themselves, each function in a process of its own."""

import hashlib
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass
from pkcs11.exceptions import ObjectHandleInvalid
from pkcs11.types import DecryptMixin, DeriveMixin
from pkcs11.util.ec import encode_named_curve_parameters

from carnet.errors import UsageError
from carnet.secret_sources import PASSPHRASE_VARIABLE, PIN_VARIABLE, SO_PIN_VARIABLE
from carnet.token import keys
from carnet.token.cryptoki import PARAMETERS_VARIABLE, Cryptoki
from carnet.token.data import read_data, write_data
from carnet.token.finding import find_module
from carnet.token.host_keys import make_host_keys
from carnet.token.initialise import initialise_token
from carnet.token.module import Token, load_module
from carnet.token.onetime import OneTimeKeys, is_pair_label
from carnet.token.pins import change_pin, change_so_pin
from carnet.token.room import room_on
from carnet.token.session import open_public_session, open_session
from carnet.token.transport import host_transport_key, open_transport
from carnet.wire.keys import encode_public_key, key_id_of
from carnet.wire.rsa_suite import RsaSuite
from carnet.wire.suites import find_suite
from provisioning.mint_command import mint_command
from provisioning.suitability import check_room
from provisioning.tokens import token_init
from softhsm.configuration import CONFIGURATION_VARIABLE, prepare
from tests.host.batches import pem_of
from tests.token.helpers import verify
from tests.token.leaking import copies_that_leave

HOST_PIN = "449317260581"
KEYS = (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)


@dataclass
class Home:
    """A directory of SoftHSM2 tokens."""

    directory: Path

    def enter(self):
        os.environ[CONFIGURATION_VARIABLE] = str(prepare(self.directory))


def _module():
    return load_module(find_module(None))


@contextmanager
def _session(pin):
    with open_session(_module().choose(None), pin, writable=True) as session:
        yield session


def have_pins(old, pin, old_so, so_pin):
    """Give the token other PINs, whatever is in them."""
    token = _module().choose(None)
    change_pin(token, old, pin)
    change_so_pin(token, old_so, so_pin)


def initialise_host():
    """Make the Host's token; return its transport key."""
    initialise_token(_module(), label="host", so_pin="host's own so pin", pin=HOST_PIN)
    with _session(HOST_PIN) as session:
        return host_transport_key(session)


def host_keys(*, anew=False):
    """Return the Host's long-term keys in PEM, as `carnet-host host-keys` prints them."""
    with _session(HOST_PIN) as session:
        couples = make_host_keys(session, anew=anew)
    return pem_of(couples)


def pair_uses(pin):
    """Return of each private key of a pair: signs, agrees, decrypts, could ever leave."""
    with _session(pin) as session:
        found = session.find(ObjectClass.PRIVATE_KEY, {Attribute.TOKEN: True})
        return [
            (
                each[Attribute.SIGN],
                isinstance(each, DeriveMixin),
                each.key_type is KeyType.RSA and isinstance(each, DecryptMixin),
                not each[Attribute.NEVER_EXTRACTABLE],
            )
            for each in found
            if is_pair_label(each[Attribute.LABEL])
        ]


def make_key_that_asks(pin, label):
    """Make a key that wants the PIN anew for each signature."""
    asks = {Attribute.ALWAYS_AUTHENTICATE: True, Attribute.SIGN: True}
    with _session(pin) as session:
        curve = session.raw.create_domain_parameters(
            KeyType.EC,
            {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")},
            local=True,
        )
        curve.generate_keypair(
            store=True,
            label=label,
            id=b"asks",
            capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
            private_template=asks,
        )


def plant_key(pin, after=1):
    """Put a key that others know on the token, as if it were the last of a mint's pairs.

    With `after` 0 it has the label of the one that is.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    public_key = encode_public_key(key.public_key())
    with _session(pin) as session:
        last = OneTimeKeys(session).pairs()[-1].label
        label = f"{last[:-4]}{int(last[-4:]) + after:04}"
        session.raw.create_object(
            {
                Attribute.CLASS: ObjectClass.PRIVATE_KEY,
                Attribute.KEY_TYPE: KeyType.EC,
                Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1"),
                Attribute.VALUE: key.private_numbers().private_value.to_bytes(32, "big"),
                Attribute.TOKEN: True,
                Attribute.SIGN: True,
                Attribute.SENSITIVE: True,
                Attribute.EXTRACTABLE: False,
                Attribute.ID: keys.key_id(public_key),
                Attribute.LABEL: label,
            }
        )
        keys.store_public_key(session, public_key, label, None)


def import_batch(batch, last_day):
    """Do what the Host does with a batch; return the key_ids that its token then lists."""
    suite = find_suite(batch.suite)
    oaep = suite.oaep if isinstance(suite, RsaSuite) else None
    with _session(HOST_PIN) as session, open_transport(session, batch.ephemeral_key) as transport:
        for pair in batch.pairs:
            imported = transport.import_pair(
                key_id_of(pair.public_key),
                pair.label,
                pair.public_key,
                pair.wrapped,
                last_day,
                oaep,
            )
            assert imported
        return [pair.key_id for pair in OneTimeKeys(session).pairs()]


def everything(pin):
    """Return what is on the token: by class, each object's CKA_ID (or label) and label.

    What another process destroys meanwhile is not on it any more.
    """
    with _session(pin) as session:
        return {
            each.name: sorted(_names(session.find(each, {Attribute.TOKEN: True}), each))
            for each in (*KEYS, ObjectClass.SECRET_KEY, ObjectClass.DATA)
        }


def _names(objects, class_):
    for found in objects:
        with suppress(ObjectHandleInvalid):
            yield (
                bytes(found[Attribute.ID]).hex() if class_ in KEYS else "",
                found[Attribute.LABEL],
            )


def sign_with_all(pin):
    """Sign under every pair; return the key_ids whose signature verifies."""
    digest = hashlib.sha256(b"each pair is whole").digest()
    with _session(pin) as session:
        booklet = OneTimeKeys(session)
        for pair in booklet.pairs():
            verify(pair.public_key, booklet.sign(pair.key_id, digest), digest)
        return [pair.key_id.hex() for pair in booklet.pairs()]


def agree_with_all(pin, point):
    """Return the ECDH secret of every pair with one point."""
    with _session(pin) as session:
        booklet = OneTimeKeys(session)
        return {pair.key_id: booklet.agree(pair.key_id, point) for pair in booklet.pairs()}


def read_public(label):
    """Read a data object of either kind without the PIN."""
    with open_public_session(_module().choose(None)) as session:
        return [read_data(session, label, private=private) for private in (False, True)]


def note_a_mint(pin, note):
    """Write the journal of a mint as nothing but a mint should."""
    with _session(pin) as session:
        write_data(session, "carnet minting", note, private=True)


def replace_public(label, value):
    """Write a public data object as anybody can who holds the token."""
    with open_public_session(_module().choose(None), writable=True) as session:
        write_data(session, label, value, private=False)


def read_private(pin, label):
    """Read a private data object."""
    with _session(pin) as session:
        return read_data(session, label, private=True)


@dataclass
class Database:
    """A directory of NSS's softoken."""

    directory: Path

    @property
    def parameters(self):
        return (
            f"configdir='sql:{self.directory}' certPrefix='' keyPrefix='' secmod='secmod.db' flags="
        )

    def enter(self):
        os.environ[PARAMETERS_VARIABLE] = self.parameters


def initialise_database(path, pin):
    """Give the database's token a PIN; its SO PIN is empty."""
    module = load_module(Path(path))
    initialise_token(module, label="alice", so_pin="", pin=pin, selector="2", force=True)


def wipe_at_the_final_try(so_pin, pin, *options):
    """Run `token-init --force` for a token that leaves one try of its SO PIN; return its result."""
    real = Token.info.fget
    Token.info = property(lambda token: replace(real(token), so_pin_final_try=True))
    wipe = ["--label", "alice", "--force", "--confirm", "alice", *options]
    done = CliRunner().invoke(token_init, wipe, env={SO_PIN_VARIABLE: so_pin, PIN_VARIABLE: pin})
    return str(done.exception), done.output


def mint_where_copies_leave(order, pin, passphrase):
    """Run `mint`, on a token whose copies may leave; return what comes of it."""
    secrets = {PIN_VARIABLE: pin, PASSPHRASE_VARIABLE: passphrase}
    with pytest.MonkeyPatch.context() as patch:
        copies_that_leave(patch)
        return str(CliRunner().invoke(mint_command, order, env=secrets).exception)


def room(pin, free):
    """Return the room for P-256 pairs, of a token that tells so many bytes of free memory."""
    if free is not None:
        Cryptoki.free_memory = lambda *_: free
    with _session(pin) as session:
        return room_on(session, keys.P256)


def ask_about_room(pin, free, count):
    """Check room where nobody answers; return the error's sentence."""
    Cryptoki.free_memory = lambda *_: free
    with _session(pin) as session:
        try:
            check_room(session, count, keys.P256, yes=False)
        except UsageError as error:
            return error.sentence
