"""A SoftHSM2 token that holds the Host's half of pairs whose other half is in software."""

from datetime import UTC, datetime

from pkcs11 import Attribute, KeyType, ObjectClass

from carnet.token import keys as token_keys
from carnet.token.finding import find_module
from carnet.token.initialise import initialise_token
from carnet.token.module import load_module
from carnet.token.onetime import OneTimeKeys, pair_label
from carnet.token.session import open_session
from carnet.token.translation import translated
from softhsm.configuration import CONFIGURATION_VARIABLE, prepare

PIN = "carnet-hsm-4711"
_SO_PIN = "carnet-officer-0815"
_MINTED = datetime(2026, 11, 23, tzinfo=UTC)


class SoftToken:
    """The one token that all processes of the Host share."""

    def __init__(self, directory, monkeypatch):
        self.configuration = str(prepare(directory))
        monkeypatch.setenv(CONFIGURATION_VARIABLE, self.configuration)
        self._module = load_module(find_module(None))
        self._module.library.reinitialize()
        initialise_token(self._module, label="hsm", so_pin=_SO_PIN, pin=PIN)

    def store(self, keys):
        """Put software keys onto the token, as an import would have left them."""
        with open_session(self._module.choose("hsm"), PIN, writable=True) as session:
            for number, key in enumerate(keys):
                _store(session, key, pair_label(_MINTED, number))

    def held(self):
        """Return the key_ids of the pairs that the token holds now."""
        with open_session(self._module.choose("hsm"), PIN, writable=False) as session:
            return {pair.key_id for pair in OneTimeKeys(session).pairs()}


def _store(session, key, label):
    type_, _ = token_keys.type_and_key(key.public_key)
    size = type_.coordinate_size
    with translated():
        session.raw.create_object(
            {
                Attribute.CLASS: ObjectClass.PRIVATE_KEY,
                Attribute.KEY_TYPE: KeyType.EC,
                Attribute.TOKEN: True,
                Attribute.PRIVATE: True,
                Attribute.SENSITIVE: True,
                Attribute.EXTRACTABLE: False,
                Attribute.SIGN: True,
                Attribute.DERIVE: True,
                Attribute.ID: token_keys.key_id(key.public_key),
                Attribute.LABEL: label,
                Attribute.EC_PARAMS: type_.parameters,
                Attribute.VALUE: key.key.private_numbers().private_value.to_bytes(size, "big"),
            }
        )
        token_keys.store_public_key(session, key.public_key, label, None)
