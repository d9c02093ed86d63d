"""carnet-helper: what an ordinary user must not get out of it, attack by attack."""

import errno
import grp
import json
import os
import pwd
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields, replace
from ipaddress import ip_address, ip_network
from itertools import count, repeat
from queue import SimpleQueue
from types import SimpleNamespace
from typing import get_args
from unittest.mock import MagicMock

import msgspec
import pytest
from structlog.testing import capture_logs

from carnet.errors import DaemonSilentError, HelperAwayError, IPsecError, TakenError, UsageError
from carnet.ipsec import block, inner_address, patience, unanswered
from carnet.ipsec.driver import Capabilities, Change, TunnelEvent
from carnet.ipsec.helper import client
from carnet.ipsec.helper import messages as say
from carnet.ipsec.helper.client import HelperDriver, HelperFilter, HelperInside
from carnet.ipsec.spec import Mode, Role, TunnelSpec
from carnet.ipsec.strongswan_messages import shared_keys
from carnet.ipsec.strongswan_parts import reqids
from carnet.ipsec.surroundings import Surroundings
from carnet.objectives import Objective
from helper_agent import server as servers
from helper_agent import service as service_module
from helper_agent.callers import NO_MEMBER, NOT_ASKED, Callers
from helper_agent.claims import Held, Holding, leading
from helper_agent.config import HelperConfig, Network
from helper_agent.heard import Heard
from helper_agent.members import members_of
from helper_agent.owners import NOT_HERS, Owners
from helper_agent.places import Places
from helper_agent.server import (
    CALLS,
    CALLS_PER_USER,
    CONNECTIONS_PER_USER,
    WATCHES_PER_USER,
    Server,
    listen,
)
from helper_agent.service import LATE_SECONDS, Service
from lab.waiting import wait_until
from tests.unit.helper_world import (
    ALICE,
    AROUND,
    AWAY,
    MALLORY,
    NAME,
    OTHER,
    OWN_ADDRESS,
    SERVERS,
    SPEC,
    THIRD,
    Daemon,
    block_of,
    named,
    refused,
    spec,
    standing,
)
from token_client.preflight import check_means


@pytest.fixture
def service(tmp_path, daemon):
    config = HelperConfig(tunnels_per_user=2, name_servers=True)
    owners = Owners(tmp_path, 2)
    return Service(
        config, daemon, owners, lambda: frozenset({OWN_ADDRESS}), daemon, lambda _: AROUND
    )


def test_every_part_of_a_tunnel_is_carried_or_fixed():
    said = set(say.Spec.__struct_fields__)
    assert said | set(say.FIXED) == {each.name for each in fields(TunnelSpec)}
    assert not said & set(say.FIXED)
    assert say.to_spec(say.to_message(SPEC)) == SPEC


@pytest.mark.parametrize(
    "changes",
    [
        {"role": Role.TARGET},
        {"allow_weak": True},
        {"local_addresses": ("192.0.2.1",)},
        {"local_networks": ("10.0.0.0/8",)},
    ],
    ids=str,
)
def test_what_a_user_has_no_say_in_is_not_sent(changes):
    with pytest.raises(IPsecError):
        say.to_message(replace(SPEC, **changes))


def test_nobody_ends_or_touches_another_s_tunnel(service, daemon):
    service.obey(ALICE, say.Install(spec=spec()))
    service.obey(ALICE, say.Close(block=block_of()))
    for kind in (say.Leave, say.Down, say.Lift, say.Forget):
        call = kind(name=NAME)
        unknown = type(call)(name=OTHER)
        assert service.obey(MALLORY, call) == service.obey(MALLORY, unknown)
    for call in (say.Up(spec=spec()), say.Confirm(spec=spec()), say.Install(spec=spec())):
        refused(service, MALLORY, call)
    refused(service, MALLORY, say.Resume(name=NAME))
    refused(service, MALLORY, say.Close(block=block_of(networks=("192.168.0.0/16",))))
    for call in (say.Install(spec=spec()), say.Close(block=block_of())):
        assert refused(service, MALLORY, call) == NOT_HERS
    assert daemon.ended == []
    assert (daemon.tunnels[NAME].psk, daemon.blocks[NAME].networks) == (
        SPEC.psk,
        ("10.20.0.0/16",),
    )


def test_what_she_ends_is_left_to_that(service, daemon, monkeypatch):
    left, down = [], daemon.down
    service.obey(ALICE, say.Install(spec=say.to_message(SPEC)))

    def note(name):
        left.append(service.parts.guard._to_look_at())
        down(name)

    monkeypatch.setattr(daemon, "down", note)
    service.obey(ALICE, say.Down(name=NAME))
    assert left == [frozenset()]


def test_nobody_sees_another_s_tunnel(service):
    service.obey(ALICE, say.Install(spec=spec()))
    service.obey(ALICE, say.Close(block=block_of()))
    for call in (
        say.Status(), say.Installed(), say.Remembered(), say.Names(), say.Resumable(),
    ):  # fmt: skip
        assert service.obey(MALLORY, call) == []
        assert len(service.obey(ALICE, call)) == 1


def test_nobody_hears_of_another_s_tunnel(service, daemon):
    service.obey(ALICE, say.Install(spec=spec()))
    assert [event.name for event in service.watch(ALICE, daemon)] == [NAME]
    assert list(service.watch(MALLORY, daemon)) == []


def test_a_tunnel_that_root_made_is_nobody_else_s(service, daemon):
    daemon.tunnels[NAME] = SPEC
    daemon.blocks[OTHER] = None
    refused(service, MALLORY, say.Install(spec=spec()))
    refused(service, MALLORY, say.Close(block=block_of(OTHER)))
    service.obey(MALLORY, say.Down(name=NAME))
    assert (daemon.ended, daemon.tunnels[NAME]) == ([], SPEC)


def test_a_restart_forgets_nobody(service, daemon, tmp_path):
    service.obey(ALICE, say.Install(spec=spec()))
    again = Service(
        HelperConfig(), daemon, Owners(tmp_path, 2), frozenset, daemon, lambda _: AROUND
    )
    refused(again, MALLORY, say.Install(spec=spec()))
    assert len(again.obey(ALICE, say.Installed())) == 1


def test_what_a_helper_that_was_killed_had_only_claimed_is_free_again(service, daemon, tmp_path):
    owners = Owners(tmp_path, 2)
    hers = Holding(ALICE, blocks=(Held(frozenset({"10.30.0.0/16"})),))
    owners.claim(OTHER, hers, taken=False)
    service.obey(ALICE, say.Install(spec=spec()))
    again = Service(HelperConfig(), daemon, owners, frozenset, daemon, lambda _: AROUND)
    theirs = spec(name="carnet-" + "0c" * 16, **AWAY)
    again.obey(MALLORY, say.Install(spec=theirs))
    assert again.obey(ALICE, say.Installed()) == [NAME]


def test_what_cannot_be_asked_for_is_not_swept(service, daemon, monkeypatch):
    def silent():
        raise IPsecError("The IPsec daemon does not answer.")

    service.obey(ALICE, say.Install(spec=spec()))
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(daemon, "installed", silent)
        service.parts.names.sweep()
    assert service.obey(ALICE, say.Installed()) == [NAME]


def test_what_is_gone_is_free_again(service, daemon):
    service.obey(ALICE, say.Install(spec=spec()))
    service.obey(ALICE, say.Close(block=block_of()))
    service.obey(ALICE, say.Down(name=NAME))
    refused(service, MALLORY, say.Install(spec=spec()))  # its block still stands
    service.obey(ALICE, say.Lift(name=NAME))
    service.obey(MALLORY, say.Install(spec=spec()))
    assert set(daemon.tunnels) == {NAME}


def test_what_went_while_the_daemon_was_away_is_free_again(service, daemon, monkeypatch):
    """As by `carnet disconnect --release`: its block is lifted then, and the daemon's part goes."""

    def away(*_):
        raise IPsecError("The IPsec daemon does not answer.")

    service.obey(ALICE, say.Install(spec=spec()))
    service.obey(ALICE, say.Close(block=block_of()))
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(daemon, "installed", away)
        meanwhile.setattr(daemon, "down", away)
        refused(service, ALICE, say.Down(name=NAME))
        service.obey(ALICE, say.Lift(name=NAME))
        refused(service, MALLORY, say.May(networks=("10.20.0.0/16",)))
    refused(service, MALLORY, say.May(networks=("10.20.0.0/16",)))  # the daemon still has it
    daemon.tunnels.clear()
    service.obey(MALLORY, say.May(networks=("10.20.0.0/16",)))
    service.obey(MALLORY, say.Install(spec=spec(name=OTHER)))
    for number in range(2):
        made = spec(name=f"carnet-{number:032x}", **AWAY)
        service.obey(ALICE, say.Install(spec=made))


def test_what_is_being_made_is_not_free(service, daemon, monkeypatch):
    def install(tunnel):
        service.obey(MALLORY, say.May(networks=()))
        Daemon.install(daemon, tunnel)

    monkeypatch.setattr(daemon, "install", install)
    service.obey(ALICE, say.Install(spec=spec()))
    assert service.obey(ALICE, say.Installed()) == [NAME]


def test_what_is_outside_the_limits_is_refused_before_anything_is_made(service, daemon):
    refused(service, MALLORY, say.May(networks=("8.8.8.0/24",)))
    service.obey(ALICE, say.Install(spec=spec()))
    service.obey(ALICE, say.May(networks=("10.20.0.0/16",)))
    assert "Another user" in refused(service, MALLORY, say.May(networks=("10.20.3.0/24",)))
    service.obey(ALICE, say.Install(spec=spec(name=OTHER)))
    assert "already" in refused(service, ALICE, say.May(networks=()))
    service.obey(MALLORY, say.May(networks=()))
    assert set(daemon.tunnels) == {NAME, OTHER}


def test_connect_asks_for_the_limits_before_a_key_pair_is_spent(monkeypatch):
    driver, asked = HelperDriver(), []
    found = Capabilities(
        driver="helper", version="1", ike_versions=(2,), objectives=tuple(Objective),
        modes=tuple(Mode), ppk=True,
    )  # fmt: skip
    monkeypatch.setattr(driver, "capabilities", lambda: found)
    monkeypatch.setattr(driver, "check_limits", asked.append)
    for networks in (("10.20.0.0/16",), None):
        check_means(driver, Objective.ESP, networks)
    assert asked == [("10.20.0.0/16",), ()]


@pytest.mark.parametrize("network", ["10.20.0.0/16", "10.0.0.0/8", "10.20.3.0/24"])
def test_no_packets_of_one_user_go_into_another_s_tunnel(service, network):
    service.obey(ALICE, say.Install(spec=spec()))
    theirs = spec(name=OTHER, remote_networks=(network,))
    assert "Another user" in refused(service, MALLORY, say.Install(spec=theirs))
    service.obey(ALICE, say.Install(spec=theirs))


def test_that_another_has_it_is_told_from_other_refusals(service):
    """She may go on with the same key pair once that one has ended."""
    service.obey(ALICE, say.Close(block=block_of()))
    for call in (say.Close(block=block_of(OTHER)), say.Install(spec=spec(name=OTHER))):
        with pytest.raises(TakenError) as caught:
            service.obey(MALLORY, call)
        with pytest.raises(TakenError):
            say.result_of(say.failure_of(caught.value), None)


