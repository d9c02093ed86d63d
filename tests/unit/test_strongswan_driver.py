"""What the strongSwan driver makes of a daemon that does what is seldom seen of a real one."""

import socket
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from vici.exception import CommandException

from carnet.errors import (
    AwayError,
    DaemonSilentError,
    IKERefusedError,
    IKESilentError,
    IPsecError,
    NothingLeftError,
    TunnelLeftError,
)
from carnet.ipsec import bundle, inner_address
from carnet.ipsec import strongswan_addresses as addresses
from carnet.ipsec import strongswan_leftovers as leftovers
from carnet.ipsec import strongswan_listing as listing
from carnet.ipsec import strongswan_negotiation as negotiation
from carnet.ipsec import strongswan_removing as removing
from carnet.ipsec.driver import Lead
from carnet.ipsec.example import example_spec
from carnet.ipsec.libreswan import Libreswan
from carnet.ipsec.spec import Mode
from carnet.ipsec.strongswan import StrongSwan
from carnet.ipsec.strongswan_parts import parts, reqids
from carnet.objectives import Objective
from tests.unit.iproute import stand_in


def test_a_peer_that_ends_it_at_once_is_told_as_a_tunnel_that_went_down(monkeypatch):
    driver, ended = StrongSwan(Path("/nowhere")), []
    monkeypatch.setattr(driver, "_listed", SimpleNamespace(sas=lambda *_: []))
    monkeypatch.setattr(driver, "_negotiation", SimpleNamespace(start=lambda *_, **__: None))
    monkeypatch.setattr(driver, "down", ended.append)
    spec = example_spec(Objective.ESP, Mode.TUNNEL, (), ike_version=1, ppk=False)
    with pytest.raises(IKESilentError, match="went down again as it came up"):
        driver.up(spec)
    assert ended == [spec.name]


def test_an_address_goes_with_a_connection_that_another_took_out_as_it_was_set(monkeypatch):
    """Its connection, by which it is known otherwise, is not listed any more."""
    driver, removed = StrongSwan(Path("/nowhere")), []
    gone = SimpleNamespace(
        get_conns=lambda: {"conns": []}, get_pools=lambda _: {}, unload_shared=lambda _: None
    )
    standing = [[("carnet-1", {"local-host": "192.0.2.1", "remote-host": "192.0.2.2"})]]
    monkeypatch.setattr(driver._listed, "sas", lambda *_: standing.pop() if standing else [])
    monkeypatch.setattr(driver._listed, "connections", lambda *_: {})
    monkeypatch.setattr(driver._negotiation, "start", _starts())
    monkeypatch.setattr(driver._negotiation, "end", lambda *_: 0)
    monkeypatch.setattr(driver._negotiation, "end_at_once", lambda *_: 0)
    monkeypatch.setattr(driver._tying, "untie", lambda *_: None)
    monkeypatch.setattr(driver._tying, "unblock_halves", lambda: None)
    monkeypatch.setattr(removing, "open_session", lambda *_: nullcontext(gone))
    monkeypatch.setattr(removing, "leftovers", MagicMock())
    monkeypatch.setattr(addresses, "way_to", lambda *_: None)
    monkeypatch.setattr(inner_address, "install", lambda *_: None)
    monkeypatch.setattr(inner_address, "remove", lambda *given: not removed.append(given))
    spec = example_spec(Objective.ESP, Mode.TUNNEL, (), ike_version=1, ppk=False)
    with pytest.raises(IKERefusedError):
        driver.up(spec)
    driver.down(spec.name)
    assert removed == [(spec.virtual_address, [], ("lo",))]


@pytest.mark.parametrize("driver", [StrongSwan, Libreswan])
def test_a_tunnel_stays_that_a_silent_daemon_tells_nothing_of(tmp_path, monkeypatch, driver):
    """Whether it is what was agreed is not known; one that cannot come up is taken down."""

    def silent(*_, **__):
        raise DaemonSilentError("It is silent.")

    daemon, ended = driver(tmp_path / "socket"), []
    monkeypatch.setattr(daemon, "down", ended.append)
    monkeypatch.setattr(daemon, "_compared", silent)
    spec = example_spec(Objective.ESP, Mode.TUNNEL, ())
    with pytest.raises(DaemonSilentError):
        daemon.confirm(spec)
    assert ended == []


