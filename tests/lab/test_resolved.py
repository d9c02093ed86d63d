"""The tunnel's name servers where systemd-resolved looks names up: it is told, and told back."""

import sys
from pathlib import Path

import pytest

from lab import name_server
from lab.network import HOST_ADDRESS, SERVER_ADDRESS
from lab.resolved import Resolved
from lab.waiting import wait_until
from tests.lab.offices import is_one_sentence, office_at_work
from tests.lab.test_plugging import agents, watching

NAME = "plan.work.example"
ANSWER = "10.20.0.77"
TOLD = "resolvectl dns eth0 192.0.2.53 192.0.2.54; resolvectl domain eth0 lan.example ~lan"
"""What a network manager tells it of the interface."""

AS_THE_HELPER = ("setpriv", "--inh-caps=-all", "--bounding-set=-all,+net_admin", "--no-new-privs")
"""With the one capability of its unit."""
ANOTHER_WAY = f"""
ip link add other0 type veth peer name other1
ip link set other0 up
ip route add {HOST_ADDRESS} dev other0
"""
ALONE = """
import sys
from pathlib import Path
from carnet.ipsec.inside import Here
here = Here(Path(sys.argv[1]))
print(here.use_servers("carnet-x", [sys.argv[2]]), here.whose_servers())
input()
here.follow_servers("carnet-x")
print("followed")
input()
print(here.restore_servers("carnet-x"), here.whose_servers())
"""


@pytest.fixture(scope="module")
def office(lane):
    named = {"dns = []": f'dns = ["{SERVER_ADDRESS}"]'}
    with office_at_work(lane, pairs=4, watched=False, at_target=named) as made:
        server = [sys.executable, name_server.__file__, SERVER_ADDRESS, ANSWER]
        made.world.server.start(server, log="dns.log").wait_for_line("listening")
        made.resolved = Resolved(made.world.client)
        made.resolved.start()
        made.world.client.run(["sh", "-ec", TOLD])
        yield made


@pytest.fixture(autouse=True)
def as_before(office):
    before = office.resolved.links()
    assert "lan.example" in str(before)
    yield
    assert office.carnet("disconnect", "--release").returncode == 0
    assert office.resolved.links() == before
    assert office.resolved.address_of(NAME) is None


def test_names_are_looked_up_through_the_tunnel_until_it_is_ended(office):
    """Also where an agent follows the way, which is another as soon as the tunnel is gone."""
    before = office.resolved.links()
    done = office.carnet("connect", extra=office.configure_client(""))
    assert (done.returncode, "name servers" in done.stderr + done.stdout) == (0, False)
    assert office.resolved.address_of(NAME) == ANSWER
    watching(office)
    assert office.carnet("disconnect").returncode == 0
    wait_until(lambda: agents(office) == [], "the end of the agent")
    assert office.resolved.links() == before
    assert office.resolved.address_of(NAME) is None


def test_after_a_crash_they_are_found_and_put_back(office):
    dying = office.start_connect(extra={"CARNET_CRASH_AT": "client.burned"})
    dying.wait(60)
    assert office.resolved.address_of(NAME) == ANSWER


def test_what_systemd_resolved_is_not_there_to_be_told_it_is_told_later(office):
    """It has what it had of each interface when it is started anew."""
    before = office.resolved.links()
    office.start_connect(extra={"CARNET_CRASH_AT": "client.burned"}).wait(60)
    used = office.resolved.links()
    office.resolved.kill()
    refused = office.carnet("disconnect")
    released = office.carnet("disconnect", "--release")
    office.resolved.start_again()
    assert (refused.returncode, is_one_sentence(refused)) == (5, True)
    assert "systemd-resolved does not answer" in refused.stderr
    assert "stays until `carnet disconnect` ends it, or the agent" in refused.stderr
    assert released.returncode == 0
    assert "systemd-resolved does not answer); `carnet disconnect` does it" in released.stderr
    assert office.resolved.links() == used != before
    assert office.carnet("disconnect").returncode == 0
    assert office.resolved.links() == before


