"""Odd words on a command line, and an output that is closed: one sentence each, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from carnet import console
from carnet.audit import commands as shared
from carnet.audit.heads import Examination
from carnet.audit.showing import Choice
from carnet.entry import INTERRUPTED
from carnet.errors import TokenError, UsageError
from carnet.running import run_command

BIN = Path(sys.executable).parent
NO_TEXT = b"x\xff"
USAGE = 2


@pytest.mark.parametrize("reason", ["", " ", "two\nlines"])
def test_the_officer_gives_a_reason_or_nothing_is_asked(reason):
    argv = [BIN / "carnet-provision", "revoke", "--user", "alice@office", "--reason", reason]
    argv += ["--host", "office", "https://127.0.0.1:1"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == USAGE
    assert "one line of 1 to 400 printable characters" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_lifetime_longer_than_any_says_which_is_the_longest():
    argv = [BIN / "carnet", "connect", "--lifetime", "9999h"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == USAGE
    assert "'9999h' is longer than 366d, the longest there is; `carnet --help`" in done.stderr
    assert console.DURATION.convert("366d", None, None) == 366 * 86400


@pytest.mark.parametrize(
    "argv",
    [
        ("carnet-host", b"keys", b"--user", NO_TEXT),
        ("carnet-host", b"revoke", b"--key", b"00", b"--reason", NO_TEXT),
        ("carnet-host", b"audit", b"restored", b"--yes", b"--reason", NO_TEXT),
        ("carnet-target", b"tunnels", b"end", NO_TEXT),
        ("carnet-provision", b"revoke", b"--user", NO_TEXT),
        ("carnet", b"connect", NO_TEXT),
    ],
    ids=lambda argv: argv[0],
)
def test_bytes_that_are_no_text_are_a_mistake_of_whoever_wrote_them(argv):
    program, *words = argv
    done = subprocess.run([BIN / program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == USAGE
    assert done.stderr.startswith(f"{program}: ")
    assert "no text in UTF-8" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_no_at_a_prompt_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["carnet"])
    monkeypatch.setattr(console, "has_terminal", lambda: True)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    command = click.Command("carnet", callback=lambda: console.confirm("Really?", yes=False))
    with pytest.raises(SystemExit) as caught:
        run_command(command, "carnet")
    assert caught.value.code == INTERRUPTED
    assert capsys.readouterr().err.splitlines()[-1] == "carnet: interrupted."


SAYING = """
import sys, click
from rich.table import Table
from carnet import console
from carnet.errors import TokenError
from carnet.running import run_command

def say():
    table = Table(LABEL)
    table.add_row(LABEL)
    click.echo(LABEL)
    console.print_table(table)
    console.print_json({"label": LABEL})
    raise TokenError(LABEL)

LABEL = "\u0645\u0631 \xf6"
sys.argv = ["carnet"]
run_command(click.command()(say), "carnet")
"""


def test_a_letter_that_a_character_set_lacks_is_no_failure():
    done = subprocess.run(
        [sys.executable, "-c", SAYING],
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        encoding="latin-1",
        check=False,
    )
    shown = r"\u0645\u0631 " + "\xf6"
    assert (done.returncode, done.stderr) == (TokenError.exit_status, f"carnet: {shown}\n")
    first, *table, facts = done.stdout.splitlines()
    assert first == shown
    assert sum(shown in line for line in table) == 2
    assert facts == r'{"label": "\u0645\u0631 \u00f6"}'


@pytest.mark.parametrize(
    "show",
    [
        lambda: shared.show_chains([], Examination(0, 0), other_keys="", as_json=False),
        lambda: shared.show_chains([], Examination(0, 0), other_keys="", as_json=True),
        lambda: shared.show_records([], Choice(None, frozenset(), None, None), as_json=False),
        lambda: console.print_json({}),
    ],
)
def test_an_output_that_is_closed_is_no_sign_of_tampering(show, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(UsageError, match="output is closed"):
        show()
