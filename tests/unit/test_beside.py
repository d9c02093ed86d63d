"""Of tunnels to several Targets no two lead to the same addresses, and none to another's Target."""

import pytest
from msgspec.structs import replace

from carnet.errors import IPsecError, TakenError
from carnet.ipsec import block
from carnet.ipsec.driver import Lead
from carnet.objectives import Objective
from tests.unit.examples import make_tunneling_info
from tests.unit.test_sessions import a_session
from token_client.beside import goes_on, refuse_grant, refuse_wish
from token_client.means import Wish
from token_client.session_states import Stage, State
from token_client.sessions import SessionStore
from token_client.unrecorded import unrecorded

WORK, LAB = ("198.51.100.2",), ("198.51.101.2",)
ALL = ("0.0.0.0/0",)
TEN = ("10.20.0.0/16",)
SPLIT = a_session(target="work", networks=TEN, target_addresses=WORK)
FULL = replace(SPLIT, networks=ALL)
ALONE = replace(SPLIT, networks=())
BY_NONE = {"objective_id": int(Objective.NATIVE)}
ENDED = Stage(State.ENDED, "It was ended.")
NATIVE = replace(SPLIT, **BY_NONE)


def granted(networks, addresses=LAB, **changes):
    return make_tunneling_info(networks=networks, target_addresses=addresses, **changes)


@pytest.mark.parametrize(
    ("other", "info", "where"),
    [
        (SPLIT, granted(ALL), "10.20.0.0/16"),
        (SPLIT, granted(TEN), "10.20.0.0/16"),
        (SPLIT, granted(("10.20.30.0/24",)), "10.20.30.0/24"),
        (SPLIT, granted(("10.0.0.0/8",)), "10.20.0.0/16"),
        (SPLIT, granted(("198.51.100.0/24",)), "198.51.100.2/32"),
        (SPLIT, granted(("10.30.0.0/16",), ("10.20.0.9",)), "10.20.0.9/32"),
        (FULL, granted(TEN), "10.20.0.0/16"),
        (FULL, granted(()), "198.51.101.2/32"),
        (FULL, granted(("fd20::/64",)), "198.51.101.2/32"),
        (ALONE, granted(ALL), "198.51.100.2/32"),
        (ALONE, granted((), WORK), "198.51.100.2/32"),
        (NATIVE, granted(ALL), "10.20.0.0/16"),
        (NATIVE, granted(("198.51.100.0/24",)), "198.51.100.2/32"),
        (FULL, granted(TEN, **BY_NONE), "10.20.0.0/16"),
        (SPLIT, granted(("10.30.0.0/16",), ("10.20.0.9",), **BY_NONE), "10.20.0.9/32"),
        (replace(SPLIT, stage=Stage(State.TO_END)), granted(TEN), "10.20.0.0/16"),
        (replace(SPLIT, stage=Stage(State.UNSEEN)), granted(TEN), "10.20.0.0/16"),
    ],
)
def test_what_leads_to_the_same_addresses_is_refused(other, info, where):
    with pytest.raises(IPsecError) as refused:
        refuse_grant(info, "lab", [other], again=90)
    assert refused.value.sentence == (
        f"A tunnel to lab cannot stand beside the one to work, since both would send packets to"
        f" {where}; run `carnet disconnect work`, then `carnet connect lab` again with the same"
        " options within 1m30s, which costs no further key pair."
    )


@pytest.mark.parametrize(
    ("others", "info"),
    [
        ([], granted(ALL)),
        ([SPLIT], granted(("10.30.0.0/16",))),
        ([SPLIT], granted(())),
        ([SPLIT], granted(("fd20::/64",))),
        ([ALONE], granted(TEN)),
        ([replace(FULL, target="lab")], granted(TEN)),
        ([replace(FULL, stage=ENDED)], granted(TEN)),
        ([NATIVE], granted(("10.30.0.0/16",))),
        ([replace(NATIVE, networks=ALL)], granted(ALL, **BY_NONE)),
        ([SPLIT], granted(("10.30.0.0/16",), **BY_NONE)),
        ([SPLIT], granted(("198.51.100.0/24",), **BY_NONE)),
    ],
)
def test_what_leads_elsewhere_or_takes_its_place_is_let_through(others, info):
    refuse_grant(info, "lab", others, again=0)