def test_after_root_has_logged_out_they_are_found_and_put_back(office):
    """Whose directory for the time of her login goes with the last one."""
    login = "/run/user/0"
    done = office.carnet("connect", extra={"XDG_RUNTIME_DIR": login})
    assert (done.returncode, office.resolved.address_of(NAME)) == (0, ANSWER)
    office.world.client.run(["rm", "-r", login])
    assert office.carnet("disconnect").returncode == 0
    assert office.resolved.address_of(NAME) is None


def test_they_follow_the_way_and_what_each_interface_had_is_put_back(office):
    """Where the tunnel has no interface of its own: in the kernel."""
    client = office.world.client
    directory = Path("/run/alone")
    client.run(["mkdir", "-m", "700", str(directory)])
    before = office.resolved.links()
    argv = [*AS_THE_HELPER, "python", "-c", ALONE, str(directory), HOST_ADDRESS]
    alone = client.start(argv, log="alone.log", stdin=-1)
    alone.wait_for_line("None carnet-x")
    assert on(office, "eth0") == [HOST_ADDRESS, "~."]
    client.run(["sh", "-ec", ANOTHER_WAY])
    alone.stdin.write(b"\n")
    alone.stdin.flush()
    alone.wait_for_line("followed")
    assert on(office, "other0") == [HOST_ADDRESS, "~."]
    assert [line for line in office.resolved.links() if "other0" not in line] == before
    alone.stdin.write(b"\n")
    alone.stdin.close()
    alone.wait_for_line("True None")
    alone.wait()
    assert on(office, "other0") == []
    client.run(["ip", "link", "delete", "other0"])


KEPT = ("/run/carnet-client", "/run/carnet-helper")
"""Where root's commands and carnet-helper keep what each has set."""
AT_ONE = """
import sys
from pathlib import Path
from carnet.ipsec.inside import Here
what, directory, name, *servers = sys.argv[1:]
Path(directory).mkdir(mode=0o700, exist_ok=True)
here = Here(Path(directory))
print(here.use_servers(name, servers) if what == "use" else here.restore_servers(name))
print(here.whose_servers())
"""
OF_ROOT, OF_USER = "carnet-root", "carnet-user"


def at(office, *argv):
    """Use name servers or restore them, from one of those places; return what came of it."""
    done = office.world.client.run([*AS_THE_HELPER, "python", "-c", AT_ONE, *argv])
    return done.stdout.splitlines()


@pytest.mark.parametrize(("one", "other"), [KEPT, KEPT[::-1]])
def test_root_s_and_a_user_s_are_not_used_at_once(office, one, other):
    assert at(office, "use", one, OF_ROOT, HOST_ADDRESS) == ["None", OF_ROOT]
    used = office.resolved.links()
    refused, whose = at(office, "use", other, OF_USER, SERVER_ADDRESS)
    assert ("end that first" in refused, whose) == (True, OF_ROOT)
    assert at(office, "restore", other, OF_USER) == ["False", OF_ROOT]
    assert office.resolved.links() == used
    assert at(office, "restore", one, OF_ROOT) == ["True", "None"]
    assert at(office, "use", other, OF_USER, HOST_ADDRESS) == ["None", OF_USER]
    # As root does who ends a user's tunnel.
    assert at(office, "restore", one, OF_USER) == ["True", "None"]


ANOTHER_NETWORK = "resolvectl dns eth0 198.18.0.1; resolvectl domain eth0 cafe.example"


@pytest.mark.parametrize(
    ("told", "left"),
    [
        (ANOTHER_NETWORK, ["198.18.0.1", "cafe.example"]),
        (ANOTHER_NETWORK.partition(";")[0], ["198.18.0.1"]),
        ("resolvectl dns eth0 192.0.2.53 192.0.2.54", None),
    ],
)
def test_what_another_network_has_told_stays(office, told, left):
    client, before = office.world.client, on(office, "eth0")
    assert at(office, "use", KEPT[1], OF_USER, HOST_ADDRESS) == ["None", OF_USER]
    client.run(["sh", "-ec", told])
    assert at(office, "restore", KEPT[1], OF_USER) == ["True", "None"]
    assert on(office, "eth0") == (before if left is None else left)
    client.run(["sh", "-ec", TOLD])


def on(office, interface):
    """Return what that interface has: its servers, and its domains."""
    mark = f"({interface}): "
    return [line.split(mark)[1] for line in office.resolved.links() if mark in line]
