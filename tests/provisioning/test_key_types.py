"""`mint` with each type of key, on real tokens: which suite comes of it, and what is refused."""

import pytest

from carnet.wire.documents import Batch, Cover, verify_document
from carnet.wire.keys import key_id_of
from carnet.wire.suites import find_suite, suite_of_key
from tests.provisioning import tokens

BOTH = ["pin", "passphrase"]


def read_batch(workplace, name="batch"):
    signed = (workplace.directory / name).read_bytes()
    return verify_document(signed, Batch, workplace.officer_key())


def read_cover(workplace):
    public, _ = workplace.on(workplace.traveller, tokens.read_public, "carnet cover")
    return verify_document(public, Cover, workplace.officer_key())


def suites_seen(workplace):
    """Which suite a Client takes for each pair on the token: by its key and the cover."""
    named = read_cover(workplace).suite
    batches = [read_batch(workplace, path.name) for path in workplace.directory.glob("batch*")]
    of_batch = {key_id_of(p.public_key).hex(): b.suite for b in batches for p in b.pairs}
    key_of = {key_id_of(p.public_key).hex(): p.public_key for b in batches for p in b.pairs}
    listed = [pair["key_id"] for pair in workplace.listed()["pairs"]]
    assert set(listed) == set(of_batch)
    return {
        key_id: (suite_of_key(key_of[key_id], named).number, of_batch[key_id]) for key_id in listed
    }


@pytest.mark.parametrize(
    ("key_type", "suite", "oaep"),
    [("ec-p384", 3, None), ("rsa-2048", 4, "sha-1"), ("rsa-3072", 4, "sha-1")],
)
def test_batch_and_cover_say_the_suite_and_the_host_takes_it_in(ready, key_type, suite, oaep):
    facts = ready.mint(key_type=key_type, count=2)
    batch = read_batch(ready)
    assert batch.suite == read_cover(ready).suite == suite
    assert (facts["key_type"], facts["oaep_hash"]) == (key_type, oaep)
    assert facts["suite"] == find_suite(suite).name
    assert [pair["key_type"] for pair in ready.listed()["pairs"]] == [key_type] * 2
    key_ids = [key_id_of(pair.public_key) for pair in batch.pairs]
    assert ready.on(ready.host, tokens.import_batch, batch, None) == key_ids


def test_a_person_is_told_the_hash_that_was_taken(ready):
    said = ready.run(*ready.order(key_type="rsa-2048", count=1), secrets=BOTH).stdout
    assert "OAEP with sha-1, the strongest that this token can do" in said
    assert "of suite rsa-sha1" in said


def test_a_hash_that_the_token_lacks_is_refused_and_leaves_nothing(ready):
    order = ready.order(key_type="rsa-2048", oaep_hash="sha-256")
    assert "does not decrypt RSAES-OAEP with sha256" in ready.refusal(4, *order, secrets=BOTH)
    assert not (ready.directory / "batch").exists()
    assert ready.listed()["pairs"] == []


def test_types_stand_side_by_side_and_the_client_tells_them_apart(ready):
    for number, key_type in enumerate(("ec-p256", "ec-p384", "rsa-2048", "ec-p256"), 1):
        ready.mint(key_type=key_type, count=1, out=f"batch{number}")
    seen = suites_seen(ready)
    assert len(seen) == 4
    assert all(taken == minted for taken, minted in seen.values())
    assert {taken for taken, _ in seen.values()} == {1, 3, 4}


def test_the_cover_names_the_newest_suite_where_no_rsa_pair_is_left(ready):
    ready.mint(key_type="rsa-2048", count=1)
    assert read_cover(ready).suite == 4
    ready.facts("burn", "--all", "--yes", secrets=["pin"])
    ready.mint(key_type="ec-p384", count=1, out="second")
    assert read_cover(ready).suite == 3


def test_rsa_pairs_of_two_suites_are_not_put_on_one_token(ready):
    ready.mint(key_type="rsa-2048", count=1)
    order = ready.order(key_type="rsa-2048", oaep_hash="sha-256", out="second")
    sentence = ready.refusal(4, *order, secrets=BOTH)
    assert "holds RSA key pairs of another suite than rsa" in sentence
    assert not (ready.directory / "second").exists()
    assert len(ready.listed()["pairs"]) == 1
