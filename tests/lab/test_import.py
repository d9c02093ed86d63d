"""`carnet-host import`: twice is once, and what is not for this Host is refused whole."""

import shutil

import pytest

from lab.errors import LabError
from lab.world import World
from tests.lab.offices import AtWork


@pytest.fixture(scope="module")
def office(lane):
    """A batch at the Host, not imported yet; no daemon is needed."""
    with World() as world:
        made = AtWork(world, lane)
        made.initialise_tokens()
        made.certify()
        made.configure()
        made.mint(3)
        made.carry_over()
        yield made


def batch_file(office):
    return office.world.host.directory / "alice.batch"


@pytest.fixture
def changed_batch(office):
    """Lets a test change the batch at the Host; it is put right afterwards."""
    path = batch_file(office)
    original = path.read_bytes()
    yield path
    path.write_bytes(original)


def refusal(office):
    with pytest.raises(LabError) as caught:
        office.import_batch()
    said = str(caught.value)
    assert "Traceback" not in said
    assert "ended with 3" in said
    return said


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],
        lambda data: b"",
        lambda data: data + b"\x00",
    ],
)
def test_a_batch_that_was_changed_or_cut_is_refused_whole(office, changed_batch, change):
    changed_batch.write_bytes(change(changed_batch.read_bytes()))
    assert "is refused" in refusal(office)
    assert office.pairs() == []
    assert office.keys_on(office.world.host) == set()


def test_a_batch_of_another_officer_is_refused(office):
    etc = office.world.host.directory / "etc"
    registered = (etc / "officer.crt").read_bytes()
    office.command(
        office.world.officer, "carnet-provision", "init", "--directory", "another",
        given={"passphrase": office.secrets.passphrase},
    )  # fmt: skip
    shutil.copy(office.world.officer.directory / "another" / "officer.crt", etc)
    said = refusal(office)
    (etc / "officer.crt").write_bytes(registered)
    assert "is refused" in said
    assert office.pairs() == []


def test_a_batch_for_another_hosts_users_is_refused(office):
    config = office.world.host.directory / "etc" / "host.toml"
    text = config.read_text()
    config.write_text(text.replace('name = "office"', 'name = "elsewhere"'))
    said = refusal(office)
    config.write_text(text)
    assert "@elsewhere" in said
    assert office.pairs() == []


def test_a_batch_for_another_hsm_is_refused(office):
    """Another Host's HSM token has another transport key."""
    home = office.world.host.directory
    hidden = home / ".local-of-the-first"
    (home / ".local").rename(hidden)
    other = {"pin": office.secrets.hsm_pin, "so-pin": office.secrets.hsm_so_pin}
    office.command(
        office.world.host, "carnet-provision", "token-init", "--label", "hsm", given=other
    )
    said = refusal(office)
    shutil.rmtree(home / ".local")
    hidden.rename(home / ".local")
    assert "another Host's transport key" in said
    assert office.pairs() == []


def test_importing_twice_changes_nothing(office):
    assert office.import_batch() == {"user_id": "alice@office", "pairs": 3, "new": 3}
    before = office.pairs()
    assert office.keys_on(office.world.host) == office.keys_on(office.world.client)
    assert office.import_batch()["new"] == 0
    assert office.pairs() == before


def test_what_was_revoked_does_not_come_back_with_its_batch(office):
    key_id = office.pairs()[0]["key_id"]
    office.host("revoke", "--key", key_id, "--reason", "a test")
    assert office.import_batch()["new"] == 0
    assert office.pairs()[0]["reason"] == "revoked"