@pytest.mark.parametrize("objective", [Objective.ESP, Objective.AH_ESP])
def test_a_tunnel_stays_whose_rekeying_is_not_answered_yet(monkeypatch, objective):
    """Both ends have rekeyed at once, and theirs was deleted; without such a child it is gone."""
    driver, ended = StrongSwan(Path("/nowhere")), []
    spec = example_spec(objective, Mode.TUNNEL, ())
    children = {"1": {"state": "REKEYED"}, "2": {"state": "DELETED"}}
    sas = [
        (each.name, {"state": "ESTABLISHED", "uniqueid": "1", "child-sas": children})
        for each in parts(spec)
    ]
    monkeypatch.setattr(listing, "SETTLE_TIME_LIMIT", 0)
    monkeypatch.setattr(driver._listed, "sas", lambda *names: [s for s in sas if s[0] in names])
    monkeypatch.setattr(driver._negotiation, "ends_unlisted", lambda *_: False)
    monkeypatch.setattr(driver, "down", ended.append)
    with pytest.raises(AwayError):
        driver.confirm(spec)
    assert ended == []
    del children["1"]
    with pytest.raises(IKESilentError):
        driver.confirm(spec)
    assert ended == [spec.name]


@pytest.mark.parametrize("both", [False, True])
def test_an_address_goes_with_the_last_tunnel_that_has_it(monkeypatch, both):
    """Of two that end at the same time each is there as the other one looks."""
    driver, removed = StrongSwan(Path("/nowhere")), []
    child = {"mode": "TUNNEL", "local-ts": ["10.99.0.7/32"], "remote-ts": ["10.20.0.0/16"]}
    connection = {"version": "IKEv1", "remote_addrs": ["192.0.2.2"], "children": {"one": child}}
    loaded = {"carnet-1": connection, "carnet-2": connection}

    def unload(order):
        del loaded[order["name"]]
        if both:
            loaded.clear()

    daemon = SimpleNamespace(
        get_conns=lambda: {"conns": [each.encode() for each in loaded]}, get_pools=lambda _: {},
        unload_conn=unload, unload_shared=lambda _: None,
    )  # fmt: skip

    def remove(address, others, at):
        assert at == ()  # it was not set from here
        removed.append((address, not any(address in each.inner for each in others)))
        return removed[-1][1]

    monkeypatch.setattr(driver._listed, "sas", lambda *_: [])
    monkeypatch.setattr(
        driver._listed,
        "connections",
        lambda *names: {each: loaded[each] for each in names or loaded},
    )
    monkeypatch.setattr(driver._negotiation, "end", lambda *_: 0)
    monkeypatch.setattr(driver._negotiation, "end_at_once", lambda *_: 0)
    monkeypatch.setattr(driver._tying, "untie", lambda *_: None)
    monkeypatch.setattr(removing, "open_session", lambda *_: nullcontext(daemon))
    monkeypatch.setattr(removing, "counters", MagicMock())
    monkeypatch.setattr(removing, "leftovers", MagicMock())
    monkeypatch.setattr(inner_address, "remove", remove)
    driver.down("carnet-1")
    assert removed == [("10.99.0.7", False), ("10.99.0.7", both)]


def test_an_address_that_another_connection_of_the_daemon_has_is_told_of(monkeypatch):
    """The operator's own, say: nobody's tunnel takes it along."""
    driver = StrongSwan(Path("/nowhere"))
    live = [("office-vpn", {"local-vips": ["10.99.0.7"]}), ("plain", {})]
    monkeypatch.setattr(driver._listed, "sas", lambda: live)
    monkeypatch.setattr(driver._listed, "connections", dict)
    assert driver.leads()["office-vpn"] == Lead(inner=frozenset({"10.99.0.7"}))


def test_whom_keys_are_for_is_told_of_what_is_loaded_as_no_daemon_minds_it(monkeypatch):
    driver = StrongSwan(Path("/nowhere"))
    listed = {"version": "IKEv2", "remote_addrs": ["198.51.100.2"], "ppk_id": "P-7.carnet"}
    ends = {"local-1": {"id": "c-7.Carnet"}, "remote-1": {"id": "%any"}}
    loaded = {"carnet-7/esp": listed, "carnet-7/ah": listed | ends}
    monkeypatch.setattr(driver._listed, "sas", list)
    monkeypatch.setattr(driver._listed, "connections", lambda: loaded)
    assert driver.leads()["carnet-7"].identities == {"c-7.carnet", "p-7.carnet"}


