"""`carnet doctor` and `carnet tokens`: one thing wrong at a time, on real parts."""

import json

import pytest

from lab.fake_piv import DEFAULT_PIN
from lab.readers import OPENSC, Card, CardReaders
from lab.waiting import wait_until
from tests.lab.offices import office_at_work
from tests.unit.examples import SoftwareKey
from tests.unit.test_cover_file import batch, cover, packed

HOLD = """
import sys
from smartcard import scard
_, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
_, names = scard.SCardListReaders(context, [])
result, card, _ = scard.SCardConnect(
    context, names[0], scard.SCARD_SHARE_EXCLUSIVE, scard.SCARD_PROTOCOL_ANY
)
print("held" if result == 0 else "not held", flush=True)
sys.stdin.read()
"""

SLOW_CLOCK = """
import time
tells = time.time
time.time = lambda: tells() - 10 * 86400
from token_client.cli import main
main()
"""

IN_THREE_YEARS = """
import sys, time
tells = time.time
time.time = lambda: tells() + 3 * 365 * 86400
from host_agent.cli import main
main()
"""

REPLACE_COVER = """
import sys
from carnet.cover import COVER_LABEL
from carnet.token.data import read_data, write_data
from carnet.token.session import open_public_session
from token_client.config import ClientConfig
from token_client.tokens import load
with open_public_session(load(ClientConfig()).choose(None), writable=True) as session:
    info, cover = session.token.info, read_data(session, COVER_LABEL, private=False)
    sys.stdout.write(cover.hex())
    new = {"cut": cover[:-1], "foreign": cover.replace(info.serial.encode(), b"0" * 16)}
    value = new.get(sys.argv[1]) or bytes.fromhex(sys.argv[1])
    write_data(session, COVER_LABEL, value, private=False)
"""
"""What anybody can do who holds the token."""

