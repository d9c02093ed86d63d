"""A PIV card that only signs, from its slots to the tunnel: OpenSC is real, the card a fake."""

import json
import re
import shutil
from pathlib import Path

import pytest

from carnet.token.readers import look_at_readers
from lab.fake_piv import DEFAULT_PIN
from lab.http_client import request
from lab.office import HOST_KEYS, HOST_URL, USER, pipes
from lab.readers import OPENSC, Card, CardReaders
from lab.waiting import wait_until
from tests.lab.offices import FILE, FILE_URL, is_one_sentence, split_office_at_work

PAIRS = 5
STAYS = 1_000_000
"""Commands: more than any test sends."""
GENERAL_AUTHENTICATE = "87"


@pytest.fixture(scope="module")
def office(lane):
    with split_office_at_work(lane, watched=True) as office:
        yield office


@pytest.fixture(scope="module")
def readers(office, reader_socket):
    readers = CardReaders(office.world.client)
    readers.start()
    reader_socket.symlink_to(readers.socket)
    yield readers
    reader_socket.unlink()
    readers.stop()


def is_in():
    return any(reader.occupied for reader in look_at_readers() or ())


def insert(office, card):
    """Put the card in, once it was seen to be out, and return when a command can read it."""
    card.remove()
    wait_until(lambda: not is_in(), "the empty reader")
    card.insert()
    extra = {"CARNET_PKCS11_MODULE": OPENSC}
    wait_until(lambda: "alice" in office.carnet("tokens", extra=extra).stdout, "the card's token")


@pytest.fixture(scope="module")
def card(office, readers):
    """Alice's card, in the traveller's reader; it has a key more than is adopted."""
    card = Card(office.world.client, 0, "alice", PAIRS + 1)
    insert(office, card)
    yield card
    card.remove()


@pytest.fixture(scope="module")
def adopted(office, card):
    """The officer at the traveller's reader: the card cannot be carried, her key can."""
    place, officer = office.world.client.directory, office.world.officer.directory
    shutil.copytree(officer / ".local/share/carnet/officer", place / "officer")
    shutil.copy(officer / HOST_KEYS, place / HOST_KEYS)
    shutil.copy(place / "officer" / "officer.crt", place / "officer.crt")
    facts = office.facts(
        office.world.client,
        *("carnet-provision", "adopt", "--user", USER, "--count", str(PAIRS)),
        *("--host-keys", str(place / HOST_KEYS), "--host-url", HOST_URL, "--target", "work"),
        *("--out", str(place / "alice.batch"), "--cover-out", str(place / "alice.cover")),
        *("--module", OPENSC, "--directory", str(place / "officer")),
        given={"passphrase": office.secrets.passphrase, "pin": DEFAULT_PIN},
    )
    shutil.rmtree(place / "officer")
    shutil.move(place / "alice.batch", office.world.host.directory / "alice.batch")
    assert office.import_batch()["new"] == PAIRS
    return facts


@pytest.fixture
def configured(office, adopted):
    return office.configure_client(settings(office))


@pytest.fixture(autouse=True)
def disconnected(office):
    yield
    office.carnet("disconnect")


def settings(office, *, agent=False):
    """A tunnel's agent starts OpenSC as well: but for one test there is none."""
    place = office.world.client.directory
    return (
        f'module = "{OPENSC}"\ncover = "{place}/alice.cover"\nofficer = "{place}/officer.crt"\n'
        f'on_removal = "keep"\nagent = {json.dumps(agent)}\n'
    )


def connect(office, *options, extra):
    return office.carnet("connect", *options, pin=DEFAULT_PIN, extra=extra)


def fetch(office):
    return request(office.world.client, "GET", FILE_URL)


def test_what_is_adopted_is_what_signs_in_the_retired_slots(office, adopted, configured):
    assert (adopted["pairs"], adopted["suite"], adopted["custody"]) == (PAIRS, "p-256", "split")
    listed = office.command(office.world.client, "carnet", "tokens", "--json", extra=configured)
    (token,) = json.loads(listed.stdout)
    left = {"key_type": "ec-p256", "suite": "p-256", "custody": "split", "count": PAIRS}
    assert (token["user_id"], token["pairs"]) == (USER, [left])


