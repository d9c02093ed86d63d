"""What `carnet connect` says of tokens and PINs: one sentence, and the exit status."""

import pytest
from pkcs11 import _pkcs11

from lab.world import World
from tests.lab.offices import AtWork, is_one_sentence

IN_JUNE_2098 = """
from datetime import datetime
from token_client import tokens
class June(datetime):
    @classmethod
    def now(cls, zone):
        return datetime(2098, 6, 1, tzinfo=zone)
tokens.datetime = June
from token_client.cli import main
main()
"""


@pytest.fixture(scope="module")
def office(lane):
    """No agents needed: the token stands in the way first."""
    with World() as world:
        made = AtWork(world, lane)
        made.set_up(2)
        made.client_charon.start()
        yield made


def assert_said(done, status, *words):
    assert done.returncode == status
    assert is_one_sentence(done), done.stderr
    for word in words:
        assert word in done.stderr


def test_a_wrong_pin_is_said_and_tried_once(office):
    assert_said(office.carnet("connect", pin="00000000"), 4, "PIN is wrong")
    said = office.carnet("tokens")
    assert "mistyped before" in said.stdout
    assert_said(office.carnet("connect", pin="00000000"), 4, "PIN is wrong", "check it")
    office.carnet("connect", "--dry-run")
    assert "PIN set" in office.carnet("tokens").stdout


def test_no_token(office):
    office.pull_out(office.world.client)
    try:
        assert_said(office.carnet("connect"), 4, "insert it")
    finally:
        office.plug_in(office.world.client)


@pytest.mark.parametrize("wait", [(), ("--wait",)], ids=["", "waiting"])
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/nowhere/module.so", "There is no PKCS#11 module at"),
        (_pkcs11.__file__, "cannot be loaded, or is no PKCS#11 module"),
    ],
    ids=["not there", "another library"],
)
def test_a_module_that_is_none_is_not_waited_for(office, wait, path, said):
    extra = {"CARNET_PKCS11_MODULE": path}
    assert_said(office.carnet("connect", *wait, extra=extra), 4, path, said)


def test_two_tokens_are_told_apart_by_label_or_serial(office):
    other = {"pin": "11112222", "so-pin": "33334444"}
    done = office.command(
        office.world.client, "carnet-provision", "token-init", "--label", "bob", given=other
    )
    assert done.returncode == 0
    assert_said(office.carnet("connect", "--dry-run"), 4, "alice", "bob")
    assert_said(office.carnet("connect", "--wait", "--dry-run"), 4, "alice", "bob")
    assert office.carnet("connect", "--dry-run", "--token", "alice").returncode == 0
    assert_said(office.carnet("connect", "--token", "carol"), 4, "alice", "bob")
    listed = office.facts(office.world.client, "carnet", "tokens")
    serial = next(token["serial"] for token in listed if token["label"] == "alice")
    assert office.carnet("connect", "--dry-run", "--token", serial).returncode == 0


def test_no_pin_is_tried_on_a_token_without_a_cover(office):
    """It may be a stranger's, and the try one of the few that she has."""
    assert_said(office.carnet("connect", "--token", "bob", pin="00000000"), 4, "bob", "no cover")
    assert "mistyped before" not in office.carnet("tokens").stdout


def test_pairs_are_counted_by_suite_and_custody_and_the_oldest_expiry_is_told(office):
    officer = office.world.officer
    office.plug_in(officer)
    for key_type, day in (("ec-p384", "2098-02-01"), ("rsa-2048", "2099-03-01")):
        batch = str(officer.directory / f"{key_type}.batch")
        office.mint(1, token="alice", key_type=key_type, not_after=day, out=batch)
    office.pull_out(officer)
    listed = office.facts(office.world.client, "carnet", "tokens")
    alice = next(token for token in listed if token["label"] == "alice")
    told = {(p["key_type"], p["suite"], p["custody"], p["count"]) for p in alice["pairs"]}
    assert told == {
        ("ec-p256", "p-256", "paired", 2),
        ("ec-p384", "p-384", "paired", 1),
        ("rsa-2048", "rsa-sha1", "paired", 1),
    }
    assert (alice["pairs_left"], alice["oldest_expiry"]) == (4, "2098-02-01")
    shown = office.carnet("tokens").stdout
    assert "4 pairs left (2 ec-p256, suite p-256, custody paired; " in shown
    assert "the first until 2098-02-01" in shown
    later = office.facts(office.world.client, "python", "-c", IN_JUNE_2098, "tokens")
    alice = next(token for token in later if token["label"] == "alice")
    assert (alice["pairs_left"], alice["oldest_expiry"]) == (3, "2099-03-01")


def test_an_empty_booklet(office):
    """The last test of this office: it burns all that there is."""
    burned = office.command(
        office.world.client,
        *("carnet-provision", "burn", "--all", "--yes", "--token", "alice"),
        given={"pin": office.secrets.pin},
    )
    assert burned.returncode == 0
    done = office.carnet("connect", "--token", "alice")
    assert_said(done, 7, "No usable key pair is left")


def test_a_reader_of_secrets_needs_a_source(office):
    done = office.command(office.world.client, "carnet", "connect", "--token", "alice", check=False)
    assert_said(done, 2, "no terminal")
