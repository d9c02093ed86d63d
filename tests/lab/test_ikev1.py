"""IKEv1 main mode with a pre-shared key, between real daemons: a client behind NAT, a gateway."""

import json
from dataclasses import replace

import pytest

from carnet.errors import IPsecError
from carnet.ipsec import bundle, inner_address
from carnet.ipsec import strongswan_messages as messages
from carnet.ipsec.driver import Lead
from carnet.ipsec.inside import mtu
from carnet.ipsec.iproute import Way, way_to
from carnet.ipsec.spec import Mode, Role
from carnet.ipsec.strongswan import StrongSwan
from carnet.ipsec.xfrm import Policy
from lab.capture import Capture
from lab.network import CLIENT_ADDRESS, CLIENT_NETWORK, TARGET_ADDRESS
from lab.waiting import wait_until

from .conftest import Ends, started, two_ends
from .test_strongswan import PLAN, fetch, ike_sa, install

IKE = ("aes256-sha256-modp2048",)
ESP = ("aes256-sha256-modp2048",)


def ends_of(**changes) -> Ends:
    ends, suites = two_ends(**changes), {"ike_proposals": IKE, "esp_proposals": ESP}
    both = (replace(end, ike_version=1, **suites) for end in (ends.client, ends.target))
    return Ends(*both)


def connect(client, target, ends) -> None:
    """The driver sets the address inside: where it does, is where the test is."""
    install(client, target, ends)
    with client.machine.network():
        client.driver.up(ends.client)


def await_standing(target, name) -> None:
    """Who initiates IKEv1 is done one message before the other (RFC 2409 section 5.5)."""
    wait_until(
        lambda: any(each.name == name and each.established for each in target.driver.status()),
        f"{name} at Target",
    )


def test_a_tunnel_carries_http_through_nat_and_lives_on_without_its_key(
    world, client, target, work_file
):
    ends = ends_of()
    with Capture(world.router) as capture:
        connect(client, target, ends)
        await_standing(target, ends.name)
        assert target.driver.confirm(ends.target).established
        for gateway in (client, target):
            gateway.driver.forget_secrets(ends.name)
        assert fetch(client.machine, work_file) == PLAN
    (status,) = target.driver.status()
    assert status.ike_suite == "aes256-sha256-prfsha256-modp2048"
    assert status.child_suite.startswith("ESP aes256-sha256")
    assert status.role == "target"
    assert capture.between(CLIENT_ADDRESS, TARGET_ADDRESS)["other"] == 0
    assert PLAN.strip().encode() not in capture.path.read_bytes()
    before = ike_sa(client, ends.name)
    assert not {"reauth-time", "rekey-time"} & set(before)
    spi = next(iter(before["child-sas"].values()))["spi-in"]
    with client.session() as session:
        session.rekey({"child": ends.name})
    wait_until(
        lambda: any(
            child["spi-in"] != spi and child["state"] == "INSTALLED"
            for child in ike_sa(client, ends.name)["child-sas"].values()
        ),
        "a new CHILD_SA",
    )
    assert target.driver.confirm(ends.target).established
    assert fetch(client.machine, work_file) == PLAN
    assert addresses_inside(client) == ["10.99.0.7"]
    assert client.driver.leads() == {
        ends.name: Lead(
            frozenset(ends.client.remote_addresses),
            frozenset(ends.client.remote_networks),
            frozenset({"10.99.0.7"}),
            frozenset({ends.client.local_identity}),
        )
    }
    another = replace(ends.client, name=two_ends().name, remote_networks=("10.30.0.0/16",))
    client.driver.install(another)
    end(client, ends.name)
    target.driver.down(ends.name)
    assert addresses_inside(client) == []  # for the other one it was never set
    end(client, another.name)
    assert (client.left(), target.left()) == ([], [])


def addresses_inside(gateway) -> list[str]:
    listed = gateway.machine.run(["ip", "-o", "-4", "address"]).stdout.split()
    return [each.split("/")[0] for each in listed if each.startswith("10.99.")]