def test_what_was_left_of_a_tunnel_has_no_address_that_another_has_by_now(monkeypatch):
    """As after a daemon that was killed: the next one knows the other tunnel alone."""
    lead, removed = Lead(inner=frozenset({"10.99.0.7"})), []
    policy = (
        "src 10.99.0.7/32 dst 10.20.0.0/16 \\    dir out priority 371327 \\    tmpl src 192.0.2.1"
        f" dst 192.0.2.2\\        proto esp reqid {reqids('carnet-1')[0]} mode tunnel"
    )
    stand_in(monkeypatch, lambda *words, **_: SimpleNamespace(stdout=policy * ("policy" in words)))
    monkeypatch.setattr(inner_address, "remove", lambda *given: removed.append(given))
    monkeypatch.setattr(inner_address, "interfaces_of", lambda _: ["eth0"])
    monkeypatch.setattr(inner_address, "led_from", lambda _: {})
    leftovers.remove("carnet-1", others=lambda: [lead])
    leftovers.remove("carnet-1")
    monkeypatch.setattr(inner_address, "led_from", lambda _: {"10.99.0.7": ["eth1"]})
    leftovers.remove("carnet-1")
    assert [given[-1] for given in removed] == [(), ["eth0"], ["eth1"]]


_HERS, _ANOTHERS = ("192.0.2.2", "10.99.0.7/32", 0xC1), ("192.0.2.9", "10.99.0.8/32", 0xC2)
"""Of each tunnel its Target, its address inside, and the SPI with which it sends."""


def _in_kernel(reqid, priority, more=""):
    """Return both tunnels' policies and SAs by one request id, as `ip` lists them."""
    policies = [
        f"src {inner} dst 10.20.0.0/16 \\\tdir out priority {priority} \\\ttmpl src 192.0.2.1"
        f" dst {there}\\\t\tproto esp reqid {reqid} mode tunnel\\{more}"
        for there, inner, _ in (_HERS, _ANOTHERS)
    ]
    sas = [
        f"src 192.0.2.1 dst {there}\\\tproto esp spi {spi:#010x} reqid {reqid} mode tunnel"
        for there, _, spi in (_HERS, _ANOTHERS)
    ]
    return {"policy": policies, "state": sas}


@pytest.mark.parametrize("priority", [371327, bundle.PRIORITY], ids=["charon's", "ours"])
@pytest.mark.parametrize("known", [False, True])
def test_no_request_id_takes_out_what_the_daemon_has_of_another(monkeypatch, priority, known):
    """As of a name that somebody has sought for that."""
    there, inner, spi = _ANOTHERS
    child = {"protocol": "ESP", "spi-out": f"{spi:08x}", "reqid": str(reqids("carnet-1")[0])}
    child |= {"local-ts": [inner], "remote-ts": ["10.20.0.0/16", "10.0.0.1..10.0.0.2"]}
    ends = {"local-host": "192.0.2.1", "remote-host": there, "uniqueid": "7"}
    live = [("carnet-2", ends | {"child-sas": {"one": child, "begun": {}}})] if known else []
    kernel = _in_kernel(reqids("carnet-1")[0], priority)

    def ip(*words, said=""):
        for line in [*said.splitlines(), " ".join(words)]:
            for listed in kernel.values():
                listed[:] = [each for each in listed if not _is_deleted(each, line)]
        (table,) = kernel.keys() & {*words} or {None}
        return SimpleNamespace(stdout="\n".join(kernel.get(table, ())), returncode=0)

    stand_in(monkeypatch, ip)
    monkeypatch.setattr(inner_address, "led_from", lambda _: {})
    monkeypatch.setattr(inner_address, "remove", lambda *_: True)
    driver = StrongSwan(Path("/nowhere"))
    for look in ("sas", "settled_sas"):
        monkeypatch.setattr(driver._listed, look, lambda *_: live)
    monkeypatch.setattr(driver._listed, "connections", lambda *_: {})
    monkeypatch.setattr(driver._tying, "unblock_halves", lambda: None)
    monkeypatch.setattr(driver._addresses, "take_forsaken", lambda: None)
    driver._removing._take_out_of_kernel("carnet-1", [])
    left = _in_kernel(reqids("carnet-1")[0], priority)
    assert kernel == {table: lines[1:] if known else [] for table, lines in left.items()}


def _is_deleted(line, order):
    """Tell whether that order takes out an SA or a policy, by its ends."""
    words = order.split()
    if words[:1] != ["xfrm"] or words[2] != "delete":
        return False
    return line.replace("\\", " ").split()[:4] == words[3:7]