def test_a_tunnel_costs_the_card_one_operation(office, card, adopted):
    card.seen()
    done = connect(office, extra=office.configure_client(settings(office, agent=True)))
    assert done.returncode == 0, done.stderr
    assert fetch(office).body == FILE
    operations = [each for each in card.seen() if each[2:4] == GENERAL_AUTHENTICATE]
    assert len(operations) == 1
    assert "destroys no keys" in done.stdout
    assert len(office.spent_pairs()) == 1


def test_a_spent_pair_that_cannot_be_destroyed_is_passed_over(office, configured):
    """It is named on the command line what the file names: no configuration is needed."""
    place = office.world.client.directory
    named = ("--module", Path(OPENSC).name)
    named += ("--cover", str(place / "alice.cover"), "--officer", str(place / "officer.crt"))
    extra = office.configure_client("agent = false\n")
    done = connect(office, *named, extra=extra)
    assert done.returncode == 0, done.stderr
    (tunnel,) = json.loads(office.carnet("status", "--json").stdout)
    assert tunnel["module"] == str(Path(OPENSC).resolve())
    assert "set aside" not in done.stdout
    assert len(office.spent_pairs()) == 2


def test_what_is_spent_here_and_still_on_the_card_is_not_told_as_left(office, configured):
    listed = office.carnet("tokens", "--json", extra=configured).stdout
    assert json.loads(listed)[0]["pairs_left"] == PAIRS - 2
    looked = office.carnet("doctor", extra=configured).stdout
    assert f"Only {PAIRS - 2} left" in looked


def forget_what_is_spent(office):
    for file in office.world.client.path("/run/carnet-client").glob("spent-*"):
        file.unlink()


def test_where_nothing_is_remembered_the_host_says_which_are_spent(office, configured):
    forget_what_is_spent(office)
    done = connect(office, extra=configured)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("key pair set aside") == 2
    assert len(office.spent_pairs()) == 3


def test_a_card_that_only_signs_keeps_no_request(office, configured):
    impatient = office.configure_client(settings(office) + "patience = 2\n")
    office.target_agent.stop()
    done = connect(office, extra=impatient)
    assert done.returncode == 6
    assert "a further key pair is used" in done.stderr
    assert not list(office.world.client.path("/run/carnet-client").glob("pending-*"))
    office.target_agent = office.serve_target()
    done = connect(office, extra=office.configure_client(settings(office)))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("key pair set aside") == 1
    assert len(office.spent_pairs()) == 5


@pytest.fixture
def whole_card(office, card):
    """The card, which stays once it is inserted, whatever a test had it do."""
    yield card
    put_back(office, card)


def put_back(office, card):
    card.leave_after(STAYS)
    insert(office, card)


@pytest.mark.parametrize("count", [15, 16])
def test_a_card_pulled_while_it_is_read_is_waited_for(office, whole_card, configured, count):
    whole_card.leave_after(count)
    with pipes({"pin": DEFAULT_PIN}) as (options, fds):
        connecting = office.world.client.start(
            ["carnet", "connect", "--wait", "--dry-run", *options],
            log=f"wait-{count}.log", extra=configured, pass_fds=fds,
        )  # fmt: skip
    connecting.wait_for_line("plug it in")
    put_back(office, whole_card)
    assert connecting.wait() == 0, connecting.output()
    assert "00000000" not in connecting.output()


def test_a_card_pulled_in_the_middle_is_called_that(office, whole_card, configured):
    whole_card.leave_after(46)
    done = connect(office, "--dry-run", extra=configured)
    assert done.returncode == 4
    assert is_one_sentence(done)
    assert re.search("was pulled out(, in the middle| as it was given the PIN)", done.stderr)


def test_a_cover_that_is_not_the_officers_is_refused(office, adopted):
    place = office.world.client.directory
    changed = place / "changed.cover"
    changed.write_bytes((place / "alice.cover").read_bytes().replace(b"alice@", b"malic@"))
    extra = office.configure_client(f'module = "{OPENSC}"\n')
    officer = ("--officer", str(place / "officer.crt"))
    done = connect(office, "--cover", str(changed), *officer, extra=extra)
    assert (done.returncode, is_one_sentence(done)) == (4, True)
    assert "is not what the security officer signed" in done.stderr
    # Nor does the card say whose word a cover has to be.
    done = connect(office, "--cover", str(place / "alice.cover"), extra=extra)
    assert (done.returncode, is_one_sentence(done)) == (2, True)
    assert "with --officer" in done.stderr