def end(gateway, name) -> None:
    with gateway.machine.network():
        gateway.driver.down(name)


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "swept"])
def test_what_a_client_has_set_herself_goes_after_her_daemon_was_killed(client, target, ended):
    ends = ends_of()
    connect(client, target, ends)
    client.charon.kill()
    assert addresses_inside(client) == ["10.99.0.7"]
    client.charon.start()
    anew = StrongSwan(client.charon.vici)  # as a command that did not set it
    with client.machine.network():
        if ended:
            anew.down(ends.name)
        else:
            anew.sweep(frozenset)
    assert addresses_inside(client) == []


def routes_of(gateway, version=4) -> str:
    return gateway.machine.run(["ip", f"-{version}", "route"]).stdout


def first_to(gateway, network) -> str:
    return gateway.machine.run(["ip", "route", "show", "exact", network]).stdout.splitlines()[0]


def test_a_network_inside_that_is_the_one_at_home_leaves_its_route_in_its_place(client):
    before = routes_of(client)
    with client.machine.network():
        for virtual in ("10.99.0.7", "10.99.0.7", "10.99.0.8"):
            inner_address.install(virtual, [CLIENT_NETWORK], "lo")
        assert "10.99.0.8" in first_to(client, CLIENT_NETWORK)
        assert set(before.splitlines()) < set(routes_of(client).splitlines())
        inner_address.remove("10.99.0.7")
        assert "10.99.0.8" in first_to(client, CLIENT_NETWORK)
        inner_address.sweep(frozenset)
    assert routes_of(client) == before
    assert addresses_inside(client) == []


def test_an_address_that_another_tunnel_has_stays_with_the_routes_to_where_that_leads(client):
    before = routes_of(client)
    led = Lead(networks=frozenset({"10.30.0.0/16"}), inner=frozenset({"10.99.0.7"}))
    elsewhere = Lead(networks=led.networks, inner=frozenset({"10.99.0.8"}))
    with client.machine.network():
        inner_address.install("10.99.0.7", ["0.0.0.0/0", "10.20.0.0/16", "10.30.0.0/16"], "lo")
        assert not inner_address.remove("10.99.0.7", [elsewhere, led])
        stays = set(routes_of(client).splitlines()) - set(before.splitlines())
        assert [line.split()[0] for line in stays] == ["10.30.0.0/16"]
        assert addresses_inside(client) == ["10.99.0.7"]
        assert inner_address.remove("10.99.0.7", [elsewhere])
    assert routes_of(client) == before
    assert addresses_inside(client) == []


def test_an_address_that_another_vpn_has_set_is_no_tunnel_s_to_take_away(client):
    """A tunnel that never came up has claimed it; of one that did, it goes from where that was."""
    claimed = replace(ends_of().client, name=two_ends().name)
    client.driver.install(claimed)
    client.machine.run(["ip", "link", "add", "wg0", "type", "veth", "peer", "name", "wg1"])
    try:
        client.machine.run(["ip", "address", "add", "10.99.0.7/32", "dev", "wg0"])
        end(client, claimed.name)
        assert addresses_inside(client) == ["10.99.0.7"]
        with client.machine.network():
            assert inner_address.led_from(["10.99.0.7"]) == {}
            inner_address.install("10.99.0.7", ["10.30.0.0/16"], "lo")
            assert inner_address.led_from(["10.99.0.7"]) == {"10.99.0.7": ["lo"]}
            assert inner_address.remove("10.99.0.7")
        assert addresses_inside(client) == ["10.99.0.7"]
    finally:
        client.machine.run(["ip", "link", "delete", "wg0"])


@pytest.fixture
def at_home_with_ipv6(client):
    """The network at home is one that the kernel itself has a route to."""
    setting = "/proc/sys/net/ipv6/conf/lo/disable_ipv6"
    client.machine.run(["sh", "-c", f"echo 0 > {setting}"])
    client.machine.run(["ip", "address", "add", "fd55::1/64", "dev", "lo"])
    yield "fd55::/64"
    client.machine.run(["sh", "-c", f"echo 1 > {setting}"])