_BETWEEN_HOSTS = (
    "src 192.0.2.1/32 dst 192.0.2.2/32 \\\tdir out priority 367231 mark 0/0x80000000 \\\ttmpl src"
    " 0.0.0.0 dst 0.0.0.0\\\t\tproto esp reqid 1 mode transport\\"
)


_WITH_INDEX = [
    f"src 192.0.2.1/32 dst 192.0.2.2/32 uid 0\\\tdir out action allow index {index} priority 367231"
    f" share any flag  (0x00000000)\\\tlifetime config:\\{mark}\ttmpl src 0.0.0.0 dst 0.0.0.0\\"
    f"\t\tproto esp spi 0x00000000(0) reqid 1(0x00000001) mode transport\\\t\tlevel required\\"
    for index, mark in ((9, "\tmark 0/0x80000000 \\"), (17, ""))
]


@pytest.mark.parametrize("keeps", [False, True])
def test_without_a_daemon_what_it_left_between_two_hosts_goes_or_is_said_to_go_on(
    monkeypatch, tmp_path, keeps
):
    """No IKE_SA is left that it could belong to."""
    policies, orders = [_BETWEEN_HOSTS], []

    def ip(*words, said=""):
        if "deleteall" in words:
            orders.append(words)
            policies[:] = policies if keeps else []
        listed = policies if words[-2:] == ("policy", "list") else []
        listed = _WITH_INDEX if words[0] == "-s" and listed else listed
        return SimpleNamespace(stdout="\n".join(listed), returncode=0)

    stand_in(monkeypatch, ip)
    with pytest.raises(TunnelLeftError if keeps else NothingLeftError, match="does not answer"):
        StrongSwan(tmp_path / "charon.vici").down("carnet-1")
    sas = ("xfrm", "state", "deleteall", "src", "192.0.2.1", "dst", "192.0.2.2", "reqid", "1")
    assert sas in orders
    # An operator's own policy for these hosts has another index.
    ends = ("src", "192.0.2.1/32", "dst", "192.0.2.2/32", "dir", "out")
    assert ("xfrm", "policy", "deleteall", *ends, "index", "9") in orders
    assert not any("17" in order for order in orders)


def _tied(name, here, there, mode):
    """Return what ties AH and ESP together, as `ip` lists it."""
    esp, ah = reqids(name)
    ends = "src 192.0.2.1 dst 192.0.2.2" if mode == "tunnel" else "src 0.0.0.0 dst 0.0.0.0"
    return [
        f"src {source} dst {destination} \\\tdir {direction} priority 17319 ptype main \\\ttmpl"
        f" {ends}\\\t\tproto esp reqid {esp} mode {mode}\\\ttmpl {ends}\\\t\tproto ah reqid {ah}"
        " mode transport\\"
        for direction, source, destination in (
            ("out", here, there),
            ("in", there, here),
            ("fwd", there, here),
        )
    ]


@pytest.mark.parametrize("keeps", [False, True], ids=["goes", "is kept"])
@pytest.mark.parametrize(
    ("here", "there", "mode"),
    [("192.0.2.1/32", "192.0.2.2/32", "transport"), ("10.99.0.7/32", "10.20.0.0/16", "tunnel")],
    ids=["between hosts", "to a network"],
)
def test_without_a_daemon_what_tied_ah_and_esp_together_goes_or_is_said_to_be_left(
    monkeypatch, tmp_path, keeps, here, there, mode
):
    """It would drop all that is meant for Target, until a daemon is there again."""
    others = _tied("carnet-2", "192.0.2.1/32", "192.0.2.3/32", "transport")
    policies = [*others, *_tied("carnet-1", here, there, mode)]

    def ip(*words, said=""):
        for line in said.splitlines():
            order, _, doomed = line.partition(" policy delete ")
            selector, _, direction = doomed.partition(" dir ")
            if order == "xfrm" and not keeps:
                policies[:] = [
                    each
                    for each in policies
                    if not (each.startswith(f"{selector} ") and f"dir {direction} " in each)
                ]
        listed = policies if words[-2:] == ("policy", "list") else []
        return SimpleNamespace(stdout="[]" if "-json" in words else "\n".join(listed), returncode=0)

    stand_in(monkeypatch, ip)
    with pytest.raises(TunnelLeftError if keeps else NothingLeftError, match="does not answer"):
        StrongSwan(tmp_path / "charon.vici").down("carnet-1")
    assert keeps or policies == others


