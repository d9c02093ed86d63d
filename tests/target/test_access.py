"""Membership and access control list: what is granted, and each reason to refuse."""

import pytest

from carnet.ipsec.driver import Capabilities
from carnet.ipsec.spec import Mode
from carnet.objectives import Objective
from carnet.wire.messages import ClientDriver, RefusalCode
from target_agent.access import AccessDeniedError, AccessEntry, Carriage, Member, authorize
from tests.unit.examples import make_request

HOUR = 3600
OFFICE = AccessEntry(Objective.ESP, "10.20.0.0/16", 8 * HOUR)
LAB = AccessEntry(Objective.ESP, "10.30.5.0/24", 2 * HOUR)
ALICE = Member("alice@office", 0, (OFFICE, LAB))


def make_driver(**changes):
    fields = {
        "name": "strongswan",
        "ike_versions": (2,),
        "objectives": (3,),
        "modes": ("tunnel",),
        "ppk": True,
    }
    return ClientDriver(**(fields | changes))


def make_carriage(
    objectives=(Objective.ESP,),
    ppk=True,
    require_ppk=True,
    modes=(Mode.TUNNEL,),
    ip_versions=(4,),
    guards_itself=False,
    ike_versions=(2,),
    allow_ikev1=False,
):
    return Carriage(
        target="work",
        addresses=("198.51.100.2", "2001:db8::2"),
        ip_versions=frozenset(ip_versions),
        guards_itself=guards_itself,
        capabilities=Capabilities(
            driver="strongswan",
            version="0",
            ike_versions=ike_versions,
            objectives=objectives,
            modes=modes,
            ppk=ppk,
        ),
        require_ppk=require_ppk,
        allow_ikev1=allow_ikev1,
    )


def terms_for(carriage=None, member=ALICE, **changes):
    return authorize(make_request(**changes), member, carriage or make_carriage())


def denied(carriage=None, member=ALICE, **changes):
    with pytest.raises(AccessDeniedError) as caught:
        terms_for(carriage, member, **changes)
    return caught.value.code, caught.value.reason


def test_all_she_may_have_is_granted_for_the_shortest_of_its_times():
    terms = terms_for(networks=None, lifetime=None)
    assert terms.networks == ("10.20.0.0/16", "10.30.5.0/24")
    assert terms.lifetime == 2 * HOUR
    assert set(terms.entries) == {OFFICE, LAB}


def test_a_part_of_a_network_is_granted_for_as_long_as_the_whole():
    terms = terms_for(networks=("10.20.7.0/24",), lifetime=None)
    assert (terms.networks, terms.lifetime) == (("10.20.7.0/24",), 8 * HOUR)
    assert terms.entries == (OFFICE,)


def test_the_line_that_grants_longest_counts():
    short = AccessEntry(Objective.ESP, "10.20.7.0/24", HOUR)
    member = Member("alice@office", 0, (short, OFFICE))
    assert terms_for(member=member, networks=("10.20.7.0/24",), lifetime=None).lifetime == 8 * HOUR


def test_no_selector_lies_inside_another():
    networks = ("10.20.0.0/17", "10.20.128.0/17", "10.20.7.0/24")
    assert terms_for(networks=networks).networks == ("10.20.0.0/16",)


def test_less_time_than_granted_is_what_she_gets():
    assert terms_for(lifetime=600).lifetime == 600


def test_who_is_unknown_is_no_member():
    code, reason = denied(member=None)
    assert code is RefusalCode.UNKNOWN_USER
    assert reason == "alice@office is not a member at work; ask the operator of work."


def test_another_target_was_meant():
    assert denied(target="lab")[0] is RefusalCode.UNKNOWN_TARGET


def test_an_objective_that_is_not_hers():
    code, reason = denied(objective_id=2)
    assert code is RefusalCode.OBJECTIVE
    assert "objective ah;" in reason


@pytest.mark.parametrize(
    "network", ["10.40.0.0/16", "10.0.0.0/8", "0.0.0.0/0", "10.20.0.0/15", "2001:db8::/32"]
)
def test_a_network_that_is_not_hers(network):
    code, reason = denied(networks=("10.20.7.0/24", network))
    assert code is RefusalCode.NETWORK
    assert reason == f"alice@office may not reach {network}; ask the operator of work for it."


def test_a_line_of_another_objective_grants_nothing():
    member = Member("alice@office", 0, (OFFICE, AccessEntry(Objective.AH, "10.40.0.0/16", HOUR)))
    assert denied(member=member, networks=("10.40.0.0/16",))[0] is RefusalCode.NETWORK


def test_more_networks_than_a_tunnel_carries():
    entries = (AccessEntry(Objective.ESP, f"10.20.{n}.0/24", HOUR) for n in range(0, 66, 2))
    member = Member("alice@office", 0, tuple(entries))
    assert denied(member=member)[0] is RefusalCode.NETWORK