def test_a_card_that_the_module_does_not_know_is_named_by_the_doctor(office, adopted):
    done = office.carnet("doctor", "--json")
    said = {one["part"]: one for one in json.loads(done.stdout)}["token"]
    assert (done.returncode, said["exit_status"]) == (4, 4)
    assert "does not know the card in Virtual PCD 00 00; name the card's own" in said["sentence"]
    assert "--module" in said["sentence"]
    assert "doctor" not in said["sentence"]
    assert "`carnet doctor` tells more" in office.carnet("tokens").stdout
    assert "see what `carnet doctor` finds" in office.carnet("connect").stderr


def test_the_commands_on_the_sheet_of_a_card_connect_as_they_are_printed(office, adopted):
    forget_what_is_spent(office)
    place = office.world.client.directory
    sheet = ("carnet-provision", "sheet", "--module", OPENSC, "--directory", str(place))
    cover = ("--cover", str(place / "alice.cover"))
    shown = office.command(office.world.client, *sheet, *cover, given={"pin": DEFAULT_PIN}).stdout
    assert f"Key pairs   {PAIRS}, each" in shown
    doctor, connect = re.findall("`(carnet (?:doctor|connect) .*?)`", shown)
    here = f'cd "{place}" && exec'

    def type_in(command, *options, given=None):
        argv = ("sh", "-c", f'{here} {command} "$@"', "sh", *options)
        return office.command(office.world.client, *argv, given=given, check=False)

    done = type_in(doctor)
    assert (done.returncode, f"{PAIRS} left, for {USER}" in done.stdout) == (0, True), done.stdout
    done = type_in(connect, "--dry-run", given={"pin": DEFAULT_PIN})
    assert (done.returncode, USER in done.stdout) == (0, True), done.stderr


def test_the_doctor_looks_at_the_cover_file(office, adopted):
    forget_what_is_spent(office)
    place = office.world.client.directory
    good, bad = place / "alice.cover", place / "doctored.cover"
    extra = office.configure_client(f'module = "{OPENSC}"\nfew_pairs = 0\n')
    officer = ("--officer", str(place / "officer.crt"))

    def said(*options):
        done = office.carnet("doctor", "--json", *options, extra=extra)
        return done.returncode, next(
            one["sentence"] for one in json.loads(done.stdout) if one["part"] == "key pairs"
        )

    assert "name the file" in said()[1]
    assert said("--cover", str(good), *officer) == (0, f"{PAIRS} left, for {USER}")
    status, sentence = said("--cover", str(good))
    assert (status, "name her certificate with --officer" in sentence) == (2, True)
    for content, options in (
        (good.read_bytes().replace(b"alice@", b"malic@"), officer),
        (good.read_bytes()[:-1], ()),
        (good.read_bytes().replace(adopted["token"]["serial"].encode(), b"0" * 16), ()),
    ):
        bad.write_bytes(content)
        status, sentence = said("--cover", str(bad), *options)
        assert (status, "is not what the security officer signed" in sentence) == (4, True)
    listed = office.carnet("tokens", "--json", "--cover", str(good), extra=extra).stdout
    assert json.loads(listed)[0]["pairs_left"] == PAIRS


def test_the_cover_file_tells_list_and_burn_which_keys_are_pairs(office, adopted):
    """Last: all pairs are named."""
    place = office.world.client.directory
    options = ("--module", OPENSC, "--cover", str(place / "alice.cover"), "--directory", str(place))

    def provision(*command):
        return office.command(
            office.world.client, "carnet-provision", *command, *options,
            given={"pin": DEFAULT_PIN}, check=False,
        )  # fmt: skip

    listed = json.loads(provision("list", "--json").stdout)["pairs"]
    assert [pair["label"][-4:] for pair in listed] == [f"{n:04}" for n in range(1, PAIRS + 1)]
    done = provision("burn", "--user", USER, "--yes")
    assert done.returncode == 4
    assert f"{PAIRS} key pairs stay on token alice" in done.stdout
    assert "with `carnet-host revoke --key` of each" in done.stderr
    assert all(pair["key_id"] in done.stderr for pair in listed)
