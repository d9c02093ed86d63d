"""The directory in memory: the same one whether its user has logged in meanwhile or not."""

import os

import pytest

from token_client import memory
from token_client.memory import RECORD, memory_directory


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Two parents that could hold it; which are there is the test's."""
    parents = [tmp_path / "login", tmp_path / "always"]
    monkeypatch.setattr(memory, "_candidates", lambda: ((parent, "carnet") for parent in parents))
    monkeypatch.setattr(memory, "_is_memory", lambda _: True)
    parents[1].mkdir()
    return parents


def test_a_record_from_before_the_login_is_found_after_it(places):
    login, always = places
    before = memory_directory()
    (before / f"{RECORD}carnet-1.json").touch()
    login.mkdir()
    (login / "carnet").mkdir(mode=0o700)
    (login / "carnet" / "left-1").touch()
    assert memory_directory() == before == always / "carnet"


def test_where_there_is_no_record_the_first_is_taken(places):
    login, always = places
    login.mkdir()
    assert memory_directory() == login / "carnet"
    assert not (always / "carnet").exists()


def test_a_directory_of_somebody_else_is_passed_over(places):
    login, always = places
    login.mkdir()
    (login / "carnet").mkdir(mode=0o755)
    (login / "carnet" / f"{RECORD}x.json").touch()
    assert memory_directory() == always / "carnet"


@pytest.mark.parametrize(("uid", "first"), [(0, "/run/carnet-client"), (1000, "/login/carnet")])
def test_root_s_outlasts_her_logins_and_nobody_else_can_have_such(monkeypatch, uid, first):
    monkeypatch.setattr(os, "getuid", lambda: uid)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/login")
    parent, name = next(memory._candidates())
    assert str(parent / name) == first