SILENT = """
import socket, sys
listening = socket.create_server(("127.0.0.1", 8998))
taken = listening.accept()
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def office(lane):
    with office_at_work(lane, pairs=6) as made:
        yield made


@pytest.fixture(scope="module")
def readers(office):
    return CardReaders(office.world.client)


@pytest.fixture
def pcscd(readers):
    readers.start()
    yield readers
    readers.stop()


@pytest.fixture
def card(office, pcscd):
    card = Card(office.world.client, 0, "alice")
    yield card
    card.remove()


@pytest.fixture
def on_card(office):
    return office.configure_client(f'module = "{OPENSC}"\n')


def examine(office, extra=None, *options):
    done = office.carnet("doctor", "--json", *options, extra=extra)
    findings = {one["part"]: one for one in json.loads(done.stdout)}
    return done.returncode, findings


def bad(findings):
    return [part for part, one in findings.items() if not one["good"]]


def test_all_is_well(office):
    status, findings = examine(office)
    assert (status, bad(findings)) == (0, [])
    assert list(findings) == [
        "module", "readers", "token", "IPsec", "PIN", "key pairs", "Host", "clock", "memory",
    ]  # fmt: skip
    assert findings["key pairs"]["sentence"] == "6 left, for alice@office"
    assert findings["clock"]["sentence"].startswith("later than the booklet (20")
    shown = office.carnet("doctor").stdout.splitlines()
    assert len(shown) == len(findings)
    assert all(line.startswith("ok") for line in shown)


def test_no_module(office):
    status, findings = examine(office, {"CARNET_PKCS11_MODULE": "/nowhere/module.so"})
    assert status == 4
    assert "/nowhere/module.so" in findings["module"]["sentence"]


def test_no_token(office):
    office.pull_out(office.world.client)
    status, findings = examine(office)
    office.plug_in(office.world.client)
    assert status == 4
    said = findings["token"]["sentence"]
    assert said.startswith("libsofthsm2.so shows no token; insert it, name its own module with")
    assert "doctor" not in said
    assert findings["IPsec"]["good"]


def test_no_ipsec_daemon(office):
    office.client_charon.stop()
    status, findings = examine(office)
    office.client_charon.start()
    assert (status, bad(findings)) == (5, ["IPsec"])
    said = findings["IPsec"]["sentence"]
    assert (said.startswith("The strongSwan daemon"), "racoon" in said) == (True, False)


def test_no_host(office):
    office.host_agent.stop()
    status, findings = examine(office)
    office.host_agent = office.serve_host()
    assert (status, bad(findings)) == (6, ["Host"])
    assert "check the network" in findings["Host"]["sentence"]


def test_a_host_that_says_nothing(office):
    """An open port does not count."""
    silent = office.world.client.start(["python", "-c", SILENT], log="silent.log", stdin=-1)
    office.world.client.wait_for_port(8998)
    extra = office.configure_client('hosts = ["http://127.0.0.1:8998"]\n')
    status, findings = examine(office, extra)
    silent.kill()
    assert (status, bad(findings)) == (6, ["Host"])
    assert "no answer in time" in findings["Host"]["sentence"]


def test_few_pairs_do_not_stop_a_connection(office):
    status, findings = examine(office, office.configure_client("few_pairs = 7\n"))
    assert (status, bad(findings)) == (0, ["key pairs"])
    assert "Only 6 left" in findings["key pairs"]["sentence"]


def test_a_clock_that_is_before_the_booklet_is_warned_of(office):
    slow = ("python", "-c", SLOW_CLOCK)
    done = office.command(office.world.client, *slow, "doctor", "--json", check=False)
    findings = {one["part"]: one for one in json.loads(done.stdout)}
    assert (done.returncode, bad(findings)) == (0, ["clock"])
    assert "clock is slow: the booklet was minted at" in findings["clock"]["sentence"]
    assert "warn clock" in office.command(office.world.client, *slow, "doctor").stdout


def test_few_pairs_are_warned_of_at_a_connection(office):
    extra = office.configure_client("few_pairs = 100\n")
    done = office.carnet("connect", extra=extra)
    assert done.returncode == 0
    assert "Few key pairs are left; ask the security officer" in done.stderr
    office.carnet("disconnect")


def test_tokens_are_listed_without_the_pin(office):
    (token,) = json.loads(office.carnet("tokens", "--json").stdout)
    left = office.valid_pairs()
    assert token["label"] == "alice"
    assert token["user_id"] == "alice@office"
    kind = {"key_type": "ec-p256", "suite": "p-256", "custody": "paired", "count": left}
    assert token["pairs"] == [kind]
    assert token["pairs_left"] == left
    assert token["oldest_expiry"] is None
    assert f"{left} pairs left (" in office.carnet("tokens").stdout


@pytest.mark.parametrize(("how", "why"), [("cut", "cut off"), ("foreign", "made for token 0000")])
def test_a_cover_that_a_connection_would_refuse(office, how, why):
    replace = ("python", "-c", REPLACE_COVER)
    good = office.command(office.world.client, *replace, how).stdout
    status, findings = examine(office)
    office.command(office.world.client, *replace, good)
    sentence = findings["key pairs"]["sentence"]
    assert (status, "is not what the security officer signed" in sentence) == (4, True)
    assert why in sentence


def test_a_card_and_no_pcscd(office, on_card):
    status, findings = examine(office, on_card)
    assert status == 4
    assert "smart-card service does not run; start it" in findings["readers"]["sentence"]
    assert findings["module"]["good"]


def test_no_reader(office, readers, on_card):
    readers.start(readers=False)
    status, findings = examine(office, on_card)
    readers.stop()
    assert status == 4
    assert "No reader is plugged in" in findings["readers"]["sentence"]


def test_a_reader_without_a_card(office, pcscd, on_card):
    status, findings = examine(office, on_card)
    assert status == 4
    assert findings["readers"]["sentence"].startswith("2 with 0 cards")
    assert "insert it" in findings["token"]["sentence"]


def examine_until(office, extra, part, words):
    """The card takes a moment to be noticed."""
    found = []

    def holds():
        found[:] = examine(office, extra)
        return words in found[1][part]["sentence"]

    wait_until(holds, f"{part}: {words}", 40)
    return found


def test_a_locked_card(office, card, on_card):
    card.insert()
    _, findings = examine_until(office, on_card, "PIN", "set")
    assert findings["key pairs"]["exit_status"] == 4
    (token,) = json.loads(office.carnet("tokens", "--json", extra=on_card).stdout)
    file = office.world.client.directory / "card.cover"
    claimed = cover(token_serial=token["serial"])
    file.write_bytes(packed(SoftwareKey(), claimed, batch(SoftwareKey())))
    connect = ("connect", "--cover", str(file))
    for _ in range(2):
        office.carnet(*connect, pin="000000", extra=on_card)
    status, findings = examine(office, on_card)
    assert status == 4
    assert "leaves one PIN try" in findings["PIN"]["sentence"]
    done = office.carnet(*connect, pin=DEFAULT_PIN, extra=on_card)
    assert (done.returncode, card.tries()) == (4, 1)
    office.carnet(*connect, "--allow-final-try", pin="000000", extra=on_card)
    _, findings = examine(office, on_card)
    assert "is locked; have the security officer unblock it" in findings["PIN"]["sentence"]
    assert "PIN locked" in office.carnet("tokens", extra=on_card).stdout


def test_a_card_that_another_program_holds(office, card, on_card):
    card.insert()
    examine_until(office, on_card, "PIN", "set")
    holder = office.world.client.start(["python", "-c", HOLD], log="holder.log", stdin=-1)
    holder.wait_for_line("^held")
    said = "Another program has the card in Virtual PCD 00 00 for itself; end that program."
    status, findings = examine(office, on_card)
    assert status == 4
    assert [findings[part]["sentence"] for part in ("readers", "token")] == [said] * 2
    done = office.carnet("connect", pin=DEFAULT_PIN, extra=on_card)
    assert (done.returncode, done.stderr) == (4, f"carnet: {said}\n")
    waiting = office.start_connect("--wait", extra=on_card)
    waiting.wait_for_line(said)
    waiting.kill()
    other = Card(office.world.client, 1, "bob")
    other.insert()
    _, findings = examine_until(office, on_card, "readers", "2 with 2 cards")
    assert findings["token"]["sentence"].startswith("bob, serial")
    _, findings = examine(office, on_card, "--token", "alice")
    assert [findings[part]["sentence"] for part in ("readers", "token")] == [said] * 2
    other.remove()
    holder.kill()


def examine_host(office, *command):
    argv = [*(command or ("carnet-host",)), *office._host_argv()[1:], "doctor"]
    done = office.command(office.world.host, *argv, "--json", check=False)
    return done.returncode, {one["part"]: one for one in json.loads(done.stdout)}


def host_setting(office, old, new):
    """Change the Host's configuration; return what puts it back."""
    path = office.world.host.directory / "etc" / "host.toml"
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, new))
    return lambda: path.write_text(before)


