"""The tunnel's name servers: used while the session lives, and no trace of them after it."""

import json

import pytest

from lab.network import HOST_ADDRESS, SERVER_ADDRESS
from lab.waiting import wait_until
from tests.lab.offices import is_one_sentence, office_at_work

RESOLV_CONF = "/etc/resolv.conf"


@pytest.fixture(scope="module")
def office(lane):
    named = {"dns = []": f'dns = ["{SERVER_ADDRESS}"]'}
    with office_at_work(lane, pairs=12, watched=False, at_target=named) as made:
        yield made


@pytest.fixture(autouse=True)
def as_before(office):
    """Every test leaves the very bytes, and the very mounts, that were there before."""
    before = resolv_conf(office), mounts(office)
    yield
    assert office.carnet("disconnect", "--release").returncode == 0
    assert (resolv_conf(office), mounts(office)) == before


def resolv_conf(office):
    return office.world.client.run(["cat", RESOLV_CONF]).stdout


def mounts(office):
    return office.world.client.run(["cat", "/proc/self/mounts"]).stdout


def uses_the_tunnel_s(office):
    return resolv_conf(office).splitlines()[1:] == [f"nameserver {SERVER_ADDRESS}"]


def connect(office, text=""):
    extra = office.configure_client("agent = false\n" + text)
    assert office.carnet("connect", extra=extra).returncode == 0


THE_MACHINE_S = """
from carnet.ipsec.surroundings import look_around
print(sorted(map(str, look_around(4).name_servers)))
"""


def the_machine_s(office):
    """Return what no tunnel may lead to: the name servers that the machine has of its own."""
    return office.world.client.run(["python", "-c", THE_MACHINE_S]).stdout


def test_names_are_looked_up_at_the_tunnel_s_servers_until_it_is_ended(office):
    before, own = resolv_conf(office), the_machine_s(office)
    connect(office)
    assert uses_the_tunnel_s(office)
    assert the_machine_s(office) == own
    assert office.carnet("disconnect").returncode == 0
    assert resolv_conf(office) == before


BY_NAME = 'hosts = ["http://host.example:8470"]\n'
NAMED = f"echo {HOST_ADDRESS} host.example >/run/hosts; mount --bind /run/hosts /etc/hosts"


def test_a_second_tunnel_takes_the_place_of_the_first(office):
    """The Host's name leads nowhere by then: it is asked at the address that it had."""
    office.world.client.run(["sh", "-ec", NAMED])
    try:
        connect(office, BY_NAME)
    finally:
        office.world.client.run(["sh", "-ec", "umount /etc/hosts; rm /run/hosts"])
    first = resolv_conf(office)
    connect(office, BY_NAME)
    assert uses_the_tunnel_s(office)
    assert resolv_conf(office) != first


ENDED_MEANWHILE = """
import threading
from carnet.ipsec import inside
from token_client import name_servers
from token_client.memory import memory_directory
from token_client.sessions import SessionStore
store, here = SessionStore(memory_directory()), inside.Here(memory_directory())
inside.use(here)
(session,) = store.all()
for why in ("its record says why", None):
    with store.leaving(session.name):
        here.restore_servers(session.name)
        again = threading.Thread(target=name_servers.use_again, args=(session,))
        again.start()
        store.drop(session.name, why)
    again.join()
    print(here.whose_servers())
"""


def test_what_is_ended_as_it_stands_again_leaves_no_name_servers(office):
    connect(office)
    assert office.world.client.run(["python", "-c", ENDED_MEANWHILE]).stdout == "None\n" * 2


OF_TWO = """
from msgspec.structs import replace
from carnet.ipsec import inside
from token_client.closing import release
from token_client.memory import memory_directory
from token_client.sessions import SessionStore
store = SessionStore(memory_directory())
here = inside.Here(memory_directory())
inside.use(here)
(older,) = store.all()
newer = replace(older, name="carnet-newer", established_at=older.established_at + 1)
for restored in (False, True):
    store.keep(newer)
    assert here.use_servers(newer.name, ["192.0.2.53"]) is None
    print(here.whose_servers(), older.name)
    if restored:
        assert here.restore_servers(newer.name)
    release(store, newer.name)
    print(here.whose_servers(), older.name)
"""
"""A second tunnel, to another Target, as far as name servers go: it comes, and ends.

With carnet-helper its servers have gone with it.
"""