def test_a_user_has_few_tunnels(service):
    for number in range(2):
        name = f"carnet-{number:032x}"
        service.obey(MALLORY, say.Install(spec=spec(name=name)))
    assert "already" in refused(service, MALLORY, say.Install(spec=spec(name=OTHER)))
    refused(service, MALLORY, say.Close(block=block_of(OTHER)))


@pytest.mark.parametrize(
    "changes",
    [
        {"remote_networks": ("0.0.0.0/0",)},
        {"remote_networks": ("::/0",)},
        {"remote_networks": ("10.20.0.0/16", "8.8.8.0/24")},
        {"remote_networks": ("127.0.0.0/8",)},
        {"remote_networks": ("10.0.0.0/7",)},
        {"remote_addresses": ("127.0.0.1",)},
        {"remote_addresses": ("224.0.0.1",)},
        {"remote_addresses": ("0.0.0.0",)},  # noqa: S104
        {"esp_proposals": ("aes256gcm16, dns = x",)},
        {"mode": Mode.TRANSPORT, "virtual_address": None, "remote_networks": ("8.8.8.8/32",)},
        {
            "mode": Mode.TRANSPORT,
            "virtual_address": None,
            "remote_addresses": ("198.51.100.2", "8.8.8.8"),
            "remote_networks": ("8.8.8.8/32",),
        },
    ],
    ids=str,
)
def test_what_is_outside_the_limits_is_refused(service, daemon, changes):
    refused(service, MALLORY, say.Install(spec=spec(**changes)))
    refused(service, MALLORY, say.Confirm(spec=spec(**changes)))
    assert daemon.tunnels == {}
    assert service.obey(MALLORY, say.Installed()) == []


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (OWN_ADDRESS, "this machine's own; use another network, or tell Target"),
        ("127.0.0.1", "tunnel;"),
        ("169.254.1.1", "tunnel;"),
        ("203.0.113.2", "tunnel;"),  # the Host, say
        ("10.66.0.2", "Target's own"),
        ("192.168.7.8", "192.168.7.0/24, a network that this machine is in"),
        ("10.50.3.4", "10.50.0.0/16, a network that this machine reaches otherwise"),
        ("10.1.1.1", "the gateway of this machine"),
        ("10.1.1.53", "a name server of this machine"),
    ],
)
def test_no_tunnel_has_an_address_that_means_something_here(service, daemon, address, why):
    theirs = spec(virtual_address=address, remote_addresses=("10.66.0.2",))
    assert why in refused(service, MALLORY, say.Install(spec=theirs))
    assert daemon.tunnels == {}
    assert service.obey(MALLORY, say.Installed()) == []


def test_an_address_that_means_something_by_now_is_not_brought_up(daemon, tmp_path):
    """As where the machine has come into another network since the tunnel was installed."""
    now = Surroundings()
    owners = Owners(tmp_path, 2)
    service = Service(HelperConfig(), daemon, owners, frozenset, daemon, lambda _: now)
    service.obey(MALLORY, say.Install(spec=spec()))
    service.obey(MALLORY, say.Up(spec=spec()))
    now = Surroundings(on_link=(ip_network("10.99.0.0/24"),))
    assert "a network that this machine is in" in refused(service, MALLORY, say.Up(spec=spec()))


def test_while_a_target_could_set_the_name_servers_of_all_there_is_no_tunnel(daemon, tmp_path):
    """Unless the operator says so: nothing is installed then, and no key pair is spent."""
    daemon.resolve = True
    for allowed in (False, True):
        config = HelperConfig(name_servers=True, assigned_name_servers=allowed)
        service = Service(config, daemon, Owners(tmp_path, 2), frozenset, daemon, lambda _: AROUND)
        for call in (say.May(networks=()), say.Install(spec=spec())):
            if allowed:
                service.obey(ALICE, call)
            else:
                assert "strongswan.d/charon/resolve.conf" in refused(service, ALICE, call)
                assert daemon.tunnels == {}
    assert set(daemon.tunnels) == {NAME}


IKEV1 = {"ike_version": 1, "ppk": None, "ppk_id": None}


@pytest.mark.parametrize(
    ("targets", "addresses", "refused_for"),
    [
        ((), ("198.51.100.2",), "198.51.100.2"),
        (("203.0.113.0/24",), ("198.51.100.2",), "198.51.100.2"),
        (("198.51.100.0/24",), ("198.51.100.2", "192.0.2.1"), "192.0.2.1"),
        (("198.51.100.2/32",), ("198.51.100.2",), None),
    ],
)
def test_no_key_of_hers_is_for_an_address_but_where_the_operator_says_so(
    daemon, tmp_path, targets, addresses, refused_for
):
    """Whoever else of this machine has a connection to there would be given it."""
    config = HelperConfig(ikev1_targets=tuple(map(Network, targets)))
    service = Service(config, daemon, Owners(tmp_path, 2), frozenset, daemon, lambda _: AROUND)
    hers = spec(remote_addresses=addresses, **IKEV1)
    if refused_for is None:
        service.obey(MALLORY, say.Install(spec=hers))
    else:
        said = refused(service, MALLORY, say.Install(spec=hers))
        assert f"with IKEv1 to {refused_for} (ikev1_targets in helper.toml); ask" in said
        assert daemon.tunnels == {}
    service.obey(MALLORY, say.Install(spec=spec(name=OTHER, **AWAY)))
    (key, *_) = shared_keys(daemon.tunnels[OTHER])
    assert all(owner.endswith(".carnet") for owner in key["owners"])


def test_while_another_connection_would_take_her_key_there_is_no_tunnel(service, daemon):
    daemon.taking = ["office-vpn"]
    for call in (say.May(networks=()), say.Install(spec=spec())):
        assert "connection office-vpn does not say" in refused(service, MALLORY, call)
    assert daemon.tunnels == {}


HALF = say.Half(
    local_identity="ah-c-" + "1d" * 16 + ".carnet",
    remote_identity="ah-t-" + "1d" * 16 + ".carnet",
    psk=bytes(32),
    ppk=bytes(32),
    ppk_id="ah-p-" + "1d" * 16 + ".carnet",
)
IDENTITIES = ("local_identity", "remote_identity", "ppk_id")


def with_halves(identity, of, what):
    """Return a tunnel of two parts elsewhere that has that identity there."""
    whole, half = spec(name=OTHER, **AWAY), HALF
    if of == "half":
        half = msgspec.structs.replace(half, **{what: identity})
    else:
        whole = msgspec.structs.replace(whole, **{what: identity})
    return msgspec.structs.replace(
        whole, objective=Objective.AH_ESP, ah_proposals=("sha256",), ah_half=half
    )


@pytest.mark.parametrize("roots", [False, True], ids=["a member's", "root's"])
@pytest.mark.parametrize("theirs", IDENTITIES)
@pytest.mark.parametrize("of", ["whole", "half"])
@pytest.mark.parametrize("hers", IDENTITIES)
def test_no_key_of_hers_is_for_an_identity_of_another_s(service, daemon, roots, theirs, of, hers):
    """Whoever answers in Target's place is told them, and could prove himself by her key."""
    if roots:
        daemon.tunnels[NAME] = SPEC
    else:
        service.obey(ALICE, say.Install(spec=spec()))
    taken = with_halves(getattr(SPEC, theirs), of, hers)
    assert "an IKE identity of this one" in refused(service, MALLORY, say.Install(spec=taken))
    assert set(daemon.tunnels) == {NAME}
    service.obey(MALLORY, say.Install(spec=with_halves(HALF.ppk_id, "half", "ppk_id")))


def test_what_she_had_before_root_s_tunnel_has_its_identity_no_more(service, daemon):
    """Loaded anew, her key would be the newer one."""
    hers = spec(**AWAY)
    service.obey(MALLORY, say.Install(spec=hers))
    service.obey(MALLORY, say.Install(spec=hers))
    daemon.tunnels[OTHER] = named(OTHER, remote_identity=hers.remote_identity)
    assert "an IKE identity of this one" in refused(service, MALLORY, say.Install(spec=hers))


def test_what_is_installed_is_not_called_otherwise_by_the_same_name(service, daemon):
    service.obey(ALICE, say.Install(spec=spec()))
    called = named(OTHER).remote_identity
    again = spec(remote_identity=called)
    assert "already" in refused(service, ALICE, say.Install(spec=again))
    assert daemon.tunnels[NAME] == SPEC
    daemon.tunnels.clear()
    service.obey(ALICE, say.Install(spec=again))
    theirs = spec(name=OTHER, **AWAY)
    assert "an IKE identity" in refused(service, MALLORY, say.Install(spec=theirs))


def test_no_tunnel_of_hers_takes_what_a_lost_one_of_root_s_holds_back(service, daemon):
    """Root's block lets through what has an IPsec policy: it would be hers."""
    lost = block.Closed(
        name=OTHER,
        networks=SPEC.remote_networks,
        targets=("198.51.101.2",),
        hosts=(),
        userspace=False,
    )
    daemon.blocks[OTHER] = lost
    for call in (say.Install(spec=spec()), say.Close(block=block_of(networks=("10.20.0.0/24",)))):
        assert "Another user" in refused(service, ALICE, call)
    assert daemon.tunnels == {}
    service.obey(ALICE, say.Install(spec=spec(**AWAY)))


@pytest.fixture(scope="module")
def meeting():
    """Return two names that have one pair of request ids: to find some takes a second."""
    seen: dict[tuple[int, int], str] = {}
    for number in count():
        name = f"carnet-{number:032x}"
        if (met := seen.setdefault(reqids(name), name)) != name:
            return met, name
    raise AssertionError


@pytest.mark.parametrize("has", ["a tunnel", "a block", "root's tunnel", "root's block"])
def test_no_name_of_hers_meets_another_s_in_the_kernel(service, daemon, monkeypatch, meeting, has):
    """By its end she would take out what the other has there."""
    theirs, hers = meeting
    {
        "a tunnel": lambda: service.obey(ALICE, say.Install(spec=spec(name=theirs))),
        "a block": lambda: service.obey(ALICE, say.Close(block=block_of(theirs))),
        "root's tunnel": lambda: daemon.tunnels.update({theirs: named(theirs)}),
        "root's block": lambda: daemon.blocks.update({theirs: None}),
    }[has]()
    for call in (
        say.Install(spec=spec(name=hers, **AWAY)),
        say.Close(block=block_of(hers, networks=("10.30.0.0/16",))),
    ):
        assert "does not go with another's" in refused(service, MALLORY, call)
    service.obey(MALLORY, say.Down(name=hers))
    assert daemon.ended == []
    service.obey(MALLORY, say.Install(spec=spec(name=OTHER, **AWAY)))


def test_the_operator_says_where_the_addresses_of_tunnels_are_from(daemon, tmp_path):
    config = HelperConfig(virtual_addresses=(Network("203.0.113.0/24"),))
    around = lambda _: AROUND  # noqa: E731
    service = Service(config, daemon, Owners(tmp_path, 2), frozenset, daemon, around)
    refused(service, MALLORY, say.Install(spec=spec()))
    service.obey(MALLORY, say.Install(spec=spec(virtual_address="203.0.113.2")))