def leads_by(client, destination) -> str:
    found = client.machine.run(["ip", "-json", "route", "get", destination]).stdout
    return json.loads(found)[0]["prefsrc"]


@pytest.mark.parametrize(("ends_first", "stays"), [(7, 8), (8, 7)])
def test_so_it_is_with_ipv6(client, at_home_with_ipv6, ends_first, stays):
    before = routes_of(client, 6)
    with client.machine.network():
        for virtual in (7, 7, 8):
            inner_address.install(f"fd99::{virtual}", [at_home_with_ipv6], "lo")
        assert leads_by(client, "fd55::2") == "fd99::8"
        assert set(before.splitlines()) < set(routes_of(client, 6).splitlines())
        inner_address.remove(f"fd99::{ends_first}")
        assert leads_by(client, "fd55::2") == f"fd99::{stays}"
        inner_address.remove(f"fd99::{stays}")
    assert routes_of(client, 6) == before


def leading(source, destination, peer):
    """Return the outgoing policy that leads packets to a peer, as the kernel lists it."""
    return Policy(
        source=source,
        destination=destination,
        direction="out",
        priority=bundle.PRIORITY,
        mark=None,
        peer=peer,
        reqid=1,
        mode="transport",
    )


@pytest.mark.parametrize("role", list(Role))
def test_what_ties_ah_and_esp_together_leaves_other_routes_in_their_place(
    client, monkeypatch, role
):
    """Only its routes: the policies take a kernel that has IPsec."""
    monkeypatch.setattr(bundle, "_policies", lambda *_: ())
    here, before = ("10.99.0.7/32", CLIENT_NETWORK), routes_of(client)
    tie = bundle.Bundle(
        role=role,
        mode=Mode.TUNNEL,
        ah_mode=Mode.TRANSPORT,
        local_address=CLIENT_ADDRESS,
        remote_address=TARGET_ADDRESS,
        esp_reqid=1,
        ah_reqid=2,
        selectors=(here, ("10.99.0.8/32", here[1])) if role is Role.TARGET else (here,),
    )
    with client.machine.network():
        inner_address.install("10.99.0.7", [], "lo")
        bundle.install(tie)
        bundle.install(tie)
        assert f"proto {bundle.ROUTE_PROTOCOL[role]}" in first_to(client, CLIENT_NETWORK)
        for line in bundle._route_deletions(leading(*here, TARGET_ADDRESS)):
            client.machine.run(["ip", *line.split()])
        assert routes_of(client) == before
        inner_address.remove("10.99.0.7", at=["lo"])
    assert addresses_inside(client) == []


def test_what_ties_ah_and_esp_leaves_nothing_in_ipv6_where_the_address_went_first(
    client, monkeypatch, at_home_with_ipv6
):
    """Its routes have no source then, nor has the one by which the peer keeps its way."""
    monkeypatch.setattr(bundle, "_policies", lambda *_: ())
    here, peer, before = ("fd99::7/128", at_home_with_ipv6), "fd55::9", routes_of(client, 6)
    tie = bundle.Bundle(
        role=Role.CLIENT,
        mode=Mode.TUNNEL,
        ah_mode=Mode.TRANSPORT,
        local_address="fd55::1",
        remote_address=peer,
        esp_reqid=1,
        ah_reqid=2,
        selectors=(here,),
    )
    with client.machine.network():
        inner_address.install("fd99::7", [], "lo")
        bundle.install(tie)
        assert f"{peer} dev" in routes_of(client, 6)
        inner_address.remove("fd99::7", at=["lo"])
        for line in bundle._route_deletions(leading(*here, peer)):
            client.machine.run(["ip", *line.split()])
    assert routes_of(client, 6) == before


