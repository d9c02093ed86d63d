"""`carnet-host audit explain`: what the accounts say, and where other tables say otherwise."""

import hashlib
import json
from contextlib import contextmanager, suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from carnet.audit.chain import read
from carnet.audit.commands import show_chains
from carnet.audit.heads import examine, newest_head
from carnet.audit.responsibility import DATABASE
from carnet.audit.showing import as_json, describe
from carnet.console import print_json
from carnet.database.reading import readable
from carnet.errors import CarnetError, UsageError
from carnet.wire import cbor
from carnet.wire.control import TunnelEnded
from carnet.wire.keys import key_id_of
from host_agent import schema
from host_agent.audit_commands import explained
from host_agent.keydb import WrappedKey
from host_agent.keydb.records import RECORDED
from tests.host.conftest import new_pair, sealed_request
from tests.host.test_accounts import KEY, lift, make_anew, sign_now, tamper
from tests.host.test_operator import carnet_host  # noqa: F401  a fixture
from tests.unit.examples import SoftwareKey, make_request

REQUEST_ID = make_request().request_id
BOB = "bob@office"
OTHERWISE = "says of this request what its accounts do not"


@pytest.fixture
def spent(database, pair, other_pair):
    """Five records: two pairs imported, one spent, answered, burned; what she signed."""
    envelope, signed = sealed_request(pair)
    database.spend(envelope, signed)
    database.store_response(envelope.key_id, "granted", b"sealed")
    database.record_destroyed(envelope.key_id)
    return signed


@contextmanager
def forged(database, statement, **values):
    """Change the database for a while."""
    with database.engine.connect() as connection, connection.begin() as undone:
        lift(connection)
        connection.execute(text(statement), values)
        yield connection
        undone.rollback()


def told(database, *witnesses, keys=None):
    """What the accounts are worth, and what is told of the request."""
    with database.snapshot() as connection:
        return explained(connection, REQUEST_ID, keys, witnesses)


def only(chains):
    (chain,) = chains
    return chain


def differing(chain):
    return [link.says for link in chain if link.differs]


def proved(chain):
    return " ".join(link.says for link in chain if not link.is_of_database)


def test_the_chain_of_responsibility_names_the_record_behind_each_link(spent, database):
    chain = only(told(database)[1])
    assert [(each.link, each.records) for each in chain] == [
        ("request", (3,)),
        ("key pair", (3,)),
        ("user", (1,)),
        ("Host", (3,)),
        ("Target", (4,)),
        ("key pair", (5,)),
        ("database", ()),
        ("accounts", ()),
    ]
    assert "alice@office asks work" in chain[0].says
    assert hashlib.sha256(spent.evidence).hexdigest() in chain[1].says
    assert not differing(chain)


def test_it_says_how_far_the_accounts_are_signed(spent, database):
    def last(**options):
        return only(told(database, **options)[1])[-1].says

    assert last() == "5 records, each bound to the one before; none of them is signed yet"
    sign_now(database)
    assert "the signed head of record 5 fits them, its signature not verified" in last()
    assert last(keys=[KEY.public_key]).endswith("its signature verified just now")