@pytest.mark.parametrize(
    "changes",
    [
        {"virtual_address": "10.20.9.9"},  # in her networks
        {"virtual_address": SPEC.virtual_address},
        {"virtual_address": "10.77.0.1"},  # her Target
        {"virtual_address": "10.77.0.8"},  # her Host
        {"remote_networks": ("10.99.0.0/16",)},  # where her own address is
    ],
    ids=str,
)
def test_no_tunnel_has_an_address_that_means_something_to_another_s(service, changes):
    hers = spec(remote_addresses=("10.77.0.1",))
    service.obey(ALICE, say.Close(block=block_of(hosts=(("10.77.0.8", 8443),))))
    service.obey(ALICE, say.Install(spec=hers))
    theirs = say.Install(spec=spec(name=OTHER, **AWAY | changes))
    assert "Another user" in refused(service, MALLORY, theirs)
    service.obey(MALLORY, say.Install(spec=spec(name=OTHER, **AWAY)))


HERS = {"targets": ("10.77.0.1",), "hosts": (("10.77.0.8", 8443),)}
"""Of her block: her Target, and her Host."""


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("10.77.0.1/32", {}),
        ("10.77.0.8/32", {}),
        ("10.77.0.0/24", {}),
        ("10.77.0.1/32", {"hosts": (("10.77.0.1", 1),)}),
        ("10.77.0.1/32", {"hosts": (("10.77.0.1", 500), ("10.77.0.1", 4500))}),
        ("10.77.0.8/32", {"targets": ("10.77.0.8",)}),
        ("10.77.0.8/32", {"hosts": (("10.77.0.8", 1),)}),
        ("10.77.0.8/32", {"targets": ("10.77.0.8",), "hosts": (("10.77.0.8", 8444),)}),
        ("10.77.0.0/24", {"targets": ("10.77.0.1",)}),
        ("10.77.0.0/24", {"hosts": (("10.77.0.8", 8443),)}),
    ],
    ids=str,
)
def test_no_block_cuts_another_from_her_target_or_host(service, daemon, network, said):
    """Whatever it calls its own: what counts is that it lets through what is meant for them."""
    service.obey(ALICE, say.Close(block=block_of(**HERS)))
    service.obey(ALICE, say.Install(spec=spec(remote_addresses=HERS["targets"])))
    theirs = {"networks": (network,), "targets": ("192.0.2.9",)}
    called = say.Close(block=block_of(OTHER, **theirs | said))
    assert "Another user" in refused(service, MALLORY, called)
    assert set(daemon.blocks) == {NAME}
    service.obey(MALLORY, say.Close(block=block_of(OTHER, **theirs | HERS)))


@pytest.mark.parametrize("address", ["10.77.0.1", "10.77.0.8"])
def test_no_tunnel_leads_to_another_s_target_or_host(service, address):
    """It would to whichever Target its user has, even where her block lets all of it through."""
    service.obey(ALICE, say.Close(block=block_of(**HERS)))
    theirs = spec(name=OTHER, **AWAY | {"remote_networks": (f"{address}/32",)})
    service.obey(MALLORY, say.Close(block=block_of(OTHER, networks=theirs.remote_networks, **HERS)))
    assert "Another user" in refused(service, MALLORY, say.Install(spec=theirs))


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("first", [ALICE, MALLORY])
def test_two_users_have_the_same_target_and_host(service, daemon, alone, first):
    """Which may be one machine; and one of them may have nothing but Target."""
    targets = ("10.77.0.1",)
    hosts = (("10.77.0.8", 8443), ("10.77.0.1", 8443))
    transport = {"mode": Mode.TRANSPORT, "remote_networks": (), "virtual_address": None}
    hers = spec(name=OTHER, remote_addresses=targets, **transport if alone else AWAY)
    networks = hers.remote_networks or ("10.77.0.1/32",)
    calls = {
        ALICE: [
            say.Close(block=block_of(targets=targets, hosts=hosts)),
            say.Install(spec=spec(remote_addresses=targets)),
        ],
        MALLORY: [
            say.Close(block=block_of(OTHER, networks=networks, targets=targets, hosts=hosts)),
            say.Install(spec=hers),
        ],
    }
    for uid in sorted(calls, key=lambda uid: uid != first):
        service.obey(uid, say.May(networks=() if alone else calls[uid][0].block.networks))
        for call in calls[uid]:
            service.obey(uid, call)
    assert set(daemon.blocks) == set(daemon.tunnels) == {NAME, OTHER}


def test_no_tunnel_leads_to_where_another_s_block_holds_back(service):
    service.obey(ALICE, say.Close(block=block_of(networks=("10.77.0.0/24",))))
    theirs = spec(name=OTHER, **AWAY, remote_addresses=("10.77.0.1",))
    assert "Another user" in refused(service, MALLORY, say.Install(spec=theirs))


def test_a_block_that_is_made_anew_takes_nothing_of_what_the_former_one_was_for(service):
    for number in range(20):
        changes = {"networks": (f"10.{number}.0.0/16",), "targets": (f"10.77.0.{number}",)}
        service.obey(MALLORY, say.Close(block=block_of(**changes)))
    refused(service, ALICE, say.May(networks=("10.19.0.0/16",)))
    for number in range(19):
        service.obey(ALICE, say.May(networks=(f"10.{number}.0.0/16", f"10.77.0.{number}/32")))


def no_rules(_):
    raise IPsecError("nft does not take the rules.")


def test_where_a_block_cannot_be_made_the_one_that_may_stand_is_hers_still(
    service, daemon, monkeypatch
):
    """Neither is: nobody knows which of them the packet filter has."""
    service.obey(MALLORY, say.Close(block=block_of(networks=("10.77.0.0/24",))))
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(daemon, "close", no_rules)
        again = say.Close(block=block_of(networks=("10.78.0.0/24",), targets=("10.77.0.1",)))
        assert "nft" in refused(service, MALLORY, again)
        theirs = spec(name=OTHER, **AWAY, remote_addresses=("10.77.0.1",))
        assert "Another user" in refused(service, ALICE, say.Install(spec=theirs))
        for network in ("10.77.0.0/16", "10.78.0.0/16"):
            assert "Another user" in refused(service, ALICE, say.May(networks=(network,)))
        for number in range(20):
            call = say.Close(block=block_of(networks=(f"10.{number}.0.0/16",)))
            sentence = refused(service, MALLORY, call)
        assert "carnet disconnect" in sentence
        service.obey(ALICE, say.May(networks=("10.19.0.0/16",)))
    service.obey(MALLORY, again)
    service.obey(ALICE, say.May(networks=("10.77.0.128/25", "10.0.0.0/16")))


def test_what_could_not_be_made_is_nobody_s(service, daemon, monkeypatch):
    calls = {"close": say.Close(block=block_of()), "install": say.Install(spec=spec())}
    for part, call in calls.items():
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(daemon, part, no_rules)
            refused(service, MALLORY, call)
        assert service.parts.owners.names() == frozenset()


@pytest.mark.parametrize(
    "changes", [{"remote_networks": ("10.30.0.0/16",)}, {"remote_addresses": ("198.51.100.3",)}]
)
def test_what_may_stand_is_not_installed_as_another(service, daemon, changes):
    """Its policies would be nobody's."""
    service.obey(MALLORY, say.Close(block=block_of()))
    service.obey(MALLORY, say.Install(spec=spec()))
    assert "connect again" in refused(service, MALLORY, say.Install(spec=spec(**changes)))
    service.obey(MALLORY, say.Install(spec=spec(psk=b"k" * 32)))
    daemon.tunnels.clear()
    service.obey(MALLORY, say.Install(spec=spec(**changes)))


def test_a_block_that_is_lifted_while_it_is_made_is_hers(service, daemon, monkeypatch):
    """Else it would be nobody's, and stay."""

    def close(closed):
        service.obey(MALLORY, say.Lift(name=NAME))
        Daemon.close(daemon, closed)

    monkeypatch.setattr(daemon, "close", close)
    service.obey(MALLORY, say.Close(block=block_of()))
    assert service.obey(MALLORY, say.Names()) == [NAME]
    service.obey(MALLORY, say.Lift(name=NAME))
    assert (daemon.blocks, service.parts.owners.names()) == ({}, frozenset())


def test_blocks_of_one_name_are_made_one_after_the_other(service, daemon, monkeypatch):
    """So that the last one that was made is the one that stands."""
    happens, turn = SimpleQueue(), service.parts.names._changed.wait_for
    calls = [say.Close(block=block_of(networks=(f"10.{each}.0.0/16",))) for each in (30, 31)]

    def wait_for(is_free):
        if not is_free():
            happens.put("waits")
        return turn(is_free)

    def close(closed):
        if calls:
            later.append(threads.submit(service.obey, MALLORY, calls.pop()))
            waits.append(happens.get(timeout=30))
        else:
            happens.put("is made meanwhile")
        Daemon.close(daemon, closed)

    later, waits = [], []
    monkeypatch.setattr(daemon, "close", close)
    monkeypatch.setattr(service.parts.names._changed, "wait_for", wait_for)
    with ThreadPoolExecutor(1) as threads:
        service.obey(MALLORY, calls.pop())
        later[0].result()
    assert waits == ["waits"]
    service.obey(ALICE, say.May(networks=("10.31.0.0/16",)))
    refused(service, ALICE, say.May(networks=daemon.blocks[NAME].networks))


def test_what_is_over_is_not_remembered(service):
    for number in range(3):
        name = f"carnet-{number:032x}"
        service.obey(MALLORY, say.Install(spec=spec(name=name)))
        service.obey(MALLORY, say.Leave(name=name))
        service.obey(MALLORY, say.Down(name=name))
    assert (service.parts.names._making, service.parts.owners.names()) == (set(), frozenset())


def test_what_was_installed_within_the_limits_is_not_tied_to_more(service):
    service.obey(MALLORY, say.Install(spec=spec()))
    more = spec(remote_networks=("0.0.0.0/0",))
    for call in (say.Up(spec=more), say.Confirm(spec=more)):
        assert "0.0.0.0/0" in refused(service, MALLORY, call)


def test_nobody_has_another_s_tunnel_forgotten_before_it_is_installed(service, daemon, monkeypatch):
    def install(tunnel):
        for call in (say.Up, say.Confirm):
            refused(service, MALLORY, call(spec=spec()))
        Daemon.install(daemon, tunnel)

    monkeypatch.setattr(daemon, "install", install)
    service.obey(ALICE, say.Install(spec=spec()))
    assert service.obey(ALICE, say.Installed()) == [NAME]


@pytest.mark.parametrize(
    "changes",
    [
        {"remote_networks": ("10.20.0.0/16", "10.30.0.0/16")},
        {"remote_networks": ("10.20.0.0/15",)},
        {"virtual_address": "10.99.0.3"},
        {"virtual_address": OWN_ADDRESS},
        {"ike_version": 1},
        {"objective": Objective.AH_ESP},
        {"remote_addresses": ("198.51.100.3",)},
    ],
    ids=str,
)
def test_only_what_was_installed_is_brought_up(service, changes):
    service.obey(ALICE, say.Install(spec=spec(name=OTHER, **AWAY)))
    service.obey(MALLORY, say.Install(spec=spec()))
    for call in (say.Up, say.Confirm):
        refused(service, MALLORY, call(spec=spec(**changes)))
    service.obey(MALLORY, say.Close(block=block_of()))
    assert service.obey(MALLORY, say.Up(spec=spec())) == NAME


