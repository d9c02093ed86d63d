"""Name servers where systemd-resolved does not answer, or not in time."""

from ipaddress import ip_address
from pathlib import Path

import pytest
from msgspec.structs import replace

from carnet.errors import IPsecError
from carnet.ipsec import programs, surroundings
from carnet.ipsec.inside import Here, resolv_conf, resolved
from carnet.ipsec.inside.resolved import Resolved
from tests.unit.test_sessions import a_session
from token_client import name_servers
from token_client.sessions import SessionStore

SERVERS = ("10.20.0.10",)
HAD = {"dns": "192.0.2.53 192.0.2.54", "domain": "lan.example ~lan"}
NAME = a_session().name

RESOLVECTL = r"""#!/bin/sh
# What each interface has is a file; "away" and "hangs" are whether it does not answer.
cd {place} || exit 1
echo "$@" >>asked
[ -e hangs ] && exec sleep 600
[ -e "away-$1-$#" ] && rm "away-$1-$#" && touch away
[ -e away ] && exit 1
case "$1,$#" in
revert,*) rm -f dns domain ;;
dns,1) printf 'Global: %s\nLink 1 (lo): %s\nLink 2 (x):\n' "$(cat global)" "$(cat dns)" ;;
*,2) echo "Link 1 ($2): $(cat "$1" 2>/dev/null)" ;;
*) what=$1; shift 2; echo "$*" >"$what" ;;
esac
"""


class Machine:
    """What systemd-resolved has of the one interface, behind a program that stands for its own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        program = place / "resolvectl"
        program.write_text(RESOLVECTL.format(place=place))
        program.chmod(0o700)
        self.tell(HAD)

    def tell(self, what):
        for name, words in what.items():
            (self.place / name).write_text(words)

    def has(self):
        found = ((name, self.place / name) for name in HAD)
        return {name: path.read_text().strip() for name, path in found if path.exists()}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(resolved, "_interface_towards", lambda _: "lo")
    monkeypatch.setattr(resolved, "_KEPT", ())
    return Machine(tmp_path)


@pytest.fixture
def way(tmp_path):
    (tmp_path / "kept").mkdir()
    return Resolved(tmp_path / "kept")


@pytest.fixture
def used(machine, way):
    assert way.use(NAME, SERVERS) is None
    assert machine.has() == {"dns": "10.20.0.10", "domain": "~."}


def test_where_the_record_is_damaged_the_session_s_own_tells_what_to_take_away(
    machine, way, used, monkeypatch
):
    record = way.directory / "name-servers.json"
    record.write_bytes(record.read_bytes()[:40])
    session = a_session(dns=("10.20.0.11",))
    SessionStore(way.directory).keep(session)
    monkeypatch.setattr(name_servers, "memory_directory", lambda: way.directory)
    monkeypatch.setattr(name_servers, "inside", lambda: Here(way.directory))
    for servers, left in ((("10.20.0.11",), {"dns": "10.20.0.10", "domain": "~."}), (SERVERS, {})):
        record.write_bytes(b"{")
        SessionStore(way.directory).keep(replace(session, dns=servers))
        assert name_servers.restore(NAME)
        assert (machine.has(), record.exists()) == (left, False)
    assert not name_servers.restore(NAME)


@pytest.mark.parametrize("at", ["away", "hangs", "away-revert-2", "away-domain-4", "away-dns-4"])
def test_what_cannot_be_asked_is_put_back_later(machine, way, used, monkeypatch, at):
    """Wherever in between it goes."""
    monkeypatch.setattr(resolved, "LIMIT_SECONDS", 0.5)
    before = way.whose()
    (machine.place / at).touch()
    machine.place.joinpath("asked").unlink()
    with pytest.raises(IPsecError, match="resolve"):
        way.restore(NAME)
    assert way.whose() == before == NAME
    asked = (machine.place / "asked").read_text().splitlines()
    assert at not in {"away", "hangs"} or asked == ["dns lo"], "it is asked no more"
    monkeypatch.setattr(resolved, "LIMIT_SECONDS", 60)
    for each in ("away", "hangs"):
        (machine.place / each).unlink(missing_ok=True)
    assert not list(machine.place.glob("away*"))
    assert way.restore(NAME) is True
    assert (machine.has(), way.whose()) == (HAD, None)


def test_what_does_not_answer_is_not_used(machine, way):
    (machine.place / "away").touch()
    assert "does not answer" in way.use(NAME, SERVERS)
    assert way.whose() is None


def test_an_interface_that_is_gone_had_it_taken_along(machine, way, used, monkeypatch):
    (machine.place / "away").touch()
    monkeypatch.setattr(resolved, "_is_there", lambda _: False)
    assert (way.restore(NAME), way.whose()) == (True, None)


def test_a_program_that_does_not_come_to_an_end_tells_nothing():
    with pytest.raises(IPsecError, match="sleep"):
        programs.run(["sleep", "600"], seconds=0.1)


@pytest.mark.parametrize("linked", [True, False], ids=["to what it asks", "to itself"])
def test_those_of_a_tunnel_are_not_the_machine_s_own_whatever_programs_are_led_to(
    machine, way, used, monkeypatch, linked
):
    """/etc/resolv.conf may name the servers that systemd-resolved asks, and not itself."""
    asks, stub, led = (machine.place / each for each in ("asks", "stub", "led"))
    asks.write_text("nameserver 10.20.0.10\nnameserver 192.0.2.99\n")
    stub.write_text("nameserver 127.0.0.53\n")
    led.symlink_to(asks if linked else stub)
    monkeypatch.setattr(resolved, "_KEPT", (way.directory,))
    monkeypatch.setattr(resolv_conf, "RESOLV_CONF", led)
    monkeypatch.setattr(surroundings, "RESOLVED_ASKS", asks)
    own = {"192.0.2.53", "192.0.2.54", "192.0.2.99"} | (set() if linked else {"127.0.0.53"})
    assert set(map(str, surroundings.look_around(4).name_servers)) == own


def the_machine_s(*asked):
    return set(map(str, resolved.machine_s_among(map(ip_address, asked))))


def test_the_machine_s_own_are_what_the_interface_had(machine, way, used, monkeypatch):
    monkeypatch.setattr(resolved, "_KEPT", (way.directory,))
    had = {"192.0.2.53", "192.0.2.54"}
    assert the_machine_s("10.20.0.10", "192.0.2.99") == {*had, "192.0.2.99"}
    (machine.place / "global").write_text("10.20.0.10")
    assert the_machine_s("10.20.0.10") == {*had, "10.20.0.10"}, "it is asked besides"
    (machine.place / "global").unlink()
    (machine.place / "away").touch()
    assert the_machine_s("10.20.0.10") == {*had, "10.20.0.10"}, "nothing tells whose it is"
    (machine.place / "away").unlink()
    machine.tell({"dns": "10.20.0.10 10.20.0.11"})
    assert the_machine_s("10.20.0.10", "10.20.0.11") == {"10.20.0.10", "10.20.0.11"}
