"""The units under a real systemd: the first process of a guest kernel, with cgroups of its own.

By `make systemd`: services in a guest kernel start too slowly for `make test`.
"""

import grp
import json
import os
import secrets
import signal
import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from carnet.ipsec.block.closed import Closed
from carnet.ipsec.helper.client import HelperDriver, HelperFilter, HelperInside
from carnet.ipsec.spec import Mode
from carnet.ipsec.strongswan import StrongSwan
from carnet.objectives import Objective
from lab.network import CLIENT_ADDRESS, ROUTED
from lab.template import Template, in_use
from lab.world import World
from tests.guest.addresses import BY_VERSION
from tests.guest.bridge import prepared
from tests.guest.gateways import ends_of, other_end
from tests.guest.offices import OpenOffice
from tests.guest.opening import LOADED, PACKED, prepare_office
from tests.guest.traffic import fetch
from tests.guest.units import (
    WATCHDOG_SECONDS,
    Unit,
    install_carnet,
    journal,
    run,
    start_strongswan,
    take_over,
)
from tests.lab.offices import FILE, FILE_SERVER

SYSTEMD = True
PIN = Path("/etc/carnet/hsm.pin")
HELPER_SOCKET = Path("/run/carnet-helper/socket")
SHORT_WATCHDOG = f"WatchdogSec={WATCHDOG_SECONDS}\n"
RUNNING = ("active", "running")
FOR_IPTABLES = """CapabilityBoundingSet=CAP_NET_RAW
RestrictAddressFamilies=AF_INET AF_INET6
Environment=XTABLES_LOCKFILE=/run/carnet-helper/xtables.lock
"""
"""What the helper needs besides, where a kernel's nftables know no IP, as the guest's do not."""


def prepare_outside(directory, _):
    prepare_office(directory, pairs=3)


class UnitOffice(OpenOffice):
    """Its Host and its Target are services of systemd; its traveller has a daemon of the lab's."""

    def start(self):
        install_carnet()
        world = self.world
        host, target = (
            take_over(machine, f"carnet-{name}")
            for machine, name in ((world.host, "host"), (world.target, "target"))
        )
        self.host_agent = Unit("carnet-host", world.host, host)
        self.target_agent = Unit("carnet-target", world.target, target, SHORT_WATCHDOG)
        run("systemd-sysusers")
        for unit in (self.host_agent, self.target_agent):
            unit.own(unit.config.parent, Path("/var/lib") / unit.name)
        PIN.parent.mkdir()
        PIN.touch(mode=0o600)
        PIN.write_text(self.secrets.hsm_pin)
        self.client_charon.start()
        start_strongswan(world.target)
        for unit in (self.host_agent, self.target_agent):
            unit.do("start")

    def tunnels(self):
        return json.loads(self.target_agent.as_operator("tunnels", "list", "--json"))


@pytest.fixture(scope="module")
def office(lane):
    with World(ROUTED) as world, Template(LOADED) as template, in_use(template):
        made = UnitOffice(world, lane)
        made.unpack(prepared(__file__) / PACKED)
        server = world.server
        (server.directory / "plan.txt").write_bytes(FILE)
        server.start(["python", str(FILE_SERVER), "::", "80", str(server.directory)])
        server.wait_for_port(80)
        made.start()
        yield made


@pytest.fixture
def host(office):
    return office.host_agent


@pytest.fixture
def target(office):
    return office.target_agent


def test_systemd_is_the_first_process():
    assert Path("/proc/1/comm").read_text() == "systemd\n"


def test_both_are_up_once_they_have_said_that_they_are_ready(host, target):
    for unit in (host, target):
        assert unit.says("ActiveState", "SubState", "Result") == [*RUNNING, "success"]
        assert '"event": "ready"' in journal(unit.name)


def test_they_are_confined_as_the_units_say(host, target):
    for unit, capabilities in ((host, 0), (target, 1 << 12)):
        status = Path(f"/proc/{unit.pid}/status").read_text()
        held = dict(line.split(":\t", 1) for line in status.splitlines())
        assert int(held["CapBnd"], 16) == capabilities
        assert (held["NoNewPrivs"], held["Seccomp"]) == ("1", "2")
        assert held["Uid"].split()[0] != "0"
        home = Path(f"/proc/{unit.pid}/root/root")
        assert not os.access(home, os.F_OK) or not list(home.iterdir())


def test_a_tunnel_comes_up_through_both(office, host, target):
    """So the Host reaches its token and its database, and Target the IKE daemon's socket."""
    network = BY_VERSION[4].network
    done = office.carnet("connect", "--json", "--objective", "esp", "--network", network)
    assert done.returncode == 0, (done.stderr, journal("carnet-host"), journal("carnet-target"))
    assert fetch(office.world.client, BY_VERSION[4].server)
    host.wait_for_line('"event": "key-destroyed"')
    target.wait_for_line('"event": "established"')