@pytest.mark.parametrize(
    "changes",
    [
        {"networks": ("0.0.0.0/0",)},
        {"networks": ("8.8.8.8/32",)},
    ],
    ids=str,
)
def test_no_block_holds_back_what_is_outside_the_limits(service, daemon, changes):
    refused(service, MALLORY, say.Close(block=block_of(**changes)))
    assert daemon.blocks == {}


def test_a_tunnel_that_comes_back_with_another_address_is_ended(service, daemon):
    """Its Target, which may be a user's own, would choose what the machine answers to."""
    service.obey(MALLORY, say.Install(spec=spec()))
    service.obey(MALLORY, say.Resume(name=NAME))
    assert set(daemon.tunnels) == {NAME}
    daemon.gives = "203.0.113.2"
    assert "as another than was installed" in refused(service, MALLORY, say.Resume(name=NAME))
    assert daemon.tunnels == {}


@pytest.mark.parametrize(
    "narrowed",
    [
        {"remote_selectors": ("10.20.0.0/29",)},
        {"remote_selectors": ("10.20.0.0/16[tcp]",)},
        {"remote_selectors": ("10.20.0.1..10.20.255.254",)},
        {"local_selectors": ("10.99.0.2/32[udp/53]",)},
    ],
    ids=str,
)
def test_a_tunnel_that_comes_back_with_less_in_it_is_ended(service, daemon, narrowed):
    """The rest, queries for names above all, would leave in clear."""
    service.obey(MALLORY, say.Install(spec=spec()))
    daemon.narrowed = {"remote_selectors": ("10.20.0.0/255.255.0.0", "10.30.0.0/16")}
    service.obey(MALLORY, say.Resume(name=NAME))
    daemon.narrowed = narrowed
    assert "as another than was installed" in refused(service, MALLORY, say.Resume(name=NAME))
    assert daemon.tunnels == {}


@pytest.mark.parametrize(
    ("what", "call"),
    [
        ("up", say.Up(spec=spec())),
        ("confirm", say.Confirm(spec=spec())),
        ("resume", say.Resume(name=NAME)),
    ],
)
def test_what_nobody_can_tell_is_ended_and_said(service, daemon, monkeypatch, what, call):
    """Whatever its Target sends that nobody has thought of."""

    def no_nonsense(*_):
        raise ValueError("What is that?")

    service.obey(MALLORY, say.Install(spec=spec()))
    monkeypatch.setattr(daemon, what, no_nonsense)
    with capture_logs() as logged:
        assert "cannot tell what came up" in refused(service, MALLORY, call)
    assert daemon.tunnels == {}
    assert [line["event"] for line in logged] == ["not-compared"]


def test_what_came_up_as_a_call_failed_is_looked_at(service, daemon, monkeypatch):
    """It may come up whole, and another, just before that."""

    def fails(name):
        monkeypatch.setattr(daemon, "status", lambda: [standing(SPEC, remote_selectors=())])
        raise DaemonSilentError("It does not answer.")

    service.obey(MALLORY, say.Install(spec=spec()))
    monkeypatch.setattr(daemon, "resume", fails)
    assert "does not answer" in refused(service, MALLORY, say.Resume(name=NAME))
    assert daemon.tunnels == {}


def test_an_address_that_means_something_by_now_does_not_come_back(service, daemon, monkeypatch):
    service.obey(MALLORY, say.Install(spec=spec()))
    monkeypatch.setattr(daemon, "status", list)
    now = Surroundings(gateways=frozenset({ip_address(SPEC.virtual_address)}))
    monkeypatch.setattr(service.parts.virtual, "_around", lambda _: now)
    why = refused(service, MALLORY, say.Resume(name=NAME))
    assert "the gateway of this machine; use another network, or tell" in why
    monkeypatch.setattr(service.parts.virtual, "_around", lambda _: AROUND)
    monkeypatch.setattr(service.parts.virtual, "_own_addresses", lambda: {SPEC.virtual_address})
    assert "as the address of a tunnel" in refused(service, MALLORY, say.Resume(name=NAME))
    assert (daemon.ended, set(daemon.tunnels)) == ([], {NAME})


def test_nobody_shortens_another_s_packets(service, daemon):
    service.obey(ALICE, say.Install(spec=spec()))
    service.obey(MALLORY, say.Fit(name=NAME, mtu=576))
    assert daemon.fitted == []
    service.obey(ALICE, say.Fit(name=NAME, mtu=1300))
    peers, networks = set(SPEC.remote_addresses), frozenset(SPEC.remote_networks)
    assert daemon.fitted == [(NAME, SPEC.virtual_address, 1300, peers, networks)]


@pytest.mark.parametrize("address", [OWN_ADDRESS, f"{SPEC.virtual_address}, {OWN_ADDRESS}", None])
def test_no_routes_of_an_address_that_target_alone_says_are_changed(
    service, daemon, monkeypatch, address
):
    """Until it is ended for that it stands, with an address of the machine's or another user's."""
    service.obey(MALLORY, say.Install(spec=spec()))
    monkeypatch.setattr(daemon, "status", lambda: [standing(SPEC, virtual_address=address)])
    service.obey(MALLORY, say.Fit(name=NAME, mtu=576))
    assert daemon.fitted == []


def test_whatever_there_is_a_doer_for_is_understood():
    assert set(get_args(say.AnyCall)) == {*service_module._DOERS, say.Watch}


def test_nobody_has_routes_set_again_but_into_her_own_tunnel_as_it_was_installed(
    service, daemon, monkeypatch
):
    service.obey(ALICE, say.Install(spec=spec()))
    service.obey(MALLORY, say.LeadAgain(name=NAME))
    assert daemon.ended == []
    service.obey(ALICE, say.LeadAgain(name=NAME))
    assert daemon.ended == [f"routes of {NAME}"]
    monkeypatch.setattr(daemon, "status", lambda: [standing(SPEC, virtual_address=OWN_ADDRESS)])
    service.obey(ALICE, say.LeadAgain(name=NAME))
    assert daemon.ended == [f"routes of {NAME}"]


def test_nobody_takes_or_restores_another_s_name_servers(service, daemon):
    service.obey(ALICE, say.Install(spec=spec()))
    refused(service, MALLORY, say.Servers(name=NAME, servers=SERVERS))
    assert service.obey(ALICE, say.Servers(name=NAME, servers=SERVERS)) is None
    service.obey(MALLORY, say.Install(spec=spec(name=OTHER, **AWAY)))
    refused(service, MALLORY, say.Servers(name=OTHER, servers=("10.30.0.1",)))
    assert service.obey(MALLORY, say.Restore(name=NAME)) is False
    service.obey(MALLORY, say.Follow(name=NAME))
    assert daemon.ended == []
    assert service.obey(MALLORY, say.Whose()) is None
    assert daemon.servers == (NAME, SERVERS)
    assert service.obey(ALICE, say.Whose()) == NAME
    assert service.obey(ALICE, say.Restore(name=NAME)) is True


def test_a_block_alone_has_no_name_servers(service, daemon):
    inside = {"networks": ("198.51.100.2/32", "10.20.0.0/16")}
    service.obey(MALLORY, say.Close(block=block_of(**inside)))
    refused(service, MALLORY, say.Servers(name=NAME, servers=("198.51.100.2",)))
    refused(service, MALLORY, say.Servers(name=NAME, servers=SERVERS))
    service.obey(MALLORY, say.Install(spec=spec()))
    refused(service, MALLORY, say.Servers(name=NAME, servers=("198.51.100.2",)))
    assert daemon.servers is None


def test_a_tunnel_that_does_not_stand_has_no_name_servers(service, daemon, monkeypatch):
    service.obey(MALLORY, say.Install(spec=spec()))
    monkeypatch.setattr(daemon, "status", lambda: [standing(SPEC, established=False)])
    refused(service, MALLORY, say.Servers(name=NAME, servers=SERVERS))
    assert daemon.servers is None


def test_name_servers_go_with_the_tunnel(service, daemon):
    service.obey(MALLORY, say.Install(spec=spec()))
    service.obey(MALLORY, say.Servers(name=NAME, servers=SERVERS))
    service.obey(MALLORY, say.Down(name=NAME))
    assert daemon.servers is None


def test_name_servers_of_a_tunnel_that_is_down_go_with_its_block(service, daemon):
    service.obey(ALICE, say.Install(spec=spec()))
    service.obey(ALICE, say.Servers(name=NAME, servers=SERVERS))
    for held in (SERVERS, None):
        service.obey(ALICE, say.Close(block=block_of()))
        service.obey(ALICE, say.Lift(name=NAME))
        assert daemon.servers == (held and (NAME, held))
        daemon.tunnels.clear()


@pytest.mark.parametrize("change", [Change.DOWN, Change.LOST, None])
@pytest.mark.parametrize("held", ["10.20.0.0/16", "10.31.0.0/16", None])
def test_name_servers_of_a_tunnel_that_goes_stay_only_behind_its_block(
    service, daemon, monkeypatch, change, held
):
    happens = SimpleQueue()
    monkeypatch.setattr(daemon, "watch", lambda: iter(happens.get, None))
    service.obey(ALICE, say.Install(spec=spec()))
    service.obey(ALICE, say.Up(spec=spec()))
    if held:
        service.obey(ALICE, say.Close(block=block_of(networks=(held,))))
    service.obey(ALICE, say.Servers(name=NAME, servers=SERVERS))
    daemon.tunnels.clear()
    if change is not None:
        happens.put(TunnelEvent(NAME, change))
    happens.put(None)
    wait_until(lambda: not service.parts.guard._looking, "the end of the daemon")
    assert daemon.servers == ((NAME, SERVERS) if held in SPEC.remote_networks else None)


def test_a_helper_that_began_at_a_silent_daemon_takes_name_servers_away(
    service, daemon, tmp_path, monkeypatch
):
    monkeypatch.setattr(patience, "_FIRST_SECONDS", 0)
    service.obey(ALICE, say.Install(spec=spec()))
    service.obey(ALICE, say.Servers(name=NAME, servers=SERVERS))
    silences, events = [DaemonSilentError("It does not answer.")] * 3, SimpleQueue()

    def watch():
        if silences:
            raise silences.pop()
        return iter(events.get, None)

    monkeypatch.setattr(daemon, "watch", watch)
    again = Service(
        HelperConfig(), daemon, Owners(tmp_path, 2), frozenset, daemon, lambda _: AROUND
    )
    again.begin()
    daemon.tunnels.clear()
    events.put(TunnelEvent(NAME, Change.DOWN))
    events.put(None)
    wait_until(lambda: daemon.servers is None, "the name servers of the machine")


