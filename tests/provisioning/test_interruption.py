"""Whatever cuts a mint off: in custody `paired` no pair of it stays on the token."""

import os
import re
import signal
import sys

import pytest

from carnet.counting import agreeing, counted
from provisioning.minting import _destroyed
from tests.provisioning import tokens
from tests.provisioning.test_crashes import killed_at
from tests.token.full import small_disk

BOTH = ["pin", "passphrase"]
INTERRUPTED_AT_A_SYNC = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync"]
INTERRUPTED_AT_THE_LAST_LOGOUT = """
import contextlib, os, signal, sys
from provisioning import options
log_in, sessions = options.open_session, []
@contextlib.contextmanager
def interrupted(*arguments, **named):
    with log_in(*arguments, **named) as session:
        sessions.append(session)
        yield session
    if len(sessions) == 3:
        os.kill(os.getpid(), signal.SIGINT)
options.open_session = interrupted
"""
AT_THE_LAST_LOGIN = """
import os, signal, sys
from carnet.errors import PinTriedError
from provisioning import options
log_in, logins, happens = options.open_session, [], sys.argv.pop(1)
def failing(*arguments, **named):
    logins.append(arguments)
    if len(logins) == 3 and happens == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
    elif len(logins) >= 3 and happens == "refused":
        print("login", len(logins))
        raise PinTriedError("The PIN is wrong; check it and try token alice again.")
    return log_in(*arguments, **named)
options.open_session = failing
"""
INTERRUPTED_AS_AN_ATTRIBUTE_IS_PACKED = """
import os, signal, sys
from pkcs11 import Attribute
from pkcs11.attributes import AttributeMapper
handler, packed = AttributeMapper._handler, []
def interrupted(self, key):
    packed.append(key)
    if packed.count(Attribute.EC_PARAMS) > 1 and key is Attribute.CLASS:
        AttributeMapper._handler = handler
        os.kill(os.getpid(), signal.SIGINT)
    return handler(self, key)
AttributeMapper._handler = interrupted
"""
PULLED_WHEN_THE_JOURNAL_IS_CLOSED = """
import sys
from pathlib import Path
from provisioning.keeping import OnToken
finish, files = OnToken.finish, Path(sys.argv.pop(1))
def pulled(self, session):
    finish(self, session)
    files.rename(files.with_name("pulled"))
OnToken.finish = pulled
"""
# Bytes that a file may have.
LESS_THAN_A_BATCH_OF_40 = 6000
LESS_THAN_A_LONG_COVER = 2000
LESS_THAN_A_PRIVATE_KEY = 700


def at_most(size):
    """Let no file grow beyond so many bytes, and Python write no compiled module that short."""
    return ["env", "PYTHONDONTWRITEBYTECODE=1", "prlimit", f"--fsize={size}"]


def changed(change, *arguments):
    """Start the command with some of it changed."""
    start = "sys.argv.pop(0)\nfrom provisioning.cli import main\nmain()"
    return [sys.executable, "-c", change + start, *arguments]


def until_some_are_minted(process):
    """Wait until the progress bar counts a pair."""
    shown = ""
    while not re.search(r"\b[1-9]\d*/\d+", shown):
        character = process.stderr.read(1)
        assert character, shown
        shown += character


def minting(workplace):
    return workplace.start(*workplace.order(count=500), "--progress", secrets=BOTH)


def nothing_is_left(workplace):
    assert workplace.listed()["pairs"] == []
    assert not list(workplace.directory.glob("*batch*"))
    assert workplace.on(workplace.traveller, tokens.read_public, "carnet cover") == [None, None]


@pytest.mark.parametrize(
    ("gone", "of_earlier", "said"),
    [
        (1, 0, "1 key pair is destroyed"),
        (3, 3, "3 key pairs of a mint that was cut off before are destroyed"),
        (3, 1, "3 key pairs, 1 of them of a mint that was cut off before, are destroyed"),
    ],
)
def test_it_is_said_whose_pairs_are_destroyed(gone, of_earlier, said):
    assert _destroyed(gone, of_earlier) == said


def test_a_batch_that_cannot_be_written(ready):
    before = at_most(LESS_THAN_A_BATCH_OF_40)
    sentence = ready.refusal(2, *ready.order(count=40), secrets=BOTH, before=before)
    assert "Cannot write" in sentence
    nothing_is_left(ready)
    ready.mint()
    assert len(ready.listed()["pairs"]) == 3


