"""The strongSwan driver against real daemons: a client behind NAT, a gateway, a server."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain, repeat
from queue import SimpleQueue
from threading import Event, Thread
from urllib.request import urlopen

import pytest
from vici import Session

from carnet.errors import DaemonSilentError, IKESilentError, IPsecError
from carnet.ipsec import strongswan_leftovers, strongswan_listing, strongswan_negotiation
from carnet.ipsec import strongswan_messages as messages
from carnet.ipsec.driver import Change, Lead, TunnelEvent
from carnet.ipsec.example import example_spec
from carnet.ipsec.spec import Mode
from carnet.ipsec.strongswan import StrongSwan
from carnet.ipsec.too_many import MOST_AT_ONCE, MOST_CHILDREN
from carnet.ipsec.vici_link import Events, text
from carnet.objectives import Objective
from lab.capture import Capture
from lab.charon import VICI, Lane
from lab.machine import Machine
from lab.network import CLIENT_ADDRESS, TARGET_ADDRESS, WORK_NETWORK
from lab.packets import FRAGMENTATION_SUPPORTED
from lab.waiting import TIME_LIMIT, wait_until
from tests.unit.test_sessions import a_session
from token_client import alone, known, late
from token_client.session_states import Stage, State
from token_client.sessions import SessionStore

from .conftest import Ends, Gateway, started, two_ends
from .test_connect import content

PLAN = "the plan of the work network\n"


def fetch(machine: Machine, url: str) -> str | None:
    with machine.network(), suppress(OSError), urlopen(url, timeout=5) as answer:  # noqa: S310
        return answer.read().decode()
    return None


def install(client: Gateway, target: Gateway, ends: Ends) -> None:
    target.driver.install(ends.target)
    client.driver.install(ends.client)


def connect(client: Gateway, target: Gateway, ends: Ends) -> None:
    install(client, target, ends)
    client.driver.up(ends.client)


def ike_sa(gateway: Gateway, name: str) -> dict:
    """The tunnel's newest IKE_SA: while it is rekeyed there are two."""
    with gateway.session() as session:
        reports = [text(sa)[name] for sa in session.list_sas({"ike": name})]
    return max(reports, key=lambda report: int(report["uniqueid"]))


def in_background(call: Callable[..., object], *arguments: object) -> Callable[[], object]:
    """Call it in another thread; what is returned waits for its result, but not for ever."""
    results: SimpleQueue[object] = SimpleQueue()
    Thread(target=lambda: results.put(call(*arguments)), daemon=True).start()
    return partial(results.get, timeout=TIME_LIMIT)


@pytest.mark.parametrize("ppk", [False, True], ids=["psk", "psk-and-ppk"])
def test_a_tunnel_through_nat_carries_http_and_nothing_passes_in_clear(
    world, client, target, work_file, ppk
):
    ends = two_ends(ppk=ppk)
    with Capture(world.router) as capture:
        assert fetch(client.machine, work_file) is None
        install(client, target, ends)
        status = client.driver.up(ends.client)
        assert fetch(client.machine, work_file) == PLAN
        at_target = target.driver.confirm(ends.target)
        client.driver.down(ends.name)
        assert fetch(client.machine, work_file) is None
    assert status.established
    assert (status.ppk, at_target.ppk) == (ppk, ppk)
    assert status.child_suite == "ESP aes256gcm16"
    assert status.ike_suite == "aes256gcm16-prfsha256-x25519"
    assert status.virtual_address == at_target.virtual_address == "10.99.0.7"
    assert at_target.bytes_out > len(PLAN)
    packets = capture.between(CLIENT_ADDRESS, TARGET_ADDRESS)
    assert packets["other"] == 0
    assert packets["ESP in UDP 4500"] + packets["ESP"] >= 8
    # Each end's, as it passed before and behind NAT.
    assert packets["IKE on UDP 500"] == 2
    assert capture.path.read_bytes().count(FRAGMENTATION_SUPPORTED) == 4
    assert PLAN.strip().encode() not in capture.path.read_bytes()


def test_what_is_not_ike_or_esp_is_counted(world, client):
    with Capture(world.router) as capture:
        client.machine.run(["bash", "-c", f"echo hello > /dev/udp/{TARGET_ADDRESS}/4500"])
        client.machine.run(["bash", "-c", f"echo hello > /dev/udp/{TARGET_ADDRESS}/53"])
    assert capture.between(CLIENT_ADDRESS, TARGET_ADDRESS)["other"] >= 2