def test_name_servers_do_not_outlive_another_block_or_other_networks(service, daemon):
    away = say.Close(block=block_of(networks=("10.31.0.0/16",)))
    for left, call in (({}, away), (None, say.Install(spec=spec()))):
        service.obey(ALICE, say.Install(spec=spec()))
        service.obey(ALICE, say.Close(block=block_of()))
        service.obey(ALICE, say.Servers(name=NAME, servers=SERVERS))
        daemon.tunnels = daemon.tunnels if left is None else left
        service.obey(ALICE, call)
        assert daemon.servers is None


def test_what_has_name_servers_left_is_still_hers(service, daemon):
    service.obey(ALICE, say.Install(spec=spec()))
    service.obey(ALICE, say.Servers(name=NAME, servers=SERVERS))
    daemon.tunnels.clear()
    service.parts.names.sweep()
    refused(service, MALLORY, say.Install(spec=spec()))
    assert service.obey(ALICE, say.Restore(name=NAME)) is True
    service.obey(MALLORY, say.Install(spec=spec()))


@pytest.mark.parametrize("server", ["8.8.8.8", "127.0.0.1", "10.21.0.1"])
def test_no_name_server_is_outside_her_tunnel(service, daemon, server):
    service.obey(MALLORY, say.Install(spec=spec()))
    refused(service, MALLORY, say.Servers(name=NAME, servers=(*SERVERS, server)))
    assert daemon.servers is None


def test_name_servers_are_left_alone_unless_the_operator_wants_them(daemon, tmp_path):
    service = Service(
        HelperConfig(), daemon, Owners(tmp_path, 2), frozenset, daemon, lambda _: AROUND
    )
    service.obey(ALICE, say.Install(spec=spec()))
    assert "name_servers" in refused(service, ALICE, say.Servers(name=NAME, servers=SERVERS))
    assert daemon.servers is None


@contextmanager
def serving(service, daemon, path, *alive, members=lambda _: True):
    """Serve there; `alive` is told every so often what has failed."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(str(path))
    listening.listen()
    server = Server(listening, service, lambda: daemon, members)
    tell, *every = alive or (lambda _: None,)
    calls = lambda: tell(server.failed), *every
    thread = threading.Thread(target=server.serve, args=calls, name="server")
    thread.start()
    try:
        yield lambda: connected(path)
    finally:
        server.stop()
        thread.join()


def connected(path):
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.settimeout(30)
    made.connect(str(path))
    return made


@pytest.fixture
def connect(service, daemon, tmp_path):
    with serving(service, daemon, tmp_path / "socket") as made:
        yield made


def test_a_helper_that_can_take_no_call_ends_as_a_failure(service, daemon, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        server = Server(listening, service, lambda: daemon, lambda _: True)
        listening.shutdown(socket.SHUT_RDWR)
        with pytest.raises(IPsecError, match="no more calls"):
            server.serve()
        server.stop()
        server.serve()


def test_a_helper_says_that_it_is_well_for_as_long_as_it_takes_calls(service, daemon, tmp_path):
    told, path = SimpleQueue(), tmp_path / "socket"
    with serving(service, daemon, path, told.put, 0.001) as made:
        for _ in range(3):
            assert told.get(timeout=60) == []
        assert json.loads(ask(made, WELL))["error"] is None


def test_a_call_for_which_there_is_no_thread_is_given_up_and_keeps_no_place(
    service, daemon, tmp_path, monkeypatch
):
    """Nor does it end the helper, which says what fails: once, and to the service manager."""
    start, told = threading.Thread.start, SimpleQueue()

    def no_more(thread):
        if threading.current_thread().name == "server":
            raise RuntimeError("can't start new thread")
        start(thread)

    with serving(service, daemon, tmp_path / "socket", told.put, 0.001) as made:
        with capture_logs() as logged:
            monkeypatch.setattr(threading.Thread, "start", no_more)
            for _ in range(CONNECTIONS_PER_USER + 1):
                with made() as connection:
                    assert connection.recv(1) == b""
            wait_until(lambda: told.get(timeout=60) == ["calls"], "what has failed")
            monkeypatch.undo()
            assert json.loads(ask(made, WELL))["error"] is None
            # By the thread that takes calls, which the one that has answered does not wait for.
            again = lambda: any(each["event"] == "calls-served-again" for each in logged)  # noqa: E731
            wait_until(again, "that calls are served again")
        wait_until(lambda: told.get(timeout=60) == [], "that nothing has failed")
    assert logged[0]["event"] == "call-not-served"
    assert {each["event"] for each in logged[1:]} == {"calls-served-again", "done"}


def test_a_look_that_does_not_end_is_known(service, daemon, monkeypatch):
    """As where somebody stays for ever where all calls go one after the other."""
    now, enough = [1000.0], threading.Event()
    monkeypatch.setattr(service, "_clock", lambda: now[0])
    assert service.failed == []
    service.parts.guard._pausing = True
    assert service.failed == ["guard"]
    service.parts.guard._pausing = False
    enough.set()
    looking = threading.Thread(target=service.look_on, args=(enough,))
    with service.parts.names._changed:
        looking.start()
        wait_until(lambda: service._looking_since == now[0], "a look")
        looking.join(0.05)
        assert looking.is_alive()
        assert service.failed == []
        now[0] += LATE_SECONDS + 1
        assert service.failed == ["looks"]
    looking.join()
    service.look_on(enough)
    assert service.failed == []


def ask(connect, data):
    with connect() as connection:
        connection.sendall(data)
        return connection.recv(say.MAX_ANSWER)


def changed(**changes):
    call = json.loads(msgspec.json.encode(say.Install(spec=say.to_message(SPEC))))
    call["spec"] |= changes
    return json.dumps(call).encode()


WELL = changed()
NONSENSE = {
    "nothing of ours": b"\x00\xff",
    "not JSON": b"{",
    "another call": b'{"call": "exec", "name": "x"}',
    "a call without its field": b'{"call": "down"}',
    "a field too many": changed(leftupdown="/bin/sh"),
    "a role": changed(role="target"),
    "weak suites": changed(allow_weak=True),
    "a name that is a path": changed(name="carnet-../../etc/passwd"),
    "a name with a command": changed(name="carnet-" + "0" * 30 + "; "),
    "a name with a line more": changed(name=NAME + "\n"),
    "another's identity": changed(local_identity="gateway.example.org"),
    "any identity": changed(remote_identity="%any"),
    "a short key": changed(psk="AAAA"),
    "a long key": changed(psk="A" * 4000),
    "a network with a zone": changed(remote_networks=["fd00::%}; flush ruleset"]),
    "an address with a zone": changed(virtual_address="fd00::%\n leftupdown=/x"),
    "a block with a zone": json.dumps(
        {
            "call": "close",
            "block": {"name": NAME, "networks": ["fd00::%; x"], "targets": ["::2"], "hosts": []},
        }
    ).encode(),
    "a Host with a zone": json.dumps(
        {
            "call": "close",
            "block": {
                "name": NAME,
                "networks": ["fd00::/8"],
                "targets": ["::2"],
                "hosts": [["fd00::%; x", 80]],
            },
        }
    ).encode(),
    "a block of nothing": json.dumps(
        {"call": "close", "block": {"name": NAME, "networks": [], "targets": ["::2"], "hosts": []}}
    ).encode(),
    "a network with a netmask": changed(remote_networks=["10.20.0.0/255.255.0.0"]),
    "a Target by name": changed(remote_addresses=["gateway.example.org"]),
    "a proposal with a setting": changed(esp_proposals=["aes256gcm16, dns = x"]),
    "too many networks": changed(remote_networks=["10.0.0.0/8"] * 33),
    "no Target": changed(remote_addresses=[]),
    "a lifetime of ages": changed(lifetime=10**12),
    "a number for a flag": changed(force_udp=1),
    "a deep one": b"[" * 16000,
    "deep calls": b'{"call":' * 2000,
    "a deep field of none": b'{"x":' + b"[" * 16000,
    "a huge one": WELL + b" " * say.MAX_MESSAGE,
}


@pytest.mark.parametrize("data", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_answered_by_hanging_up(connect, daemon, data):
    with capture_logs() as logs:
        assert ask(connect, data) == b""
    assert [(each["event"], each["log_level"]) for each in logs] == [("not-understood", "warning")]
    assert daemon.tunnels == {}
    assert json.loads(ask(connect, WELL))["error"] is None
    assert set(daemon.tunnels) == {NAME}


OTHERWISE = {
    "10.0.0.0/8": ["10.0.0.0/08", "10.0.0.0/010", "010.0.0.0/8", "10.0.0.1/8", "10.0.0.0"],
    "10.0.0.1": ["10.0.0.01", "012.0.0.1", "10.1", "167772161", "0x0a.0.0.1", "10.0.0.1\n"],
    "fd00::/8": ["FD00::/8", "fd00::/08", "fd00:0::/8", "fd00::%eth0/8", "::ffff:a00:0/104"],
    "fd00::1": ["FD00::1", "fd00::0001", "fd00::%eth0", "::ffff:a00:1", "::ffff:10.0.0.1"],
}
"""Ways of writing that one program reads and another does not, or otherwise; by the canonical."""


def leaves(built):
    """Yield all text in what a message is made of, with what it is in and where it is there."""
    for key, value in built.items() if isinstance(built, dict) else enumerate(built):
        if isinstance(value, str):
            yield built, key
        elif isinstance(value, dict | list):
            yield from leaves(value)


def with_numbers(canonical):
    """Yield calls that have it wherever an address, or a network, may be."""
    network = "/" in canonical
    spec_fields = {"remote_networks": [canonical]} if network else {
        "remote_addresses": [canonical], "virtual_address": canonical,
    }  # fmt: skip
    yield json.loads(changed(**spec_fields))
    one, other = {}, {"networks": [canonical]}
    if not network:
        one = {"targets": (canonical,), "hosts": ((canonical, 443),)}
        other = {"name": NAME, "servers": [canonical]}
    block = block_of(**(one or {"networks": (canonical,)}))
    yield json.loads(msgspec.json.encode(say.Close(block=block)))
    yield {"call": "may" if network else "servers", **other}


def test_addresses_and_networks_are_read_as_whatever_is_told_of_them_reads_them():
    decode = servers._decoder.decode
    tried = 0
    for canonical, others in OTHERWISE.items():
        for call in with_numbers(canonical):
            decode(json.dumps(call))
            for of, key in [each for each in leaves(call) if each[0][each[1]] == canonical]:
                for other in others:
                    of[key] = other
                    with pytest.raises(msgspec.ValidationError):
                        decode(json.dumps(call))
                of[key] = canonical
                tried += 1
    assert tried == 2 * (3 + 5)


def test_each_line_of_a_call_names_its_tunnel(connect, daemon, monkeypatch):
    monkeypatch.setattr(daemon, "forget_secrets", None)
    calls = (say.Install(spec=spec()), say.Close(block=block_of()), say.Installed())
    calls = (*calls, say.Up(spec=spec(name=OTHER)), say.Lift(name=NAME), say.Forget(name=NAME))
    with capture_logs() as logs:
        for call in calls:
            ask(connect, msgspec.json.encode(call))
        wait_until(lambda: len(logs) == len(calls), "the last line, after the answer that is none")
    assert [(each["event"], each["call"], each.get("tunnel")) for each in logs] == [
        ("done", "install", NAME),
        ("done", "close", NAME),
        ("done", "installed", None),
        ("refused", "up", OTHER),
        ("done", "lift", NAME),
        ("call-failed", "forget", NAME),
    ]


@pytest.mark.parametrize("resumes", [True, False])
def test_secrets_are_kept_only_where_the_daemon_s_driver_can_resume(
    connect, daemon, tmp_path, resumes
):
    daemon.resumes = resumes
    assert HelperDriver(tmp_path / "socket").resumes is resumes


def test_who_calls_is_what_the_kernel_says(connect, service, tmp_path):
    ask(connect, WELL)
    assert service.obey(os.getuid(), say.Installed()) == [NAME]
    assert HelperDriver(tmp_path / "socket").remembered() == {NAME}


def test_the_end_of_what_the_helper_tells_is_not_the_end_of_a_tunnel(connect, tmp_path):
    ask(connect, WELL)
    events = HelperDriver(tmp_path / "socket").watch()
    assert next(events) == TunnelEvent(NAME, Change.DOWN)
    with pytest.raises(HelperAwayError, match="has hung up"):
        next(events)


def test_who_does_not_take_in_what_she_is_told_is_told_no_more(connect, daemon, monkeypatch):
    """The daemon keeps for as long all that it has to tell, of anybody's tunnels."""
    ask(connect, WELL)
    closed = threading.Event()
    monkeypatch.setattr(servers, "_TAKEN_IN", struct.pack("ll", 0, 1000))
    monkeypatch.setattr(daemon, "watch", lambda: repeat(TunnelEvent(NAME, Change.DOWN)))
    monkeypatch.setattr(daemon, "close", closed.set)
    with connect() as connection:
        connection.sendall(msgspec.json.encode(say.Watch()))
        assert closed.wait(60)


