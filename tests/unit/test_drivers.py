"""Which driver is chosen, and what a dry run shows of each, with no daemon here."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec import structs

from carnet.errors import IPsecError, UsageError
from carnet.ipsec.driver import Capabilities
from carnet.ipsec.drivers import (
    IMPLEMENTATIONS,
    Choice,
    DriverName,
    find_driver,
    look_around,
    meant_unit,
    open_driver,
    settled_driver,
)
from carnet.ipsec.example import example_spec
from carnet.ipsec.spec import Mode
from carnet.objectives import TABLE_2, Objective, SecurityObjective
from token_client.cli import cli
from token_client.config import PATH_VARIABLE
from token_client.options import describe, facts
from token_client.preflight import check_means

NOWHERE = dict.fromkeys(DriverName, Path("/nowhere/socket"))


@pytest.fixture
def answering(monkeypatch):
    """The names of those whose daemons answer; the real ones are asked in tests/guest."""
    names = set()
    for name in DriverName:
        driver = type(open_driver(name))
        monkeypatch.setattr(driver, "answers", lambda self: self.name in names)
    return names


@pytest.mark.parametrize("name", DriverName)
def test_the_one_that_answers_is_chosen(answering, name):
    answering.add(name)
    assert find_driver(Choice()).name == name


def test_the_order_is_that_of_the_table(answering):
    answering.update(DriverName)
    assert find_driver(Choice()).name == next(iter(IMPLEMENTATIONS))


def test_where_none_answers_it_is_the_first_that_is_installed(answering, installed):
    last = list(IMPLEMENTATIONS)[-1]
    installed(last)
    assert find_driver(Choice()).name == last


@pytest.mark.parametrize("name", DriverName)
def test_the_named_one_is_chosen_even_where_another_answers(answering, name):
    answering.update(set(DriverName) - {name})
    assert find_driver(Choice(name)).name == name


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Have those be installed, and no other."""

    def have(*names):
        for name, row in IMPLEMENTATIONS.items():
            programs = (str(tmp_path if name in names else "/nowhere"),)
            monkeypatch.setitem(IMPLEMENTATIONS, name, structs.replace(row, programs=programs))

    return have


SEVERAL = (DriverName.STRONGSWAN, DriverName.LIBRESWAN)


def test_a_service_has_no_driver_of_which_it_cannot_be_told_that_it_is_meant(answering, installed):
    """It has it for good; with the wrong one it would end no tunnel."""
    installed(*SEVERAL)
    for names in ((), SEVERAL):
        answering.update(names)
        # Whose exit status a unit does not try again.
        with pytest.raises(UsageError, match="strongswan and libreswan"):
            settled_driver(Choice())
        assert settled_driver(Choice(DriverName.LIBRESWAN)).name == DriverName.LIBRESWAN


@pytest.mark.parametrize("name", SEVERAL)
def test_a_service_has_the_one_that_is_there_or_else_the_one_that_is_installed(
    answering, installed, name
):
    installed(name)
    assert settled_driver(Choice()).name == name
    installed(*SEVERAL)
    answering.add(name)
    assert settled_driver(Choice()).name == name


def test_systemd_starts_the_daemon_that_a_service_is_to_drive(installed):
    installed()
    assert meant_unit(Choice()) == "strongswan"
    installed(DriverName.LIBRESWAN)
    assert meant_unit(Choice()) == "ipsec"
    installed(*SEVERAL)
    assert meant_unit(Choice()) is None
    assert meant_unit(Choice(DriverName.LIBRESWAN)) == "ipsec"
    with pytest.raises(UsageError, match="to strongswan or libreswan"):
        meant_unit(Choice(DriverName.RACOON))


