"""Where a PIN comes from, and what is said before it is asked for."""

import os
import subprocess
import sys
from contextlib import nullcontext

import click
import pexpect
import pytest
from click.testing import CliRunner
from msgspec.structs import replace
from pkcs11 import FunctionCancelled

from carnet.errors import TokenError, UsageError
from carnet.pin import Credential, PinSource
from carnet.running import run_command
from carnet.secret_sources import PIN_VARIABLE, SECRET_VARIABLES, read_secret
from carnet.token import session
from carnet.token.module import Token
from carnet.token.session import open_session, wrong_pin
from carnet.token.translation import translated
from provisioning import pins
from provisioning.options import Login
from tests.unit.examples import INFO
from token_client.booklet import open_booklet
from token_client.config import ClientConfig

PAD = replace(INFO, protected_authentication_path=True)
FINAL = replace(INFO, pin_count_low=True, pin_final_try=True)


class Terminal:
    """A person who answers each prompt in turn; what is asked is kept."""

    def __init__(self, answers: list[str]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def prompt(self, text: str, **_) -> str:
        self.asked.append(text)
        return self.answers.pop(0)


@pytest.fixture
def at_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(PIN_VARIABLE, raising=False)

    def sit_down(*answers: str) -> Terminal:
        terminal = Terminal(list(answers))
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(click, "prompt", terminal.prompt)
        return terminal

    return sit_down


def descriptor(pin: str) -> int:
    reading, writing = os.pipe()
    os.write(writing, pin.encode() + b"\n")
    os.close(writing)
    return reading


@pytest.mark.parametrize("fd", [1, 2])
def test_a_secret_does_not_come_by_the_outputs(fd):
    with pytest.raises(UsageError, match="such as 3"):
        PinSource(fd=fd).obtain(INFO)
    os.fstat(fd)


def test_each_source_gives_the_pin(tmp_path, monkeypatch, at_terminal):
    terminal = at_terminal("from the prompt")
    file = tmp_path / "pin"
    file.touch(mode=0o600)
    file.write_text("from the file\n")
    assert PinSource().obtain(INFO).pin == "from the prompt"
    monkeypatch.setenv(PIN_VARIABLE, "from the environment")
    assert PinSource().obtain(INFO).pin == "from the environment"
    assert PIN_VARIABLE not in os.environ
    assert PinSource(file=file).obtain(INFO).pin == "from the file"
    fd = descriptor("from the descriptor")
    assert PinSource(fd=fd, file=file).obtain(INFO).pin == "from the descriptor"
    assert terminal.asked == ["The PIN of token alice"]


def test_a_file_that_others_can_read_is_no_source(tmp_path):
    file = tmp_path / "pin"
    file.write_text("1234\n")
    file.chmod(0o644)
    with pytest.raises(UsageError, match="Others can read"):
        PinSource(file=file).obtain(INFO)


@pytest.mark.parametrize(
    "left",
    [
        *("\ufeff1234", "12\ufeff34", "1234\u200b", "\u202e1234", "1234\u2028"),
        *("12\x0034", "1234\x00", "\x1b[A1234", "12\t34", "1234\x85"),
    ],
)
def test_what_nobody_means_as_a_pin_is_no_try(tmp_path, at_terminal, left):
    file = tmp_path / "pin"
    file.touch(mode=0o600)
    file.write_text(f"{left}\r\n", newline="")
    for as_it_is in (False, True):
        with pytest.raises(UsageError, match="was not tried; put the PIN") as caught:
            PinSource(file=file, as_it_is=as_it_is).obtain(INFO)
        assert "1234" not in caught.value.sentence
    at_terminal(left)
    with pytest.raises(UsageError, match="was not tried; type it anew"):
        PinSource().obtain(INFO)


def test_an_old_pin_may_have_what_keys_type_and_nobody_sees(at_terminal):
    old = "12\u00ad34"
    at_terminal(old)
    assert PinSource(as_it_is=True).obtain(INFO).pin == old
    at_terminal("12\x1b[D34")
    with pytest.raises(UsageError, match="letters and digits alone"):
        PinSource(as_it_is=True).obtain(INFO)


@pytest.mark.parametrize("blank", [" ", "\u00a0", "\u3000", "\u200d", "\u2800"])
def test_a_blank_at_an_end_is_no_try_unless_it_is_typed(tmp_path, monkeypatch, at_terminal, blank):
    file = tmp_path / "pin"
    file.touch(mode=0o600)
    for pin in (f"1234{blank}", f"{blank}1234", blank):
        file.write_text(f"{pin}\n")
        for source in (PinSource(file=file), PinSource()):
            monkeypatch.setenv(PIN_VARIABLE, pin)
            with pytest.raises(UsageError, match=r"was not tried; .* or type it") as caught:
                source.obtain(INFO)
            assert "1234" not in caught.value.sentence
        at_terminal(pin)
        assert PinSource().obtain(INFO).pin == pin


@pytest.mark.parametrize(
    "pin", ["1234", "with blanks", "\u0645\u06cc\u200c\u0631\u0648\u0645", "ünï-\u00a0c\u00f6de"]
)
def test_what_can_be_typed_is_a_pin(tmp_path, pin):
    file = tmp_path / "pin"
    file.touch(mode=0o600)
    file.write_text(f"{pin}\n")
    assert PinSource(file=file).obtain(INFO).pin == pin


def test_without_source_and_terminal_there_is_no_pin(monkeypatch):
    monkeypatch.delenv(PIN_VARIABLE, raising=False)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(UsageError, match="no terminal"):
        PinSource().obtain(INFO)


def test_the_pin_pad_is_used_where_there_is_one(at_terminal, capsys):
    terminal = at_terminal()
    assert PinSource().obtain(PAD).pin is None
    assert terminal.asked == []
    assert capsys.readouterr().err == ""  # that is said at the login


def test_each_login_at_the_pad_says_so(capsys):
    class Found:
        info = PAD

        def choose(self, _):
            return self

        @property
        def module(self):
            raise RuntimeError("far enough")

    login = Login(module=Found(), token=PAD.identity, pin=None, allow_final_try=False)
    credential = Credential(pin=None, allow_final_try=False)
    for logging_in in (
        lambda: login.session(writable=True),
        lambda: login.session(writable=True),
        lambda: open_booklet(Found(), credential, ClientConfig()),
    ):
        with pytest.raises(RuntimeError, match="far enough"), logging_in():
            pass
        said = capsys.readouterr().err
        assert said == "Enter the PIN of token alice on the reader's PIN pad.\n"


def test_a_pin_of_the_pad_is_not_changed_here_and_not_asked_for(at_terminal, monkeypatch):
    at_terminal()

    class Found:
        info = PAD

    monkeypatch.setattr(pins, "open_module", lambda _: None)
    monkeypatch.setattr(pins, "choose_token", lambda *_: Found())
    done = CliRunner().invoke(pins.change_pin, [])
    assert "change it with its vendor's own tool" in str(done.exception)
    assert done.output == ""


def test_what_was_cancelled_at_the_pad_calls_for_no_new_token():
    with pytest.raises(TokenError) as caught, translated():
        raise FunctionCancelled
    assert caught.value.sentence == (
        "This was cancelled at the reader's PIN pad; repeat the command."
    )


def test_a_pin_that_is_given_goes_before_the_pad(monkeypatch, at_terminal):
    at_terminal()
    assert PinSource(fd=descriptor("1234")).obtain(PAD).pin == "1234"
    monkeypatch.setenv(PIN_VARIABLE, "5678")
    assert PinSource().obtain(PAD).pin == "5678"


def test_the_login_goes_through_the_pad(monkeypatch):
    """python-pkcs11 then passes no PIN to C_Login, and the reader asks for it."""
    used = []

    class Found(Token):
        info = PAD
        longest_pin = 8
        _slot = None

    def log_in(_, __, credential, **_options):
        used.append(credential)
        raise TokenError("far enough.")

    monkeypatch.setattr(session, "_log_in", log_in)
    monkeypatch.setattr(Found, "__init__", lambda _: None)
    token = Found()
    token.module = _NoModule()
    for pin in (None, "1234"):
        with pytest.raises(TokenError, match="far enough"), open_session(token, pin, writable=True):
            pass
    assert used == [session.PROTECTED_AUTH, "1234"]


class _NoModule:
    def in_use(self):
        return nullcontext()

    def told_anew(self, token):
        return token


def test_a_wrong_pin_before_is_said_before_the_prompt(at_terminal, capsys):
    at_terminal("1234")
    PinSource().obtain(replace(INFO, pin_count_low=True))
    assert "too many lock it" in capsys.readouterr().err
    assert "too many wrong ones lock token alice" in wrong_pin(replace(INFO, pin_count_low=True))


def test_no_lock_is_told_of_where_none_is(at_terminal, capsys):
    """SoftHSM2 takes the right PIN after any number of wrong ones (tests/token/test_pins.py)."""
    at_terminal("1234")
    soft = replace(INFO, pin_count_low=True, manufacturer="SoftHSM project", model="SoftHSM v2")
    PinSource().obtain(soft)
    assert "before.\n" in capsys.readouterr().err
    assert "lock" not in wrong_pin(soft)


def test_the_final_try_takes_a_typed_yes(at_terminal):
    terminal = at_terminal("yes", "1234")
    credential = PinSource().obtain(FINAL)
    assert (credential.pin, credential.allow_final_try) == ("1234", True)
    assert "leaves one PIN try" in terminal.asked[0]


@pytest.mark.parametrize("answer", ["", "y", "YES please", "no"])
def test_anything_else_is_a_no_and_the_pin_is_not_asked_for(at_terminal, answer):
    terminal = at_terminal(answer)
    with pytest.raises(TokenError, match="--allow-final-try"):
        PinSource().obtain(FINAL)
    assert len(terminal.asked) == 1


def test_a_script_says_yes_by_the_option_only(monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(TokenError, match="--allow-final-try"):
        PinSource(fd=descriptor("1234")).obtain(FINAL)
    credential = PinSource(fd=descriptor("1234"), allow_final_try=True).obtain(FINAL)
    assert credential.allow_final_try


def test_a_locked_pin_is_not_asked_for(at_terminal):
    terminal = at_terminal()
    with pytest.raises(TokenError, match="is locked"):
        PinSource(allow_final_try=True).obtain(replace(INFO, pin_locked=True))
    assert terminal.asked == []


@pytest.mark.parametrize("variable", SECRET_VARIABLES)
def test_no_child_of_a_command_inherits_a_secret_and_the_command_has_it(variable, monkeypatch):
    heard = []

    @click.command()
    def command():
        heard.append(subprocess.run(["env"], capture_output=True, text=True, check=True).stdout)
        heard.append(read_secret("it", option="it", fd=None, file=None, variable=variable))

    monkeypatch.setattr(sys, "argv", ["carnet"])
    monkeypatch.setenv(variable, "4711 4711")
    with pytest.raises(SystemExit):
        run_command(command, "carnet")
    assert ("4711 4711" in heard[0], heard[1]) == (False, "4711 4711")


SHOWING = """
from pathlib import Path
from carnet.secret_sources import read_secret, take_secrets
take_secrets()
print(read_secret("it", option="it", fd=None, file=None, variable="CARNET_PIN"))
print(Path("/proc/self/environ").read_bytes())
"""


def test_a_secret_in_the_environment_is_not_shown_of_the_process_that_took_it():
    given = os.environ | {PIN_VARIABLE: "4711 0815", "CARNET_NEW_PIN": "0815 4711", "LAST": "shown"}
    done = subprocess.run(
        [sys.executable, "-c", SHOWING], env=given, capture_output=True, text=True, check=True
    )
    taken, shown = done.stdout.splitlines()
    assert taken == "4711 0815"
    assert ("CARNET_PIN=" in shown, "LAST=shown" in shown) == (True, True)
    assert [each for each in ("4711", "0815") if each in shown] == []


def test_a_pin_in_the_environment_goes_before_the_pad_also_in_a_command(monkeypatch):
    heard = []

    @click.command()
    def command():
        heard.append(PinSource().obtain(PAD).pin)

    monkeypatch.setattr(sys, "argv", ["carnet"])
    monkeypatch.setenv(PIN_VARIABLE, "5678")
    with pytest.raises(SystemExit):
        run_command(command, "carnet")
    assert heard == ["5678"]


ASKING = """
import sys, click
from carnet.running import run_command
from carnet.pin import Credential, PinSource
from tests.unit.examples import INFO
sys.argv = ["carnet"]
run_command(click.command()(lambda: print("tried", PinSource().obtain(INFO).pin)), "carnet")
"""


def test_bytes_at_the_prompt_that_are_no_text_are_one_sentence_and_no_try():
    child = pexpect.spawn(
        sys.executable, ["-c", ASKING], env=os.environ | {"LC_ALL": "C.UTF-8"}, timeout=90
    )
    child.expect("The PIN of token alice: ")
    child.waitnoecho()
    child.send(b"p\xe4ss12\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == UsageError.exit_status
    (sentence,) = child.before.decode().split("\r\n")[1:-1]
    assert sentence.startswith("carnet: What was typed for the PIN of token alice is no text")
    assert "0xe4" not in sentence


def test_no_pin_is_in_a_representation(at_terminal):
    at_terminal("1234")
    assert "1234" not in repr(PinSource().obtain(INFO))