def test_a_watch_that_was_closed_just_ends(connect, daemon, tmp_path, monkeypatch):
    ask(connect, WELL)
    ended = threading.Event()
    monkeypatch.setattr(daemon, "watch", lambda: iter(ended.wait, True))
    monkeypatch.setattr(daemon, "close", ended.set)
    driver = HelperDriver(tmp_path / "socket")
    events = driver.watch()
    driver.close()
    assert list(events) == []
    assert ended.wait(30)


def test_her_block_is_lifted_by_the_filter_that_made_it(service, daemon, monkeypatch):
    """As by a helper that is started anew where another is found first."""
    service.obey(ALICE, say.Close(block=block_of()))
    found_first = Daemon()
    found_first.name = "another"
    monkeypatch.setattr(block, "_here", block._PacketFilters((found_first, daemon)))
    assert service.obey(ALICE, say.Names()) == [NAME]
    service.obey(ALICE, say.Lift(name=NAME))
    assert (daemon.blocks, found_first.ended) == ({}, [])


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ECONNREFUSED, errno.EACCES])
def test_a_helper_that_cannot_be_called_is_away(monkeypatch, tmp_path, number):
    def connect(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "socket", lambda *_: MagicMock(connect=connect))
    with pytest.raises(HelperAwayError):
        HelperDriver(tmp_path / "socket").watch()


@pytest.fixture
def crowded(tmp_path):
    """A helper's socket at which so many wait that there is no place for one more."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening,
        ExitStack() as waiting,
    ):
        listening.bind(str(tmp_path / "socket"))
        listening.listen(1)
        with suppress(BlockingIOError):
            while True:
                one = waiting.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                one.setblocking(False)
                one.connect(str(tmp_path / "socket"))
                one.shutdown(socket.SHUT_WR)
        yield listening


def test_a_place_among_those_who_call_is_waited_for(crowded, tmp_path, monkeypatch):
    """As where one process connects and closes in a loop."""
    monkeypatch.setattr(client, "_CONNECT_SECONDS", 60)
    answer = say.answer_of([NAME])
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(HelperDriver(tmp_path / "socket").installed)
        with pytest.raises(TimeoutError):
            asking.result(timeout=0.1)
        said = b""
        while not said:  # by those who waited before, and say nothing
            taken, _ = crowded.accept()
            with taken:
                said = taken.recv(say.MAX_MESSAGE)
                taken.sendall(answer)
        assert asking.result() == {NAME}


def test_that_there_is_no_place_to_call_is_said(crowded, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "_CONNECT_SECONDS", 0.01)
    with pytest.raises(HelperAwayError, match="So many call carnet-helper"):
        HelperDriver(tmp_path / "socket").installed()
    assert crowded.fileno() >= 0


def test_a_helper_that_stands_still_is_away(monkeypatch, tmp_path):
    monkeypatch.setattr(client, "_ASKING_SECONDS", 0.01)
    monkeypatch.setattr(client, "_SECONDS", "not to be waited for")
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stopped:
        stopped.bind(str(path))
        stopped.listen()
        for ask in (HelperDriver(path).status, HelperFilter(path).names):
            with pytest.raises(HelperAwayError, match="start it"):
                ask()


def test_a_helper_that_stood_still_is_asked_briefly_before_it_is_waited_for(monkeypatch, tmp_path):
    """It would be waited for a minute and a half, as long as a negotiation may take."""
    monkeypatch.setattr(client, "_ASKING_SECONDS", 0.01)
    monkeypatch.setattr(client, "_SECONDS", "not to be waited for")
    monkeypatch.setattr(unanswered, "BRIEF_SECONDS", 0.01)
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stopped:
        stopped.bind(str(path))
        stopped.listen()
        helper = HelperDriver(path)
        for ask in (helper.status, lambda: helper.down(NAME)):
            with pytest.raises(HelperAwayError, match="start it"):
                ask()


def test_a_daemon_that_is_silent_is_told_from_one_that_is_not_there():
    with pytest.raises(DaemonSilentError, match="It does not answer"):
        say.result_of(say.failure_of(DaemonSilentError("It does not answer.")), None)


WAITING = {
    "up": (lambda name: say.Up(spec=spec(name=name, **({} if name == NAME else AWAY))), 2),
    "resume": (lambda name: say.Resume(name=name), 2),
    "take_leave": (lambda name: say.Leave(name=name), 1),
}
"""What waits for a peer, by the driver's name for it, and how many of one user's may."""


@pytest.mark.parametrize("what", WAITING)
def test_what_waits_for_one_user_s_silent_peers_leaves_the_daemon_to_others(
    service, daemon, monkeypatch, what
):
    begun, go_on, (call, few) = SimpleQueue(), threading.Event(), WAITING[what]
    done, ended, names = getattr(daemon, what), threading.Event(), (OTHER, THIRD)

    def wait(asked):
        begun.put(asked)
        assert (ended if OTHER in (asked, getattr(asked, "name", None)) else go_on).wait(30)
        return done(asked)

    def down(name):
        ended.set()
        Daemon.down(daemon, name)

    service.obey(ALICE, say.Install(spec=spec()))
    for name in names:
        service.obey(MALLORY, say.Install(spec=spec(name=name, **AWAY)))
    monkeypatch.setattr(daemon, what, wait)
    monkeypatch.setattr(daemon, "down", down)
    negotiating = service.parts.negotiating
    for places in (negotiating._places, negotiating._places_to_leave):
        monkeypatch.setattr(places, "_seconds", 0)
    with ThreadPoolExecutor(3) as threads:
        try:
            for name in names[:few]:
                threads.submit(service.obey, MALLORY, call(name))
                begun.get(timeout=30)
            assert "Too many tunnels" in refused(service, MALLORY, call(OTHER))
            hers = threads.submit(service.obey, ALICE, call(NAME))
            begun.get(timeout=30)
            service.obey(MALLORY, say.Down(name=OTHER))
        finally:
            go_on.set()
            ended.set()
    hers.result()


@pytest.fixture
def full(service, monkeypatch):
    """Have no place be free until this is set; how many wait is what it yields besides."""
    free, waits = threading.Event(), SimpleQueue()

    @contextmanager
    def taken(_):
        waits.put(True)
        assert free.wait(30)
        yield

    monkeypatch.setattr(service.parts.negotiating._places, "taken", taken)
    return free, waits


BRINGS_UP = pytest.mark.parametrize(
    "call", [say.Up(spec=spec()), say.Resume(name=NAME)], ids=["up", "resume"]
)


@BRINGS_UP
def test_what_waited_for_a_place_is_brought_up_only_if_it_is_hers_still(
    service, daemon, monkeypatch, full, call
):
    """What it claims may be another user's by then."""
    begun, (free, waits) = [], full
    for what in ("up", "resume"):
        monkeypatch.setattr(daemon, what, begun.append)
    service.obey(MALLORY, say.Install(spec=spec()))
    with ThreadPoolExecutor(1) as threads:
        later = threads.submit(service.obey, MALLORY, call)
        waits.get(timeout=30)
        service.obey(MALLORY, say.Down(name=NAME))
        if isinstance(call, say.Up):
            service.obey(MALLORY, say.Install(spec=spec(**AWAY)))
        service.obey(ALICE, say.Install(spec=spec(name=OTHER)))
        free.set()
        assert "no such tunnel of yours" in str(later.exception(30))
    assert begun == []


def test_an_address_that_means_something_once_there_is_a_place_is_not_set(
    service, daemon, monkeypatch, full
):
    free, waits = full
    service.obey(MALLORY, say.Install(spec=spec()))
    with ThreadPoolExecutor(1) as threads:
        later = threads.submit(service.obey, MALLORY, say.Up(spec=spec()))
        waits.get(timeout=30)
        monkeypatch.setattr(service.parts.virtual, "_own_addresses", lambda: {SPEC.virtual_address})
        free.set()
        assert "as the address of a tunnel" in str(later.exception(30))


@BRINGS_UP
def test_the_end_of_what_is_being_brought_up_waits_for_no_peer_and_comes_last(
    service, daemon, monkeypatch, call
):
    """What it sets just then would stay, and the name be anybody's."""
    begun, ended, happened = threading.Event(), threading.Event(), []

    def bring_up(_):
        begun.set()
        assert ended.wait(30)
        service.parts.names.sweep()
        happened.append(("set", service.parts.owners.owns(MALLORY, NAME)))
        return standing(spec())

    def down(name):
        happened.append("down")
        ended.set()
        Daemon.down(daemon, name)

    service.obey(MALLORY, say.Install(spec=spec()))
    for what in ("up", "resume"):
        monkeypatch.setattr(daemon, what, bring_up)
    monkeypatch.setattr(daemon, "down", down)
    with ThreadPoolExecutor(1) as threads:
        later = threads.submit(service.obey, MALLORY, call)
        assert begun.wait(30)
        service.obey(MALLORY, say.Down(name=NAME))
        later.result(30)
    assert happened == ["down", ("set", True), "down"]
    assert service.parts.owners.names() == frozenset()


def test_what_comes_up_to_take_leave_is_hers_until_that_is_done(service, daemon, monkeypatch):
    def take_leave(_):
        service.obey(MALLORY, say.Down(name=NAME))
        service.parts.names.sweep()
        refused(service, ALICE, say.Install(spec=spec(name=OTHER)))
        return True

    service.obey(MALLORY, say.Install(spec=spec()))
    monkeypatch.setattr(daemon, "take_leave", take_leave)
    service.obey(MALLORY, say.Leave(name=NAME))
    service.obey(ALICE, say.Install(spec=spec(name=OTHER)))