def test_more_time_than_hers():
    code, reason = denied(lifetime=9 * HOUR, networks=("10.20.0.0/16",))
    assert code is RefusalCode.LIFETIME
    assert "for 8h at most, not for 9h" in reason


ITSELF = AccessEntry(Objective.ESP, "198.51.100.2/32", 4 * HOUR)
BOTH_MODES = (Mode.TUNNEL, Mode.TRANSPORT)


def test_target_alone_is_granted_by_a_line_for_its_own_address():
    member = Member("alice@office", 0, (OFFICE, ITSELF))
    terms = terms_for(
        make_carriage(modes=BOTH_MODES),
        member,
        networks=(),
        lifetime=None,
        drivers=(make_driver(modes=("tunnel", "transport")),),
    )
    assert (terms.mode, terms.networks, terms.lifetime) == (Mode.TRANSPORT, (), 4 * HOUR)
    assert terms.target_addresses == ("198.51.100.2",)
    assert terms.entries == (ITSELF,)


def test_target_alone_without_a_line_for_it():
    code, reason = denied(make_carriage(modes=BOTH_MODES), networks=())
    assert code is RefusalCode.NETWORK
    assert reason == "alice@office may not reach work itself; ask the operator of work for it."


def test_where_nothing_is_named_what_is_behind_target_is_meant_or_else_target_alone():
    carriage = make_carriage(modes=BOTH_MODES)
    drivers = (make_driver(modes=("tunnel", "transport")),)
    all_of_it = Member("alice@office", 0, (OFFICE, ITSELF))
    assert terms_for(carriage, all_of_it, drivers=drivers).networks == ("10.20.0.0/16",)
    alone = terms_for(carriage, Member("alice@office", 0, (ITSELF,)), drivers=drivers)
    assert (alone.mode, alone.networks) == (Mode.TRANSPORT, ())


@pytest.mark.parametrize("hers", [True, False])
def test_transport_mode_that_one_end_does_not_carry_is_refused(hers):
    member = Member("alice@office", 0, (ITSELF,))
    carriage = make_carriage(modes=(Mode.TUNNEL,) if hers else BOTH_MODES)
    drivers = (make_driver(modes=("tunnel", "transport") if hers else ("tunnel",)),)
    code, reason = denied(carriage, member, networks=(), drivers=drivers)
    assert (code, "transport mode" in reason) == (RefusalCode.CANNOT_CARRY, True)


V6 = AccessEntry(Objective.ESP, "fd20::/64", HOUR)
MIXED = Member("alice@office", 0, (OFFICE, V6))


def test_a_tunnel_is_of_one_ip_version_inside():
    carriage = make_carriage(ip_versions=(4, 6))
    code, reason = denied(carriage, MIXED)
    assert (code, "IPv4 or IPv6 inside, not both" in reason) == (RefusalCode.CANNOT_CARRY, True)
    assert terms_for(carriage, MIXED, networks=("fd20::/64",)).networks == ("fd20::/64",)


def test_an_ip_version_without_addresses_to_give_is_not_carried():
    code, reason = denied(make_carriage(), MIXED, networks=("fd20::/64",))
    assert (code, "no virtual addresses of IPv6" in reason) == (RefusalCode.CANNOT_CARRY, True)


EVERY = tuple(Objective)


def every(objective, *networks):
    return Member("alice@office", 0, tuple(AccessEntry(objective, n, HOUR) for n in networks))


def able():
    return (make_driver(objectives=(1, 2, 3, 4), modes=("tunnel", "transport")),)


@pytest.mark.parametrize(
    ("objective", "networks", "granted"),
    [
        (Objective.NATIVE, None, False),
        (Objective.AH, None, False),
        (Objective.AH_ESP, None, False),
        (Objective.ESP, (), False),
        (Objective.ESP, None, True),
    ],
)
def test_what_nat_breaks_is_refused_where_her_machine_says_that_there_is_nat(
    objective, networks, granted
):
    carriage = make_carriage(EVERY, modes=BOTH_MODES)
    member = every(objective, "10.20.0.0/16", "198.51.100.2/32")
    asked = {"objective_id": int(objective), "networks": networks, "drivers": able()}
    assert terms_for(carriage, member, nat=False, **asked).objective is objective
    if granted:
        assert terms_for(carriage, member, nat=True, **asked).mode is Mode.TUNNEL
    else:
        code, reason = denied(carriage, member, nat=True, **asked)
        assert (code, "behind NAT" in reason) == (RefusalCode.CANNOT_CARRY, True)


def test_without_ipsec_there_is_no_tunnel_mode_and_both_ip_versions_may_be_had():
    carriage = make_carriage(EVERY, modes=BOTH_MODES)
    member = every(Objective.NATIVE, "10.20.0.0/16", "fd20::/64")
    terms = terms_for(carriage, member, objective_id=1, drivers=able())
    assert (terms.mode, terms.networks) == (Mode.TRANSPORT, ("10.20.0.0/16", "fd20::/64"))


