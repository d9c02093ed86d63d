"""SIGKILL at every durable step of the officer's commands, and the same command again."""

import pytest

from carnet.wire.documents import Batch, verify_document
from carnet.wire.keys import key_id_of
from tests.provisioning import tokens
from tests.provisioning.workplace import SECRETS
from tests.unit.examples import SoftwareKey

KILLED = -9
FOR_MINTING = ["pin", "passphrase"]

STEPS_OF_A_MINT = [
    "token.stored carnet minting",
    "provision.begun",
    "token.private-stored",
    "token.pair-stored",
    "provision.minted",
    "files.synced batch",
    "provision.batch-written",
    "token.stored carnet officer",
    "token.stored carnet cover",
    "provision.cover-written",
    "provision.checked",
]


def killed_at(place, workplace, *command, secrets):
    workplace.environment["CARNET_CRASH_AT"] = place
    done = workplace.run(*command, secrets=secrets)
    del workplace.environment["CARNET_CRASH_AT"]
    assert done.returncode == KILLED, (place, done.stderr)


def in_batch(workplace, name):
    signed = (workplace.directory / name).read_bytes()
    batch = verify_document(signed, Batch, workplace.officer_key())
    return [key_id_of(pair.public_key).hex() for pair in batch.pairs]


def holds_exactly(workplace, key_ids):
    """Check that the token holds these pairs, whole, in this order, and no part of any other."""
    listed = [pair["key_id"] for pair in workplace.listed()["pairs"]]
    assert listed == key_ids
    held = workplace.on(workplace.traveller, tokens.everything, SECRETS["pin"])
    for each in ("PRIVATE_KEY", "PUBLIC_KEY"):
        assert [key_id for key_id, _ in held[each]] == sorted(key_ids)
        assert all(label for _, label in held[each])
    assert held["SECRET_KEY"] == []
    assert workplace.on(workplace.traveller, tokens.sign_with_all, SECRETS["pin"]) == key_ids
    return [label for _, label in held["DATA"]]


def minted_whole(workplace, *names):
    """Check that token and batch files hold the same, and no other file was left."""
    labels = holds_exactly(workplace, [key for name in names for key in in_batch(workplace, name)])
    assert labels == ["carnet cover", "carnet minting", "carnet officer"]
    assert {path.name for path in workplace.directory.glob("*batch*")} <= {*names}
    assert not list(workplace.directory.glob(".*"))


@pytest.mark.parametrize("place", STEPS_OF_A_MINT)
def test_a_mint_that_was_killed_is_run_again_and_leaves_nothing_of_the_first(minted, place):
    killed_at(place, minted, *minted.order(), secrets=FOR_MINTING)
    minted.mint()
    minted_whole(minted, "first", "batch")


@pytest.mark.parametrize("place", ["token.private-stored", "provision.checked"])
def test_the_first_mint_of_a_token_too(ready, place):
    killed_at(place, ready, *ready.order(), secrets=FOR_MINTING)
    ready.mint()
    minted_whole(ready, "batch")


@pytest.mark.parametrize(
    "again",
    ["token.private-destroyed", "provision.undone", "token.stored carnet minting",
     "provision.begun", "token.private-stored"],
)  # fmt: skip
def test_a_mint_that_is_killed_as_it_mends_the_one_before(minted, again):
    killed_at("provision.cover-written", minted, *minted.order(), secrets=FOR_MINTING)
    killed_at(again, minted, *minted.order(), secrets=FOR_MINTING)
    minted.mint()
    minted_whole(minted, "first", "batch")


def test_a_mint_that_was_killed_when_it_was_done_is_done(minted):
    killed_at("provision.finished", minted, *minted.order(), secrets=FOR_MINTING)
    assert "exists already" in minted.refusal(2, *minted.order(), secrets=FOR_MINTING)
    minted_whole(minted, "first", "batch")


@pytest.mark.parametrize("place", ["provision.batch-written", "provision.checked"])
def test_a_mint_for_two_hsms_that_was_killed_is_run_again(minted, place):
    other = minted.directory / "other.der"
    other.write_bytes(SoftwareKey().public_key)
    second = ["--host-transport-key", other, "--out", minted.directory / "second"]
    order = [*minted.order(), *second]
    killed_at(place, minted, *order, secrets=FOR_MINTING)
    minted.facts(*order, secrets=FOR_MINTING)
    minted_whole(minted, "first", "batch")
    assert in_batch(minted, "second") == in_batch(minted, "batch")


def test_a_journal_that_is_cut_short_destroys_nothing(minted):
    """Its beginning is that of more labels than one mint's: of those of finished batches too."""
    for note in (b"carnet 2026", b"carnet "):
        minted.on(minted.traveller, tokens.note_a_mint, SECRETS["pin"], note)
        said = minted.refusal(4, *minted.order(), secrets=FOR_MINTING)
        assert "burn them all, and mint again" in said
    assert len(minted.facts("burn", "--all", "--yes", secrets=["pin"])["burned"]) == 3
    minted.mint()
    minted_whole(minted, "batch")


def test_a_batch_that_is_no_leftover_is_never_written_over(minted):
    """Whatever cut a mint off: the batch of another one is not in its way."""
    killed_at("provision.minted", minted, *minted.order(), secrets=FOR_MINTING)
    before = (minted.directory / "first").read_bytes()
    order = minted.order(out="first")
    assert "exists already" in minted.refusal(2, *order, secrets=FOR_MINTING)
    assert (minted.directory / "first").read_bytes() == before
    said = minted.run(*minted.order(), secrets=FOR_MINTING).stdout
    assert "3 key pairs of it were destroyed.\nDelete a batch that it wrote to another" in said
    minted_whole(minted, "first", "batch")


@pytest.mark.parametrize("again", ["--key", "--all"])
def test_a_burn_that_was_killed_between_the_halves_is_run_again(minted, again):
    first, *others = in_batch(minted, "first")
    burn = ("burn", "--key", first, "--yes")
    killed_at("token.private-destroyed", minted, *burn, secrets=["pin"])
    what = (first,) if again == "--key" else ()
    minted.facts("burn", again, *what, "--yes", secrets=["pin"])
    holds_exactly(minted, others if again == "--key" else [])


def test_a_burn_of_all_that_was_killed_after_the_first_is_run_again(minted):
    _, *others = in_batch(minted, "first")
    killed_at("provision.burned", minted, "burn", "--all", "--yes", secrets=["pin"])
    holds_exactly(minted, others)
    minted.facts("burn", "--all", "--yes", secrets=["pin"])
    holds_exactly(minted, [])


def test_the_next_mint_sweeps_what_a_killed_burn_left(minted):
    first, *others = in_batch(minted, "first")
    burn = ("burn", "--key", first, "--yes")
    killed_at("token.private-destroyed", minted, *burn, secrets=["pin"])
    minted.mint()
    holds_exactly(minted, [*others, *in_batch(minted, "batch")])


def test_a_token_init_that_was_killed_is_run_again_without_force(workplace):
    init = ("token-init", "--label", "alice")
    killed_at("token.initialised", workplace, *init, secrets=["pin", "so-pin"])
    made = workplace.token_init()
    listed = workplace.listed()
    assert (listed["token"], listed["cover"], listed["pairs"]) == (made, None, [])