def test_all_users_together_wait_for_few_peers():
    places = Places(per_user=2, for_all=3, seconds=0)
    with ExitStack() as several:
        for uid in (ALICE, MALLORY, MALLORY):
            several.enter_context(places.taken(uid))
        with pytest.raises(IPsecError, match="try again"), places.taken(ALICE):
            pass
    with places.taken(ALICE):
        pass


def test_where_all_have_few_places_each_user_has_one():
    places = Places(per_user=2, for_all=2, one_kept=True)
    assert [places.take(uid) for uid in (MALLORY, MALLORY, ALICE)] == [True] * 3
    assert [places.take(uid) for uid in (MALLORY, ALICE)] == [False] * 2
    places.give(MALLORY)
    assert [places.take(uid) for uid in (ALICE, MALLORY)] == [False] * 2


def test_one_user_has_few_connections(connect):
    kept = [connect() for _ in range(CONNECTIONS_PER_USER)]
    told = b""
    with connect() as surplus, suppress(OSError):
        surplus.sendall(WELL)
        told = surplus.recv(say.MAX_ANSWER)
    for each in kept:
        each.close()
    assert told == b""


@contextmanager
def all_places_held(made, service, monkeypatch, data=b'{"call":"may","networks":[]}'):
    """Have members hold all places among the calls, with one that lasts."""
    begun, enough, obey, mine = SimpleQueue(), threading.Event(), service.obey, servers._caller

    def held_up(uid, call):
        if isinstance(call, say.May):
            begun.put(uid)
            assert enough.wait(60)
        return obey(uid, call)

    monkeypatch.setattr(service, "obey", held_up)
    with ExitStack() as kept:
        for uid in range(2000, 2000 + CALLS // CALLS_PER_USER):
            monkeypatch.setattr(servers, "_caller", lambda _, uid=uid: uid)
            for _ in range(CALLS_PER_USER):
                kept.enter_context(made()).sendall(data)
                assert begun.get(timeout=60) == uid
        kept.callback(enough.set)
        monkeypatch.setattr(servers, "_caller", mine)
        yield


def test_while_members_hold_all_places_everybody_ends_what_is_hers(
    connect, service, daemon, monkeypatch
):
    ask(connect, WELL)
    with all_places_held(connect, service, monkeypatch):
        mine = servers._caller
        for uid in (0, 2000):
            monkeypatch.setattr(servers, "_caller", lambda _, uid=uid: uid)
            assert "try again soon" in json.loads(ask(connect, WELL))["sentence"]
            assert json.loads(ask(connect, b'{"call":"installed"}'))["error"] is None
        monkeypatch.setattr(servers, "_caller", mine)
        down = msgspec.json.encode(say.Down(name=NAME))
        assert json.loads(ask(connect, down))["error"] is None
    assert daemon.tunnels == {}


def test_while_members_hold_all_places_everybody_hears_of_her_tunnel(
    connect, service, tmp_path, monkeypatch
):
    ask(connect, WELL)
    driver = HelperDriver(tmp_path / "socket")
    with all_places_held(connect, service, monkeypatch):
        assert driver.remembered() == {NAME}
        assert next(driver.watch()) == TunnelEvent(NAME, Change.DOWN)
        with pytest.raises(HelperAwayError, match="try again soon"):
            driver.check_limits(())


def test_who_has_too_many_watches_is_to_ask_again(connect, daemon, tmp_path, monkeypatch):
    """Of a tunnel, or its daemon, that says nothing."""
    ask(connect, WELL)
    events = SimpleQueue()
    monkeypatch.setattr(daemon, "watch", lambda: iter(events.get, None))
    monkeypatch.setattr(daemon, "close", lambda: events.put(None), raising=False)
    driver = HelperDriver(tmp_path / "socket")
    kept = [driver.watch() for _ in range(WATCHES_PER_USER)]
    with pytest.raises(HelperAwayError, match="try again soon"):
        driver.watch()
    driver.close()
    assert [list(each) for each in kept] == [[]] * WATCHES_PER_USER


def test_user_ids_that_nobody_has_count_as_one_and_make_nothing(
    service, daemon, tmp_path, monkeypatch
):
    """As who has subordinate ones: each is another user to the kernel."""
    uids = count(200_000)
    monkeypatch.setattr(servers, "_caller", lambda _: next(uids))
    with serving(service, daemon, tmp_path / "socket", members=lambda uid: uid < ALICE) as made:
        for call in (WELL, b'{"call":"watch"}', b'{"call":"may","networks":[]}'):
            assert "no member" in json.loads(ask(made, call))["sentence"]
        assert json.loads(ask(made, b'{"call":"status"}'))["error"] is None
        kept = [made() for _ in range(CONNECTIONS_PER_USER)]
        wait_until(lambda: all_are_taken(kept, made), "that they have all places of one")
        monkeypatch.setattr(servers, "_caller", lambda _: 0)
        assert json.loads(ask(made, WELL))["error"] is None
        for each in kept:
            each.close()
    assert set(daemon.tunnels) == {NAME}


def all_are_taken(kept, made):
    """Tell it, and keep one more if not: who looks may have had the place of one who is kept."""
    taken = is_hung_up_on(made)
    if not taken:
        kept.append(made())
    return taken


def is_hung_up_on(made):
    with made() as surplus, suppress(OSError):
        surplus.sendall(b'{"call":"status"}')
        return surplus.recv(say.MAX_ANSWER) == b""
    return True


def test_who_is_no_member_any_more_keeps_and_ends_what_is_hers_and_makes_nothing(
    service, daemon, tmp_path, monkeypatch
):
    """Also where the helper was started anew, and who counts as one with others has all places."""
    service.obey(ALICE, say.Install(spec=spec()))
    others = count(200_000)
    monkeypatch.setattr(servers, "_caller", lambda _: next(others))
    with serving(service, daemon, tmp_path / "socket", members=lambda _: False) as made:
        kept = [made() for _ in range(CONNECTIONS_PER_USER)]
        wait_until(lambda: all_are_taken(kept, made), "that they have all places of one")
        monkeypatch.setattr(servers, "_caller", lambda _: ALICE)
        driver = HelperDriver(tmp_path / "socket")
        assert next(driver.watch()) == TunnelEvent(NAME, Change.DOWN)
        inside = HelperInside(tmp_path / "socket")
        inside.fit(NAME, "", 1300, (), ())
        assert [each[2] for each in daemon.fitted] == [1300]
        for call in (WELL, b'{"call":"may","networks":[]}'):
            assert "no member" in json.loads(ask(made, call))["sentence"]
        driver.down(NAME)
        for each in kept:
            each.close()
    assert daemon.tunnels == {}


def test_nobody_waits_for_a_slow_user_database_but_whom_it_is_asked_of(
    service, daemon, tmp_path, monkeypatch
):
    asked, answered, told = SimpleQueue(), threading.Event(), SimpleQueue()

    def members(uid):
        asked.put(uid)
        return uid == ALICE or answered.wait(60)

    path = tmp_path / "socket"
    with serving(service, daemon, path, told.put, 0.001, members=members) as made:
        monkeypatch.setattr(servers, "_caller", lambda _: MALLORY)
        with made() as slow:
            slow.sendall(b'{"call":"installed"}')
            assert asked.get(timeout=60) == MALLORY
            monkeypatch.setattr(servers, "_caller", lambda _: ALICE)
            for _ in range(3):
                assert json.loads(ask(made, WELL))["error"] is None
            assert asked.get(timeout=60) == ALICE
            while not told.empty():
                told.get()
            assert told.get(timeout=60) == []
            answered.set()
            assert json.loads(slow.recv(say.MAX_ANSWER))["error"] is None
    assert asked.empty()


def test_who_is_hung_up_on_again_and_again_is_told_of_once(service, daemon, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(servers, "_caller", lambda _: ALICE)
    members = lambda uid: not asked.append(uid)  # noqa: E731
    with serving(service, daemon, tmp_path / "socket", members=members) as made:
        assert json.loads(ask(made, WELL))["error"] is None
        kept = [made() for _ in range(CONNECTIONS_PER_USER)]
        with capture_logs() as logged:
            wait_until(lambda: all_are_taken(kept, made), "that she has all her places")
            assert all(is_hung_up_on(made) for _ in range(20))
        for each in kept:
            each.close()
    assert [each["event"] for each in logged if each["log_level"] == "warning"] == [
        "too-many-connections"
    ]
    assert asked == [ALICE]


def test_answers_of_the_user_database_are_good_for_a_while():
    now, members, asked = [0.0], {ALICE}, []
    callers = Callers(
        lambda uid: asked.append(uid) or uid in members, lambda _: False, lambda: now[0]
    )
    assert [callers.known(uid) for uid in (0, ALICE, MALLORY)] == [0, NOT_ASKED, NOT_ASKED]
    assert [callers.counted(uid) for uid in (0, ALICE, MALLORY)] == [0, ALICE, NO_MEMBER]
    assert [callers.known(uid) for uid in (0, ALICE, MALLORY)] == [0, ALICE, NO_MEMBER]
    members.symmetric_difference_update({ALICE, MALLORY})
    assert [callers.is_member(uid) for uid in (ALICE, MALLORY)] == [True, False]
    now[0] += 60
    assert [callers.known(uid) for uid in (ALICE, MALLORY)] == [ALICE, NOT_ASKED]
    assert [callers.is_member(uid) for uid in (ALICE, MALLORY)] == [False, True]
    assert [callers.known(uid) for uid in (ALICE, MALLORY)] == [NO_MEMBER, MALLORY]
    assert asked == [ALICE, MALLORY] * 2
    for uid in range(200_000, 202_000):
        callers.is_member(uid)
    assert callers.known(MALLORY) == MALLORY


def test_a_member_is_also_who_is_listed_by_another_of_her_names(monkeypatch):
    one = next(each for each in pwd.getpwall() if each.pw_uid)
    number = next(gid for gid in count(200_000) if not has_group(gid))
    called = {"alias": one.pw_uid, "root": 0}
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=called[name]))
    for name, is_one in (("alias", True), ("root", False)):
        listed = SimpleNamespace(gr_mem=["gone", name])
        monkeypatch.setattr(grp, "getgrgid", lambda _, listed=listed: listed)
        assert members_of(str(number))(one.pw_uid) is is_one


def test_a_member_is_whom_the_databases_name_so():
    root = pwd.getpwuid(0)
    unknown = next(uid for uid in count(200_000) if not known(uid))
    one = next(each for each in pwd.getpwall() if each.pw_uid and each.pw_gid != root.pw_gid)
    is_member = members_of(str(one.pw_gid))
    assert [is_member(uid) for uid in (0, one.pw_uid, unknown)] == [True, True, False]
    elsewhere = members_of(str(next(gid for gid in count(200_000) if not has_group(gid))))
    assert [elsewhere(uid) for uid in (0, one.pw_uid, unknown)] == [True, False, False]
    assert not members_of("no-such-group-here")(one.pw_uid)


def known(uid):
    return any(each.pw_uid == uid for each in pwd.getpwall())


def has_group(gid):
    return any(each.gr_gid == gid for each in grp.getgrall())


