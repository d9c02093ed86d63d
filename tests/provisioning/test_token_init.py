"""`token-init` on SoftHSM2 in a directory of its own."""

import pytest

from carnet.token.finding import MODULE_VARIABLE, find_module
from lab.fake_piv import DEFAULT_PIN
from lab.readers import OPENSC
from lab.waiting import wait_until
from tests.provisioning import tokens
from tests.provisioning.workplace import SECRETS

BOTH = ["pin", "so-pin"]


def test_a_token_is_there_with_its_pin(workplace):
    made = workplace.token_init()
    listed = workplace.listed()
    empty = ("pairs", "unlisted_pairs", "damaged_pairs", "damaged_files", "unfinished_pairs")
    nothing = {each: [] for each in empty}
    assert listed == {"token": made, "cover": None, **nothing}
    assert made["label"] == "alice"


def test_an_initialised_token_is_not_touched(workplace):
    made = workplace.token_init()
    sentence = workplace.refusal(4, "token-init", "--label", "alice", secrets=BOTH)
    assert "initialised already" in sentence
    assert workplace.listed()["token"] == made


def test_it_is_found_through_another_module_around_softhsm_too(workplace):
    """Named, it may be a module around SoftHSM2, and `carnet` sees these tokens through it."""
    made = workplace.token_init()
    module = workplace.directory / "around.so"
    module.symlink_to(find_module(None))
    workplace.environment |= {MODULE_VARIABLE: str(module)}
    assert workplace.listed()["token"] == made


def test_by_serial_too_it_is_not_touched(workplace):
    made = workplace.token_init()
    command = ("token-init", "--label", "bob", "--serial", made["serial"])
    assert "initialised already" in workplace.refusal(4, *command, secrets=BOTH)
    assert workplace.listed()["token"] == made


def test_wiping_wants_the_label_typed(ready):
    ready.mint()
    command = ("token-init", "--label", "alice", "--force")
    assert "--confirm" in ready.refusal(2, *command, secrets=BOTH)
    assert "look again" in ready.refusal(2, *command, "--confirm", "alcie", secrets=BOTH)
    assert len(ready.listed()["pairs"]) == 3
    ready.token_init("--force", "--confirm", "alice")
    assert ready.listed()["pairs"] == []
    assert ready.on(ready.traveller, tokens.read_public, "carnet cover") == [None, None]


def test_wiping_wants_the_tokens_so_pin(ready):
    ready.mint()
    command = ("token-init", "--label", "alice", "--force", "--confirm", "alice")
    sentence = ready.refusal(4, *command, secrets=BOTH, so_pin="not the SO PIN")
    assert "SO PIN is wrong" in sentence
    assert len(ready.listed()["pairs"]) == 3


def test_wiping_wants_a_yes_to_the_last_try_of_the_so_pin(ready):
    given = ready.traveller, tokens.wipe_at_the_final_try, SECRETS["so-pin"], SECRETS["pin"]
    ready.on(ready.traveller, tokens.replace_public, "kept", b"here")
    refused, _ = ready.on(*given)
    assert "give it with --allow-final-try" in refused
    assert ready.on(ready.traveller, tokens.read_public, "kept") == [b"here", None]
    _, said = ready.on(*given, "--allow-final-try")
    assert "Token alice is initialised" in said


def test_the_two_pins_differ(workplace):
    command = ("token-init", "--label", "alice")
    assert "same" in workplace.refusal(2, *command, secrets=BOTH, so_pin=SECRETS["pin"])


@pytest.mark.parametrize("label", ["", " ", "alice ", "a\x1b[31m", "two\nlines"])
def test_a_label_that_cannot_be_read_aloud_is_refused(workplace, label):
    sentence = workplace.refusal(2, "token-init", "--label", label, secrets=["pin", "so-pin"])
    assert "choose another" in sentence


def test_a_missing_module_is_one_sentence(workplace):
    command = ("token-init", "--label", "alice", "--module", workplace.directory / "none.so")
    assert "none.so" in workplace.refusal(4, *command, secrets=BOTH)


def test_a_card_that_another_tool_initialises_is_called_that(workplace, card):
    on_card = {"pin": DEFAULT_PIN}
    wait_until(
        lambda: workplace.run("list", "--module", OPENSC, secrets=["pin"], **on_card).stdout,
        "the card in its reader",
    )
    wipe = ("token-init", "--label", "alice", "--force", "--confirm", "alice", "--module", OPENSC)
    assert "use its vendor's own tool" in workplace.refusal(4, *wipe, secrets=BOTH, **on_card)
