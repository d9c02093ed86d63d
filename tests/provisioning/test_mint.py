"""`mint` with a real traveller's token and a real Host's token, each seen by its side only."""

from datetime import UTC, date, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from carnet.errors import TokenError
from carnet.token.onetime import OneTimePair
from carnet.wire.documents import Batch, Cover, verify_document
from carnet.wire.fault import WireError
from carnet.wire.keys import encode_point, encode_public_key, key_id_of
from provisioning.draft import moment_after
from tests.provisioning import tokens
from tests.provisioning.workplace import SECRETS

BOTH = ["pin", "passphrase"]


def read_batch(workplace, name="batch"):
    signed = (workplace.directory / name).read_bytes()
    return verify_document(signed, Batch, workplace.officer_key())


def read_cover(workplace):
    public, private = workplace.on(workplace.traveller, tokens.read_public, "carnet cover")
    assert private is None
    return public


def test_the_batch_is_the_officers_and_says_what_was_minted(ready):
    facts = ready.mint()
    batch = read_batch(ready)
    listed = ready.listed()
    assert facts["pairs"] == len(batch.pairs) == 3
    assert facts["batch_id"] == batch.batch_id.hex()
    assert batch.host_transport_key == ready.transport_key.read_bytes()
    assert (batch.user_id, batch.custody, batch.suite) == ("alice@office", "paired", 1)
    assert listed["token"] == facts["token"]
    assert [pair["key_id"] for pair in listed["pairs"]] == [
        key_id_of(pair.public_key).hex() for pair in batch.pairs
    ]
    assert (ready.directory / "batch").stat().st_mode & 0o777 == 0o600


def test_the_host_imports_every_pair_and_then_holds_the_same_keys(ready):
    ready.mint()
    batch = read_batch(ready)
    key_ids = [key_id_of(pair.public_key) for pair in batch.pairs]
    assert ready.on(ready.host, tokens.import_batch, batch, None) == key_ids
    point = encode_point(ec.generate_private_key(ec.SECP256R1()).public_key())
    ours = ready.on(ready.traveller, tokens.agree_with_all, SECRETS["pin"], point)
    assert set(ours) == set(key_ids)
    assert ready.on(ready.host, tokens.agree_with_all, tokens.HOST_PIN, point) == ours


def test_a_batch_for_another_host_does_not_unwrap(ready):
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    ready.transport_key.write_bytes(encode_public_key(other))
    ready.mint()
    with pytest.raises(TokenError, match="does not unwrap"):
        ready.on(ready.host, tokens.import_batch, read_batch(ready), None)


def test_the_cover_is_read_without_the_pin_and_is_the_officers(ready):
    facts = ready.mint()
    cover = verify_document(read_cover(ready), Cover, ready.officer_key())
    assert (cover.user_id, cover.token_serial) == ("alice@office", facts["token"]["serial"])
    assert (cover.hosts, cover.targets) == (("http://host.example:8440",), ("work",))
    with pytest.raises(WireError):
        verify_document(read_cover(ready), Batch, ready.officer_key())
    stranger = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(WireError):
        verify_document(read_cover(ready), Cover, stranger)


def test_the_officers_public_key_is_seen_with_the_pin_only(ready):
    ready.mint()
    read = (ready.traveller, tokens.read_public, "carnet officer")
    assert ready.on(*read) == [None, None]
    with_pin = ready.on(ready.traveller, tokens.read_private, SECRETS["pin"], "carnet officer")
    assert with_pin == encode_public_key(ready.officer_key())


def another_officer(workplace):
    workplace.environment["CARNET_OFFICER_DIR"] = str(workplace.directory / "other")
    workplace.init()


def test_a_cover_put_in_the_place_of_the_officers_is_found_out(ready):
    ready.mint()
    genuine = read_cover(ready)
    ready.on(
        ready.traveller,
        tokens.replace_public,
        "carnet cover",
        genuine[:-1] + bytes([genuine[-1] ^ 1]),
    )
    assert "do not use the token" in ready.refusal(4, "list", secrets=["pin"])
    assert "do not use the token" in ready.refusal(4, *ready.order(out="second"), secrets=BOTH)
    ready.on(ready.traveller, tokens.replace_public, "carnet cover", genuine)
    assert len(ready.listed()["pairs"]) == 3


def test_a_cover_by_another_officer_is_found_out(ready):
    ready.mint()
    first = read_cover(ready)
    ready.token_init("--force", "--confirm", "alice")
    another_officer(ready)
    ready.mint(out="theirs")
    ready.on(ready.traveller, tokens.replace_public, "carnet cover", first)
    assert "do not use the token" in ready.refusal(4, "list", secrets=["pin"])