def test_the_ike_sa_is_rekeyed_at_once_where_there_is_a_ppk(client, target):
    ends = two_ends(ppk=True)
    with Events(target.charon.vici, ["ike-rekey"], TIME_LIMIT) as events:
        connect(client, target, ends)
        assert ends.name in events.next()
    assert len(client.driver.status()) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"psk": b"?" * 32}, "AUTHENTICATION_FAILED"),
        ({"ppk": b"?" * 32}, "AUTHENTICATION_FAILED"),
        ({"ppk": None, "ppk_id": None}, "AUTHENTICATION_FAILED"),
        ({"ike_proposals": ("aes256gcm16-prfsha384-ecp384",)}, "NO_PROPOSAL_CHOSEN"),
        ({"esp_proposals": ("aes128gcm16",)}, "NO_PROPOSAL_CHOSEN"),
        ({"local_networks": ("10.20.0.0/24",)}, "its networks are others"),
        ({"virtual_address": "10.99.0.8"}, "virtual address"),
    ],
    ids=["psk", "ppk", "no-ppk", "ike-proposals", "esp-proposals", "networks", "address"],
)
def test_ends_that_differ_make_no_tunnel_and_leave_nothing(client, target, change, said):
    ends = two_ends(ppk=True)
    install(client, target, Ends(ends.client, replace(ends.target, **change)))
    with pytest.raises(IPsecError, match=said) as raised:
        client.driver.up(ends.client)
    assert "\n" not in raised.value.sentence
    assert client.left() == []


def test_another_address_is_gone_before_anything_else_is_negotiated(client, target, monkeypatch):
    ends, rekeyed = two_ends(ppk=True), []
    monkeypatch.setattr(client.driver._negotiation, "rekey_ike", rekeyed.append)
    install(client, target, Ends(ends.client, replace(ends.target, virtual_address="10.99.0.8")))
    with pytest.raises(IPsecError, match="another virtual address"):
        client.driver.up(ends.client)
    assert (client.left(), rekeyed) == ([], [])


def test_a_client_without_the_ppk_is_refused(client, target):
    ends = two_ends(ppk=True)
    install(client, target, Ends(replace(ends.client, ppk=None, ppk_id=None), ends.target))
    with pytest.raises(IPsecError, match="AUTHENTICATION_FAILED"):
        client.driver.up(replace(ends.client, ppk=None, ppk_id=None))


def test_a_target_that_does_not_answer(client):
    spec = replace(two_ends().client, remote_addresses=("198.51.100.6",))
    impatient = StrongSwan(client.charon.vici, ike_time_limit=1.0)
    impatient.install(spec)
    with pytest.raises(IPsecError, match="does not answer IKE"):
        impatient.up(spec)
    assert client.left() == []


def test_a_target_less_than_agreed_is_seen_at_target_too(client, target):
    ends = two_ends()
    connect(client, target, ends)
    stricter = replace(ends.target, esp_proposals=("chacha20poly1305",))
    with pytest.raises(IPsecError, match="its ESP algorithms were not proposed"):
        target.driver.confirm(stricter)
    assert target.left() == []


def test_forgotten_secrets_are_gone_and_rekeying_goes_on_without_them(client, target, work_file):
    ends = two_ends(ppk=True)
    connect(client, target, ends)
    for gateway in (client, target):
        gateway.driver.forget_secrets(ends.name)
        with gateway.session() as session:
            assert session.get_shared()["keys"] == []
    before = ike_sa(client, ends.name)
    with client.session() as session:
        session.rekey({"ike": ends.name})
    wait_until(lambda: ike_sa(client, ends.name)["uniqueid"] != before["uniqueid"], "a new IKE_SA")
    with client.session() as session:
        session.rekey({"child": ends.name})
    spi = next(iter(before["child-sas"].values()))["spi-in"]
    wait_until(
        lambda: any(
            child["spi-in"] != spi and child["state"] == "INSTALLED"
            for child in ike_sa(client, ends.name)["child-sas"].values()
        ),
        "a new CHILD_SA",
    )
    assert client.driver.confirm(ends.client).ppk
    assert fetch(client.machine, work_file) == PLAN