@pytest.mark.parametrize("guards", [True, False])
def test_target_alone_without_ipsec_only_where_something_of_it_is_closed(guards):
    carriage = make_carriage(EVERY, modes=BOTH_MODES, guards_itself=guards)
    member = every(Objective.NATIVE, "198.51.100.2/32")
    asked = {"objective_id": 1, "networks": (), "drivers": able()}
    if guards:
        assert terms_for(carriage, member, **asked).networks == ()
    else:
        assert denied(carriage, member, **asked)[0] is RefusalCode.CANNOT_CARRY


def test_what_target_does_not_carry_is_not_downgraded():
    member = Member("alice@office", 0, (AccessEntry(Objective.AH_ESP, "10.20.0.0/16", HOUR),))
    code, reason = denied(member=member, objective_id=4)
    assert (code, "work cannot carry" in reason) == (RefusalCode.CANNOT_CARRY, True)


@pytest.mark.parametrize(
    "lack", [{"objectives": (2,)}, {"modes": ("transport",)}, {"ike_versions": (1,)}]
)
def test_what_her_machine_does_not_carry_is_not_downgraded(lack):
    code, reason = denied(drivers=(make_driver(**lack),))
    assert (code, "your machine" in reason) == (RefusalCode.CANNOT_CARRY, True)


def test_a_required_ppk_must_be_taken_by_the_driver_that_carries_the_rest():
    drivers = (make_driver(ppk=False), make_driver(name="libreswan", objectives=(2,)))
    code, reason = denied(drivers=drivers)
    assert (code, "RFC 8784" in reason) == (RefusalCode.CANNOT_CARRY, True)


@pytest.mark.parametrize(("hers", "ours"), [(True, True), (True, False), (False, True)])
def test_a_ppk_that_is_not_required_is_used_where_both_ends_can(hers, ours):
    carriage = make_carriage(ppk=ours, require_ppk=False)
    terms = terms_for(carriage, drivers=(make_driver(ppk=hers),))
    assert terms.ppk == (hers and ours)


RACOON = make_driver(name="racoon", ike_versions=(1,), ppk=False, objectives=(1, 2, 3, 4))
ONE = ("10.20.0.0/16",)


def carriage_of_ikev1(**changes):
    settings = {"ike_versions": (2, 1), "allow_ikev1": True, "require_ppk": False}
    return make_carriage(**(settings | changes))


def test_a_client_with_ikev1_alone_gets_it_where_the_operator_allows_it():
    terms = terms_for(carriage_of_ikev1(), drivers=(RACOON,), networks=ONE)
    assert (terms.ike_version, terms.ppk) == (1, False)


def test_a_client_that_has_ikev2_never_gets_ikev1():
    both = make_driver(ike_versions=(1, 2))
    for drivers in ((both,), (RACOON, make_driver())):
        terms = terms_for(carriage_of_ikev1(), drivers=drivers, networks=ONE)
        assert (terms.ike_version, terms.ppk) == (2, True)


def test_a_ppk_is_not_had_from_a_driver_of_another_ike_version():
    drivers = (RACOON, make_driver(ppk=False))
    assert not terms_for(carriage_of_ikev1(), drivers=drivers, networks=ONE).ppk


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"allow_ikev1": False}, "has IKEv1 alone, which work does not allow"),
        ({"require_ppk": True}, "requires a post-quantum pre-shared key"),
        ({"ike_versions": (2,)}, "no version of IKE in common"),
    ],
)
def test_a_client_with_ikev1_alone_is_refused_with_the_reason(changes, said):
    code, reason = denied(carriage_of_ikev1(**changes), drivers=(RACOON,), networks=ONE)
    assert code is RefusalCode.CANNOT_CARRY
    assert said in reason


def test_ikev1_leads_to_one_network():
    code, reason = denied(carriage_of_ikev1(), drivers=(RACOON,), networks=None)
    assert code is RefusalCode.CANNOT_CARRY
    assert "leads to one network, and 2 were meant" in reason


@pytest.mark.parametrize("objective", [Objective.NATIVE, Objective.AH_ESP])
def test_ikev1_carries_ah_or_esp(objective):
    carriage = carriage_of_ikev1(objectives=tuple(Objective), modes=tuple(Mode))
    entry = AccessEntry(objective, "10.20.0.0/16", HOUR)
    driver = make_driver(ike_versions=(1,), objectives=(1, 4), modes=("tunnel", "transport"))
    code, reason = denied(
        carriage,
        Member("alice@office", 0, (entry,)),
        objective_id=int(objective),
        drivers=(driver,),
        networks=ONE,
    )
    assert code is RefusalCode.CANNOT_CARRY
    assert f"with which {objective.label} cannot" in reason