def test_another_officer_does_not_mint_on_the_token(ready):
    ready.mint()
    another_officer(ready)
    assert "another officer" in ready.refusal(4, *ready.order(out="second"), secrets=BOTH)
    assert not (ready.directory / "second").exists()
    assert len(ready.listed()["pairs"]) == 3


def test_another_users_pairs_do_not_get_onto_the_token(ready):
    ready.mint()
    order = ready.order(out="second", user="eve@office")
    assert "belongs to alice@office" in ready.refusal(4, *order, secrets=BOTH)
    assert not (ready.directory / "second").exists()
    assert len(ready.listed()["pairs"]) == 3


def test_minting_again_sorts_after_and_renews_the_cover(ready):
    last_day = (datetime.now(UTC) + timedelta(days=90)).date()
    ready.mint("--target", "play", count=2, not_after=last_day)
    first = ready.listed()
    ready.mint("--host-url", "https://other.example", out="second")
    second = ready.listed()
    assert [pair["key_id"] for pair in second["pairs"][:2]] == [
        pair["key_id"] for pair in first["pairs"]
    ]
    assert [pair["not_after"] for pair in second["pairs"]] == [str(last_day)] * 2 + [None] * 3
    assert first["cover"]["targets"] == ["work", "play"]
    assert second["cover"]["targets"] == ["work"]
    assert second["cover"]["hosts"] == ["http://host.example:8440", "https://other.example"]
    assert second["cover"]["not_after"] is None
    end = datetime.fromtimestamp(read_batch(ready).not_after, UTC)
    assert (end.date(), end.hour, end.minute) == (last_day, 23, 59)
    assert first["cover"]["not_after"] == read_batch(ready).not_after


def test_the_labels_follow_the_newest_pair_when_the_clock_is_behind():
    pair = OneTimePair(
        key_id=bytes(16),
        label="carnet 20300101T000000Z 0007",
        public_key=b"",
        key_type="ec-p256",
        not_after=None,
    )
    behind = datetime(2029, 12, 31, tzinfo=UTC)
    assert moment_after([pair], behind) == datetime(2030, 1, 1, 0, 0, 1, tzinfo=UTC)
    ahead = datetime(2031, 1, 1, tzinfo=UTC)
    assert moment_after([pair], ahead) == ahead


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"user": "Alice"}, "user ID"),
        ({"host_url": "ftp://host"}, "--host-url"),
        ({"target": "Work"}, "--target"),
        ({"custody": "split"}, "takes --host-keys"),
        ({"key_type": "ec-p384", "oaep_hash": "sha-1"}, "leave it out"),
        ({"not_after": date(2020, 1, 1)}, "is over"),
        ({"out": "transport.der"}, "exists already"),
        ({"out": "nowhere/batch"}, "no directory"),
    ],
)
def test_a_wrong_order_is_refused_before_any_secret_is_read(ready, changed, says):
    assert says in ready.refusal(2, *ready.order(**changed))


def test_what_is_no_transport_key_is_refused(ready):
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for key, says in (
        (pem + pem, "holds several keys, as `carnet-host host-keys` prints"),
        (b"nothing", "no public key"),
        (private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "no public key"),
        (encode_public_key(ec.generate_private_key(ec.SECP384R1()).public_key()), "not on P-256"),
    ):
        ready.transport_key.write_bytes(key)
        assert says in ready.refusal(2, *ready.order())


def test_every_transport_key_has_a_batch_of_its_own(ready):
    key = ["--host-transport-key", ready.transport_key]
    assert "one --out for each" in ready.refusal(2, *ready.order(), *key)
    out = ["--out", ready.directory / "second"]
    assert "one --out for each" in ready.refusal(2, *ready.order(), *out)
    assert "one --out for each" in ready.refusal(2, *ready.order(), *out, *out, *key)
    assert "are the same" in ready.refusal(2, *ready.order(), *key, *out)


def test_no_two_batches_go_to_the_same_file(ready):
    other = ready.directory / "other.der"
    other.write_bytes(encode_public_key(ec.generate_private_key(ec.SECP256R1()).public_key()))
    again = ["--out", ready.directory / "batch", "--host-transport-key", other]
    assert "the same file" in ready.refusal(2, *ready.order(), *again)


def test_a_wrong_pin_is_one_sentence_and_status_4(ready):
    for command in (["list"], ["burn", "--all", "--yes"]):
        assert "PIN is wrong" in ready.refusal(4, *command, secrets=["pin"], pin="000000")
    assert "PIN is wrong" in ready.refusal(4, *ready.order(), secrets=BOTH, pin="000000")


def test_two_tokens_are_told_apart_by_label(ready):
    ready.token_init(label="bob")
    sentence = ready.refusal(4, *ready.order(), secrets=BOTH)
    assert "alice" in sentence
    assert "bob" in sentence
    facts = ready.mint("--token", "bob", user="bob@office")
    assert facts["token"]["label"] == "bob"
