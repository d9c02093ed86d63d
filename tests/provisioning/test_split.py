"""`mint --custody split`, on real tokens: nothing of a private key is in the batch, nor can be."""

import json
import signal

import pytest

from carnet.wire.documents import Batch, Cover, verify_document
from carnet.wire.keys import key_id_of
from carnet.wire.split import couples_of
from carnet.wire.suites import find_suite
from tests.provisioning import tokens
from tests.provisioning.test_crashes import killed_at
from tests.provisioning.test_interruption import (
    LESS_THAN_A_BATCH_OF_40,
    at_most,
    until_some_are_minted,
)
from tests.provisioning.workplace import SECRETS

BOTH = ["pin", "passphrase"]


@pytest.fixture
def ready(ready):
    """The same, and the Host has long-term keys."""
    ready.host_keys = ready.directory / "host-keys.pem"
    ready.host_keys.write_bytes(ready.on(ready.host, tokens.host_keys))
    return ready


def order_of(workplace, count=2, **changes):
    order = workplace.order(count=count, custody="split", host_keys=workplace.host_keys, **changes)
    where = order.index("--host-transport-key")
    return order[:where] + order[where + 2 :]


def adoption_of(workplace, pattern="*", **changes):
    order = order_of(workplace, **changes)
    where = order.index("--custody")
    name = changes.get("out", "batch")
    cover = workplace.directory / f"{name}.cover"
    adopt = ["adopt", *order[1:where], *order[where + 2 :]]
    return [*adopt, "--label", pattern, "--cover-out", cover]


def mint(workplace, **changes):
    return workplace.facts(*order_of(workplace, **changes), secrets=BOTH)


def read(workplace, type_, name="batch"):
    if type_ is Batch:
        signed = (workplace.directory / name).read_bytes()
    else:
        signed, _ = workplace.on(workplace.traveller, tokens.read_public, "carnet cover")
    return verify_document(signed, type_, workplace.officer_key())


@pytest.mark.parametrize(
    ("key_type", "suite"), [("ec-p256", 1), ("ec-p384", 3), ("rsa-2048", 2), ("rsa-3072", 2)]
)
def test_the_batch_has_public_keys_alone_and_the_cover_the_hosts(ready, key_type, suite):
    facts = mint(ready, key_type=key_type)
    batch, cover = read(ready, Batch), read(ready, Cover)
    assert (batch.custody, cover.custody, facts["custody"]) == ("split",) * 3
    assert (batch.suite, cover.suite) == (suite, suite)
    assert facts["suite"] == find_suite(suite).name
    assert [pair.wrapped for pair in batch.pairs] == [None, None]
    assert batch.ephemeral_key is None
    narrow, wide = couples_of(cover.host_keys)
    assert batch.host_transport_key == (wide if suite == 3 else narrow).sealing
    # Each signs, and does and did nothing else.
    uses = ready.on(ready.traveller, tokens.pair_uses, SECRETS["pin"])
    assert uses == [(True, False, False, False)] * 2
    if suite == 1:
        signing = ready.on(ready.traveller, tokens.sign_with_all, SECRETS["pin"])
        assert signing == [pair["key_id"] for pair in ready.listed()["pairs"]]


def test_a_person_is_told_the_custody_and_compares_the_hosts_keys(ready):
    said = ready.run(*order_of(ready), secrets=BOTH).stdout
    assert "in custody split" in said
    assert "long-term keys have this SHA-256" in said
    assert "Custody  split" in ready.run("list", secrets=["pin"]).stdout


def test_two_custodies_are_not_put_on_one_token(ready):
    mint(ready)
    order = ready.order(out="second")
    assert "holds key pairs in custody split" in ready.refusal(4, *order, secrets=BOTH)
    ready.facts("burn", "--all", "--yes", secrets=["pin"])
    ready.mint(out="second")
    again = order_of(ready, out="third")
    assert "holds key pairs in custody paired" in ready.refusal(4, *again, secrets=BOTH)


def test_pairs_for_two_generations_of_the_hosts_keys_are_not_put_on_one_token(ready):
    mint(ready)
    ready.host_keys.write_bytes(ready.on(ready.host, renewed))
    order = order_of(ready, out="second")
    assert "for other keys of the Host" in ready.refusal(4, *order, secrets=BOTH)
    assert not (ready.directory / "second").exists()
    ready.facts("burn", "--all", "--yes", secrets=["pin"])
    mint(ready, out="second")