@pytest.mark.parametrize("limit", [LESS_THAN_A_PRIVATE_KEY, LESS_THAN_A_LONG_COVER])
def test_a_token_that_keeps_less_than_it_says(ready, limit):
    long = [f"http://host.example/{number}{'x' * 220}" for number in range(7)]
    options = [part for url in long for part in ("--host-url", url)]
    before = at_most(limit)
    order = [*ready.order(count=1), *options]
    assert "did not keep" in ready.refusal(4, *order, secrets=BOTH, before=before)
    nothing_is_left(ready)
    ready.mint()
    assert len(ready.listed()["pairs"]) == 3


def test_older_pairs_stay_when_a_later_mint_fails(ready):
    ready.mint()
    kept = ready.listed()
    killed_at("token.pair-stored", ready, *ready.order(out="third"), secrets=BOTH)
    order = ready.order(count=40, out="second")
    said = ready.refusal(2, *order, secrets=BOTH, before=at_most(LESS_THAN_A_BATCH_OF_40))
    assert " 41 key pairs, 1 of them of a mint that was cut off before, are destroyed.\n" in said
    assert ready.listed() == kept


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_officer_interrupts_it_or_her_terminal_closes(ready, number):
    with minting(ready) as process:
        until_some_are_minted(process)
        process.send_signal(number)
        _, rest = process.communicate()
    assert process.returncode == 130, rest
    assert rest.endswith("in custody paired the same command begins anew.\n")
    assert "carnet-provision: interrupted; " in rest
    nothing_is_left(ready)


def test_no_second_mint_and_no_wiping_disturbs_the_one_that_runs_on_a_token(ready):
    with ready.start(*ready.order(count=9000), "--yes", "--progress", secrets=BOTH) as process:
        until_some_are_minted(process)
        assert "Another mint" in ready.refusal(2, *ready.order(out="second"), secrets=BOTH)
        wipe = ("token-init", "--label", "alice", "--force", "--confirm", "alice")
        assert "Another mint" in ready.refusal(2, *wipe, secrets=["pin", "so-pin"])
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130, said
    nothing_is_left(ready)
    ready.mint()


def test_where_no_lock_can_be_had_it_is_minted_without(ready):
    # Neither this nor what stands for it is a directory of the user's own.
    elsewhere = {"XDG_RUNTIME_DIR": str(ready.transport_key), "TMPDIR": str(ready.directory)}
    (ready.directory / f"runtime-{os.getuid()}").touch()
    ready.environment |= elsewhere
    ready.mint()
    assert len(ready.listed()["pairs"]) == 3


def test_the_bar_tells_how_many_are_made_and_the_time_left(ready):
    done = ready.run(*ready.order(count=60), "--progress", secrets=BOTH)
    assert done.returncode == 0
    shown = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", done.stderr)
    assert re.search(r"Minting .* 0/60 -:--:--", shown)
    assert re.search(r"Minting .* 60/60 0:00:00", shown)
    assert "Minting" not in ready.run(*ready.order(count=1, out="second"), secrets=BOTH).stderr


def test_the_next_mint_destroys_what_a_killed_one_left(ready):
    ready.mint(out="first")
    kept = ready.listed()["pairs"]
    with minting(ready) as process:
        until_some_are_minted(process)
        process.kill()
        process.communicate()
    listed = ready.listed()
    left = len(listed["pairs"]) - len(kept)
    assert left == len(listed["unfinished_pairs"]) > 0
    are = f"{counted(left, 'key pair')} {agreeing(left, 'is', 'are')}"
    assert f"{are} of a mint" in ready.run("list", secrets=["pin"]).stdout
    assert "was cut off; mint again" in ready.refusal(4, "sheet", secrets=["pin"])
    facts = ready.mint(out="second")
    assert facts["destroyed_of_earlier_mint"] == left
    listed = ready.listed()["pairs"]
    assert listed[: len(kept)] == kept
    assert len(listed) == len(kept) + 3


def test_a_token_pulled_while_it_is_minted_on_is_one_sentence_and_the_next_mint_mends_it(ready):
    ready.mint(out="first")
    kept = ready.listed()["pairs"]
    files = ready.traveller.directory / "tokens"
    with minting(ready) as process:
        until_some_are_minted(process)
        files.rename(files.with_name("pulled"))
        _, rest = process.communicate()
    files.with_name("pulled").rename(files)
    assert process.returncode == 4
    said = rest.rpartition("carnet-provision: ")[2]
    why, _, rest_said = said.partition(". ")
    assert why.startswith("The token ")
    assert rest_said == (
        "Minting failed and its pairs could not be destroyed; before you hand the token out, "
        "mint on it again, which destroys them first.\n"
    )
    assert "Traceback" not in rest
    assert not (ready.directory / "batch").exists()
    facts = ready.mint(out="second")
    assert facts["destroyed_of_earlier_mint"] > 0
    listed = ready.listed()["pairs"]
    assert listed[: len(kept)] == kept
    assert len(listed) == len(kept) + 3


