"""Files as a kill or a power cut leaves them: what can be swept is, nothing else."""

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from pkcs11 import Attribute, ObjectClass

from carnet.errors import TokenError
from carnet.token.data import read_data, write_data
from carnet.token.module import Module, Token
from carnet.token.nameless import sweep_nameless
from carnet.token.onetime import OneTimeKeys
from carnet.token.session import open_session
from carnet.token.transport import host_transport_key
from tests.token.helpers import DIGEST, PIN, Pairing, verify

# A SoftHSM2 file up to CKA_PRIVATE: generation, CKA_CLASS, CKA_TOKEN, CKA_PRIVATE.
NAMELESS = 8 + 24 + 17 + 17
CKA_EC_PARAMS = bytes.fromhex("0000000000000180")
PRIVATE_KEY = bytes.fromhex("000000000000000000000000000000020000000000000003")
CLASSES = (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY, ObjectClass.DATA)


@pytest.fixture
def key_ids(make_token: Callable[[str], Token], module: Module) -> list[bytes]:
    """Three pairs on both tokens, and data of both kinds on the traveller's; logged out."""
    for label in ("traveller", "host"):
        make_token(label)
    with (
        open_session(module.choose("traveller"), PIN, writable=True) as traveller,
        open_session(module.choose("host"), PIN, writable=True) as host,
    ):
        for private in (True, False):
            write_data(traveller, "data", b"value", private=private)
        pairing = Pairing(traveller, host)
        return [pairing.share(number) for number in range(3)]


def files(directory: Path, module: Module, label: str) -> list[Path]:
    """Return the object files of a token."""
    serial = module.choose(label).info.serial
    (token,) = (directory / "softhsm" / "tokens").glob(f"*{serial[4:]}")
    return [path for path in token.glob("*.object") if path.name != "token.object"]


def test_objects_without_a_name_are_swept_and_no_others(
    directory: Path, module: Module, key_ids: list[bytes]
) -> None:
    paths = files(directory, module, "traveller")
    for path in paths:
        path.with_name(f"{uuid4()}.object").write_bytes(path.read_bytes()[:NAMELESS])
    with open_session(module.choose("traveller"), PIN, writable=True) as session:
        assert sweep_nameless(session) == len(paths) == 8
        assert sweep_nameless(session) == 0
        assert [len(session.find(each, {Attribute.TOKEN: True})) for each in CLASSES] == [3, 3, 2]
        booklet = OneTimeKeys(session)
        assert {pair.key_id for pair in booklet.pairs()} == {*key_ids}
        for pair in booklet.pairs():
            verify(pair.public_key, booklet.sign(pair.key_id, DIGEST))
        assert read_data(session, "data", private=True) == b"value"


def test_keys_that_were_cut_short_are_never_used(
    directory: Path, module: Module, key_ids: list[bytes]
) -> None:
    """SoftHSM2 2.6.1 crashes in ECDH with a private key whose file ends before its curve."""
    for path in files(directory, module, "host"):
        whole = path.read_bytes()
        if PRIVATE_KEY in whole:
            path.write_bytes(whole[: whole.index(CKA_EC_PARAMS)])
    with open_session(module.choose("host"), PIN, writable=True) as session:
        booklet = OneTimeKeys(session)
        assert booklet.pairs() == []
        assert booklet.halves() == {*key_ids}
        with pytest.raises(TokenError, match="does not hold key pair"):
            booklet.private_key(key_ids[0])
        with pytest.raises(TokenError, match="key 'carnet transport' on the token is damaged"):
            host_transport_key(session)
        assert all(booklet.destroy(key_id) for key_id in key_ids)
        assert OneTimeKeys(session).halves() == frozenset()