@pytest.fixture
def missed_once(target, monkeypatch):
    """Have the next listing at Target miss everything.

    Of some thousand listings while charon rekeys, one has neither IKE_SA in it.
    """
    listings = chain([[]], repeat(None))
    listing = target.driver._listed
    whole = listing.sas

    def sas(*names):
        missed = next(listings)
        return whole(*names) if missed is None else missed

    return lambda: monkeypatch.setattr(listing, "sas", sas)


def test_a_tunnel_that_a_listing_missed_stands(client, target, missed_once):
    ends = two_ends()
    connect(client, target, ends)
    missed_once()
    assert target.driver.confirm(ends.target).established


def test_a_tunnel_that_a_listing_missed_ends(client, target, missed_once):
    ends = two_ends()
    connect(client, target, ends)
    missed_once()
    target.driver.down(ends.name)
    assert target.left() == []


def test_down_leaves_nothing_and_may_be_repeated(client, target):
    ends = two_ends(ppk=True)
    connect(client, target, ends)
    assert client.driver.leads() == {ends.name: lead_of(ends.client)}
    for gateway in (client, target):
        gateway.driver.down(ends.name)
        gateway.driver.down(ends.name)
        assert gateway.left() == []
    assert client.driver.leads() == {}


def negotiate_again(client: Gateway, ends: Ends, times: int) -> None:
    """Negotiate so often beside the tunnel that stands, and do not say that it is anew."""
    ((name, connection),) = messages.connections(ends.client)[0].items()
    for number in range(times):
        further = connection | {
            "unique": "never",
            "rekey_time": f"{9000 + number}s",
            "children": {f"further-{number}": connection["children"][name]},
        }
        order = {"ike": f"further-{number}", "child": f"further-{number}", "timeout": "9000"}
        with client.session() as session:
            session.load_conn({f"further-{number}": further})
            list(session.initiate(order))


@pytest.fixture
def further(client, target):
    """Return both ends of a tunnel with so many IKE_SAs that strongSwan 5.9.8 miscounts leases."""
    ends = two_ends()
    connect(client, target, ends)
    negotiate_again(client, ends, 4)
    yield ends
    with client.session() as session:
        for number in range(4):
            session.unload_conn({"name": f"further-{number}"})
    # What it has miscounted goes with it alone.
    target.charon.kill()
    target.charon.start()


def test_a_tunnel_of_many_ike_sas_ends_whole_though_its_pool_may_stay(target, further, monkeypatch):
    """No new one can come up from before the first is ended."""
    terminate, loaded = Session.terminate, []

    def looked_before(session, order):
        with target.session() as another:
            loaded.extend(text(another.get_conns())["conns"])
            loaded.extend(text(another.get_shared())["keys"])
        yield from terminate(session, order)

    monkeypatch.setattr(Session, "terminate", looked_before)
    target.driver.down(further.name)
    assert loaded == []
    for _ in range(2):
        with target.session() as session:
            assert target.left() == list(session.get_pools())
        target.driver.sweep(frozenset)


def test_a_client_who_negotiates_again_and_again_loses_the_tunnel(target, further):
    with pytest.raises(IPsecError, match="has 5 IKE_SAs at once"):
        target.driver.refuse_many(further.name)
    with pytest.raises(IPsecError, match="has 5 IKE_SAs at once"):
        target.driver.confirm(further.target)
    assert target.driver.status() == []


@pytest.fixture
def _deletes_nothing(client):
    """Have none of the Client's INFORMATIONAL exchanges (RFC 7296 section 3.1) leave."""
    nft = partial(client.machine.run, ["nft", "-f", "-"])
    nft(
        stdin="add table ip mute; add chain ip mute out { type filter hook output priority 0; };"
        " add rule ip mute out udp dport 4500 @th,64,32 0 @th,240,8 37 drop"
    )
    yield
    nft(stdin="delete table ip mute")


