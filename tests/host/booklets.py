"""A traveller's token in software: batches as minting makes them, for a Host's transport key."""

import secrets
from contextlib import ExitStack, closing
from datetime import UTC, datetime

from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
)

from carnet.progress import no_bar
from carnet.token.onetime import pair_label
from carnet.token.session import open_session
from carnet.token.transport import host_transport_key
from carnet.wire.documents import Batch, BatchPair
from carnet.wire.keys import encode_public_key
from carnet.wire.suites import P256
from host_agent.importing import check_kept, record_batch, wrapped_onto_hsm
from host_agent.keystore.stores import store_of
from host_agent.revoked_meanwhile import under_way
from tests.host.batches import opened
from tests.unit.examples import SoftwareKey

MINTED = datetime(2026, 11, 23, tzinfo=UTC)


def wrap(kek, key):
    """Wrap a private key as the traveller's token does."""
    der = key.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return keywrap.aes_key_wrap_with_padding(kek, der)


class Booklet:
    """Pairs whose private keys are here, and the batch for the Host."""

    def __init__(self, transport_key, count, suite=P256, **changes):
        ephemeral = ec.generate_private_key(ec.SECP256R1())
        self.kek = ephemeral.exchange(ec.ECDH(), load_der_public_key(transport_key))
        self.keys = [SoftwareKey(suite) for _ in range(count)]
        fields = {
            "version": 1,
            "batch_id": secrets.token_bytes(16),
            "host_transport_key": transport_key,
            "ephemeral_key": encode_public_key(ephemeral.public_key()),
            "user_id": "alice@office",
            "token_serial": "1",
            "custody": "paired",
            "suite": suite.number,
            "minted_at": int(MINTED.timestamp()),
            "not_after": None,
            "pairs": tuple(self.pair(*each) for each in enumerate(self.keys, 1)),
        }
        self.batch = Batch(**(fields | changes))

    def pair(self, number, key):
        """Return a pair of this batch."""
        label = pair_label(MINTED, number)
        return BatchPair(label=label, public_key=key.public_key, wrapped=wrap(self.kek, key))

    def changed(self, **changes):
        """Return the batch with other fields."""
        fields = {name: getattr(self.batch, name) for name in self.batch.__struct_fields__}
        return Batch(**(fields | changes))


class HostToken:
    """The Host's HSM token, to which nobody is logged in between."""

    def __init__(self, module, selector, pin):
        self._module = module
        self._selector = selector
        self._pin = pin

    def session(self):
        return open_session(self._module.choose(self._selector), self._pin, writable=True)

    def booklet(self, count, suite=P256, **changes):
        """Mint so many pairs for this Host."""
        with self.session() as session:
            return Booklet(host_transport_key(session), count, suite, **changes)

    def take_in(self, batch, database, store="wrapped"):
        """Import a batch as `carnet-host import` does; return how many pairs were new."""
        where = store_of(store)
        with (
            opened(batch) as (file, _),
            no_bar("", 0) as advance,
            closing(Renewed(self)) as hsm,
            under_way(file, database),
        ):
            key_ids = list(wrapped_onto_hsm(file, hsm, database, advance, where))
            check_kept(file, key_ids, hsm, database, where)
            return record_batch(file, database, advance, where)


class Renewed:
    """The HSM token as the command has it: logged in to anew when that is asked for."""

    def __init__(self, token):
        self._token = token
        self._closing = ExitStack()
        self.renew()

    def use(self, work):
        return work(self._session)

    def renew(self):
        self._closing.close()
        self._session = self._closing.enter_context(self._token.session())

    def close(self):
        self._closing.close()
