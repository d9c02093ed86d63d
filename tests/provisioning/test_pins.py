"""`change-pin` and `unblock`, on SoftHSM2 and on a card that is really locked."""

import pytest

from lab.fake_piv import DEFAULT_PIN, DEFAULT_PUK
from lab.machine import Machine
from lab.readers import OPENSC
from lab.terminal import type_in
from lab.waiting import wait_until
from tests.provisioning import tokens
from tests.provisioning.workplace import COMMAND, SECRETS

NEW = "991827364550"


def pairs(workplace, pin):
    return workplace.facts("list", secrets=["pin"], pin=pin)["pairs"]


def test_the_pin_is_changed_and_key_pairs_stay(ready):
    ready.mint()
    before = pairs(ready, SECRETS["pin"])
    told = ready.facts("change-pin", secrets=["pin", "new-pin"], new_pin=NEW)
    assert told["label"] == "alice"
    assert pairs(ready, NEW) == before
    assert "PIN is wrong" in ready.refusal(4, "list", secrets=["pin"])


@pytest.fixture
def station(ready):
    machine = Machine("station", ready.directory)
    try:
        yield machine
    finally:
        machine.close()


def test_a_pin_that_nobody_would_take_is_changed_where_it_is_typed(ready, station):
    """As one that was set with a soft hyphen in it, or by an editor with a byte order mark."""
    strange, strange_so = "\ufeff1234\u00ad5678", "8765\u200e4321"
    made = (SECRETS["pin"], strange, SECRETS["so-pin"], strange_so)
    ready.on(ready.traveller, tokens.have_pins, *made)
    how = {"pin": strange, "so_pin": strange_so, "new_pin": NEW}
    for *command, old in ("list", "pin"), ("change-pin", "pin"), ("change-pin", "--so", "so-pin"):
        assert "was not tried" in ready.refusal(2, *command, secrets=[old], **how)
    change = ["env", *(f"{name}={it}" for name, it in ready.environment.items())]
    change += [str(COMMAND), "change-pin"]
    prompts = {r"The PIN of token alice: ": strange, r"The SO PIN: ": strange_so}
    prompts[r"The new [^:]*: "] = NEW
    for options in ([], ["--so"]):
        assert type_in(station, [*change, *options], prompts, show=False)[0] == 0
    assert pairs(ready, NEW) == []
    how = {"secrets": ["so-pin", "new-pin"], "so_pin": NEW, "new_pin": strange}
    assert "was not tried" in ready.refusal(2, "change-pin", "--so", **how)


def test_a_wrong_pin_changes_nothing(ready):
    how = {"secrets": ["pin", "new-pin"], "pin": "000000", "new_pin": NEW}
    assert "PIN is wrong" in ready.refusal(4, "change-pin", **how)
    assert pairs(ready, SECRETS["pin"]) == []


def test_unblocking_by_the_so_pin_keeps_key_pairs(ready):
    ready.mint()
    before = pairs(ready, SECRETS["pin"])
    ready.facts("unblock", secrets=["so-pin", "new-pin"], new_pin=NEW)
    assert pairs(ready, NEW) == before


def test_a_wrong_so_pin_unblocks_nothing(ready):
    how = {"secrets": ["so-pin", "new-pin"], "so_pin": "000000", "new_pin": NEW}
    assert "SO PIN is wrong" in ready.refusal(4, "unblock", **how)
    assert pairs(ready, SECRETS["pin"]) == []


def test_the_so_pin_is_changed(ready):
    secrets = ["so-pin", "new-pin"]
    ready.facts("change-pin", "--so", secrets=secrets, new_pin="the next so pin")
    assert "SO PIN is wrong" in ready.refusal(4, "unblock", secrets=secrets, new_pin=NEW)
    ready.facts("unblock", secrets=secrets, so_pin="the next so pin", new_pin=NEW)
    assert pairs(ready, NEW) == []


def test_no_secret_is_said_again(ready):
    ready.facts("change-pin", secrets=["pin", "new-pin"], new_pin=NEW)
    ready.run("unblock", secrets=["so-pin", "new-pin"], new_pin="1")
    said = "".join(ready.outputs)
    assert [secret for secret in (*SECRETS.values(), NEW) if secret in said] == []


def on_card(*command):
    return (*command, "--module", OPENSC)


def lock(workplace):
    wait_until(lambda: "PIN is wrong" in wrong(workplace), "a card that hears a PIN")
    wrong(workplace)
    assert "now locked" in wrong(workplace, "--allow-final-try")


def wrong(workplace, *options):
    return workplace.refusal(4, *on_card("list", *options), secrets=["pin"], pin="000000")


def test_a_locked_card_is_unblocked_by_its_puk(workplace, card):
    lock(workplace)
    assert card.tries() == 0
    how = {"secrets": ["so-pin", "new-pin"], "so_pin": DEFAULT_PUK, "new_pin": "135790"}
    assert "unblocked with --puk" in workplace.refusal(4, *on_card("unblock"), **how)
    workplace.facts(*on_card("unblock", "--puk"), **how)
    assert card.tries() == 3
    how = {"secrets": ["pin", "new-pin"], "pin": "135790", "new_pin": DEFAULT_PIN}
    workplace.facts(*on_card("change-pin"), **how)


def test_a_locked_card_is_said_before_the_pin_is_asked_for(workplace, card):
    lock(workplace)
    sentence = workplace.refusal(4, *on_card("list"))
    assert "is locked; have the security officer unblock it" in sentence


def test_the_final_try_is_not_taken_by_a_script_unasked(workplace, card):
    wait_until(lambda: "PIN is wrong" in wrong(workplace), "a card that hears a PIN")
    assert "one try is left" in wrong(workplace)
    how = {"secrets": ["pin"], "pin": DEFAULT_PIN}
    assert "--allow-final-try" in workplace.refusal(4, *on_card("list"), **how)
    assert card.tries() == 1
    workplace.facts(*on_card("list"), "--allow-final-try", **how)
    assert card.tries() == 3