@pytest.mark.usefixtures("_deletes_nothing")
def test_a_client_who_rekeys_and_deletes_nothing_is_told_of_and_loses_the_tunnel(client, target):
    """For good the daemon keeps each IKE_SA that was rekeyed and not deleted."""
    ends = two_ends(virtual_address="10.99.0.9")
    connect(client, target, ends)
    events = target.driver.watch()
    for _ in range(MOST_AT_ONCE):
        client.driver._negotiation.rekey_ike(ends.name)
    assert in_background(next, events)() == TunnelEvent(ends.name, Change.ANEW)
    with pytest.raises(IPsecError, match=f"has {MOST_AT_ONCE + 1} IKE_SAs at once"):
        target.driver.refuse_many(ends.name)
    target.driver.close()
    for gateway in (target, client):
        gateway.driver.down(ends.name)


@pytest.fixture
def crowded(client, target):
    """Return both ends of a tunnel of one IKE_SA, and of ever more CHILD_SAs alike."""
    ends = two_ends()
    connect(client, target, ends)
    ((name, connection),) = messages.connections(ends.client)[0].items()
    child = connection["children"][name]
    further = {
        f"further-{number}": child | {"mark_in": str(number), "if_id_in": str(number)}
        for number in range(1, MOST_CHILDREN + 1)
    }
    with client.session() as session:
        session.load_conn({name: connection | {"children": {name: child} | further}})
        for each in further:
            list(session.initiate({"ike": name, "child": each, "timeout": "9000"}))
    yield ends
    for gateway in (client, target):
        gateway.driver.down(ends.name)


def test_a_client_who_makes_child_sas_again_and_again_loses_the_tunnel(target, crowded):
    """Of about a thousand charon would list nothing any more."""
    with pytest.raises(IPsecError, match=f"has {MOST_CHILDREN + 1} CHILD_SAs at once"):
        target.driver.confirm(crowded.target)
    assert target.driver.status() == []


def test_a_tunnel_that_the_daemon_does_not_list_ends_all_the_same(target, crowded, monkeypatch):
    """And what is found to stand so has not been closed by its peer."""
    monkeypatch.setattr(target.driver._listed, "sas", lambda *_: [])
    monkeypatch.setattr(strongswan_listing, "SETTLE_TIME_LIMIT", 0.1)
    with pytest.raises(IPsecError, match="more CHILD_SAs than") as caught:
        target.driver.confirm(crowded.target)
    assert not isinstance(caught.value, IKESilentError)
    assert target.left() == []


