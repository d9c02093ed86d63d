"""Host and Target under strace: what is synced before a byte leaves, and what a power cut leaves.

The real agents serve one real request; the order of their system calls is the proof.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from carnet.database import opened_database
from host_agent.keydb import KeyDatabase
from lab.network import HOST_ADDRESS, TARGET_ADDRESS
from lab.office import HOST_PORT, TARGET_PORT, pipes
from lab.world import World
from tests.lab.conftest import lane  # noqa: F401
from tests.lab.offices import AtWork
from tests.power.disk import Disk, write_out
from tests.power.recorder import read_record, recorded

SEEDS = range(8)
SENDING = {"sendto", "sendmsg", "write"}


class Recorded(AtWork):
    """An office whose agents are recorded."""

    def serve_host(self, extra=None):
        argv = [*self._host_argv(), "serve"]
        with pipes(self.hsm_pin) as (options, fds):
            return self._start(self.world.host, [*argv, *options], fds)

    def serve_target(self, extra=None):
        return self._start(self.world.target, [*self._target_argv(), "serve"], ())

    def _start(self, machine, argv, fds):
        argv = recorded(argv, machine.directory / "trace")
        process = machine.start(argv, log="agent.log", pass_fds=fds)
        process.wait_for_line('"event": "ready"', 60)
        return process


@dataclass
class Record:
    """An agent's calls, and its database's directory as it was before the first."""

    calls: list
    root: Path
    before: Path


@pytest.fixture(scope="module")
def records(lane, tmp_path_factory):  # noqa: F811
    """One request is served; both agents end in good order."""
    kept = tmp_path_factory.mktemp("records")
    with World() as world:
        office = Recorded(world, lane)
        office.set_up(2)
        machines = {"host": world.host, "target": world.target}
        for name, machine in machines.items():
            shutil.copytree(machine.directory / "var", kept / name / "var")
        office.start()
        done = office.carnet("connect")
        assert done.returncode == 0, done.stderr
        office.host_agent.wait_for_line("key-destroyed")
        office.target_agent.wait_for_line("established")
        office.host_agent.stop()
        office.target_agent.stop()
        yield {
            name: Record(
                read_record(machine.directory / "trace"), machine.directory / "var", kept / name
            )
            for name, machine in machines.items()
        }


def heard(record, here, begins):
    """The call by which the request came in."""
    return next(
        call for call in record.calls
        if call.name == "recvfrom" and here in call.of and call.texts[:1]
        and call.texts[0].startswith(begins)
    )  # fmt: skip


def sent(record, there, after):
    """The first call that sent to that peer since."""
    return next(
        call for call in record.calls
        if call.name in SENDING and there in call.of and call.begun > after.done
    )  # fmt: skip


def synced_between(record, first, last):
    """Whether something was written to the database's log and then synced, between two calls."""
    log = [
        call for call in record.calls
        if call.of.endswith(".sqlite-wal") and first.done < call.begun and call.done < last.begun
    ]  # fmt: skip
    written = [call.done for call in log if call.name == "pwrite64"]
    synced = [call.begun for call in log if call.name in {"fsync", "fdatasync"}]
    return bool(written) and any(each > written[0] for each in synced)


def to_target(record):
    came = heard(record, f"{HOST_ADDRESS}:{HOST_PORT}", b"POST")
    return came, sent(record, f"->{TARGET_ADDRESS}:{TARGET_PORT}", came)


def to_client(record):
    came, passed_on = to_target(record)
    return passed_on, sent(record, f"{HOST_ADDRESS}:{HOST_PORT}->", came)


def to_host(record):
    """The first bytes to Host since the tunnel was given to the IKE daemon."""
    installed = next(
        call for call in record.calls
        if call.name == "sendto" and call.texts[:1] and b"load-conn" in call.texts[0]
    )  # fmt: skip
    return installed, sent(record, f"{TARGET_ADDRESS}:{TARGET_PORT}->{HOST_ADDRESS}", installed)


@pytest.mark.parametrize(
    ("agent", "way"), [("host", to_target), ("host", to_client), ("target", to_host)]
)
def test_what_is_promised_is_synced_before_a_byte_leaves(records, agent, way):
    first, last = way(records[agent])
    assert synced_between(records[agent], first, last)


def found_after(record, last, seed, place):
    """Put in place what a machine finds whose power fails as this call begins."""
    disk = Disk(record.root, record.before / "var")
    for call in record.calls:
        if call.done < last.begun:
            disk.replay(call)
    write_out(disk.after_power_loss(seed), record.root, place)
    return place


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pair_stays_spent_though_the_power_fails_as_target_hears_of_it(records, seed, tmp_path):
    _, last = to_target(records["host"])
    place = found_after(records["host"], last, seed, tmp_path / "var")
    with KeyDatabase.opened(place / "keys.sqlite") as database:
        assert [pair["reason"] for pair in database.pairs(state="invalid")] == ["spent"]
        # One whose lease is over is both, however long ago the request came.
        waiting = {each.key_id for each in database.unanswered() + database.abandoned()}
        assert len(waiting) <= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_an_answer_stays_stored_though_the_power_fails_as_it_is_given(records, seed, tmp_path):
    _, last = to_client(records["host"])
    place = found_after(records["host"], last, seed, tmp_path / "var")
    with KeyDatabase.opened(place / "keys.sqlite") as database, database.begin() as connection:
        (row,) = connection.execute(text("SELECT outcome, response FROM requests"))
        assert row.outcome == "granted"
        assert row.response


@pytest.mark.parametrize("seed", SEEDS)
def test_a_tunnel_stays_recorded_though_the_power_fails_as_host_hears_of_it(
    records, seed, tmp_path
):
    _, last = to_host(records["target"])
    place = found_after(records["target"], last, seed, tmp_path / "var")
    with (
        opened_database(place / "target.sqlite", "target_agent") as engine,
        engine.connect() as connection,
    ):
        (row,) = connection.execute(text("SELECT state, answer FROM tunnels"))
        assert row.state == "prepared"
        assert row.answer


def test_wherever_the_power_fails_the_key_database_opens_and_is_of_one_moment(records, tmp_path):
    """At every sync of the Host's, and just before it: never half of a transaction."""
    record, seen = records["host"], set()
    syncs = [call for call in record.calls if call.name in {"fsync", "fdatasync"}]
    for number, last in enumerate(syncs):
        place = found_after(record, last, 3 + number, tmp_path / str(number))
        with KeyDatabase.opened(place / "keys.sqlite") as database, database.begin() as connection:
            spent = connection.execute(text("SELECT count(*) FROM requests")).scalar()
            told = connection.execute(
                text("SELECT count(*) FROM audit WHERE event = 'spent'")
            ).scalar()
            invalid = len(list(database.pairs(state="invalid")))
            assert spent == told == invalid
            seen.add(spent)
        shutil.rmtree(place)
    assert seen == {0, 1}