FORGED = {
    "user_id": "UPDATE key_pairs SET user_id = 'bob@office'",
    "batch_id": "UPDATE key_pairs SET batch_id = key_id",
    "state": "UPDATE key_pairs SET state = 'valid', reason = NULL",
    "another's public key": "UPDATE key_pairs SET public_key = batch_id",
    "target": "UPDATE requests SET target = 'elsewhere'",
    "objective_id": "UPDATE requests SET objective_id = 1",
    "digest": "UPDATE requests SET digest = request_id",
    "request_id": "UPDATE requests SET request_id = digest",
    "outcome": "UPDATE requests SET outcome = 'unknown-user'",
    "end_reason": "UPDATE requests SET end_reason = 'expired'",
    "token_serial": "UPDATE key_pairs SET token_serial = '2'",
    "its imported_at": "UPDATE key_pairs SET imported_at = imported_at - 31536000",
    "host_key_id": "UPDATE key_pairs SET host_key_id = key_id",
    "its spent_at": "UPDATE requests SET spent_at = spent_at - 61",
    "its invalid_at": "UPDATE key_pairs SET invalid_at = invalid_at + 90",
    "its answered_at": "UPDATE requests SET answered_at = answered_at + 90",
    "no invalid_at": "UPDATE key_pairs SET invalid_at = NULL",
    "no answered_at": "UPDATE requests SET answered_at = NULL",
    "its key_destroyed_at": "UPDATE key_pairs SET key_destroyed_at = 1",
    "custody": "UPDATE key_pairs SET custody = 'split'",
    "key_store": "UPDATE key_pairs SET key_store = 'wrapped'",
    "not_after": "UPDATE key_pairs SET not_after = 5",
    "may be there, and it is gone": "UPDATE key_pairs SET key_destroyed_at = NULL",
    "moment as revoked_at": "UPDATE requests SET revoked_at = 1",
    "moment as end_asked_at": "UPDATE requests SET end_asked_at = 1",
    "moment as ended_at": "UPDATE requests SET ended_at = 1",
    "0 rows of the request": "DELETE FROM requests",
}


def test_a_row_that_says_otherwise_than_the_records_is_told(spent, database):
    for what, statement in FORGED.items():
        with forged(database, statement) as connection:
            _, chains = explained(connection, REQUEST_ID)
        chain = only(chains)
        assert any(what in said for said in differing(chain)), what
        assert "the pair is alice@office's" in proved(chain)
        assert "she was passed on to work" in proved(chain)
        assert not any(word in proved(chain) for word in (BOB, "elsewhere", "unknown-user"))


ENDED = {
    "no revoked_at": "UPDATE requests SET revoked_at = NULL",
    "no end_asked_at": "UPDATE requests SET end_asked_at = NULL",
    "no ended_at": "UPDATE requests SET ended_at = NULL",
    "its revoked_at": "UPDATE requests SET revoked_at = 1",
    "its end_asked_at": "UPDATE requests SET end_asked_at = 1",
    "its ended_at": "UPDATE requests SET ended_at = 2",
}


def test_the_end_of_a_tunnel_is_in_both_or_in_none(spent, database):
    database.revoke_tunnels("stolen", user_id="alice@office")
    database.record_end_asked("work", REQUEST_ID)
    ended = TunnelEnded(number=1, request_id=REQUEST_ID, ended_at=1, reason="revoked")
    database.record_ended("work", (ended,))
    assert not differing(only(told(database)[1]))
    for what, statement in ENDED.items():
        with forged(database, statement) as connection:
            _, chains = explained(connection, REQUEST_ID)
        assert any(what in said for said in differing(only(chains))), what


def test_a_revocation_of_one_of_two_pairs_with_one_request_id_is_not_missed(
    spent, database, other_pair
):
    database.spend(*sealed_request(other_pair))
    database.revoke_tunnels("stolen", key_id=key_id_of(other_pair.public_key))
    _, chains = told(database)
    assert len(chains) == 2
    assert not any(map(differing, chains))


def all_differing(database):
    return differing(only(told(database)[1]))


def test_a_key_is_gone_by_the_record_of_each_hsm(database, pair):
    envelope, signed = sealed_request(pair)
    database.record_copies("hsm-1", [envelope.key_id])
    database.record_copies("hsm-2", [envelope.key_id])
    database.spend(envelope, signed)
    database.store_response(envelope.key_id, "granted", b"sealed")
    gone = "UPDATE key_pairs SET key_destroyed_at = 1"
    gone_from = "UPDATE key_copies SET destroyed_at = 1"
    for step in (
        lambda: None,
        lambda: database.record_destroyed(envelope.key_id, "hsm-1"),
    ):
        step()
        assert not all_differing(database)
        for statement, said in ((gone, "gone from everywhere"), (gone_from, "HSM hsm-2 destroyed")):
            with forged(database, statement) as connection:
                _, chains = explained(connection, REQUEST_ID)
            assert any(said in each for each in differing(only(chains))), said
    database.record_destroyed(envelope.key_id, "hsm-2")
    assert not all_differing(database)
    database.record_copies("hsm-1", [envelope.key_id])  # by a batch that comes late
    assert not all_differing(database)
    database.record_destroyed(envelope.key_id, "hsm-1")
    assert not all_differing(database)
    with forged(database, gone_from) as connection:
        _, chains = explained(connection, REQUEST_ID)
    assert [said.split(",")[0] for said in differing(only(chains))] == [
        "its destroyed_at is 1970-01-01 00:00:01Z"
    ] * 2
    missing = "DELETE FROM key_copies WHERE hsm_serial = 'hsm-2'"
    with forged(database, missing) as connection:
        _, chains = explained(connection, REQUEST_ID)
    said = "it does not name HSM hsm-2 as one that had its private key, and the accounts do"
    assert differing(only(chains)) == [said]