def test_down_ends_what_the_daemon_does_not_list(target, crowded, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(target.driver._listed, "sas", lambda *_: [])
        target.driver.down(crowded.name)
    assert target.left() == []


def lead_of(spec) -> Lead:
    """Return where a tunnel leads, as its daemon has it."""
    inner = frozenset({spec.virtual_address})
    called = frozenset(filter(None, (spec.local_identity, spec.remote_identity, spec.ppk_id)))
    return Lead(frozenset(spec.remote_addresses), frozenset(spec.remote_networks), inner, called)


@pytest.fixture
def silent(client, target):
    """Return both ends of a tunnel whose peer answers no more."""
    ends = two_ends()
    connect(client, target, ends)
    target.charon.kill()
    yield ends
    target.charon.start()


def test_down_without_a_peer_that_agrees(client, silent, monkeypatch):
    """Nothing of it passes from the moment on at which the daemon is told: it waits for nobody."""
    terminate, left = Session.terminate, []

    def looked_after(session, order):
        yield from terminate(session, order)
        left.append(client.driver._listed.sas(silent.name))

    monkeypatch.setattr(Session, "terminate", looked_after)
    client.driver.down(silent.name)
    assert left == [[]]
    assert client.left() == []


def test_down_tells_a_peer_that_hears(client, target):
    """Though it is not waited for."""
    ends = two_ends()
    connect(client, target, ends)
    target.driver.down(ends.name)
    wait_until(lambda: client.driver._listed.sas(ends.name) == [], "the peer to hear of the end")


def test_a_peer_that_is_silent_holds_no_thread_of_the_daemon(client, silent, monkeypatch):
    """What asks it to end the tunnel has its answer while the peer is waited for.

    It is where it has yet to answer something before.
    """
    monkeypatch.setattr(strongswan_negotiation, "OCCUPIED_TIME_LIMIT", TIME_LIMIT)
    terminate, answered, out_of_kernel = Session.terminate, Event(), []
    monkeypatch.setattr(strongswan_leftovers, "force", out_of_kernel.append)
    with client.session() as session:
        session.rekey({"ike": silent.name})
    wait_until(lambda: "tasks-active" in ike_sa(client, silent.name), "the peer to be asked")

    def noted(session, order):
        yield from terminate(session, order)
        answered.set()

    monkeypatch.setattr(Session, "terminate", noted)
    ended = in_background(client.driver.down, silent.name)
    assert answered.wait(TIME_LIMIT)
    wait_until(lambda: out_of_kernel, "its SAs to go out of the kernel, as far as they are there")
    (child,) = ike_sa(client, silent.name)["child-sas"].values()
    assert [line.split()[-3:] for line in out_of_kernel[0]] == [
        ["esp", "spi", f"0x{child[spi]}"] for spi in ("spi-out", "spi-in")
    ]
    assert "IKE_DELETE" in ike_sa(client, silent.name)["tasks-queued"]
    with client.session() as session:
        list(session.terminate({"ike": silent.name, "force": "yes"}))
    ended()
    assert client.left() == []


def test_sweep_removes_ours_and_keeps_the_rest(client, target):
    kept, swept, half = two_ends(), two_ends(virtual_address="10.99.0.8"), two_ends(ppk=True)
    connect(client, target, kept)
    connect(client, target, swept)
    foreign = {"foreign": {"version": "2", "remote_addrs": ["192.0.2.1"]}}
    with client.session() as session:
        session.load_conn(foreign)
        session.load_shared({"id": f"{half.name}/ppk", "type": "ppk", "data": half.client.ppk})
    newest = two_ends(virtual_address="10.99.0.9")

    def keep():
        """Another is installed as soon as it was said what is to be kept."""
        client.driver.install(newest.client)
        return frozenset({kept.name})

    assert client.driver.sweep(keep) == sorted([swept.name, half.name])
    assert [tunnel.name for tunnel in client.driver.status()] == [kept.name]
    with client.session() as session:
        assert text(session.get_conns())["conns"] == [kept.name, "foreign", newest.name]
        assert set(text(session.get_shared())["keys"]) == {kept.name, newest.name}
        session.unload_conn({"name": "foreign"})


def test_watch_tells_up_and_down_and_of_rekeyings_those_of_child_sas(client, target):
    """Whichever end begins one, the other may narrow what is led into the tunnel."""
    ends = two_ends(ppk=True)
    events = target.driver.watch()
    connect(client, target, ends)
    # Its IKE_SA and, with the CHILD_SA, all of it.
    assert in_background(next, events)() == TunnelEvent(ends.name, Change.ANEW)
    assert in_background(next, events)() == TunnelEvent(ends.name, Change.UP)
    for end in (client, target):
        with end.session() as session:
            session.rekey({"ike": ends.name, "child": ends.name})
        assert in_background(next, events)() == TunnelEvent(ends.name, Change.ANEW)
    client.driver.down(ends.name)
    assert in_background(next, events)() == TunnelEvent(ends.name, Change.DOWN)
    target.driver.close()
    assert in_background(list, events)() == []


def test_an_ike_sa_that_target_begins_besides_hides_nothing_of_what_stands(client, target):
    """It has no CHILD_SA, and the Client's daemon takes it for the tunnel's."""
    ends, narrower = two_ends(), ("10.20.0.0/24",)
    install(client, target, Ends(ends.client, replace(ends.target, local_networks=narrower)))
    with client.session() as session:
        list(session.initiate({"ike": ends.name, "child": ends.name}))
    sa = ike_sa(target, ends.name)
    (connection,) = messages.connections(ends.target)[0].values()
    at = {"remote_addrs": [sa["remote-host"]], "remote_port": sa["remote-port"], "local_port": 4500}
    dropped = ("children", "pools")
    besides = {key: value for key, value in connection.items() if key not in dropped} | at
    with target.session() as session:
        session.load_conn({"besides": besides})
        list(session.initiate({"ike": "besides"}))
        session.unload_conn({"name": "besides"})
    assert not ike_sa(client, ends.name)["child-sas"]
    (status,) = client.driver.status()
    assert (status.established, status.remote_selectors) == (True, narrower)
    with pytest.raises(IPsecError, match="its networks are others"):
        client.driver.confirm(ends.client)
    assert client.left() == []
    target.driver.down(ends.name)


def test_watch_is_ended_by_close_from_another_thread(target):
    watching = in_background(list, target.driver.watch())
    target.driver.close()
    assert watching() == []


def test_watch_ends_with_the_daemon(target):
    events = target.driver.watch()
    target.charon.kill()
    assert in_background(list, events)() == []
    target.charon.start()


def test_a_daemon_that_is_not_there(world, client):
    client.charon.kill()
    try:
        for driver in (client.driver, StrongSwan(world.directory / "charon.vici")):
            for operation in (
                driver.capabilities,
                driver.status,
                driver.watch,
                lambda d=driver: d.install(two_ends().client),
                lambda d=driver: d.up(two_ends().client),
                lambda d=driver: d.down("carnet-1"),
            ):
                with pytest.raises(IPsecError, match=r"does not answer at .*start it"):
                    operation()
    finally:
        client.charon.start()


def test_capabilities_are_what_the_daemon_has(client, lane):
    found = client.driver.capabilities()
    assert found.driver == "strongswan"
    assert found.version.startswith("5.") or found.version.startswith("6.")
    kernel = lane is Lane.KERNEL
    assert found.objectives == (tuple(Objective) if kernel else (Objective.ESP,))
    assert found.modes == (tuple(Mode) if kernel else (Mode.TUNNEL,))
    assert found.ike_versions == (2, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"objective": Objective.AH},
        {"objective": Objective.AH_ESP},
        {"objective": Objective.NATIVE},
        {"ike_version": 3},
        {"ike_version": 1, "ppk": bytes(32), "ppk_id": "a-post-quantum-key"},
        {"ike_version": 1, "remote_networks": ("10.20.0.0/16", "10.21.0.0/16")},
        {"esp_proposals": ("aes256gcm16-rot13",)},
        {"esp_proposals": ()},
        {"esp_proposals": ("null-sha256",)},
        {"remote_addresses": ()},
    ],
    ids=str,
)
def test_what_it_cannot_carry_is_refused_and_nothing_loaded(client, change):
    with pytest.raises(IPsecError, match="nothing is downgraded"):
        client.driver.install(replace(two_ends().client, **change))
    assert client.left() == []


