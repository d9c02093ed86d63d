"""That nothing was spent twice, and nothing lost: all that knows of a pair says the same."""

from collections import Counter
from contextlib import contextmanager
from functools import partial

from carnet.tunnel import tunnel_name
from lab.errors import LabError
from lab.waiting import wait_until
from tests.crashes.looks import daemon, look
from tests.observers import metrics

PATIENCE = 60
LAST_LINES = 30
POOL = 254
"""Addresses in the lab's virtual network."""
LONG_TERM = {"carnet transport", "carnet accounts"}


def all_agree(office, died, *, spent, since):
    """Check every promise, after a crash was recovered from.

    `died` is what there was when the process was dead, `since` what there was before,
    `spent` how many pairs all of it may have cost.
    """
    with _logs_of(office):
        wait_until(lambda: _is_settled(look(office)), "everything to be settled", PATIENCE)
        now = look(office)
        assert len(now.spent - since.spent) in spent
        _nothing_was_given_twice(died, now)
        _every_pair_has_its_record(office, now)
        _the_tokens_hold_what_is_valid(office, now)
        _the_daemons_hold_what_is_live(office, now)
        _the_addresses_are_had_by_what_is_live(office, now)
        _the_accounts_say_the_same(now)


@contextmanager
def _logs_of(office):
    """Say with what fails what the agents did last: the crash may be a minute ago."""
    try:
        yield
    except (AssertionError, LabError) as failure:
        for agent in (office.host_agent, office.target_agent):
            failure.add_note("\n".join(agent.output().splitlines()[-LAST_LINES:]))
        raise


def _is_settled(now):
    """Whether answers are stored, keys destroyed, one tunnel stands and all others are told."""
    answered = all(row["outcome"] for row in now.requests.values())
    owed = [p for p in now.pairs.values() if p["state"] == "invalid" and not p["key_destroyed_at"]]
    standing = [row["state"] for row in now.live.values()] in ([], ["established"])
    told = all(
        now.requests[request_id]["ended_at"]
        for request_id, row in now.tunnels.items()
        if row["ended_at"]
    )
    return answered and not owed and standing and told


def _nothing_was_given_twice(died, now):
    """What could be seen when the process died is what stands: one key for one Request ID."""
    for request_id, row in died.tunnels.items():
        assert now.tunnels[request_id]["answer"] == row["answer"]
    for request_id, row in died.requests.items():
        assert now.requests[request_id]["digest"] == row["digest"]
        if row["response"] is not None:
            assert now.requests[request_id]["response"] == row["response"]
    assert set(Counter(row["key_id"] for row in now.tunnels.values()).values()) <= {1}


def _every_pair_has_its_record(office, now):
    assert set(now.pairs) == office.minted
    spent_by = {row["key_id"].hex(): row for row in now.requests.values()}
    assert set(spent_by) == now.spent
    for pair in now.pairs.values():
        assert (pair["state"] == "valid") == (pair["reason"] is None)
        assert (pair["key_destroyed_at"] is None) == (pair["state"] == "valid")
    granted = {each for each, row in now.requests.items() if row["outcome"] == "granted"}
    assert granted == {each for each, row in now.tunnels.items() if row["state"] != "refused"}


def _the_tokens_hold_what_is_valid(office, now):
    """No orphan, no half, nothing without a name, on either token; but one cover, one head."""
    for eye, long_term, data in (
        (office.hsm, LONG_TERM, ["carnet accounts head"]),
        (office.token, set(), ["carnet cover", "carnet minting", "carnet officer"]),
    ):
        # A head is written before the one that it replaces is destroyed.
        wait_until(partial(_has_data, eye, data), f"{data} alone", PATIENCE)
        held = eye.holds()
        for half in ("PRIVATE_KEY", "PUBLIC_KEY"):
            pairs = [key_id for key_id, label in held[half] if label not in long_term]
            assert sorted(pairs) == sorted(now.valid), half
        assert held["SECRET_KEY"] == []


def _has_data(eye, labels):
    return [label for _, label in eye.holds()["DATA"]] == labels


def _the_daemons_hold_what_is_live(office, now):
    live = {tunnel_name(bytes.fromhex(each)) for each in now.live}
    for charon in (office.target_charon, office.client_charon):
        # An SA that was rekeyed or replaced is listed until its peer agrees that it is deleted.
        try:
            wait_until(partial(_carries, charon, live), "the live tunnels alone", PATIENCE)
        except LabError as failure:
            failure.add_note(f"{live} live, and {charon.vici} has {daemon(charon)}")
            raise
        has = daemon(charon)
        assert has.pools <= live
        assert has.secrets <= live  # with which a Client who was away would come back


def _carries(charon, live):
    has = daemon(charon)
    return has.sas == Counter(dict.fromkeys(live, 1)) and has.connections == live


def _the_addresses_are_had_by_what_is_live(office, now):
    """Each by one tunnel, in the records and at both daemons; all others of the pool are free."""
    had = {
        tunnel_name(bytes.fromhex(each)): [row["virtual_address"]] for each, row in now.live.items()
    }
    for charon in (office.target_charon, office.client_charon):
        assert daemon(charon).addresses == had
    wait_until(partial(_are_taken, office, len(had)), "all other addresses to be free", PATIENCE)


def _are_taken(office, count):
    seen = metrics(office.world.target.directory / "var" / "observers.sock")
    taken, free = (seen["carnet_target_virtual_addresses", "4", s] for s in ("taken", "free"))
    return (taken, taken + free) == (count, POOL)


def _the_accounts_say_the_same(now):
    assert now.whole
    host = Counter(dict.fromkeys((("imported", each) for each in now.pairs), 1))
    for key_id, pair in now.pairs.items():
        host["key-destroyed", key_id] += pair["key_destroyed_at"] is not None
        for reason in ("revoked", "expired"):
            host[reason, key_id] += pair["reason"] == reason
    for request_id, row in now.requests.items():
        host["spent", request_id] += 1
        host["answered", request_id] += row["outcome"] is not None
        host["tunnel-ended", request_id] += row["ended_at"] is not None
        host["tunnel-revoked", request_id] += row["revoked_at"] is not None
        host["tunnel-end-asked", request_id] += row["end_asked_at"] is not None
    assert now.host_events == +host
    target = Counter()
    for request_id, row in now.tunnels.items():
        refused = row["state"] == "refused"
        target["tunnel-refused" if refused else "tunnel-prepared", request_id] += 1
        target["tunnel-established", request_id] += row["established_at"] is not None
        target["tunnel-ended", request_id] += row["ended_at"] is not None
    assert {
        each: count
        for each, count in now.target_events.items()
        if each[1] and each[0] != "tunnel-ending"
    } == +target
