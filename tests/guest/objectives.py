"""What `carnet connect` says and does of objectives: for test_connect, and its first part."""

import json

import pytest

from carnet.objectives import TABLE_2
from lab.network import CLIENT_NETWORK, HOST_ADDRESS
from lab.residue import machine_state
from tests.guest.addresses import BY_VERSION
from tests.guest.offices import OBJECTIVES
from tests.guest.traffic import fetch
from tests.lab.offices import is_one_sentence


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_ended_tunnel_leaves_nothing_whatever_its_objective(office, objective):
    before = states(office)
    where = ("--network", BY_VERSION[4].network)
    process = office.start_connect("--foreground", "--objective", objective, *where)
    process.wait_for_line("until Ctrl-C", 60)
    request_id = office.tunnels()[-1]["request_id"]
    office.target_agent.wait_for_line(f'"{request_id}".*"event": "established"', 60)
    assert all(now != then for now, then in zip(states(office), before, strict=True))
    office.target("tunnels", "end", request_id)
    assert process.wait(60) == 5
    assert "Target's operator ended it" in process.output()
    office.target_agent.wait_for_line(f'"{request_id}".*"event": "ended"', 60)
    assert states(office) == before


def states(office):
    return [machine_state(charon) for charon in (office.client_charon, office.target_charon)]


def test_without_ipsec_the_gate_is_open_to_what_was_granted_while_the_session_lasts(office):
    client, v4, v6 = office.world.client, BY_VERSION[4], BY_VERSION[6]
    facts = office.connect("--objective", "native", "--network", v4.network)
    assert fetch(client, v4.server)
    assert not fetch(client, v6.server, 1)
    assert not fetch(client, v4.target, 1)
    office.target_agent.stop()
    office.target_agent = office.serve_target()
    office.target_agent.wait_for_line("ike-daemon-compared")
    assert fetch(client, v4.server)
    office.end(facts)
    assert not fetch(client, v4.server, 1)


def test_status_tells_both_halves_and_that_there_is_no_ipsec(office):
    shown = {}
    for objective in ("ah+esp", "native"):
        office.connect("--objective", objective, "--transport")
        (tunnel,) = json.loads(office.carnet("status", "--json").stdout)
        shown[objective] = tunnel["live"]["child_suite"]
        # Without a virtual address too each end is known for what it is.
        assert tunnel["live"]["role"] == "client"
        assert office.facts(office.world.target, "carnet", "status") == []
    assert "Target alone" in office.carnet("status").stdout
    assert shown == {"ah+esp": "AH sha256, ESP aes256gcm16", "native": ""}


@pytest.fixture
def natted(office):
    """The office while Host sees the Client at the router's address; all else is as it was."""
    nat = ("iptables-legacy", "-t", "nat")
    rule = ("POSTROUTING", "-s", CLIENT_NETWORK, "-d", HOST_ADDRESS, "-j", "MASQUERADE")
    office.world.router.run([*nat, "-A", *rule])
    yield office
    office.world.router.run([*nat, "-D", *rule])


def test_nat_that_host_sees_keeps_ah_from_spending_a_pair(natted):
    done, spent = refused(natted, "--objective", "ah")
    assert "behind NAT (the Host sees another address)" in done.stderr
    assert spent == 0


def test_nat_that_the_traveller_knows_of_keeps_transport_mode_from_spending_a_pair(office):
    done, spent = refused(office, "--transport", extra=office.configure_client("nat = true"))
    assert "behind NAT" in done.stderr
    assert spent == 0


def refused(office, *options, **given):
    """Return what a connection came to that was refused, and how many pairs it has cost."""
    before = office.valid_pairs()
    done = office.carnet("connect", *options, **given)
    assert (done.returncode, is_one_sentence(done)) == (5, True), done.stderr
    return done, before - office.valid_pairs()


def test_networks_of_both_ip_versions_are_not_one_tunnel(office):
    done = office.carnet("connect", "--objective", "esp")
    assert done.returncode == 3
    assert "cannot-carry" in done.stderr
    assert "--network" in done.stderr


def test_the_papers_tables_and_what_this_machine_can_do(office):
    facts = json.loads(office.carnet("objectives", "--json").stdout)
    assert facts["security_objectives"] == TABLE_2
    assert [option["here"] for option in facts["options"]] == [True] * 4
    assert facts["modes"] == ["tunnel", "transport"]
    shown = office.carnet("objectives").stdout
    assert all(word in shown for word in ("Table 1", "T.Spoofing", "ah+esp", "strongswan"))


def test_the_cnsa_profile(office):
    office.have_profile('profile = "cnsa"')
    office.connect("--objective", "ah+esp", "--transport")
    (tunnel,) = json.loads(office.carnet("status", "--json").stdout)
    assert tunnel["live"]["ike_suite"] == "aes256gcm16-prfsha384-ecp384"
    assert tunnel["live"]["child_suite"] == "AH sha384, ESP aes256gcm16"


def test_the_papers_suites_need_both_to_be_told(office):
    office.have_profile('profile = "paper"\ninsecure_benchmark_suites = true')
    done = office.carnet("connect", "--objective", "esp", "--transport")
    assert done.returncode == 5
    assert "weak algorithms 3des, md5, sha1" in done.stderr
    again = office.carnet(
        "connect", "--objective", "esp", "--transport", "--insecure-benchmark-suites"
    )
    (tunnel,) = json.loads(office.carnet("status", "--json").stdout)
    assert again.returncode == 0, again.stderr
    assert tunnel["live"]["child_suite"] == "ESP 3des-md5"