def test_transport_mode_is_carried_by_the_kernel_alone(client, lane):
    spec = replace(two_ends().client, mode=Mode.TRANSPORT, virtual_address=None)
    if lane is Lane.KERNEL:
        client.driver.install(spec)
        assert client.driver.installed() == {spec.name}
    else:
        with pytest.raises(IPsecError, match="transport mode and nothing is downgraded"):
            client.driver.install(spec)
        assert client.left() == []


def test_what_the_daemon_refuses_is_one_sentence_and_leaves_nothing(client, monkeypatch):
    """As one that is older than a word of ours."""
    made = messages.connections

    def connections(spec):
        for connection in made(spec):
            yield {n: value | {"proposals": ["nosuch"]} for n, value in connection.items()}

    monkeypatch.setattr(messages, "connections", connections)
    with pytest.raises(IPsecError, match="The strongSwan daemon refuses"):
        client.driver.install(two_ends(ppk=True).client)
    assert client.left() == []


SHOWN = (
    *(example_spec(objective, Mode.TRANSPORT, ()) for objective in Objective),
    *(example_spec(o, Mode.TUNNEL, ()) for o in (Objective.AH, Objective.AH_ESP)),
    example_spec(Objective.ESP, Mode.TUNNEL, ("2001:db8:7::/48", "2001:db8:8::/48")),
    example_spec(Objective.ESP, Mode.TUNNEL, (), ike_version=1, ppk=False),
    two_ends(ppk=True).target,
)


def test_strongswans_own_parser_takes_what_is_shown(client):
    for spec in SHOWN:
        swanctl_loads(client, client.driver.render(spec))
        shown = loaded(client)
        with client.session() as session:
            for connection in messages.connections(spec):
                session.load_conn(connection)
        assert loaded(client) == shown
        with client.session() as session:
            keys = set(text(session.get_shared())["keys"])
            assert session.get_pools().keys() == (messages.pool(spec) or {}).keys()
        assert keys == {f"{key['type'].lower()}-{key['id']}" for key in messages.shared_keys(spec)}
    swanctl_loads(client, "")