def test_all_is_well_at_the_host(office):
    status, findings = examine_host(office)
    assert (status, bad(findings)) == (0, [])
    assert list(findings) == [
        "configuration", "database", "token", "PIN", "transport key", "officer", "link",
        "Target work", "clock",
    ]  # fmt: skip
    assert f"{office.valid_pairs()} valid key pairs" in findings["database"]["sentence"]
    shown = office.host("doctor").stdout.splitlines()
    assert len(shown) == len(findings)
    assert all(line.startswith("ok") for line in shown)


def test_a_target_that_is_down(office):
    office.target_agent.stop()
    status, findings = examine_host(office)
    office.target_agent = office.serve_target()
    assert (status, bad(findings)) == (6, ["Target work"])
    assert "start `carnet-target serve` there" in findings["Target work"]["sentence"]


def test_a_target_of_another_name(office):
    restore = host_setting(office, '[targets."work"]', '[targets."home"]')
    status, findings = examine_host(office)
    restore()
    assert (status, bad(findings)) == (6, ["Target home"])
    assert "each other's certificates" in findings["Target home"]["sentence"]


def test_a_host_without_its_token(office):
    restore = host_setting(office, "# token = ", 'token = "nobody" # ')
    status, findings = examine_host(office)
    restore()
    assert (status, bad(findings)) == (4, ["token", "PIN", "transport key"])


def test_certificates_that_have_expired(office):
    status, findings = examine_host(office, "python", "-c", IN_THREE_YEARS)
    assert (status, bad(findings)) == (2, ["link"])
    assert "renew it by `carnet-provision certificates host office`" in findings["link"]["sentence"]


def test_a_configuration_that_is_wrong(office):
    restore = host_setting(office, "port = ", "prt = ")
    status, findings = examine_host(office)
    restore()
    assert (status, bad(findings)) == (2, ["configuration"])


def test_a_database_that_is_not_there_is_not_made(office):
    restore = host_setting(office, '"../var"', '"../elsewhere"')
    status, findings = examine_host(office)
    restore()
    assert (status, bad(findings)) == (0, ["database"])
    assert not (office.world.host.directory / "elsewhere").exists()
