"""Key store `wrapped`: a process killed between the burn of a pair and that of its batch's key."""

import signal

import pytest

from lab.waiting import wait_until
from tests.fleet.test_concurrency import accounts
from tests.fleet.traveller import open_grant, seal, send_one, send_until_answered
from tests.fleet.wrapped import PATIENCE, batch_keys, states, wrapped


@pytest.mark.parametrize(
    ("place_of_death", "on_token"),
    [
        ("host.wrapped-key-deleted", 1),
        ("host.batch-key-destroyed", 0),
        ("accounts.appended batch-key-destroyed", 0),
    ],
)
def test_a_burn_that_was_cut_off_is_listed_and_finished_at_the_next_start(
    fleet, take_in, hsm, place_of_death, on_token
):
    (key,) = take_in(1).keys
    (process,) = fleet.start(1, CARNET_CRASH_AT=place_of_death)
    request = seal(key)
    assert open_grant(key, request, send_until_answered([process.url], request))
    assert process.wait() == -signal.SIGKILL
    assert wrapped(fleet, key) == []
    assert len(batch_keys(hsm)) == on_token
    assert states(fleet) == ["destruction owed"]
    assert "1 pairs" not in process.run("keys")
    assert "0 pairs  destruction owed" in process.run("keys")
    process.start()
    wait_until(lambda: states(fleet) == ["destroyed"], "the sweep", PATIENCE)
    assert batch_keys(hsm) == frozenset()
    assert send_one(process.url, request).status == 200
    assert "owed" not in process.run("keys")
    assert accounts(fleet.place).count("batch-key-destroyed") == 1


def test_what_a_dead_process_left_is_answered_by_another_that_unwraps_the_pair(
    fleet, take_in, hsm
):  # fmt: skip
    (key,) = take_in(1).keys
    dying, other = fleet.start(2, CARNET_CRASH_AT="host.spent")
    request = seal(key)
    with pytest.raises(Exception, match="Server disconnected"):
        send_one(dying.url, request)
    assert dying.wait() == -signal.SIGKILL
    assert open_grant(key, request, send_until_answered([other.url], request))
    wait_until(lambda: states(fleet) == ["destroyed"], "the burn", PATIENCE)
    assert batch_keys(hsm) == frozenset()
    assert len(fleet.gateway.session_keys) == 1