def _half(name, source, destination, spi):
    """Return an SA of a half at Target, as `ip` lists it."""
    return (
        f"src {source} dst {destination} \\\tproto esp spi 0x{spi} reqid {reqids(name)[0]}"
        " mode tunnel\\\treplay-window 32 \\\toutput-mark 0x40000000/0x40000000\\"
    )


def _begun(source, destination, spi):
    return f"src {source} dst {destination} \\\tproto esp spi 0x{spi} reqid 0 mode tunnel\\"


def test_without_a_daemon_the_block_of_halves_goes_with_the_last_and_what_was_begun_with_each(
    monkeypatch, tmp_path
):
    sas = [
        _half("carnet-1", "192.0.2.1", "192.0.2.2", "c1"),
        _begun("192.0.2.1", "192.0.2.2", "c2"),
        _half("carnet-2", "192.0.2.3", "192.0.2.2", "c3"),
        _begun("192.0.2.3", "192.0.2.2", "c4"),
    ]
    block = [f"{each} action block" for each in bundle._BLOCK]
    blocked = "mark 0x40000000/0x40000000"

    def ip(*words, said=""):
        for line in said.splitlines():
            sas[:] = [each for each in sas if f"spi {line.split()[-1]} " not in each]
            block[:] = [
                each for each in block if not each.startswith(line[len("xfrm policy delete ") :])
            ]
        listed = {"policy": [f"{each} {blocked}" for each in block], "nokeys": sas}
        of = "nokeys" if words[-1:] == ("nokeys",) else "policy" if "policy" in words else None
        return SimpleNamespace(stdout="\n".join(listed.get(of, ())), returncode=0)

    stand_in(monkeypatch, ip)
    driver, before = StrongSwan(tmp_path / "charon.vici"), list(block)
    with pytest.raises(NothingLeftError):
        driver.down("carnet-1")
    assert (len(sas), block) == (2, before)
    with pytest.raises(NothingLeftError):
        driver.down("carnet-2")
    assert (sas, block) == ([], [])


def test_a_daemon_that_lives_without_its_socket_has_what_it_had(monkeypatch, tmp_path):
    """Nothing between two hosts is taken out: it may be of any tunnel that stands."""
    stand_in(monkeypatch, lambda *_, **__: SimpleNamespace(stdout=_BETWEEN_HOSTS, returncode=0))
    monkeypatch.setattr(leftovers, "_run", lambda lines: lines and pytest.fail(str(lines)))
    vici = tmp_path / "charon.vici"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(vici))
        listener.listen()
        vici.unlink()
        with pytest.raises(DaemonSilentError, match=r"runs, .* restart it"):
            StrongSwan(vici).down("carnet-1")


def _starts():
    """Return a negotiation that is refused as soon as there is an address."""

    def start(_, *, has_child):
        if has_child:
            raise IKERefusedError("There is no such connection.")

    return start


def test_what_little_time_is_left_is_a_limit_still(monkeypatch):
    orders = []
    daemon = SimpleNamespace(initiate=lambda order: orders.append(order) or [])
    monkeypatch.setattr(negotiation, "open_session", lambda *_: nullcontext(daemon))
    negotiating = negotiation.Negotiation(Path("/nowhere"), None, 20)
    for seconds in (0.0004, 2.5):
        negotiating.start("carnet-1", has_child=False, seconds=seconds)
    assert [each["timeout"] for each in orders] == ["1", "2500"]


def test_what_does_not_come_up_is_ended_at_once_whatever_its_peer_says(monkeypatch):
    """It may have assigned an address, which is set until then."""
    orders = []

    def initiate(_):
        raise CommandException("It is refused.")

    daemon = SimpleNamespace(initiate=initiate, terminate=_ends_after(1, orders))
    monkeypatch.setattr(negotiation, "open_session", lambda *_: nullcontext(daemon))
    nothing = SimpleNamespace(sas=lambda *_: [])
    with pytest.raises(IPsecError):
        negotiation.Negotiation(Path("/nowhere"), nothing, 20).start("carnet-1", has_child=True)
    assert orders == [{"ike": "carnet-1", "timeout": "-1", "force": "yes"}] * 2


def _ends_after(times, orders):
    """Return what ends an IKE_SA when it is ordered so often, and finds none from then on."""

    def terminate(order):
        orders.append(order)
        if sum(each["ike"] == order["ike"] for each in orders) > times:
            raise CommandException("Command failed: no matching SAs to terminate found")
        return []

    return terminate