def test_who_is_hung_up_on_is_told_what_that_may_mean(connect, tmp_path):
    kept = [connect() for _ in range(CONNECTIONS_PER_USER)]
    with pytest.raises(HelperAwayError, match="does at once") as caught:
        HelperDriver(tmp_path / "socket").installed()
    for each in kept:
        each.close()
    assert "systemctl" in caught.value.sentence


def test_no_secret_is_shown(service):
    half = say.Half(
        local_identity="client-1", remote_identity="target-1", psk=b"staple" * 6, ppk=None,
        ppk_id=None,
    )  # fmt: skip
    for said in (say.Install(spec=spec()), half):
        assert "psk" not in repr(said)
        assert "staple" not in repr(said)


def test_a_system_that_gives_no_local_socket_is_said(monkeypatch, tmp_path):
    def none(*_):
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", none)
    with pytest.raises(UsageError, match="RestrictAddressFamilies"):
        listen(tmp_path / "socket", "0")


@pytest.fixture
def here(monkeypatch):
    """This machine's addresses, with the interfaces to which a tunnel's routes from them lead."""
    addresses = {OWN_ADDRESS: []}

    def led_from(wanted):
        return {each: addresses[each] for each in wanted if addresses.get(each)}

    def remove(address, at):
        assert addresses.pop(address) == at

    monkeypatch.setattr(inner_address, "led_from", led_from)
    monkeypatch.setattr(inner_address, "remove", remove)
    return addresses


@pytest.fixture
def serve(tmp_path, daemon, here):
    """Start a helper at that machine: another one knows what the one before it wrote down."""

    def started():
        owners, own = Owners(tmp_path, 2), lambda: frozenset(here)
        return Service(HelperConfig(), daemon, owners, own, daemon, lambda _: AROUND)

    return started


def ends(service):
    service.obey(ALICE, say.Down(name=NAME))


def hears_of_it(service):
    service.parts.guard._follow(iter(()), Heard())


def begins_anew(service):
    service.begin()


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("then", [ends, hears_of_it, begins_anew])
def test_an_address_that_a_daemon_left_as_it_ended_goes(serve, daemon, here, held, then):
    service = serve()
    service.obey(ALICE, say.Install(spec=spec()))
    if held:
        service.obey(ALICE, say.Close(block=block_of()))
    here[SPEC.virtual_address] = ["eth0"]
    hears_of_it(service)
    assert set(here) == {OWN_ADDRESS, SPEC.virtual_address}  # it stands
    daemon.tunnels.clear()
    then(serve() if then is begins_anew else service)
    assert set(here) == {OWN_ADDRESS}


def test_an_address_is_taken_away_once_the_daemon_can_be_asked(serve, daemon, here, monkeypatch):
    def away(*_):
        raise IPsecError("The IPsec daemon does not answer.")

    service = serve()
    service.obey(ALICE, say.Install(spec=spec()))
    here[SPEC.virtual_address] = ["eth0"]
    with monkeypatch.context() as meanwhile:
        for each in ("installed", "status", "down"):
            meanwhile.setattr(daemon, each, away)
        hears_of_it(service)
        refused(service, ALICE, say.Down(name=NAME))
    assert set(here) == {OWN_ADDRESS, SPEC.virtual_address}
    daemon.tunnels.clear()
    enough = threading.Event()
    enough.set()
    service.look_on(enough)
    assert set(here) == {OWN_ADDRESS}


@pytest.mark.parametrize("then", [ends, hears_of_it, begins_anew])
def test_an_address_that_came_by_no_tunnel_is_nobody_s_to_take_away(serve, daemon, here, then):
    """Another VPN has it, which came after she had claimed it."""
    service = serve()
    service.obey(ALICE, say.Install(spec=spec()))
    here[SPEC.virtual_address] = []
    daemon.tunnels.clear()
    then(serve() if then is begins_anew else service)
    assert set(here) == {OWN_ADDRESS, SPEC.virtual_address}


def test_an_address_that_is_root_s_by_now_stays(serve, daemon, here):
    service = serve()
    service.obey(ALICE, say.Install(spec=spec()))
    here[SPEC.virtual_address] = ["eth0"]
    daemon.tunnels = {OTHER: named(OTHER)}
    ends(service)
    assert set(here) == {OWN_ADDRESS, SPEC.virtual_address}


FORMER = {
    "uid": ALICE,
    "networks": ["10.20.0.0/16", "10.21.0.0/16"],
    "installed": None,
    "block": "packets",
    "held": ["10.20.0.0/16"],
    "reaches": ["198.51.100.2", "10.22.0.7"],
}
"""As the helper before wrote it down."""


@pytest.fixture
def upgraded(tmp_path, daemon):
    """Start a helper where one of another version has written that down of her block."""

    def started(written):
        owners = Owners(tmp_path, 2)
        (tmp_path / "owners" / NAME).write_bytes(written)
        daemon.blocks[NAME] = None
        made = Service(HelperConfig(), daemon, owners, frozenset, daemon, lambda _: AROUND)
        made.begin()
        return made, owners

    return started


@pytest.mark.parametrize(
    "lacks", [(), ("reaches", "held", "block", "installed"), ("reaches", "held")]
)
def test_what_a_former_helper_wrote_down_is_hers_still(upgraded, lacks):
    written = {key: value for key, value in FORMER.items() if key not in lacks}
    service, owners = upgraded(json.dumps(written).encode())
    assert owners.block(NAME) == written.get("block")
    assert not owners.is_held(NAME)  # it did not say whether queries for names are
    for network in ("10.20.5.0/24", "10.21.0.0/16", *["10.22.0.0/16"][: "reaches" in written]):
        theirs = block_of(OTHER, networks=(network,), targets=("10.22.0.7",))
        assert "leads there" in refused(service, MALLORY, say.Close(block=theirs))
    service.obey(MALLORY, say.Close(block=block_of(OTHER, networks=("10.23.0.0/16",))))
    assert service.obey(ALICE, say.Names()) == [NAME]
    service.obey(ALICE, say.Lift(name=NAME))
    assert owners.names() == {OTHER}


def test_what_a_former_helper_wrote_of_her_tunnel_still_leads_there(upgraded):
    hers = msgspec.to_builtins(leading(spec()))
    service, owners = upgraded(json.dumps(FORMER | {"installed": hers}).encode())
    assert owners.installed(ALICE, NAME) == leading(spec())
    assert not owners.is_held(NAME)
    refused(service, MALLORY, say.Install(spec=spec(name=OTHER)))


def test_what_a_former_helper_had_installed_is_called_as_the_daemon_says(upgraded, daemon):
    hers = msgspec.to_builtins(leading(spec()))
    service, _ = upgraded(json.dumps(FORMER | {"installed": hers}).encode())
    daemon.tunnels[NAME] = SPEC
    theirs = spec(name=OTHER, remote_identity=SPEC.remote_identity, **AWAY)
    assert "an IKE identity" in refused(service, MALLORY, say.Install(spec=theirs))
    service.obey(ALICE, say.Install(spec=theirs))


@pytest.mark.parametrize(
    "written", [b"", b"{}", b"\xff", json.dumps(FORMER | {"more": 1}).encode()]
)
def test_what_cannot_be_read_is_somebody_s(upgraded, daemon, written):
    service, owners = upgraded(written)
    for uid in (ALICE, MALLORY, 0):
        refused(service, uid, say.Close(block=block_of()))
        assert "cannot be read" in refused(service, uid, say.Close(block=block_of(OTHER)))
        service.obey(uid, say.Lift(name=NAME))
    assert (daemon.ended, owners.names()) == ([], {NAME})
    daemon.blocks.clear()
    service.obey(ALICE, say.Close(block=block_of()))


@pytest.mark.parametrize(
    "changes",
    [
        {"remote_networks": ("10.20.5.0/24",)},
        {"virtual_address": "10.20.0.9"},
        {"virtual_address": "10.99.0.2"},
        {"remote_networks": ("10.99.0.0/16",)},
        {"remote_networks": ("172.16.0.0/12",)},
    ],
    ids=str,
)
def test_what_root_s_tunnel_holds_is_no_user_s_to_take(service, daemon, changes):
    """Root's is not installed by the helper, which knows of it by the daemon."""
    root = named(OTHER, remote_addresses=("172.16.7.7",))
    daemon.tunnels[OTHER] = root
    assert "leads there" in refused(service, MALLORY, say.Install(spec=spec(**(AWAY | changes))))
    assert "leads there" in refused(service, MALLORY, say.May(networks=("10.20.0.0/24",)))
    assert "leads there" in refused(service, MALLORY, say.Close(block=block_of()))
    service.obey(MALLORY, say.Install(spec=spec(**AWAY)))


def test_what_a_user_had_before_root_is_hers_still(service, daemon):
    service.obey(ALICE, say.Install(spec=spec()))
    daemon.tunnels[OTHER] = named(OTHER)
    service.obey(ALICE, say.Close(block=block_of()))


@pytest.mark.parametrize("roots", [("10.20.0.0/16",), ("10.0.0.0/8",), ("10.20.7.0/24",)], ids=str)
def test_root_s_tunnel_does_not_cut_her_connect_short(service, daemon, roots):
    """As long as it leads elsewhere than to her address inside."""
    hers = spec(remote_networks=("10.20.0.0/16",), virtual_address="192.168.50.2")
    service.obey(ALICE, say.Close(block=block_of()))
    daemon.tunnels[OTHER] = named(OTHER, remote_networks=roots, virtual_address="10.98.0.2")
    service.obey(ALICE, say.Install(spec=hers))
    service.obey(ALICE, say.Up(spec=hers))
    assert set(daemon.tunnels) == {NAME, OTHER}


FIRST = {
    "one of its addresses": say.Close(block=block_of(networks=("10.20.255.1/32",))),
    "a Host there": say.Close(
        block=block_of(networks=("10.70.0.0/16",), hosts=(("10.20.3.3", 1),))
    ),
    "a Host at its address": say.Close(
        block=block_of(networks=("10.70.0.0/16",), hosts=((SPEC.virtual_address, 1),))
    ),
    "a tunnel to one of its addresses": say.Install(
        spec=spec(remote_networks=("10.20.255.1/32",), virtual_address="10.98.0.2")
    ),
}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_what_a_user_had_before_root_is_hers_and_no_more_than_that(service, daemon, first):
    """By the same name she goes no further."""
    service.obey(MALLORY, first)
    daemon.tunnels[OTHER] = named(OTHER)
    for further in (
        say.Close(block=block_of()),
        say.Close(block=block_of(networks=("10.20.3.3/32",))),
        say.Close(block=block_of(networks=("10.99.0.0/24",))),
    ):
        assert "leads there" in refused(service, MALLORY, further)
    if isinstance(first, say.Close):
        for networks, address in (
            (("10.20.0.0/24",), "10.98.0.2"),
            (("10.20.3.3/32",), "10.98.0.2"),
            (("10.70.0.0/16",), "10.20.0.20"),
            (("10.70.0.0/16",), SPEC.virtual_address),
        ):
            further = say.Install(spec=spec(remote_networks=networks, virtual_address=address))
            assert "leads there" in refused(service, MALLORY, further)
    service.obey(MALLORY, first)