def test_what_was_given_up_before_the_pair_came_is_no_burn_of_it(database):
    key = SoftwareKey()
    envelope, signed = sealed_request(key)
    database.record_copies("hsm-1", [envelope.key_id])
    database.give_up_keys("hsm-1", [envelope.key_id], lambda _: None)
    wrapped = (new_pair(key, key_store="wrapped"), WrappedKey(bytes(16), b"wrapped"))
    database.begin_batch_key(bytes(16), bytes(16), "hsm-1")
    database.add_wrapped_pairs([wrapped])
    database.spend(envelope, signed)
    assert not all_differing(database)
    database.store_response(envelope.key_id, "granted", b"sealed")
    database.burn_wrapped(envelope.key_id)
    assert not all_differing(database)


def test_a_key_that_is_kept_wrapped_is_there_until_a_record_tells_of_its_end(database):
    key = SoftwareKey()
    envelope, signed = sealed_request(key)
    wrapped = (new_pair(key, key_store="wrapped"), WrappedKey(bytes(16), b"wrapped"))
    database.begin_batch_key(bytes(16), bytes(16), "hsm-1")
    database.add_wrapped_pairs([wrapped])
    database.spend(envelope, signed)
    database.store_response(envelope.key_id, "granted", b"sealed")
    with forged(database, "DELETE FROM wrapped_keys") as connection:
        _, chains = explained(connection, REQUEST_ID)
    said = "it does not keep its private key, wrapped, and no record tells of its end"
    assert differing(only(chains)) == [said]
    database.burn_wrapped(envelope.key_id)
    assert not all_differing(database)
    put_back = "INSERT INTO wrapped_keys VALUES (:key_id, :kek_id, :wrapped)"
    row = {"key_id": envelope.key_id, **vars(wrapped[1])}
    with forged(database, put_back, **row) as connection:
        _, chains = explained(connection, REQUEST_ID)
    assert differing(only(chains)) == ["it keeps its private key, wrapped, which was destroyed"]


def test_an_older_record_of_an_import_proves_what_it_has(spent, database):
    rewrite(database, 1, without=RECORDED[3:])
    assert not all_differing(database)


def test_the_command_fails_then_and_says_what_to_do(spent, database, carnet_host):  # noqa: F811
    shown = json.loads(carnet_host("audit", "explain", REQUEST_ID.hex(), "--json"))
    assert [link["differs"] for link in shown] == [False] * 8
    with database.engine.begin() as connection:
        connection.execute(text(FORGED["user_id"]))
    with pytest.raises(CarnetError, match=OTHERWISE) as caught:
        carnet_host("audit", "explain", REQUEST_ID.hex())
    assert caught.value.exit_status == 1


def test_evidence_of_another_request_under_the_same_pair_is_not_told(spent, pair, database):
    _, other = sealed_request(pair, target="elsewhere", request_id=REQUEST_ID)
    statement = "UPDATE requests SET evidence = :evidence"
    with forged(database, statement, evidence=other.evidence) as connection:
        _, chains = explained(connection, REQUEST_ID)
    assert "record 3 names evidence with the SHA-256" in differing(only(chains))[0]
    assert "elsewhere" not in proved(only(chains))