def test_where_another_user_s_tunnel_leads_there_she_hears_what_going_on_costs():
    refused = TakenError("Another user has a tunnel that leads there. Name others, or wait.")
    assert goes_on(refused, "lab", 90).sentence == (
        "Another user has a tunnel that leads there. Name others, or wait; then run `carnet connect"
        " lab` again with the same options within 1m30s, which costs no further key pair."
    )
    assert goes_on(refused, "lab", 0) is refused


def test_who_could_not_go_on_with_the_answer_hears_nothing_of_it():
    said = r"then `carnet connect lab` again with the same options\.$"
    with pytest.raises(IPsecError, match=said):
        refuse_grant(granted(TEN), "lab", [SPLIT], again=0)


@pytest.mark.parametrize(
    ("other", "networks", "where"),
    [
        (SPLIT, ALL, "10.20.0.0/16"),
        (SPLIT, TEN, "10.20.0.0/16"),
        (SPLIT, ("198.51.100.0/24",), "198.51.100.2/32"),
        (FULL, None, "0.0.0.0/0"),
        (FULL, (), "0.0.0.0/0"),
        (NATIVE, ALL, "10.20.0.0/16"),
        (SPLIT, None, None),
        (SPLIT, (), None),
        (SPLIT, ("10.30.0.0/16",), None),
    ],
)
def test_what_is_known_before_is_refused_before_a_pair_is_spent(other, networks, where):
    wish = Wish("lab", int(Objective.ESP), networks, None)
    if where is None:
        refuse_wish(wish, [other])
        return
    with pytest.raises(IPsecError, match=f"packets to {where}; run `carnet disconnect work`"):
        refuse_wish(wish, [other])


class Machine:
    """Stands for a daemon that tells of tunnels, and for the packet filter."""

    name = "packets"

    def leads(self):
        return {
            "carnet-0a": Lead(networks=frozenset(TEN), targets=frozenset(WORK)),
            "carnet-0b": Lead(targets=frozenset(("198.51.102.2",))),
            "another-vpn": Lead(inner=frozenset(("10.99.0.9",))),
        }

    def works(self):
        return True

    def held_back(self):
        return {
            name: block.HeldBack(networks=frozenset(ALL)) for name in ("carnet-0a", "carnet-0c")
        }


@pytest.mark.parametrize(
    ("recorded", "networks", "where"),
    [
        (("carnet-0c",), TEN, "10.20.0.0/16"),
        (("carnet-0c",), ("198.51.102.0/24",), "198.51.102.2/32"),
        (("carnet-0c",), ("198.51.100.0/24",), "198.51.100.2/32"),
        (("carnet-0a", "carnet-0b"), ("10.30.0.0/16",), "10.30.0.0/16"),
        (("carnet-0c",), ("10.30.0.0/16",), None),
    ],
)
def test_what_no_record_tells_of_is_not_led_elsewhere(
    tmp_path, monkeypatch, recorded, networks, where
):
    """Another user's tunnel, or what her lost one holds back; or one whose record is damaged."""
    machine, store = Machine(), SessionStore(tmp_path)
    monkeypatch.setattr(block, "_here", block._PacketFilters((machine,)))
    for name in recorded:
        store.keep(replace(SPLIT, name=name, stage=ENDED))
    others = unrecorded(machine, store, but=("carnet-0a",) if where is None else ())
    wish = Wish("lab", int(Objective.ESP), networks, None)
    refusals = (
        lambda: refuse_wish(wish, store.all(), others),
        lambda: refuse_grant(granted(networks), "lab", store.all(), others, again=0),
    )
    for refuse in refusals:
        if where is None:
            refuse()
            continue
        with pytest.raises(IPsecError, match=f"packets to {where} and no record"):
            refuse()


def test_where_nothing_is_recorded_nothing_is_missed(tmp_path):
    assert unrecorded(Machine(), SessionStore(None)) == []
    assert unrecorded(object(), SessionStore(tmp_path)) == []