PLACES = {"token.private-stored": 0, "token.pair-stored": 1, "provision.cover-written": 2}


@pytest.mark.parametrize("place", PLACES)
def test_a_mint_that_was_killed_is_run_again_and_keeps_the_pairs_that_are_whole(ready, place):
    killed_at(place, ready, *order_of(ready), secrets=BOTH)
    made = ready.listed()["unfinished_pairs"]
    facts = mint(ready)
    kept, destroyed = facts["kept_of_earlier_mint"], facts["destroyed_of_earlier_mint"]
    assert (kept, destroyed) == (PLACES[place], 0)
    assert is_whole(ready)[:kept] == made


def is_whole(workplace):
    """Check that token and batch have the same pairs, which sign, and nothing else; return them."""
    minted = [key_id_of(pair.public_key).hex() for pair in read(workplace, Batch).pairs]
    listed = workplace.listed()
    assert ([pair["key_id"] for pair in listed["pairs"]], listed["unfinished_pairs"]) == (
        minted,
        [],
    )
    held = workplace.on(workplace.traveller, tokens.everything, SECRETS["pin"])
    assert len(held["PRIVATE_KEY"]) == len(minted) + 1  # and the key for pending requests
    assert workplace.on(workplace.traveller, tokens.sign_with_all, SECRETS["pin"]) == minted
    return minted


def kill(_, process):
    process.kill()
    return process.communicate()[1]


def interrupt(_, process):
    process.send_signal(signal.SIGINT)
    return process.communicate()[1]


def pull(workplace, process):
    files = workplace.traveller.directory / "tokens"
    files.rename(files.with_name("pulled"))
    said = process.communicate()[1]
    files.with_name("pulled").rename(files)
    return said


@pytest.mark.parametrize(
    ("cut_off", "status", "sentence"),
    [
        (kill, -9, ""),
        (interrupt, 130, "run the same command again, which goes on from there, before you"),
        (pull, 4, "run the same command again, which goes on from them"),
    ],
)
def test_a_mint_that_is_cut_off_in_the_middle_is_gone_on_with(ready, cut_off, status, sentence):
    with ready.start(*order_of(ready, count=500), "--progress", secrets=BOTH) as process:
        until_some_are_minted(process)
        said = cut_off(ready, process)
    assert (process.returncode, sentence in said) == (status, True), said
    assert not (ready.directory / "batch").exists()
    made = ready.listed()["unfinished_pairs"]
    assert "the same command goes on from" in ready.run("list", secrets=["pin"]).stdout
    said = ready.run(*order_of(ready, count=len(made) + 2), secrets=BOTH).stdout
    assert f"{len(made)} key pair" in said.partition("kept, and counted here")[0]
    assert f"{len(made) + 2} ec-p256 key pairs" in said
    assert is_whole(ready)[: len(made)] == made


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"count": 1}, 1),
        ({"key_type": "ec-p384"}, 0),
        ({"user": "bob@b"}, 0),
        ({"out": "second"}, 0),
    ],
)
def test_of_a_mint_that_was_cut_off_what_is_not_ordered_again_is_destroyed(ready, changes, kept):
    killed_at("provision.minted", ready, *order_of(ready), secrets=BOTH)
    facts = mint(ready, **changes)
    assert (facts["kept_of_earlier_mint"], facts["destroyed_of_earlier_mint"]) == (kept, 2 - kept)
    assert len(ready.listed()["pairs"]) == facts["pairs"]


def test_an_order_that_is_refused_destroys_nothing_of_a_mint_that_was_cut_off(ready):
    killed_at("provision.cover-written", ready, *order_of(ready), secrets=BOTH)
    made = ready.listed()["unfinished_pairs"]
    other = order_of(ready, user="bob@b")
    assert "belongs to alice@office" in ready.refusal(4, *other, secrets=BOTH)
    said = ready.refusal(4, *adoption_of(ready, out="second"), secrets=BOTH)
    assert "A mint on token alice was cut off; mint again first." in said
    assert ready.listed()["unfinished_pairs"] == made
    assert mint(ready)["kept_of_earlier_mint"] == len(made) == 2


