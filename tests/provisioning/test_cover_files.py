"""Cover and journal in files: `mint --cover`, `adopt`, and what reads the file again.

On SoftHSM2, which could keep both itself, for it can be killed; NSS's softoken, which
cannot, is in test_suitability, a TPM in tests/lab/test_tpm.py.
"""

import json
import shutil

import pytest

from carnet.cover import read_cover_file
from carnet.wire.keys import encode_public_key
from tests.provisioning import tokens
from tests.provisioning.test_crashes import in_batch, killed_at
from tests.provisioning.test_split import adoption_of, order_of

BOTH = ["pin", "passphrase"]


@pytest.fixture(scope="module")
def with_host_keys(tmp_path_factory, prepared):
    pem = prepared.on(prepared.host, tokens.host_keys)
    place = tmp_path_factory.mktemp("host-keys") / "host-keys.pem"
    place.write_bytes(pem)
    return place


@pytest.fixture
def ready(ready, with_host_keys):
    ready.host_keys = with_host_keys
    return ready


def order(workplace, cover="cover", **changes):
    return [*order_of(workplace, **changes), "--cover", workplace.directory / cover]


def listed(workplace):
    cover = ("--cover", workplace.directory / "cover")
    return workplace.facts("list", *cover, secrets=["pin"])


def refusal(workplace, status=4, **changes):
    return workplace.refusal(status, *order(workplace, **changes), secrets=BOTH)


def kept_whole(workplace, *batches):
    """Check that token, batches and cover file tell of the same pairs, and nothing is left."""
    serial = workplace.listed()["token"]["serial"]
    data = (workplace.directory / "cover").read_bytes()
    file = read_cover_file(data, encode_public_key(workplace.officer_key()), serial)
    pairs = [key for name in batches for key in in_batch(workplace, name)]
    assert [pair.key_id.hex() for pair in file.pairs] == pairs
    there = {path.name for path in workplace.directory.iterdir() if path.is_file()}
    assert there - {"transport.der"} == {"cover", *batches}
    return pairs


