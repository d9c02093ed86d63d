"""Custody `split` at a Host as it serves: real HTTP, a real token with the Host's keys.

The pairs are in software, as on a traveller's card: nothing of them is on the Host's token.
"""

import dataclasses
import secrets
from datetime import UTC, datetime

import pytest

from carnet.errors import RefusedError, UsageError
from carnet.progress import no_bar
from carnet.token.host_keys import destroy_host_keys, make_host_keys
from carnet.token.onetime import OneTimeKeys, pair_label
from carnet.token.session import open_session
from carnet.wire import envelope, split
from carnet.wire.documents import Batch, BatchPair
from carnet.wire.envelope import parse_envelope
from carnet.wire.keys import key_id_of
from carnet.wire.messages import RefusalCode
from carnet.wire.suites import P256, P384, RSA, RSA_SHA1
from host_agent.hsm_check import check_hsm
from host_agent.importing import store_for
from host_agent.importing import take_in as take_batch_in
from host_agent.keydb import KeyDatabase, PairState
from host_agent.revoked_meanwhile import under_way
from host_agent.rollback import Witness
from tests.host.batches import SessionToken, opened
from tests.host.real_host import PIN, sealed, spoiled, status_of
from tests.unit.examples import EPHEMERAL, SoftwareKey, make_request

STRANGER = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
MINTED = datetime(2026, 11, 23, tzinfo=UTC)


def hsm_of(host):
    return open_session(host._token, PIN, writable=True)


def couple_for(suite, host, *, anew=False):
    """The Host's couple for pairs of a suite, from its token."""
    with hsm_of(host) as session:
        couples = make_host_keys(session, anew=anew)
    type_ = "ec-p384" if suite is P384 else "ec-p256"
    return next(each for each in couples if each.key_type == type_)


def batch_of(couple, of_suite, *pairs, **changes):
    fields = {
        "version": 1,
        "batch_id": secrets.token_bytes(16),
        "host_transport_key": couple.sealing,
        "ephemeral_key": None,
        "user_id": "alice@office",
        "token_serial": "1",
        "custody": "split",
        "suite": of_suite.number,
        "minted_at": 0,
        "not_after": None,
        "pairs": tuple(
            BatchPair(label=pair_label(MINTED, number), public_key=pair.public_key, wrapped=None)
            for number, pair in enumerate(pairs, 1)
        ),
    }
    return Batch(**(fields | changes))


def take_in(host, batch, still_alone=lambda: None):
    """Import a batch as `carnet-host import` does."""
    with (
        KeyDatabase.opened(host._path) as database,
        hsm_of(host) as session,
        opened(batch) as (file, config),
        under_way(file, database),
    ):
        store = store_for(file, database, config)
        token = SessionToken(session)
        return take_batch_in(file, token, database, store, no_bar, still_alone=still_alone)


def asked(pair, suite, couple, **changes):
    """A sealed request of alice's, for a Target that this Host does not know."""
    wish = make_request(**({"target": "elsewhere"} | changes))
    return split.seal_request(wish, pair.public_key, suite, pair.sign, couple.sealing).data


def answered(response, request, couple):
    assert status_of(response) == 200
    body = response.partition(b"\r\n\r\n")[2]
    return split.open_response(body, parse_envelope(request), couple.signing, EPHEMERAL)


@pytest.mark.parametrize("suite", [P256, RSA, P384], ids=lambda suite: suite.name)
def test_a_pair_of_each_suite_is_answered_spent_and_never_on_the_hsm(make_host, suite):
    host, pair, other = make_host(), SoftwareKey(suite), SoftwareKey(P384)
    couple = couple_for(suite, host)
    assert take_in(host, batch_of(couple, suite, pair)) == 1
    revoked = couple_for(P384, host)
    take_in(host, batch_of(revoked, P384, other))
    with KeyDatabase.opened(host._path) as database:
        database.revoke("lost", key_id=key_id_of(other.public_key))
    with host:
        request = asked(pair, suite, couple)
        first = host.post(request)
        refusal = answered(first, request, couple)
        # The same bytes, the same answer; other bytes, none.
        assert answered(host.post(request), request, couple) == refusal
        assert host.post(asked(pair, suite, couple)) == STRANGER
        record = host.database.part.find_pair(key_id_of(pair.public_key))
        assert host.database.part.keys_to_destroy() == []
        assert "destroy" not in host.hsm.calls
        assert "record_destroyed" not in host.database.calls
    assert refusal.code is RefusalCode.UNKNOWN_TARGET
    assert refusal.invalid_pairs == (key_id_of(other.public_key),)
    assert (record.state, record.custody) == (PairState.INVALID, "split")
    assert pair.operations == ["sign"] * 2
    with hsm_of(host) as session:
        assert OneTimeKeys(session).pairs() == []