def test_one_that_fails_as_it_goes_on_says_how_many_pairs_that_has_cost(ready):
    killed_at("provision.minted", ready, *order_of(ready), secrets=BOTH)
    before = at_most(LESS_THAN_A_BATCH_OF_40)
    said = ready.refusal(2, *order_of(ready, count=80), secrets=BOTH, before=before)
    assert "Cannot write" in said
    cost = "80 key pairs, 2 of them of a mint that was cut off before, are destroyed.\n"
    assert said.endswith(f" {cost}")
    assert ready.listed()["pairs"] == []


@pytest.mark.parametrize(("after", "kept"), [(1, 2), (0, 1)], ids=["another", "labelled as one"])
def test_a_key_that_came_from_elsewhere_is_not_gone_on_with(ready, after, kept):
    """Whoever has the token and the PIN could put one among those of a mint that was cut off."""
    killed_at("provision.minted", ready, *order_of(ready), secrets=BOTH)
    made = ready.listed()["unfinished_pairs"]
    ready.on(ready.traveller, tokens.plant_key, SECRETS["pin"], after)
    assert len(ready.listed()["unfinished_pairs"]) == 3
    facts = mint(ready, count=3)
    assert (facts["kept_of_earlier_mint"], facts["destroyed_of_earlier_mint"]) == (kept, 3 - kept)
    assert is_whole(ready)[:kept] == made[:kept]


def renewed():
    return tokens.host_keys(anew=True)


def test_more_pairs_of_other_types_may_come_for_the_same_keys(ready):
    for number, key_type in enumerate(("rsa-2048", "ec-p256", "ec-p384")):
        mint(ready, key_type=key_type, out=f"batch{number}", count=1)
    assert read(ready, Cover).suite == 2
    assert len(ready.listed()["pairs"]) == 3


def test_what_a_custody_does_not_take_is_refused(ready):
    order = ready.order(custody="split")
    assert "Custody split takes --host-keys" in ready.refusal(2, *order, secrets=BOTH)
    order = order_of(ready, key_type="rsa-2048", oaep_hash="sha-1")
    assert "leave --oaep-hash out" in ready.refusal(2, *order, secrets=BOTH)
    whole = ready.host_keys.read_bytes()
    end = b"-----END PUBLIC KEY-----\n"
    first, second, *_ = whole.split(end)
    for wrong in (b"", first + end, first + end + first + end, b"no key", whole + first + end):
        ready.host_keys.write_bytes(wrong)
        said = ready.refusal(2, *order_of(ready), secrets=BOTH)
        assert "does not hold the Host's long-term keys" in said
    ready.host_keys.write_bytes(first + end + second + end)
    said = ready.refusal(2, *order_of(ready, key_type="ec-p384"), secrets=BOTH)
    assert "no keys for suite p-384" in said
    assert ready.listed()["pairs"] == []


def test_keys_that_another_cover_file_lists_are_said_to_be_adopted_before(ready):
    mint(ready, out="minted")
    done = [
        ready.run(*adoption_of(ready, out=name), "--json", secrets=BOTH)
        for name in ("first", "second")
    ]
    assert [json.loads(each.stdout)["adopted_before"] for each in done] == [{}, {"first.cover": 2}]
    assert done[0].stderr == ""
    assert "2 of these keys are pairs in first.cover already" in done[1].stderr


def test_keys_that_want_the_pin_for_each_signature_are_not_adopted(ready):
    ready.on(ready.traveller, tokens.make_key_that_asks, SECRETS["pin"], "asks")
    said = ready.refusal(4, *adoption_of(ready, "asks", count=1), secrets=BOTH)
    assert "Key 'asks' wants the PIN anew for each signature" in said


@pytest.mark.parametrize("sync", [2, 3, 4], ids=["the batch is there", "no cover yet", "both are"])
def test_an_interrupted_adoption_leaves_no_file_and_can_be_repeated(ready, sync):
    mint(ready, out="first")
    adopt = adoption_of(ready)
    ready.listed()  # and SoftHSM2's file is copied: the adoption syncs its own alone
    before = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync"]
    before += ["-e", f"inject=fsync:signal=INT:when={sync}"]
    assert ready.run(*adopt, secrets=BOTH, before=before).returncode == 130
    assert not (ready.directory / "batch").exists()
    assert not (ready.directory / "batch.cover").exists()
    ready.facts(*adopt, secrets=BOTH)