def test_one_that_is_silent_is_not_absent(monkeypatch, tmp_path):
    def run(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    sockets = dict.fromkeys(DriverName, tmp_path / "socket")
    assert find_driver(Choice(None, sockets)).name == DriverName.LIBRESWAN


@pytest.mark.parametrize("name", DriverName)
def test_one_that_is_not_here_says_so_in_one_sentence(name):
    (sighting,) = look_around(Choice(name, NOWHERE))
    assert (sighting.name, sighting.found) == (name, sighting.trouble)
    assert sighting.trouble.endswith((".", "again."))


def test_what_answers_nowhere_is_told_of_each():
    sightings = list(look_around(Choice(None, NOWHERE)))
    shown = facts(sightings)
    assert [each["name"] for each in shown["drivers"]] == list(DriverName)
    assert shown["driver"] is None
    assert shown["trouble"] == sightings[0].trouble
    lines = list(describe(sightings))
    assert [line for line in lines if line.startswith("Not ")] == lines[-len(DriverName) :]


def test_the_tables_say_what_each_security_objective_gives():
    sightings = list(look_around(Choice(None, NOWHERE)))
    assert facts(sightings)["security_objectives"] == TABLE_2
    shown = " ".join("\n".join(describe(sightings)).split())
    for objective in SecurityObjective:
        assert f"{objective} {TABLE_2[objective]}" in shown


@pytest.mark.parametrize("objective", Objective)
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("name", DriverName)
def test_each_renders_without_secrets_or_refuses(name, objective, mode):
    row = IMPLEMENTATIONS[name]
    spec = example_spec(objective, mode, (), ike_version=row.ike_version, ppk=row.ppk)
    spec = replace(spec, psk=b"k" * 32, ppk=b"q" * 32 if row.ppk else None)
    shown = refusal = ""
    try:
        shown = open_driver(name, Choice(name, NOWHERE)).render(spec)
    except IPsecError as error:
        refusal = error.sentence
    assert ("nothing is downgraded" in refusal) is not ("192.0.2.1" in shown)
    for secret in filter(None, (spec.psk, spec.ppk)):
        assert secret.hex() not in shown.lower()
        assert secret.decode() not in shown


@pytest.fixture
def carnet(monkeypatch, tmp_path):
    """The command, on a machine without a token, and without a daemon that answers."""
    config = tmp_path / "client.toml"
    config.write_text('module = "/nowhere/module.so"\nvici = "/nowhere/charon.vici"\n')
    monkeypatch.setenv(PATH_VARIABLE, str(config))
    return lambda *argv: CliRunner().invoke(cli, argv)


def test_a_dry_run_of_a_driver_needs_neither_token_nor_daemon(carnet):
    done = carnet("connect", "--dry-run", "--driver", "strongswan", "--network", "10.20.0.0/16")
    assert done.exit_code == 0, done.output
    assert "10.20.0.0/16" in done.output
    assert "secret = (hidden)" in done.output
    as_json = carnet("connect", "--dry-run", "--driver", "strongswan", "--json", "--transport")
    assert "mode = transport" in json.loads(as_json.output)["rendered"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("strongswan", "ah_proposals = "),
        ("libreswan", "phase2=ah"),
        ("racoon", "ah/transport//require;"),
        ("windows", "-Encapsulation AH "),
    ],
)
def test_a_dry_run_is_had_of_every_driver_with_its_key_masked(carnet, name, shown):
    done = carnet("connect", "--dry-run", "--driver", name, "--objective", "ah", "--transport")
    assert done.exit_code == 0, done.output
    assert shown in done.output
    assert "(hidden)" in done.output


def test_a_driver_that_there_is_not_is_refused_with_those_there_are(carnet):
    done = carnet("connect", "--driver", "freeswan")
    assert isinstance(done.exception, UsageError)
    assert "choose one of strongswan" in str(done.exception)


class OneNetworkAtATime:
    name = "narrow"

    def capabilities(self):
        return Capabilities(
            driver="narrow",
            version="1",
            ike_versions=(2,),
            objectives=tuple(Objective),
            modes=tuple(Mode),
            ppk=True,
            single_network=True,
        )


@pytest.mark.parametrize("networks", [None, ("10.0.0.0/8", "192.0.2.0/24")])
def test_networks_that_make_no_single_one_are_refused_before_a_pair_is_spent(networks):
    with pytest.raises(IPsecError, match="one network only"):
        check_means(OneNetworkAtATime(), Objective.ESP, networks)


def test_networks_of_both_ip_versions_cost_no_pair_and_are_had_without_ipsec():
    both = ("10.0.0.0/8", "2001:db8::/32")
    with pytest.raises(UsageError, match="IPv4 or IPv6 inside, not both"):
        check_means(OneNetworkAtATime(), Objective.ESP, both)
    assert check_means(OneNetworkAtATime(), Objective.NATIVE, both).single_network


@pytest.mark.parametrize("networks", [(), ("10.0.0.0/8",)])
def test_a_single_network_and_target_alone_are_carried(networks):
    assert check_means(OneNetworkAtATime(), Objective.ESP, networks).single_network
