"""The systemd units, as `install-units` writes them: judged by systemd itself."""

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from carnet.errors import UsageError
from carnet.units import render
from helper_agent.cli import cli as helper
from helper_agent.server import CALLS, CONNECTIONS_PER_USER
from host_agent.cli import cli as host
from target_agent.cli import cli as target

COMMANDS = {"carnet-host": host, "carnet-target": target, "carnet-helper": helper}
ACCOUNTS = {"carnet-helper": ("g", "carnet", "Group")}
THRESHOLD = 2.0


@pytest.fixture(params=COMMANDS)
def unit(request, tmp_path):
    """Where an agent's unit was written."""
    done = CliRunner().invoke(
        COMMANDS[request.param], ["install-units", "--root", str(tmp_path)],
        catch_exceptions=False,
    )  # fmt: skip
    assert f"systemctl enable --now {request.param}" in done.stdout
    return tmp_path / "etc" / "systemd" / "system" / f"{request.param}.service"


def analyze(*arguments):
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False
    )


def test_systemd_finds_little_that_is_exposed(unit):
    done = analyze("security", "--offline=true", "--threshold=19", "--no-pager", str(unit))
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert exposure, done.stderr
    assert float(exposure.group(1)) < THRESHOLD
    assert done.returncode == 0


def test_who_asks_the_kernel_what_it_carries_may_have_the_namespaces_for_it(unit):
    allowed = [line for line in unit.read_text().splitlines() if "RestrictNamespaces" in line][-1]
    probes = unit.stem != "carnet-host"
    assert (allowed == "RestrictNamespaces=user net") is probes


def test_a_root_with_the_helper_s_capability_and_calls_may_try_in_namespaces():
    """By capset(2), which the other units' filters refuse: so it is known that they bite."""
    probe = ["unshare", "--user", "--keep-caps", "--net", "ip", "link", "set", "lo", "up"]
    done = {
        agent: subprocess.run(
            [sys.executable, "-m", "tests.confined", agent, *probe],
            capture_output=True, text=True, check=False,
        )
        for agent in ("carnet-helper", "carnet-target")
    }  # fmt: skip
    assert (done["carnet-helper"].returncode, done["carnet-helper"].stderr) == (0, "")
    assert "capset failed: Operation not permitted" in done["carnet-target"].stderr


def test_systemd_finds_nothing_wrong(unit):
    done = analyze("verify", "--man=no", "--recursive-errors=no", str(unit))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_user_is_made_that_the_unit_names(unit):
    agent = unit.stem
    (line,) = (unit.parents[1].parent / "sysusers.d" / f"{agent}.conf").read_text().splitlines()
    kind, name, setting = ACCOUNTS.get(agent, ("u", agent, "User"))
    assert line.split()[:2] == [kind, name]
    assert f"{setting}={name}\n" in unit.read_text()


@pytest.mark.parametrize("path", ["/opt/my carnet/x", "/opt/%h", "/opt/x\nUser=root", "relative"])
def test_a_path_that_systemd_could_misread_is_refused(path):
    with pytest.raises(UsageError, match="misread"):
        render("carnet-host", Path(path), Path("/etc/carnet/host.toml"))


def test_the_helper_takes_no_more_of_the_machine_than_its_users_calls_need():
    """A thread each, one that waits for the caller to go, and what is run for it.

    That all calls have their places leaves room for what one user ends.
    """
    text = render("carnet-helper", Path("/usr/bin/carnet-helper"), Path("/etc/carnet/helper.toml"))
    (tasks,) = re.findall(r"^TasksMax=(\d+)$", text, re.MULTILINE)
    assert 3 * (CALLS + CONNECTIONS_PER_USER) < int(tasks) < 10 * CALLS
    assert re.search(r"^MemoryMax=\d+[MG]$", text, re.MULTILINE)


def test_no_refused_pin_is_tried_again():
    """Whose exit status is 4, as of all that is wrong with a token."""
    text = render("carnet-host", Path("/usr/bin/carnet-host"), Path("/etc/carnet/host.toml"))
    assert "RestartPreventExitStatus=2 4\n" in text


@pytest.mark.parametrize(
    ("driver", "daemon"), [("libreswan", "ipsec"), ("strongswan", "strongswan")]
)
def test_target_starts_the_ike_daemon_that_it_drives_and_no_other(tmp_path, driver, daemon):
    config = tmp_path / "target.toml"
    run = partial(CliRunner().invoke, target, catch_exceptions=False)
    run(["--config", str(config), "init"])
    text = config.read_text()
    config.write_text(
        text.replace('# driver = "strongswan" or "libreswan"', f'driver = "{driver}"')
    )
    run(["--config", str(config), "install-units", "--root", str(tmp_path)])
    units = tmp_path / "etc" / "systemd" / "system"
    texts = [each.read_text() for each in units.rglob("*") if each.is_file()]
    wanted = [line for each in texts for line in each.splitlines() if line.startswith("Wants=")]
    assert set(wanted) == {f"Wants={daemon}.service", "Wants=network-online.target"}
    verified = analyze(
        "verify", "--man=no", "--recursive-errors=no", str(units / "carnet-target.service")
    )
    assert (verified.returncode, verified.stderr) == (0, "")
