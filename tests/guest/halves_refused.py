"""Nothing is downgraded: half a bundle, other keys, weak suites. For test_two_halves."""

from dataclasses import replace

import pytest

from carnet.errors import IPsecError
from carnet.ipsec import bundle
from carnet.ipsec.spec import Mode
from carnet.objectives import Objective
from lab.waiting import wait_until
from tests.guest.addresses import BY_VERSION
from tests.guest.gateways import end, ends_of, inside, install, policies
from tests.guest.halves import BOTH, say
from tests.guest.halves_on_the_wire import drops, templates
from tests.lab.conftest import Ends


@pytest.mark.parametrize("lacking", [Objective.ESP, Objective.AH])
def test_a_target_with_one_half_only_gets_no_tunnel(client, target, lacking):
    ends = ends_of(BOTH, Mode.TRANSPORT)
    changes = {"esp_proposals": ()} if lacking is Objective.ESP else {"ah_proposals": ()}
    alone = Objective.AH if lacking is Objective.ESP else Objective.ESP
    one_half = replace(ends.target, objective=alone, ah_half=None, **changes)
    install(client, target, Ends(ends.client, one_half))
    with inside(client), pytest.raises(IPsecError):
        client.driver.up(ends.client)
    assert client.left() == []
    assert f"priority {bundle.PRIORITY}" not in policies(client)
    end(target, ends.name)


@pytest.mark.parametrize("half", ["psk", "ppk"])
def test_each_half_is_authenticated_by_keys_of_its_own(client, target, half):
    ends = ends_of(BOTH, Mode.TRANSPORT)
    other = replace(ends.target.ah_half, **{half: b"?" * 32})
    install(client, target, Ends(ends.client, replace(ends.target, ah_half=other)))
    with inside(client), pytest.raises(IPsecError, match="AUTHENTICATION_FAILED"):
        client.driver.up(ends.client)
    assert client.left() == []
    end(target, ends.name)


@pytest.mark.parametrize(
    "change",
    [
        {"ah_half": None},
        {"ah_proposals": ()},
        {"esp_proposals": ()},
        {"ah_proposals": ("md5",)},
        {"objective": Objective.ESP, "ah_half": None},
        {"objective": Objective.NATIVE, "ah_half": None},
    ],
    ids=str,
)
def test_what_is_no_whole_bundle_is_refused_before_anything_is_loaded(client, change):
    with pytest.raises(IPsecError, match="nothing is downgraded"):
        client.driver.install(replace(ends_of(BOTH, Mode.TRANSPORT).client, **change))
    assert client.left() == []


@pytest.mark.parametrize(
    ("objective", "proposals", "suite"),
    [
        (Objective.AH, {"ah_proposals": ("md5",)}, "AH md5"),
        (Objective.AH, {"ah_proposals": ("sha1",)}, "AH sha1"),
        (Objective.ESP, {"esp_proposals": ("3des-md5",)}, "ESP 3des-md5"),
    ],
)
def test_the_papers_suites_come_up_only_where_both_ends_were_told(
    client, target, objective, proposals, suite
):
    ends = ends_of(objective, Mode.TRANSPORT)
    weak = Ends(*(replace(spec, **proposals) for spec in (ends.client, ends.target)))
    for gateway, spec in ((client, weak.client), (target, weak.target)):
        with pytest.raises(IPsecError, match="weak algorithms"):
            gateway.driver.install(spec)
    told = Ends(*(replace(spec, allow_weak=True) for spec in (weak.client, weak.target)))
    install(client, target, told)
    assert client.driver.up(told.client).child_suite == suite
    end(client, ends.name)
    end(target, ends.name)


def test_nothing_reaches_target_by_a_half_nor_by_both_before_it_has_tied_them(
    client, target, listener
):
    """In transport mode the kernel takes by an SA alone what no policy is for."""
    ends, address = ends_of(BOTH, Mode.TRANSPORT), BY_VERSION[4].target
    install(client, target, ends)
    for half, kept in (("esp", ["esp"]), ("ah", ["ah"]), ("", ["esp", "ah"])):
        if half:
            initiate(client, f"{ends.name}/{half}")
            with inside(target):
                bundle.unblock_halves()  # which it does not while the half stands
        before = drops(target)["XfrmInPolBlock"]
        templates(client, ends, *kept)
        say(client, f"early-{half}-{ends.name}", address)
        wait_until(
            lambda: drops(target)["XfrmInPolBlock"] > before,  # noqa: B023
            f"the kernel to block {kept}",
        )
    with inside(target):
        assert target.driver.confirm(ends.target).established
    say(client, f"whole-{ends.name}", address)
    listener[address].wait_for(f"whole-{ends.name}")
    assert not listener[address].has("early")
    for gateway in (client, target):
        end(gateway, ends.name)


def initiate(client, part):
    with client.session() as session:
        list(session.initiate({"ike": part, "child": part, "timeout": "10000"}))
