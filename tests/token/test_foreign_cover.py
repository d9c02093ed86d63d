"""A cover file of other key pairs, on a token whose serial number is that of all of its kind."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from carnet.cover import OFFICER_LABEL
from carnet.errors import NoKeyPairLeftError
from carnet.pin import Credential
from carnet.token import keys
from carnet.token.data import write_data
from carnet.token.module import Token
from carnet.token.onetime import OneTimeKeys, pair_label
from carnet.token.session import open_session
from carnet.token.signing import make_pending_key
from carnet.wire.cover_file import pack_cover_file, unpack_cover_file
from tests.token.helpers import MINTED, PIN, mint_signing_pair
from tests.unit.examples import SoftwareKey
from tests.unit.test_cover_file import batch, cover, packed
from token_client import booklet, choosing, doctor
from token_client.config import ClientConfig

OFFICER = SoftwareKey()


@pytest.fixture
def public_key(token: Token) -> bytes:
    """The one pair's on the token, which has a pending key as well."""
    with open_session(token, PIN, writable=True) as session:
        write_data(session, OFFICER_LABEL, OFFICER.public_key, private=True)
        make_pending_key(session)
        return mint_signing_pair(session, pair_label(MINTED, 1), keys.P256)


def said_by_connect(token: Token, config: ClientConfig) -> str:
    """Return what is said once the token is unlocked, for want of a pair."""
    with booklet.open_booklet(token, Credential(pin=PIN, allow_final_try=False), config) as opened:
        store = SimpleNamespace(spent=frozenset, aside=list, elsewhere=dict)
        means: Any = SimpleNamespace(booklet=opened, store=store)
        assert choosing.next_pair(means, set()) is None
        return choosing.no_pair(means, set()).sentence


def test_a_cover_of_other_keys_is_refused_where_the_serial_number_tells_nothing(
    token: Token, public_key: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serial = token.info.serial
    monkeypatch.setattr(booklet, "is_own", lambda _: False)

    def of(key: bytes) -> ClientConfig:
        pair = SimpleNamespace(public_key=key)
        listed = batch(pair, token_serial=serial, not_after=None)
        path = tmp_path / "alice.cover"
        path.write_bytes(packed(OFFICER, cover(token_serial=serial), listed))
        return ClientConfig(cover=path)

    booklet.check_cover(token, of(public_key))
    config = of(SoftwareKey().public_key)
    none_here = r"alice.cover is the cover of key pairs of which none is on token traveller; name"
    with pytest.raises(NoKeyPairLeftError, match=none_here):
        booklet.check_cover(token, config)
    examination = doctor._Examination(config, None)
    examination._token = token
    with pytest.raises(NoKeyPairLeftError, match=none_here):
        examination._look_at_pairs()
    # One whose batch was changed is not called another's: its signatures tell, after the PIN.
    signed, _ = unpack_cover_file((tmp_path / "alice.cover").read_bytes())
    changed = tmp_path / "changed.cover"
    changed.write_bytes(pack_cover_file(signed, (b"changed",)))
    booklet.check_cover(token, ClientConfig(cover=changed))
    with open_session(token, PIN, writable=True) as session:
        OneTimeKeys(session).destroy(keys.key_id(public_key))
    # Nothing is seen of pairs any more: so it is said once the PIN is given.
    booklet.check_cover(token, config)
    assert none_here[:50] in said_by_connect(token, config)
    monkeypatch.undo()
    assert "No usable key pair is left" in said_by_connect(token, config)