def test_where_the_newer_of_two_tunnels_ends_the_older_s_servers_are_used_again(office):
    connect(office)
    said = office.world.client.run(["python", "-c", OF_TWO]).stdout.splitlines()
    names = [line.split() for line in said]
    assert [used for used, _ in names[::2]] == ["carnet-newer"] * 2
    assert all(used == older != "carnet-newer" for used, older in names[1::2])
    assert uses_the_tunnel_s(office)


def test_after_a_crash_they_are_found_and_restored(office):
    dying = office.start_connect(extra={"CARNET_CRASH_AT": "client.burned"})
    dying.wait(60)
    assert uses_the_tunnel_s(office)
    office.client_charon.kill()
    try:
        assert office.carnet("disconnect", "--release").returncode == 0
        assert not uses_the_tunnel_s(office)
    finally:
        office.client_charon.start()


def test_a_new_connection_does_not_ask_the_servers_of_a_tunnel_that_is_down(office):
    connect(office)
    office.client_charon.kill()
    office.client_charon.start()
    office.host_agent.stop()
    done = office.carnet("connect", extra=office.configure_client("patience = 1\nagent = false\n"))
    office.host_agent = office.serve_host()
    assert done.returncode == 6
    assert not uses_the_tunnel_s(office)


TAKE_AWAY = """
from carnet.ipsec import inside
from token_client.memory import memory_directory
here = inside.Here(memory_directory())
assert here.restore_servers(here.whose_servers())
"""
"""As a new connection does while the tunnel is lost."""


@pytest.mark.parametrize("command", ["resume", "agent"])
def test_what_stands_again_has_its_name_servers_again(office, command):
    connect(office)
    office.world.client.run(["python", "-c", TAKE_AWAY])
    assert not uses_the_tunnel_s(office)
    extra = office.configure_client("agent = false\n")
    process = office.world.client.start(["carnet", command], log=f"{command}.log", extra=extra)
    wait_until(lambda: uses_the_tunnel_s(office), "the tunnel's name servers")
    assert office.carnet("disconnect").returncode == 0
    process.wait()


def test_where_they_are_not_wanted_nothing_is_changed(office):
    before = resolv_conf(office), mounts(office)
    connect(office, "dns = false\n")
    assert (resolv_conf(office), mounts(office)) == before


@pytest.fixture
def resolve(office):
    """strongSwan as Debian has it: whatever name server Target assigns in IKE is used."""
    office.client_charon.kill()
    office.client_charon.more = "resolve"
    office.client_charon.start()
    yield "load = no` in /etc/strongswan.d/charon/resolve.conf"
    office.client_charon.kill()
    office.client_charon.more = ""
    office.client_charon.start()


def test_where_they_are_not_wanted_nor_is_a_daemon_that_uses_any(office, resolve):
    unwanted, pairs = office.configure_client("agent = false\ndns = false\n"), office.valid_pairs()
    refused = office.carnet("connect", extra=unwanted)
    assert (refused.returncode, is_one_sentence(refused)) == (5, True)
    assert resolve in refused.stderr
    assert f"carnet: {looked_at(office, unwanted)[1]}" in refused.stderr
    assert (looked_at(office, unwanted)[0], office.valid_pairs()) == (5, pairs)
    wanted = office.configure_client("agent = false\n")
    done, (status, sentence) = office.carnet("connect", extra=wanted), looked_at(office, wanted)
    assert (done.returncode, status) == (0, 0)
    assert resolve in sentence
    assert sentence in done.stderr
    assert office.carnet("disconnect").returncode == 0


def looked_at(office, extra):
    """Return what a command would end with for IPsec, and what is said of it."""
    found = json.loads(office.carnet("doctor", "--json", extra=extra).stdout)
    (ipsec,) = (each for each in found if each["part"] == "IPsec")
    return ipsec["exit_status"], ipsec["sentence"]