@pytest.mark.parametrize("sync", ["the batch", "its directory"])
def test_an_interrupt_while_the_batch_is_synced(ready, sync):
    number = ["the batch", "its directory"].index(sync) + 1
    before = [*INTERRUPTED_AT_A_SYNC, "-e", f"inject=fsync:signal=INT:when={number}"]
    done = ready.run(*ready.order(), secrets=BOTH, before=before)
    assert done.returncode == 130
    nothing_is_left(ready)
    ready.mint()


def test_an_interrupt_as_an_attribute_is_packed(ready):
    """python-pkcs11 would free what it has not written yet of the template, which aborts."""
    before = changed(INTERRUPTED_AS_AN_ATTRIBUTE_IS_PACKED)
    done = ready.run(*ready.order(count=500), secrets=BOTH, before=before)
    (said,) = done.stderr.strip().splitlines()
    # With how many pairs that has cost, where it came late enough to cost any.
    assert (done.returncode, re.split("[;.]", said)[0]) == (130, "carnet-provision: interrupted")
    nothing_is_left(ready)


def test_an_interrupt_before_it_is_read_back_leaves_nothing(ready):
    before = changed(AT_THE_LAST_LOGIN, "interrupt")
    done = ready.run(*ready.order(), secrets=BOTH, before=before)
    said = "interrupted; 3 key pairs are destroyed, since in custody paired the same command begins"
    assert (done.returncode, said in done.stderr) == (130, True)
    listed = ready.listed()
    assert (listed["pairs"], listed["unfinished_pairs"]) == ([], [])
    assert not list(ready.directory.glob("*batch*"))


def test_where_no_login_reads_it_back_it_is_said_that_pairs_are_left(ready):
    """As where somebody changed the PIN meanwhile; which is not tried again."""
    before = changed(AT_THE_LAST_LOGIN, "refused")
    done = ready.run(*ready.order(), secrets=BOTH, before=before)
    assert (done.returncode, done.stdout) == (4, "login 3\n")
    assert "mint on it again, which destroys them first" in done.stderr
    assert not list(ready.directory.glob("*batch*"))
    assert len(ready.listed()["unfinished_pairs"]) == 3


def test_an_interrupt_after_the_journal_is_closed_leaves_all_of_it(ready):
    before = changed(INTERRUPTED_AT_THE_LAST_LOGOUT)
    assert ready.run(*ready.order(), secrets=BOTH, before=before).returncode == 130
    listed = ready.listed()
    assert (len(listed["pairs"]), listed["unfinished_pairs"]) == (3, [])
    assert (ready.directory / "batch").exists()


def test_a_token_pulled_when_the_journal_is_closed_keeps_all_of_it(ready):
    files = ready.traveller.directory / "tokens"
    before = changed(PULLED_WHEN_THE_JOURNAL_IS_CLOSED, files)
    done = ready.run(*ready.order(), secrets=BOTH, before=before)
    files.with_name("pulled").rename(files)
    assert done.returncode == 0, done.stderr
    listed = ready.listed()
    assert (len(listed["pairs"]), listed["unfinished_pairs"]) == (3, [])
    assert (ready.directory / "batch").exists()


def test_a_disk_that_is_full_is_called_that(ready):
    (token,) = (ready.traveller.directory / "tokens").iterdir()
    with small_disk(token) as disk:
        sentence = ready.refusal(4, *ready.order(count=200), secrets=BOTH)
        assert "is full; make room in" in sentence
        nothing_is_left(ready)
        disk.fill()
        assert "is full; make room in" in ready.refusal(4, *ready.order(), secrets=BOTH)
        disk.make_room()
        ready.mint()
        left = {str(path) for path in token.glob("*.object") if not path.stat().st_size}
        assert left
        assert left <= {*ready.listed()["damaged_files"]}


def test_a_report_that_cannot_be_printed_does_not_say_try_again(ready):
    into_full = ["sh", "-c", 'exec "$@" > /dev/full', "sh"]
    done = ready.run(*ready.order(), secrets=BOTH, before=into_full)
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert sentence.endswith("batch is written; do not repeat the command.")
    assert "No space left" in sentence
    assert len(ready.listed()["pairs"]) == 3