def rewrite(database, number, without=(), **changes):
    """Change facts of a record, and make the chain anew."""
    with database.begin() as connection:
        records = list(read(connection, schema.audit))
    facts = {**records[number - 1].facts, **changes}
    encoded = cbor.encode({name: facts[name] for name in facts if name not in without})
    make_anew(database, number, facts=encoded)


def test_a_record_that_says_otherwise_than_its_evidence_is_told(spent, database):
    rewrite(database, 3, user_id=BOB)
    said = "its user_id is alice@office, where the accounts have bob@office"
    assert differing(only(told(database)[1])) == [said]


def test_an_older_record_proves_what_it_has(spent, database):
    rewrite(database, 3, without=["evidence_digest"])
    chain = only(told(database)[1])
    assert not differing(chain)
    assert "which the record, an older one, does not name" in chain[1].says


def test_a_row_without_a_record_proves_nothing(spent, database, other_pair):
    copy = (
        "INSERT INTO requests (key_id, digest, request_id, target, objective_id, evidence, "
        "spent_at) SELECT :key_id, :key_id, request_id, target, 3, evidence, 1 FROM requests"
    )
    key_id = key_id_of(other_pair.public_key)
    with forged(database, copy, key_id=key_id) as connection:
        _, (alone, chain) = explained(connection, REQUEST_ID)
    assert [link.link for link in alone] == ["database", "accounts"]
    assert key_id.hex() in only(differing(alone))
    assert not differing(chain)


def test_a_pair_that_was_never_imported_or_is_spent_twice_is_told(spent, database):
    rewrite(database, 1, key_id=bytes(16))
    with database.begin() as connection:
        facts = next(e.facts for e in read(connection, schema.audit) if e.event == "spent")
    with database.engine.begin() as connection:
        database._audit(connection, "spent", **facts | {"request_id": bytes(16)})
    assert differing(only(told(database)[1])) == [
        "the accounts show 0 imports of its pair, and not one",
        "the accounts show that its pair was spent more than once",
    ]


def test_what_comes_after_a_changed_record_is_not_told(
    spent,
    database,
    carnet_host,  # noqa: F811
    capsys,
):
    for number, links in ((4, ["request", "key pair", "user", "Host"]), (2, [])):
        tamper_with = f"UPDATE audit SET at = at + 1 WHERE number = {number}"  # noqa: S608
        with forged(database, tamper_with) as connection:
            found, chains = explained(connection, REQUEST_ID)
        assert found.broken_at == number
        shown = [e.link for c in chains for e in c if not e.is_of_database]
        assert shown == [*links, "accounts"]
        with pytest.raises(CarnetError, match=f"changed at record {number}"):
            show_chains(chains, found, other_keys="", as_json=True)
        assert DATABASE not in capsys.readouterr().out
    tamper(database, "UPDATE audit SET at = at + 1 WHERE number = 4")
    with pytest.raises(CarnetError, match="changed at record 4"):
        carnet_host("audit", "explain", REQUEST_ID.hex())


def test_a_chain_made_anew_is_found_by_its_signed_head(spent, database):
    witness = sign_now(database)
    rewrite(database, 1, user_id=BOB)
    assert told(database)[0].broken_at == 5
    with database.engine.begin() as connection:
        connection.execute(text("DELETE FROM audit_heads"))
    found, chains = told(database)
    assert found.broken_at is None
    assert "none of them is signed" in only(chains)[-1].says
    assert told(database, witness)[0].broken_at == 5
    sign_now(database, SoftwareKey())
    assert told(database, keys=[KEY.public_key])[0].broken_at == 5


def test_an_unknown_request_is_a_usage_error(spent, carnet_host):  # noqa: F811
    with pytest.raises(UsageError, match="no record of a request"):
        carnet_host("audit", "explain", bytes(16).hex())