def test_what_is_shown_makes_a_tunnel_once_its_secrets_are_filled_in(client, target):
    ends = two_ends(ppk=True)
    target.driver.install(ends.target)
    shown = client.driver.render(ends.client)
    for secret in (ends.client.psk, ends.client.ppk):
        shown = shown.replace(messages.MASK, f"0x{secret.hex()}", 1)
    swanctl_loads(client, shown)
    assert client.driver.up(ends.client).ppk
    swanctl_loads(client, "")


def swanctl_loads(gateway, conf):
    """Have swanctl load just that: what else was loaded goes."""
    path = gateway.machine.directory / "swanctl.conf"
    path.write_text(conf)
    uri = f"unix://{VICI}"
    gateway.machine.run(["swanctl", "--load-all", "--noprompt", "--uri", uri, "--file", str(path)])
    path.unlink()


def loaded(gateway):
    with gateway.session() as session:
        return [text(each) for each in session.list_conns()]


def test_no_secret_is_in_a_file_or_an_argument(world, client, target):
    ends = two_ends(ppk=True)
    connect(client, target, ends)
    places = [path for path in world.directory.rglob("*") if path.is_file()]
    for machine in world.machines:
        places += machine.path("proc").glob("[0-9]*/cmdline")
        places += machine.path("proc").glob("[0-9]*/environ")
    assert len(places) > 2 * len(world.machines)
    for secret in (ends.client.psk, ends.client.ppk):
        for form in (secret, secret.hex().encode(), secret.hex().upper().encode()):
            assert [path for path in places if form in content(path)] == []


def test_two_travellers_at_once_with_suites_of_their_own(world, lane, client, target):
    other = started(world.host, lane)
    first, second = two_ends(), two_ends(virtual_address="10.99.0.8", ppk=True)
    suites = {
        "ike_proposals": ("chacha20poly1305-prfsha384-ecp384",),
        "esp_proposals": ("aes128-sha256",),
    }
    second = Ends(replace(second.client, **suites), replace(second.target, **suites))
    connect(client, target, first)
    connect(other, target, second)
    found = {tunnel.name: tunnel.child_suite for tunnel in target.driver.status()}
    assert found == {first.name: "ESP aes256gcm16", second.name: "ESP aes128-sha256"}
    assert target.driver.confirm(first.target).established
    assert target.driver.confirm(second.target).established
    other.charon.stop()


@pytest.fixture
def unseen(client, target, tmp_path, monkeypatch):
    """A tunnel whose daemon fell silent as it came up: nobody has seen it stand, yet."""
    for module in (alone, known, late):
        monkeypatch.setattr(module, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(strongswan_negotiation, "ANSWER_TIME_LIMIT", 0.5)
    ends = two_ends()
    session = a_session(
        State.UNSEEN,
        name=ends.name,
        expires=int(time.time()) + 3600,
        networks=(WORK_NETWORK,),
    )
    SessionStore(tmp_path).keep(session)
    install(client, target, ends)
    target.charon.freeze()
    try:
        coming_up = in_background(outcome, partial(impatient(client).up, ends.client))
        wait_until(lambda: client.driver._listed.sas(ends.name) != [], "its negotiation")
        client.charon.freeze()
        assert isinstance(coming_up(), DaemonSilentError)
        yield session
    finally:
        target.charon.thaw()
        client.charon.thaw()


def impatient(gateway: Gateway) -> StrongSwan:
    return StrongSwan(gateway.charon.vici, ike_time_limit=1)


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except IPsecError as error:
        return error


def look_later(client: Gateway, session: object) -> tuple[object, list[str]]:
    """Return what an agent makes of it that begins while the daemon is silent, and says."""
    said: list[str] = []
    looked = in_background(late.seen, client.driver, session, said.append)
    client.charon.thaw()
    return looked(), said


def test_a_tunnel_that_came_up_after_all_is_watched_over(client, target, unseen, work_file):
    target.charon.thaw()
    found, said = look_later(client, unseen)
    assert (found.name, found.stage) == (unseen.name, Stage())
    assert "came up after all" in said[0]
    assert fetch(client.machine, work_file) == PLAN


def test_of_a_tunnel_that_did_not_come_up_nothing_is_left(client, unseen, monkeypatch):
    monkeypatch.setattr(late, "LATE_SECONDS", 0)
    assert look_later(client, unseen) == (None, [])
    assert client.left() == []
