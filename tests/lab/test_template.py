"""A command that forks from a template does what the same command does by itself."""

import os
import select

import pytest

from lab.errors import LabError
from lab.template import Template
from token_client.config import PATH_VARIABLE


@pytest.fixture(scope="module")
def template():
    with Template("carnet") as made:
        yield made


def outcome(done):
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("argv", [["--version"], ["frobnicate"], ["tokens"], ["status"]], ids=str)
def test_it_says_and_returns_the_same(world, template, argv):
    by_itself = world.client.run(["carnet", *argv], check=False)
    assert outcome(template.run(world.client, ["carnet", *argv])) == outcome(by_itself)


def test_it_runs_on_the_machine_with_its_environment_and_nothing_of_ours(
    world, template, monkeypatch
):
    path = world.client.directory / "no-such.toml"
    extra = {PATH_VARIABLE: str(path)}
    named = template.run(world.client, ["carnet", "status"], extra=extra)
    assert str(path) in named.stderr
    monkeypatch.setenv(PATH_VARIABLE, "/ours.toml")
    assert "/ours.toml" not in template.run(world.client, ["carnet", "status"]).stderr
    (world.host.directory / "only-here.toml").write_text("frobnicate = 1\n")
    elsewhere = {PATH_VARIABLE: str(world.host.directory / "only-here.toml")}
    hidden = template.run(world.client, ["carnet", "status"], extra=elsewhere)
    seen = template.run(world.host, ["carnet", "status"], extra=elsewhere)
    assert "frobnicate" in seen.stderr
    assert "frobnicate" not in hidden.stderr


def test_what_takes_too_long_is_a_failure(world, template):
    with pytest.raises(LabError, match="took over"):
        template.run(world.client, ["carnet", "connect", "--wait"], seconds=0.2)


def test_its_end_leaves_nothing(world):
    with Template("carnet") as made:
        made.run(world.client, ["carnet", "--version"])
        handle, directory = os.pidfd_open(made.pid), made.directory
        assert directory.exists()
    assert select.select([handle], [], [], 10)[0]
    os.close(handle)
    assert not directory.exists()
