"""`burn`: what it names is destroyed, and nothing else."""

import re
import signal

import pytest

from lab.fake_piv import DEFAULT_PIN
from lab.readers import OPENSC
from lab.waiting import wait_until

PLURAL_OF_ONE = re.compile(r"\b1 (?:[\w-]+ ){0,3}(?:pairs|keys|tunnels)\b")
OFFICE = ("--host", "office", "https://127.0.0.1:9")


def key_ids(workplace):
    return [pair["key_id"] for pair in workplace.listed()["pairs"]]


def test_one_pair_is_burned(ready):
    ready.mint()
    first, second, third = key_ids(ready)
    burned = ready.facts("burn", "--key", second, "--yes", secrets=["pin"])
    assert burned == {"token": "alice", "burned": [second]}
    assert key_ids(ready) == [first, third]


def test_one_pair_is_spoken_of_as_one(ready):
    said = ready.run(*ready.order(count=1), secrets=["pin", "passphrase"]).stdout
    assert "1 ec-p256 key pair for alice@office is on token alice" in said
    for command in ("list",), ("sheet",), ("burn", "--all", "--yes"):
        said += ready.run(*command, secrets=["pin"]).stdout
    for words in (
        "\n1 key pair, in the",
        " 1, which opens",
        "1 key pair on token alice is destroyed",
    ):
        assert words in said
    assert PLURAL_OF_ONE.findall(said) == []


def test_the_host_has_to_be_told(ready):
    ready.mint()
    done = ready.run("burn", "--key", key_ids(ready)[0], "--yes", secrets=["pin"])
    assert "carnet-host revoke" in done.stdout


def test_all_pairs_of_the_tokens_user_are_burned(ready):
    ready.mint()
    other = ("burn", "--user", "eve@office", "--yes")
    assert "belongs to alice@office" in ready.refusal(4, *other, secrets=["pin"])
    assert len(key_ids(ready)) == 3
    ready.facts("burn", "--user", "alice@office", "--yes", secrets=["pin"])
    assert key_ids(ready) == []


def test_a_host_that_does_not_answer_is_one_plain_sentence(minted):
    key = minted.listed()["pairs"][0]["key_id"]
    host = ("--host", "office", "https://127.0.0.1:9")
    done = minted.run("burn", "--key", key, "--yes", *host, secrets=["pin", "passphrase"])
    assert done.returncode == 6
    (sentence,) = done.stderr.splitlines()
    assert "does not answer at https://127.0.0.1:9 (Connect call failed" in sentence
    assert "object at" not in sentence
    assert "run later: carnet-provision revoke --host office https://127.0.0.1:9" in sentence


def test_without_an_officer_no_passphrase_is_asked_for(workplace):
    told = ("revoke", "--user", "alice@office", "--reason", "gone")
    host = ("--host", "office", "https://127.0.0.1:9")
    assert "There is no officer's key" in workplace.refusal(2, *told, *host)


def test_nothing_is_burned_unasked(ready):
    ready.mint()
    assert "--yes" in ready.refusal(2, "burn", "--all", secrets=["pin"])
    assert "what to burn" in ready.refusal(2, "burn", "--yes", secrets=["pin"])
    assert len(key_ids(ready)) == 3
    ready.facts("burn", "--all", "--yes", secrets=["pin"])
    assert key_ids(ready) == []


def test_a_pair_that_is_not_there_is_an_error(ready):
    ready.mint()
    done = ready.run("burn", "--key", "00" * 16, "--yes", secrets=["pin"])
    assert done.returncode == 4
    assert "does not hold" in done.stderr
    assert len(key_ids(ready)) == 3


@pytest.mark.parametrize("host", [(), OFFICE], ids=["told elsewhere", "told"])
def test_a_burn_that_is_cut_off_names_all_that_it_burned(minted, host):
    """An interrupt at the second file that it removes: between the halves, or the pairs."""
    before = key_ids(minted)
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=unlink"]
    strace += ["-e", f"inject=unlink:signal={signal.SIGINT.value}:when=3"]
    secrets = ["pin", "passphrase"] if host else ["pin"]
    done = minted.run("burn", "--all", "--yes", *host, secrets=secrets, before=strace)
    assert done.returncode == 130
    told, _, interrupted = done.stderr.splitlines()
    assert "The burn was cut off after" in told
    assert interrupted == "carnet-provision: interrupted."
    named = re.findall(r"\b[0-9a-f]{32}\b", told)
    listed = minted.listed()
    whole = [pair["key_id"] for pair in listed["pairs"]]
    assert 0 < len(whole) < len(before)
    assert set(before) - set(whole) <= set(named) <= set(before)
    assert set(re.findall(r"^[0-9a-f]{32}$", done.stdout, re.MULTILINE)) <= set(named)


def test_burn_on_a_card_says_how_adopted_pairs_are_made_invalid(workplace, card):
    on_card = {"secrets": ["pin"], "pin": DEFAULT_PIN}
    wait_until(
        lambda: workplace.run("list", "--module", OPENSC, **on_card).stdout,
        "the card in its reader",
    )
    sentence = workplace.refusal(4, "burn", "--all", "--yes", "--module", OPENSC, **on_card)
    serial = workplace.facts("list", "--module", OPENSC, **on_card)["token"]["serial"]
    assert f"`carnet-host revoke --token-serial {serial}`" in sentence
