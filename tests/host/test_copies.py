"""Which HSM holds whose key: a pair is settled when its last copy is gone."""

from carnet import audit
from carnet.wire.keys import key_id_of
from host_agent import schema
from host_agent.keydb import KeysInUse, KeyStoreName, WrappedKey
from tests.host.conftest import new_pair, sealed_request
from tests.unit.examples import SoftwareKey


def spend(database, pair):
    database.spend(*sealed_request(pair))
    database.store_response(key_id_of(pair.public_key), "granted", b"answer")


def destroyed_in_the_accounts(database):
    with database.begin() as connection:
        records = audit.read(connection, schema.audit)
        return [each.facts.get("hsm") for each in records if each.event == "key-destroyed"]


def is_settled(database):
    (row,) = database.pairs(state="spent")
    return row["key_destroyed_at"] is not None


def test_each_hsm_owes_its_own_copy(database, pair):
    key_id = key_id_of(pair.public_key)
    for hsm in ("a", "b"):
        database.record_copies(hsm, [key_id])
    assert database.keys_to_destroy("a") == database.keys_to_destroy() == []
    spend(database, pair)
    assert database.keys_to_destroy("a") == database.keys_to_destroy("b") == [key_id]
    assert database.keys_to_destroy("c") == []
    database.record_destroyed(key_id, "a")
    assert database.keys_to_destroy("a") == []
    assert database.keys_to_destroy("b") == database.keys_to_destroy() == [key_id]
    assert not is_settled(database)
    for hsm in ("b", "b", "c"):
        database.record_destroyed(key_id, hsm)
    assert database.keys_to_destroy() == []
    assert is_settled(database)
    assert destroyed_in_the_accounts(database) == ["a", "b"]


def test_a_pair_of_which_nothing_is_written_is_on_the_one_hsm(database, pair):
    key_id = key_id_of(pair.public_key)
    spend(database, pair)
    assert database.keys_to_destroy("whichever") == [key_id]
    database.record_destroyed(key_id, "whichever")
    assert is_settled(database)
    assert destroyed_in_the_accounts(database) == [None]


def test_a_copy_that_comes_late_is_owed_again(database, pair):
    """An import that looked while the pair was valid, and stores its key after the burn."""
    key_id = key_id_of(pair.public_key)
    database.record_copies("a", [key_id])
    spend(database, pair)
    database.record_destroyed(key_id, "a")
    database.record_copies("b", [key_id])
    assert not is_settled(database)
    assert database.keys_to_destroy("b") == [key_id]
    assert database.keys_to_destroy("a") == []


def test_a_key_is_wanted_while_its_pair_is_valid_or_its_request_unanswered(
    database, pair, other_pair
):
    valid, spent = (key_id_of(each.public_key) for each in (pair, other_pair))
    unknown = bytes(16)
    database.spend(*sealed_request(other_pair))
    assert database.unwanted({valid, spent, unknown}) == []
    database.store_response(spent, "granted", b"answer")
    assert database.unwanted({valid, spent, unknown}) == [spent]
    database.record_destroyed(spent)
    assert database.unwanted({valid, spent, unknown}) == [spent]


def test_what_is_in_use_is_what_valid_and_unanswered_pairs_need_of_this_hsm(
    database, pair, other_pair
):
    valid, spent = (key_id_of(each.public_key) for each in (pair, other_pair))
    old, split, wrapped = SoftwareKey(), SoftwareKey(), SoftwareKey()
    database.add_pairs([new_pair(old), new_pair(split, custody="split", host_key_id=b"host")])
    database.begin_batch_key(b"kek", bytes(16), "a")
    database.begin_batch_key(b"over", bytes(16), "a")
    kept = new_pair(wrapped, key_store=KeyStoreName.WRAPPED)
    database.add_wrapped_pairs([(kept, WrappedKey(b"kek", b"wrapped"))])
    database.revoke("a test", key_id=key_id_of(old.public_key))
    database.spend(*sealed_request(other_pair))
    everywhere = KeysInUse(frozenset({valid, spent}), frozenset({b"kek"}), frozenset({b"host"}))
    assert database.keys_in_use("a") == everywhere
    database.record_copies("a", [valid])
    database.store_response(spent, "granted", b"answer")
    database.revoke("a test", key_id=key_id_of(split.public_key))
    assert database.keys_in_use("a") == KeysInUse(frozenset({valid}), frozenset({b"kek"}))
    assert database.keys_in_use("b") == KeysInUse()