PLACES = [
    "files.synced cover.minting",
    "provision.begun",
    "token.pair-stored",
    "provision.batch-written",
    "files.synced cover",
    "provision.cover-written",
    "provision.checked",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_mint_that_was_killed_is_run_again_and_leaves_nothing_of_the_first(ready, place):
    killed_at(place, ready, *order(ready), secrets=BOTH)
    if place in PLACES[2:]:
        cover = ("--cover", ready.directory / "cover")
        cut_off = ready.facts("list", *cover, secrets=["pin"])["unfinished_pairs"]
        assert len(cut_off) == 1 + (place != "token.pair-stored")
    ready.facts(*order(ready), secrets=BOTH)
    pairs = kept_whole(ready, "batch")
    # The officer's key alone is on the token beside them, and the key for pending requests.
    held = ready.on(ready.traveller, tokens.everything, "730914628550")
    assert {label for _, label in held["DATA"]} == {"carnet officer"}
    assert len(held["PRIVATE_KEY"]) == len(pairs) + 1


def test_a_second_mint_goes_into_the_same_file_and_one_that_is_cut_off_does_not(ready):
    ready.facts(*order(ready, out="first", count=1), secrets=BOTH)
    first = in_batch(ready, "first")
    killed_at("provision.checked", ready, *order(ready, out="second"), secrets=BOTH)
    sheet = ("sheet", "--cover", ready.directory / "cover")
    assert "was cut off; run it again" in ready.refusal(4, *sheet, secrets=["pin"])
    facts = ready.facts(*order(ready, out="second", count=1), secrets=BOTH)
    assert (facts["kept_of_earlier_mint"], facts["destroyed_of_earlier_mint"]) == (1, 1)
    assert kept_whole(ready, "first", "second")[:1] == first
    shown = ready.run(*sheet, secrets=["pin"]).stdout
    assert "Key pairs   2, each" in shown
    assert "--cover cover --officer officer.crt" in shown
    assert [pair["key_id"] for pair in listed(ready)["pairs"]] == kept_whole(
        ready, "first", "second"
    )
    # What fails leaves the file as it was.
    before = (ready.directory / "cover").read_bytes()
    full = ["env", "PYTHONDONTWRITEBYTECODE=1", "prlimit", f"--fsize={len(before) + 1}"]
    done = ready.run(*order(ready, out="third", count=40), secrets=BOTH, before=full)
    assert done.returncode != 0
    assert (ready.directory / "cover").read_bytes() == before
    kept_whole(ready, "first", "second")


def test_a_file_that_is_not_this_tokens_cover_is_left_as_it_is(ready):
    cover = ready.directory / "cover"
    cover.write_bytes(b"a file of somebody's")
    said = refusal(ready)
    assert "is not what the security officer signed" in said
    assert "restore it from a backup" in said
    assert cover.read_bytes() == b"a file of somebody's"
    cover.unlink()
    ready.facts(*order(ready, out="first"), secrets=BOTH)
    assert "2 key pairs that" in refusal(ready, cover="another")
    assert "is the cover of alice@office" in refusal(ready, user="bob@office")
    assert "name the file of it by --cover" in ready.refusal(4, *order_of(ready), secrets=BOTH)
    burn = ("burn", "--all", "--yes", "--cover", cover)
    assert ready.facts(*burn, secrets=["pin"])["burned"] == in_batch(ready, "first")
    assert "of which none is on token alice; name a new file" in refusal(ready)
    # On a token with a cover of its own there are not two.
    cover.unlink()
    ready.facts(*order_of(ready), secrets=BOTH)
    assert "keeps its cover itself" in refusal(ready, out="second")


def test_a_journal_that_is_no_journal_of_this_token_destroys_nothing(ready):
    ready.facts(*order(ready, out="first", count=1), secrets=BOTH)
    journal = ready.directory / "cover.minting"
    serial = listed(ready)["token"]["serial"]
    for labels, of, said in (
        ("", serial, "is not the journal of a mint"),
        ("carnet ", serial, "is not the journal of a mint"),
        ("carnet 20260101T000000Z ", "4711", "on token 4711 that was cut off"),
    ):
        journal.write_text(json.dumps({"labels": labels, "token_serial": of}))
        assert said in refusal(ready, 2)
    journal.write_text("{")
    assert "cannot be read as the journal" in refusal(ready, 2)
    journal.unlink()
    assert [pair["key_id"] for pair in listed(ready)["pairs"]] == in_batch(ready, "first")


def test_what_a_cover_file_does_not_serve_is_refused_before_the_token_is_touched(ready):
    paired = [*ready.order(), "--cover", ready.directory / "cover"]
    assert "--cover is for custody split" in ready.refusal(2, *paired, secrets=BOTH)
    assert "go to the same file" in refusal(ready, 2, cover="batch")
    assert "There is no directory" in refusal(ready, 2, cover="nowhere/cover")
    assert "room for 2520 key pairs" in refusal(ready, 2, key_type="rsa-2048", count=2521)


def test_a_burned_pair_and_one_that_the_file_does_not_list_are_told_apart(ready):
    ready.facts(*order(ready, out="first"), secrets=BOTH)
    gone, left = in_batch(ready, "first")
    cover = ("--cover", ready.directory / "cover")
    ready.facts("burn", "--key", gone, "--yes", *cover, secrets=["pin"])
    assert [pair["key_id"] for pair in listed(ready)["pairs"]] == [left]
    shutil.copy(ready.directory / "cover", ready.directory / "older")
    ready.facts(*order(ready, out="second", count=1), secrets=BOTH)
    older = ready.facts("list", "--cover", ready.directory / "older", secrets=["pin"])
    assert older["unlisted_pairs"] == in_batch(ready, "second")


ADOPTION = ["files.synced cover.minting", "files.synced batch", "provision.batch-written",
            "files.synced cover", "provision.cover-written"]  # fmt: skip


@pytest.mark.parametrize("place", ADOPTION)
def test_an_adoption_that_was_killed_is_run_again_with_the_same_names(ready, place):
    ready.facts(*order(ready, out="first", cover="first.cover"), secrets=BOTH)
    keys = in_batch(ready, "first")
    (ready.directory / "first").unlink()
    (ready.directory / "first.cover").unlink()
    adopt = [*adoption_of(ready)[:-1], ready.directory / "cover"]
    killed_at(place, ready, *adopt, secrets=BOTH)
    ready.facts(*adopt, secrets=BOTH)
    assert sorted(kept_whole(ready, "batch")) == sorted(keys)
    # One that was not cut off is not replaced.
    assert "exists already" in ready.refusal(2, *adopt, secrets=BOTH)
    kept_whole(ready, "batch")