@pytest.mark.parametrize("name", ["host_agent", "target_agent"])
def test_a_reload_keeps_the_process(office, name):
    unit = getattr(office, name)
    before = unit.pid
    unit.do("reload")
    unit.wait_for_line('"event": "reloaded"')
    unit.wait_for(RUNNING, "to run again", "ActiveState", "SubState")
    assert unit.pid == before


def test_target_that_is_killed_comes_back_and_knows_its_tunnel(office, target):
    (before,) = office.tunnels()
    target.do("kill", "--signal=KILL")
    target.wait_for(["1", *RUNNING], "to be back", "NRestarts", "ActiveState", "SubState")
    (after,) = office.tunnels()
    assert (after["request_id"], after["state"]) == (before["request_id"], "established")
    assert fetch(office.world.client, BY_VERSION[4].server)


def test_target_that_hangs_is_started_anew(office, target):
    """Stopped where it is, it says no more that it is well."""
    os.kill(target.pid, signal.SIGSTOP)
    target.wait_for(["2", *RUNNING], "to be back", "NRestarts", "ActiveState", "SubState")
    assert "Watchdog timeout" in journal("carnet-target")
    assert fetch(office.world.client, BY_VERSION[4].server)


def test_a_host_whose_pin_is_refused_is_not_started_again(office, host):
    host.do("stop")
    PIN.write_text("no such PIN")
    run("systemctl", "start", "carnet-host", check=False)
    host.wait_for(
        ["failed", "exit-code", "4"], "to fail", "ActiveState", "Result", "ExecMainStatus"
    )
    assert host.says("NRestarts") == ["0"]
    PIN.write_text(office.secrets.hsm_pin)
    host.do("start")
    assert host.says("ActiveState", "SubState") == list(RUNNING)


def call_helper(what):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(str(HELPER_SOCKET))
        connection.sendall(json.dumps({"call": what}).encode())
        return json.loads(connection.recv(1 << 17))


@pytest.fixture(scope="module")
def helper(office):
    """Beside strongSwan, which is Target's here."""
    config = Path("/etc/carnet/helper.toml")
    config.write_text("tunnels_per_user = 2\nname_servers = true\n")
    made = Unit("carnet-helper", office.world.target, config, FOR_IPTABLES)
    run("systemd-sysusers")
    run("systemctl", "daemon-reload")
    made.do("start")
    return made


def to_the_traveller():
    """A tunnel the other way round, which leads to the machine of the traveller."""
    session = secrets.token_hex(16)
    return replace(
        ends_of(Objective.ESP, Mode.TUNNEL).client,
        name=f"carnet-{session}",
        remote_addresses=(CLIENT_ADDRESS,),
        local_identity=f"c-{session}.carnet",
        remote_identity=f"t-{session}.carnet",
        ppk_id=f"p-{session}.carnet",
        remote_networks=("10.30.0.0/16",),
        virtual_address="10.98.0.7",
    )


def test_a_tunnel_comes_up_through_the_helper_as_its_unit_confines_it(office, helper):
    """With a block, an MTU, and no mount: that the unit does not allow."""
    spec, machine = to_the_traveller(), office.world.target
    peer = StrongSwan(office.client_charon.vici)
    peer.install(other_end(spec))
    driver, closing, inside = (
        way(HELPER_SOCKET) for way in (HelperDriver, HelperFilter, HelperInside)
    )
    facts = {"networks": spec.remote_networks, "targets": spec.remote_addresses, "hosts": ()}
    closing.close(Closed(name=spec.name, **facts, userspace=False))
    driver.install(spec)
    assert driver.up(spec).ppk
    inside.fit(spec.name, spec.virtual_address, 1300, spec.remote_addresses, spec.remote_networks)
    assert "mtu 1300" in machine.run(["ip", "route", "show", "table", "220"]).stdout
    assert "mount" in inside.use_servers(spec.name, ["10.30.0.1"])
    assert (driver.installed(), closing.names()) == ({spec.name}, {spec.name})
    helper.do("stop")
    helper.do("start")  # whose the tunnel is, is known as ever
    assert (driver.installed(), closing.names()) == ({spec.name}, {spec.name})
    driver.down(spec.name)
    closing.lift(spec.name)
    assert (driver.installed(), closing.names()) == (frozenset(), frozenset())
    assert "10.98.0.7" not in machine.run(["sh", "-c", "ip address; ip xfrm policy"]).stdout
    with office.world.client.network():
        peer.down(spec.name)


def test_the_helper_reaches_the_ike_daemon_and_comes_back_when_it_is_killed(helper):
    made = HELPER_SOCKET.stat()
    assert stat.S_IMODE(made.st_mode) == 0o660
    assert made.st_gid == grp.getgrnam("carnet").gr_gid
    nothing = {"result": [], "error": None, "sentence": ""}
    assert call_helper("status") == nothing
    assert helper.says("WatchdogUSec") != ["0"]
    helper.do("kill", "--signal=KILL")
    helper.wait_for(["1", *RUNNING], "to be back", "NRestarts", "ActiveState", "SubState")
    assert call_helper("status") == nothing