def test_nobody_learns_whose_custody_a_pair_is_in(make_host):
    """Every request that is not right gets the constant answer, and spends nothing."""
    host = make_host()
    paired, in_split = SoftwareKey(), SoftwareKey()
    host.add_pairs(paired)
    couple, stranger = couple_for(P256, host), SoftwareKey()
    take_in(host, batch_of(couple, P256, in_split))
    other_host = dataclasses.replace(couple, sealing=stranger.public_key)
    wrong = {
        "as of custody paired": sealed(in_split),
        "as of custody split": asked(paired, P256, couple),
        "split, sealed to the pair": split.seal_request(
            make_request(), in_split.public_key, P256, in_split.sign, in_split.public_key
        ).data,
        "to another Host's key": asked(in_split, P256, other_host),
        "to the key that signs": asked(
            in_split, P256, dataclasses.replace(couple, sealing=couple.signing)
        ),
        "another pair signed": split.seal_request(
            make_request(), in_split.public_key, P256, stranger.sign, couple.sealing
        ).data,
        "a seal that does not open": spoiled(asked(in_split, P256, couple)),
        "an ephemeral key that is none": asked(
            in_split, P256, couple, ephemeral_key=EPHEMERAL.public[:1184] + bytes(32)
        ),
    }
    with host:
        assert {name: host.post(data) for name, data in wrong.items()} == dict.fromkeys(
            wrong, STRANGER
        )
        assert "spend" not in host.database.calls
        # Both serve, each in its own custody.
        request = sealed(paired)
        body = host.post(request).partition(b"\r\n\r\n")[2]
        envelope.open_response(body, parse_envelope(request), paired.public_key, paired)
        request = asked(in_split, P256, couple)
        answered(host.post(request), request, couple)


def test_the_old_generation_serves_beside_the_new(make_host):
    host, early, late = make_host(), SoftwareKey(), SoftwareKey()
    old = couple_for(P256, host)
    take_in(host, batch_of(old, P256, early, SoftwareKey()))
    new = couple_for(P256, host, anew=True)
    assert new != old
    take_in(host, batch_of(new, P256, late))
    with host:
        for pair, couple in ((early, old), (late, new)):
            request = asked(pair, P256, couple)
            answered(host.post(request), request, couple)


def test_a_host_whose_hsm_lacks_its_key_is_not_ready_and_the_operator_told_why(
    make_host, monkeypatch
):
    """Another HSM of the same Host may hold it: the pair is not for the Client to give up."""
    host, pair, said = make_host(), SoftwareKey(), {}
    old = couple_for(P256, host)
    take_in(host, batch_of(old, P256, pair))
    couple_for(P256, host, anew=True)
    for module in ("hsm_check", "server"):
        monkeypatch.setattr(
            f"host_agent.{module}.log.warning", lambda event, **facts: said.update({event: facts})
        )
    with hsm_of(host) as session, KeyDatabase.opened(host._path) as database:
        witness = Witness(database)
        check_hsm(database, witness, "office", session)
        assert not said
        destroy_host_keys(session, 1)
        check_hsm(database, witness, "office", session)
        assert said["host-key-missing"]["host_key"] == old.key_id.hex()
        assert said["host-key-missing"]["valid_pairs"] == 1
    with host:
        answer = host.post(asked(pair, P256, old))
        assert status_of(answer) == 503
        assert b"Retry-After: 2" in answer
        assert b"Carnet-Reason: host-not-ready" in answer
        assert host.database.part.find_pair(key_id_of(pair.public_key)).state is PairState.VALID
    assert f"does not hold the Host's key {old.key_id.hex()}" in said["hsm-failed"]["reason"]


def test_a_host_without_keys_for_it_takes_no_batch(make_host):
    host, pair = make_host(), SoftwareKey()
    foreign = dataclasses.replace(couple_for(P256, host), sealing=SoftwareKey().public_key)
    with hsm_of(host) as session:
        destroy_host_keys(session, 1)
    with pytest.raises(RefusedError, match=r"no keys for that yet.*carnet-host host-keys"):
        take_in(host, batch_of(foreign, P256, pair))
    couple_for(P256, host)
    with pytest.raises(RefusedError, match=f"minted for key {foreign.key_id.hex()}"):
        take_in(host, batch_of(foreign, P256, pair))
    with KeyDatabase.opened(host._path) as database:
        assert database.find_pair(key_id_of(pair.public_key)) is None


def test_an_import_that_others_are_no_longer_kept_from_records_nothing(make_host):
    host, pair = make_host(), SoftwareKey()
    batch = batch_of(couple_for(P256, host), P256, pair)

    def lost():
        raise UsageError("lost")

    with pytest.raises(UsageError, match="lost"):
        take_in(host, batch, lost)
    assert take_in(host, batch) == 1


def test_a_batch_that_is_no_batch_of_split_changes_nothing(make_host):
    host, pair = make_host(), SoftwareKey()
    couple = couple_for(P256, host)
    label, public_key = pair_label(MINTED, 1), pair.public_key
    wrong = [
        {"suite": P384.number},
        {"suite": RSA_SHA1.number},
        {"ephemeral_key": public_key},
        {"pairs": (BatchPair(label=label, public_key=public_key, wrapped=bytes(80)),)},
        {"pairs": (BatchPair(label="", public_key=public_key, wrapped=None),)},
        {"host_transport_key": couple_for(P384, host).sealing},
    ]
    for changes in wrong:
        with pytest.raises(RefusedError):
            take_in(host, batch_of(couple, P256, pair, **changes))
    with KeyDatabase.opened(host._path) as database:
        assert database.find_pair(key_id_of(public_key)) is None
