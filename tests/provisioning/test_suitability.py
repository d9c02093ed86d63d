"""What is found out of a token before anything is made on it."""

import pytest

from carnet.token.cryptoki import PARAMETERS_VARIABLE
from carnet.token.room import Room
from lab.fake_piv import DEFAULT_PIN
from lab.readers import OPENSC
from lab.waiting import wait_until
from tests.provisioning import tokens
from tests.provisioning.test_split import order_of
from tests.provisioning.workplace import SECRETS

BOTH = ["pin", "passphrase"]
SOFTOKEN = "/usr/lib/x86_64-linux-gnu/libsoftokn3.so"


@pytest.fixture
def unfit(ready):
    """NSS's softoken, which lets keys out; return the options that choose it."""
    directory = ready.directory / "nss"
    directory.mkdir()
    database = tokens.Database(directory)
    ready.on(database, tokens.initialise_database, SOFTOKEN, SECRETS["pin"])
    ready.environment[PARAMETERS_VARIABLE] = database.parameters
    return ready, [*ready.order(key_type="rsa-2048"), "--module", SOFTOKEN]


def test_a_token_that_lets_keys_out_is_named_and_nothing_is_minted(unfit):
    workplace, order = unfit
    sentence = workplace.refusal(4, *order, secrets=BOTH)
    assert "lets private keys out that it was told to keep (wrapping it" in sentence
    assert "--accept-unfit-token" in sentence
    assert not (workplace.directory / "batch").exists()


def test_it_is_used_all_the_same_where_that_is_accepted(unfit):
    """Softoken keeps no data objects: the cover is a file, its journal was one."""
    workplace, order = unfit
    done = workplace.run(*order, "--accept-unfit-token", secrets=BOTH)
    warning, error = done.stderr.splitlines()
    assert "whoever has its PIN can copy them" in warning
    assert "keeps no private data objects" in error
    assert "have the cover kept in a file by --cover" in error
    assert done.returncode == 4
    module, cover = ("--module", SOFTOKEN), ("--cover", workplace.directory / "cover")
    workplace.host_keys = workplace.directory / "host-keys.pem"
    workplace.host_keys.write_bytes(workplace.on(workplace.host, tokens.host_keys))
    for key_type in ("ec-p256", "rsa-2048"):
        order = order_of(workplace, out=key_type, key_type=key_type, count=1)
        workplace.facts(*order, *module, *cover, "--accept-unfit-token", secrets=BOTH)
    listed = workplace.facts("list", *module, *cover, secrets=["pin"])
    assert [pair["key_type"] for pair in listed["pairs"]] == ["ec-p256", "rsa-2048"]
    assert (listed["cover"]["user_id"], listed["unlisted_pairs"]) == ("alice@office", [])
    named = ("--user", "alice@office", "--yes")
    assert len(workplace.facts("burn", *module, *cover, *named, secrets=["pin"])["burned"]) == 2
    assert workplace.facts("list", *module, *cover, secrets=["pin"])["pairs"] == []
    assert not list(workplace.directory.glob("*.minting"))


def test_a_fit_token_is_not_spoken_of(ready):
    done = ready.run(*ready.order(count=1), secrets=BOTH)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_card_says_how_many_fit_and_takes_no_more(ready, card):
    order = [*ready.order(count=23), "--module", OPENSC]
    how = {"secrets": BOTH, "pin": DEFAULT_PIN}
    wait_until(
        lambda: ready.run("list", "--module", OPENSC, secrets=["pin"], pin=DEFAULT_PIN).stdout,
        "the card in its reader",
    )
    sentence = ready.refusal(4, *order, **how)
    assert "has room for 22 more key pairs, not for 23" in sentence
    fits = ready.run(*ready.order(count=22), "--module", OPENSC, **how)
    assert fits.stderr.startswith("Token alice has room for 22 more key pairs.\n")


def test_what_is_reckoned_from_free_memory_is_asked_about(ready):
    assert ready.on(ready.traveller, tokens.room, SECRETS["pin"], None) == Room(None)
    assert ready.on(ready.traveller, tokens.room, SECRETS["pin"], 2000) == Room(5)
    asked = ready.on(ready.traveller, tokens.ask_about_room, SECRETS["pin"], 2000, 6)
    assert "room for about 5 more key pairs; try 6 all the same?" in asked
    assert ready.on(ready.traveller, tokens.ask_about_room, SECRETS["pin"], 2000, 5) is None
