"""Key store `wrapped` with real processes: submitted and burned, on one token and on several."""

import json
import os
import shutil
from pathlib import Path

from carnet.database.place import FilePlace
from host_agent.keydb import KeyDatabase
from host_agent.keystore.store import kek_id_of
from lab.waiting import wait_until
from softhsm.configuration import CONFIGURATION_VARIABLE, prepare
from tests.fleet.test_concurrency import accounts
from tests.fleet.traveller import open_grant, seal, send_one, send_until_answered
from tests.fleet.wrapped import PATIENCE, batch_keys, burned, connect, states, wrapped


def test_pairs_are_served_and_burned_and_at_last_the_key_of_their_batch(fleet, take_in, hsm, token):
    booklet = take_in(2)
    first, last = booklet.keys
    ((blob,), kek_id) = wrapped(fleet, first), kek_id_of(booklet.batch)
    (process,) = fleet.start(1)
    connect(process, first)
    wait_until(burned(fleet, first), "the first pair to be burned", PATIENCE)
    assert batch_keys(hsm) == {kek_id}
    connect(process, last)
    wait_until(lambda: states(fleet) == ["destroyed"], "the batch's key to be burned", PATIENCE)
    assert batch_keys(hsm) == frozenset()
    assert token.held() == set()
    assert accounts(fleet.place).count("batch-key-destroyed") == 1
    (listed,) = json.loads(process.run("keys", "--batches", "--json"))
    assert (listed["state"], listed["pairs"]) == ("destroyed", 0)
    assert "alice@office  spent  2  wrapped" in process.run("keys")
    process.stop()
    if isinstance(fleet.place, FilePlace):
        # The last process that closes a SQLite database empties its log.
        files = fleet.place.path.parent.glob(f"{fleet.place.path.name}*")
        assert not any(blob in path.read_bytes() for path in files)


def test_two_processes_share_a_token(fleet, take_in, hsm):
    keys = take_in(4).keys
    processes = fleet.start(2)
    for number, key in enumerate(keys):
        connect(processes[number % 2], key)
    wait_until(lambda: states(fleet) == ["destroyed"], "the burn", PATIENCE)
    assert batch_keys(hsm) == frozenset()
    assert accounts(fleet.place).count("batch-key-destroyed") == 1


class Copy:
    """A copy of the Host's token, as a vendor clones an HSM: with its transport key."""

    def __init__(self, directory: Path, of: str):
        self.configuration = str(prepare(directory))
        shutil.copytree(Path(of).parent / "tokens", directory / "tokens", dirs_exist_ok=True)


def test_two_processes_have_a_token_each(fleet, hsm, token, monkeypatch):
    """The batch is imported on each; each destroys its own key of it."""
    booklet = hsm.booklet(3)
    first, second, third = booklet.keys
    copy = Copy(Path(token.configuration).parent.with_name("copy"), token.configuration)

    def at(configuration):
        monkeypatch.setenv(CONFIGURATION_VARIABLE, configuration)
        token._module.library.reinitialize()

    with KeyDatabase.opened(fleet.place) as database:
        assert hsm.take_in(booklet.batch, database) == 3
        at(copy.configuration)
        assert batch_keys(hsm) == frozenset()
    one, other = fleet.start(2, **{CONFIGURATION_VARIABLE: copy.configuration})
    request = seal(first)
    refused = send_one(one.url, request)
    assert (refused.status, refused.reason) == (503, "host-not-ready")
    with KeyDatabase.opened(fleet.place) as database:
        assert hsm.take_in(booklet.batch, database) == 0
    assert batch_keys(hsm) == {kek_id_of(booklet.batch)}
    assert open_grant(first, request, send_until_answered([one.url], request))
    connect(other, second)
    # Else it may come to burn this pair after the last one, and the batch would be over for it.
    wait_until(lambda: '"event": "key-destroyed"' in other.log(), "the burn", PATIENCE)
    connect(one, third)
    wait_until(lambda: not batch_keys(hsm), "its own key of the batch to be destroyed", PATIENCE)
    at(token.configuration)
    assert batch_keys(hsm) == {kek_id_of(booklet.batch)}
    other.stop()
    other.start()  # or within a minute
    wait_until(lambda: not batch_keys(hsm), "the other's too", PATIENCE)
    assert os.environ[CONFIGURATION_VARIABLE] == token.configuration