NEVER_WRITTEN = {
    "sqlite": [
        "UPDATE requests SET spent_at = 'text'",
        "UPDATE audit SET facts = 'text' WHERE number = 3",
        "UPDATE audit SET facts = CAST(x'ff' AS TEXT) WHERE number = 3",
        "UPDATE audit SET event = CAST(x'ff' AS TEXT) WHERE number = 3",
        "UPDATE audit SET at = 'text' WHERE number = 3",
        "UPDATE audit SET digest = 'text' WHERE number = 3",
        "UPDATE audit_heads SET signed = 'text'",
        "UPDATE audit_heads SET signed = CAST(x'ff' AS TEXT)",
        "UPDATE requests SET evidence = 'text'",
        "UPDATE requests SET request_id = CAST(x'ff' AS TEXT)",
        "UPDATE key_pairs SET public_key = 'text'",
        "UPDATE key_pairs SET suite = 'text'",
    ],
    "postgresql": [
        "ALTER TABLE audit ALTER COLUMN facts TYPE text USING 'text'",
        "ALTER TABLE audit ALTER COLUMN at TYPE text USING 'text'",
        "ALTER TABLE audit ALTER COLUMN number TYPE text",
        "ALTER TABLE audit_heads ALTER COLUMN signed TYPE text USING 'text'",
        "ALTER TABLE requests ALTER COLUMN evidence TYPE text USING 'text'",
    ],
}
EITHER = [
    "UPDATE requests SET spent_at = 9223372036854775807",
    "UPDATE audit SET at = 9223372036854775807 WHERE number = 3",
    "UPDATE audit SET facts = digest WHERE number = 3",
    "UPDATE audit SET number = 9223372036854775807 WHERE number = 5",
    "UPDATE audit_heads SET number = 9223372036854775807",
    "UPDATE audit_heads SET signed = digest FROM audit WHERE audit.number = 3",
]


def shown(connection):
    records = list(read(connection, schema.audit))
    assert all(map(describe, records))
    return [as_json(each) for each in records]


def is_proved(connection):
    found, chains = explained(connection, REQUEST_ID, [KEY.public_key])
    return found.broken_at is None and not any(map(differing, chains))


LOOKS = {
    "explain": is_proved,
    "verify": lambda c: (
        examine(c, schema.audit, schema.audit_heads, [KEY.public_key]).broken_at is None
    ),
    "show": shown,
    "head": lambda c: newest_head(c, schema.audit_heads),
}


def sentences(connection):
    """Have each command's look end well or in a sentence; return those that found something.

    An error of the database is said by whoever has opened it.
    """
    for name, look in LOOKS.items():
        with connection.begin_nested() as undone:
            try:
                with readable():
                    found = look(connection)
                print_json(found)
                if found is False:
                    yield name
            except (CarnetError, SQLAlchemyError):
                yield name
            undone.rollback()


def test_what_was_never_written_is_said_in_a_sentence(spent, database):
    sign_now(database)
    for statement in [*NEVER_WRITTEN[database.engine.dialect.name], *EITHER]:
        with forged(database, statement) as connection:
            assert "explain" in list(sentences(connection)), statement


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
@pytest.mark.parametrize("value", ["'text'", "CAST(x'ff' AS TEXT)"])
def test_a_head_that_is_none_is_not_printed(spent, database, carnet_host, value):  # noqa: F811
    sign_now(database)
    tamper(database, f"UPDATE audit_heads SET signed = {value}")  # noqa: S608
    with pytest.raises(CarnetError, match="changed: it"):
        carnet_host("audit", "head")


OTHER_TYPES = [
    [1, 2],
    {"request_id": [1], "key_id": {"a": 1}, "user_id": 7},
    {1: 2, b"x": {2: 3}},
    {"request_id": REQUEST_ID, "key_id": 5, "target": [], "user_id": None},
    {"request_id": REQUEST_ID, "key_id": bytes(16), "target": {"a": None}},
]


def test_facts_of_other_types_are_said_in_a_sentence(spent, database):
    sign_now(database)
    for facts in OTHER_TYPES:
        for number in (1, 3, 4):
            make_anew(database, number, facts=cbor.encode(facts))
            with suppress(CarnetError), database.snapshot() as connection:
                assert set(sentences(connection)) >= {"explain", "verify"}