@pytest.mark.parametrize("unlisted", ["", "/ah"])
def test_what_is_not_listed_is_ended_until_the_daemon_finds_none(monkeypatch, unlisted):
    """One IKE_SA with a thousand CHILD_SAs is too long for a message of VICI."""
    orders, found = [], "carnet-1" + unlisted
    ends, gone = _ends_after(3, orders), _ends_after(0, [])
    daemon = SimpleNamespace(terminate=lambda it: (ends if it["ike"] == found else gone)(it))
    monkeypatch.setattr(negotiation, "open_session", lambda *_: nullcontext(daemon))
    nothing = SimpleNamespace(sas=lambda *_: [])
    negotiation.Negotiation(Path("/nowhere"), nothing, 20).end("carnet-1", "carnet-1/ah")
    assert len(orders) == 4


def test_what_the_daemon_finds_again_and_again_is_ordered_ever_more_seldom(monkeypatch):
    """Each order has it go through all IKE_SAs, of which there may be thousands."""
    pauses, sleep = [], time.sleep
    daemon = SimpleNamespace(terminate=lambda _: [])
    monkeypatch.setattr(negotiation, "open_session", lambda *_: nullcontext(daemon))
    monkeypatch.setattr(listing, "SETTLE_TIME_LIMIT", 0.3)
    monkeypatch.setattr(time, "sleep", lambda seconds: pauses.append(seconds) or sleep(seconds))
    with pytest.raises(IPsecError, match="cannot be ended"):
        negotiation.Negotiation(Path("/nowhere"), None, 20).end_at_once("carnet-1")
    assert pauses == sorted(set(pauses)) != []


def test_what_the_daemon_finds_again_and_again_has_not_ended_and_keeps_its_address(monkeypatch):
    """By whichever connection; it goes out of the kernel at least."""
    driver, removed = StrongSwan(Path("/nowhere")), MagicMock()
    daemon = SimpleNamespace(
        get_conns=lambda: {"conns": []}, unload_shared=lambda _: None, terminate=lambda _: [],
    )  # fmt: skip
    monkeypatch.setattr(driver._listed, "sas", lambda *_: [])
    monkeypatch.setattr(driver._listed, "connections", lambda *_: {})
    for module in (negotiation, removing):
        monkeypatch.setattr(module, "open_session", lambda *_: nullcontext(daemon))
    monkeypatch.setattr(listing, "SETTLE_TIME_LIMIT", 0)
    monkeypatch.setattr(removing, "leftovers", removed)
    with pytest.raises(IPsecError, match="carnet-1 cannot be ended"):
        driver.down("carnet-1")
    removed.remove.assert_called_once_with("carnet-1")


def test_another_address_is_not_there_until_its_peer_takes_notice_of_the_end(monkeypatch):
    driver, done = StrongSwan(Path("/nowhere")), []
    sas = [("carnet-1", {"local-vips": ["203.0.113.2"]})]
    monkeypatch.setattr(driver, "_listed", SimpleNamespace(sas=lambda *_: sas))
    does = {"start": lambda *_, **__: None, "end_at_once": lambda _: done.append("ended at once")}
    monkeypatch.setattr(driver, "_negotiation", SimpleNamespace(**does))
    monkeypatch.setattr(driver, "down", lambda _: done.append("down"))
    with pytest.raises(IPsecError, match="another virtual address"):
        driver.up(example_spec(Objective.ESP, Mode.TUNNEL, (), ppk=False))
    assert done == ["ended at once", "down"]


class SilentEvents:
    """Of a daemon that tells of none in time."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def next(self):
        raise TimeoutError


@pytest.mark.parametrize(
    ("silent", "kind", "why"),
    [(True, DaemonSilentError, "It is silent"), (False, IPsecError, "Target does not rekey")],
    ids=["this machine's daemon", "Target"],
)
def test_who_does_not_rekey_for_the_post_quantum_key_is_said(monkeypatch, silent, kind, why):
    def sas(_):
        if silent:
            raise DaemonSilentError("It is silent.")
        return []

    daemon = SimpleNamespace(rekey=lambda _: None)
    monkeypatch.setattr(negotiation, "Events", SilentEvents)
    monkeypatch.setattr(negotiation, "open_session", lambda *_: nullcontext(daemon))
    negotiating = negotiation.Negotiation(Path("/nowhere"), SimpleNamespace(sas=sas), 20)
    with pytest.raises(kind, match=why):
        negotiating.rekey_ike("carnet-1")