@pytest.mark.parametrize("networks", [("0.0.0.0/0",), (f"{TARGET_ADDRESS}/32",)], ids=str)
def test_what_carries_a_tunnel_is_not_led_into_it_where_target_is_in_the_network(client, networks):
    def way(*source):
        found = client.machine.run(["ip", "-json", "route", "get", TARGET_ADDRESS, *source]).stdout
        (route,) = json.loads(found)
        return route.get("gateway"), route["dev"], route["prefsrc"] if not source else None

    before, (gateway, interface, _) = routes_of(client), way()
    with client.machine.network():
        there = way_to(CLIENT_ADDRESS, TARGET_ADDRESS)
        assert there == Way(TARGET_ADDRESS, interface, gateway)
        inner_address.install("10.99.0.7", networks, "lo", there)
        inner_address.install("10.99.0.7", networks, "lo", there)
        assert way("from", CLIENT_ADDRESS) == (gateway, interface, None)
        assert way() == (gateway, interface, "10.99.0.7")
        mtu.fit("10.99.0.7", 1300, {TARGET_ADDRESS}, networks)
        shortened = [line for line in routes_of(client).splitlines() if line.endswith("mtu 1300 ")]
        assert len(shortened) == 1
        inner_address.remove("10.99.0.7")
    assert routes_of(client) == before


def test_of_everything_in_ipv6_nothing_is_left_either(client, at_home_with_ipv6):
    before = routes_of(client, 6)
    with client.machine.network():
        inner_address.install("fd99::7", ["::/0"], "lo", Way("fd55::9", "lo"))
        led = set(routes_of(client, 6).splitlines()) - set(before.splitlines())
        assert {line.split()[0] for line in led} == {"default", "fd55::9", "fd99::7"}
        inner_address.remove("fd99::7")
    assert routes_of(client, 6) == before


def test_a_peer_that_names_itself_by_its_address_and_asks_for_its_address_inside(
    client, target, work_file
):
    ends = ends_of()
    target.driver.install(ends.target)
    (connection,) = messages.connections(ends.client)
    mine = connection[ends.name]
    mine |= {"vips": ["10.99.0.7"], "local": {"auth": "psk", "id": CLIENT_ADDRESS}}
    del mine["children"][ends.name]["local_ts"]
    (key,) = messages.shared_keys(ends.client)
    with client.session() as session:
        session.load_shared(key)
        session.load_conn(connection)
        list(session.initiate({"ike": ends.name, "child": ends.name, "timeout": "5000"}))
    await_standing(target, ends.name)
    assert target.driver.confirm(ends.target).established
    assert fetch(client.machine, work_file) == PLAN


def test_two_travellers_behind_one_nat_come_one_after_the_other(world, lane, client, target):
    other = started(world.host, lane)
    first, second = ends_of(), ends_of(virtual_address="10.99.0.8")
    install(client, target, first)
    with pytest.raises(IPsecError, match=f"awaited with IKEv1 \\({first.name}\\)"):
        target.driver.install(second.target)
    assert target.driver.installed() == {first.name}
    with client.machine.network():
        client.driver.up(first.client)
    await_standing(target, first.name)
    target.driver.forget_secrets(first.name)
    connect(other, target, second)
    await_standing(target, second.name)
    assert target.driver.confirm(second.target).virtual_address == "10.99.0.8"
    assert target.driver.confirm(first.target).virtual_address == "10.99.0.7"
    end(other, second.name)
    end(client, first.name)
    other.charon.stop()


def test_a_connection_of_somebody_else_is_not_given_our_traveller(target):
    foreign = {"foreign": {"version": "0", "remote_addrs": ["%any"]}}
    with target.session() as session:
        session.load_conn(foreign)
        try:
            with pytest.raises(IPsecError, match=r"awaited with IKEv1 \(foreign\)"):
                target.driver.install(ends_of().target)
        finally:
            session.unload_conn({"name": "foreign"})


def test_another_key_makes_no_tunnel_and_leaves_nothing(client, target, monkeypatch):
    """Nor is the address inside ever set, for whoever else is on this machine."""
    ends, set_here = ends_of(), []
    monkeypatch.setattr(inner_address, "install", lambda *given: set_here.append(given))
    install(client, target, Ends(ends.client, replace(ends.target, psk=b"?" * 32)))
    impatient = StrongSwan(client.charon.vici, ike_time_limit=1.0)
    with pytest.raises(IPsecError):
        impatient.up(ends.client)
    assert set_here == []
    assert client.left() == []
