"""What is found out of a token before anything is made on it."""

import pytest

from carnet.token.cryptoki import PARAMETERS_VARIABLE
from carnet.token.room import Room
from lab.fake_piv import DEFAULT_PIN
from lab.readers import OPENSC
from lab.waiting import wait_until
from tests.commands import run
from tests.provisioning import tokens
from tests.provisioning.test_crashes import killed_at
from tests.provisioning.test_split import adoption_of, order_of
from tests.provisioning.test_station import CONFIGURATION, HOST
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
    how = {"secrets": ["so-pin", "new-pin"], "new_pin": SECRETS["pin"][::-1]}
    sentence = workplace.refusal(4, "unblock", "--module", SOFTOKEN, **how)
    assert "and a database of NSS's that has a PIN by nothing" in sentence


def test_a_database_of_nss_is_said_to_be_made_by_its_own_tool(workplace):
    directory = workplace.directory / "nss"
    directory.mkdir()
    workplace.environment[PARAMETERS_VARIABLE] = tokens.Database(directory).parameters
    init = ["token-init", "--label", "alice", "--module", SOFTOKEN]
    sentence = workplace.refusal(4, *init, secrets=["so-pin", "pin"])
    assert "does not take the SO PIN that it was just initialised with" in sentence
    assert "make it with `certutil -N`" in sentence


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
    for key_type, cut_off in (("ec-p256", True), ("rsa-2048", False)):
        order = order_of(workplace, out=key_type, key_type=key_type, count=1)
        order += [*module, *cover, "--accept-unfit-token"]
        if cut_off:
            killed_at("provision.minted", workplace, *order, secrets=BOTH)
        assert workplace.facts(*order, secrets=BOTH)["kept_of_earlier_mint"] == cut_off
    listed = workplace.facts("list", *module, *cover, secrets=["pin"])
    assert [pair["key_type"] for pair in listed["pairs"]] == ["ec-p256", "rsa-2048"]
    assert (listed["cover"]["user_id"], listed["unlisted_pairs"]) == ("alice@office", [])
    named = ("--user", "alice@office", "--yes")
    assert len(workplace.facts("burn", *module, *cover, *named, secrets=["pin"])["burned"]) == 2
    assert workplace.facts("list", *module, *cover, secrets=["pin"])["pairs"] == []
    assert not list(workplace.directory.glob("*.minting"))


def test_keys_of_such_a_token_are_adopted_where_that_is_accepted(unfit):
    workplace, _ = unfit
    workplace.host_keys = workplace.directory / "host-keys.pem"
    workplace.host_keys.write_bytes(workplace.on(workplace.host, tokens.host_keys))
    order = [*adoption_of(workplace, "nothing", count=1), "--module", SOFTOKEN]
    sentence = workplace.refusal(4, *order, secrets=BOTH)
    assert "lets private keys out that it was told to keep (wrapping it" in sentence
    accepted = workplace.run(*order, "--accept-unfit-token", secrets=BOTH)
    assert "whoever has its PIN can copy them.\n" in accepted.stderr
    assert "has 0 keys" in accepted.stderr


def test_a_token_is_tried_in_the_way_in_which_its_pairs_come_to_be(ready):
    order = [*map(str, ready.order()[1:]), "--directory", str(ready.directory / "officer")]
    secrets = (SECRETS["pin"], SECRETS["passphrase"])
    sentence = ready.on(ready.traveller, tokens.mint_where_copies_leave, order, *secrets)
    assert "lets private keys out that it was told to keep (wrapping it" in sentence
    assert not (ready.directory / "batch").exists()


def test_a_host_says_so_of_its_hsm(unfit):
    workplace, _ = unfit
    hsm = f'module = "{SOFTOKEN}"'
    configuration = workplace.directory / "host.toml"
    configuration.write_text(CONFIGURATION.replace('token = "hsm"', hsm))
    (workplace.directory / "state").mkdir(mode=0o700)
    link = ["certificates", "host", "office", "--out", workplace.directory / "host-link"]
    assert workplace.run(*link, secrets=["passphrase"]).returncode == 0
    environment = workplace.environment | {"CARNET_PIN": SECRETS["pin"]}
    del workplace.environment[PARAMETERS_VARIABLE]  # SoftHSM2 takes none

    def said(*arguments):
        return run([HOST, "--config", configuration, *arguments], environment)

    accept = "--accept-unfit-hsm"
    for command in ("transport-key", "host-keys"):
        refused = said(command)
        assert (refused.returncode, refused.stdout) == (4, "")
        assert f"minted for that, or accept this one by {accept}.\n" in refused.stderr
    key = workplace.directory / "unfit.pem"
    key.write_text(said("transport-key", accept).stdout)
    workplace.mint(count=1, host_transport_key=key)
    imports = ["import", workplace.directory / "batch"]
    for command in (["transport-key", accept], ["host-keys", accept], imports):
        warned = said(*command).stderr
        assert warned.count("lets private keys out that it was told to keep (wrapping it") == 1
    assert "reads the wrapping otherwise than the token that wrapped it; " in warned
    assert "lets private keys out" in said("doctor").stdout


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
