"""Every place at which the code may be killed is listed, and some test kills there."""

import ast
import functools
import re
from pathlib import Path

import pytest

from carnet.audit.meaning import MEANINGS

ROOT = Path(__file__).parents[2]
PACKAGES = ("carnet", "token_client", "host_agent", "target_agent", "provisioning", "softhsm")
VARYING = {"files.synced", "token.stored", "token.replaced", "token.public-stored"}
REACH = "crash.reach"
EVENTS = "accounts.appended"


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == REACH:
            yield node.args[0]


def name_of(argument):
    """The name; of one that varies, what stands before the first space."""
    if isinstance(argument, ast.Constant):
        return argument.value
    assert isinstance(argument, ast.JoinedStr)
    return argument.values[0].value.rstrip()


@functools.cache
def in_the_code():
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    texts = [text for path in files if REACH in (text := path.read_text())]
    return {name_of(each) for text in texts for each in calls(ast.parse(text))}


def in_the_table():
    rows = (ROOT / "docs" / "CRASHES.md").read_text().splitlines()
    found = [re.match(r"\| `([^`]+)` \|", row) for row in rows]
    names = [match.group(1) for match in found if match]
    assert len(names) == len(set(names))
    return {re.sub(r" [A-Z]+$", "", name) for name in names}


ON_POSTGRESQL = ("fleet", "host")
"""Whose tests run on both databases, or on PostgreSQL alone."""
ON_SQLITE_ALONE = {"host.generation-revoked"}
"""A place of a command that writes nothing into the database after it."""


@functools.cache
def killed_at(*within):
    """All words of the tests that name a place; each test sees for itself that it kills."""
    where = [ROOT / "tests" / each for each in within or ("",)]
    files = [path for each in where for path in each.rglob("*.py") if path != Path(__file__)]
    return {
        node.value
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_the_table_lists_what_the_code_has():
    assert in_the_table() == in_the_code()


@pytest.mark.parametrize("place", sorted(in_the_code() - VARYING - {EVENTS}))
def test_some_test_kills_there(place):
    assert place in killed_at()


OF_THE_HOST = ("host.", "import.", "interface.")


@pytest.mark.parametrize("place", sorted(p for p in in_the_code() if p.startswith(OF_THE_HOST)))
def test_some_test_kills_the_host_there_on_postgresql(place):
    assert place in killed_at(*ON_POSTGRESQL) | ON_SQLITE_ALONE


@pytest.mark.parametrize("prefix", sorted(VARYING))
def test_some_test_kills_at_one_of_them(prefix):
    assert any(word.startswith(f"{prefix} ") for word in killed_at())


@pytest.mark.parametrize("event", sorted(MEANINGS))
def test_some_test_kills_in_the_transaction_of_each_record(event):
    assert f"{EVENTS} {event}" in killed_at()
