"""`carnet-target audit explain`: what the accounts say, and where other tables say otherwise."""

import asyncio
import contextlib
import json
import secrets
import sqlite3

import pytest

from carnet.audit.chain import START, _digest
from carnet.database import opened_database, snapshot
from carnet.database.reading import readable
from carnet.errors import CarnetError, UsageError
from carnet.wire import cbor
from target_agent.commands.audit import explained
from target_agent.heads import head_keeper
from target_agent.records import Records
from tests.target.conftest import ALICE, running
from tests.target.test_commands import (
    GRANT,
    answered,  # noqa: F401  fixtures
    link,  # noqa: F401
    path,  # noqa: F401
    refused,
    run,  # noqa: F401
    tamper,
    target,  # noqa: F401
)
from tests.unit.examples import SoftwareKey

# ruff: noqa: F811, S608  fixtures are imported; what statements are made of is in this file
OTHERWISE = "says of this request what its accounts do not"
BOB = "bob@office"


@pytest.fixture
def told(target):
    """Return what the accounts are worth, and the chain: told(request_id)."""

    def tell(request_id, keys=()):
        with (
            opened_database(target.database, "target_agent") as engine,
            snapshot(engine) as connection,
        ):
            return explained(connection, request_id, keys)

    return tell


@pytest.fixture
def ask_target(target, driver):
    """Have a Target answer; return the records of it: ask_target(statement, …)."""

    def answer(*statements):
        async def main():
            with opened_database(target.database, "target_agent") as engine:
                async with running(target, driver, engine) as agent:
                    return [await agent.answer(each, "office") for each in statements]

        return asyncio.run(main())

    return answer


def differing(chain):
    return [each.says for each in chain if each.differs]


def proved(chain):
    return " ".join(each.says for each in chain if not each.is_of_database)


def change(target, *statements):
    with contextlib.closing(sqlite3.connect(target.database)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def rewrite(target, number, **changes):
    """Change facts of a record, and make the chain anew."""
    tamper(target, "SELECT 1")
    with contextlib.closing(sqlite3.connect(target.database)) as connection, connection:
        rows = connection.execute("SELECT number, at, event, facts FROM audit ORDER BY number")
        previous = START
        for row, at, event, encoded in rows.fetchall():
            changed = {**cbor.decode(encoded), **(changes if row == number else {})}
            facts = cbor.encode(changed)
            previous = _digest(previous, row, at, event, facts)
            connection.execute(
                "UPDATE audit SET facts = ?, digest = ? WHERE number = ?", (facts, previous, row)
            )


def test_the_chain_of_responsibility_is_explained(answered, run, link):
    chain = json.loads(run("audit", "explain", answered.hex(), "--json"))
    assert [(each["link"], each["records"]) for each in chain] == [
        ("request", [2]),
        ("key pair", [2]),
        ("user", [2]),
        ("membership", [1]),
        ("access control list", [1]),
        ("tunnel", [2]),
        ("accounts", []),
    ]
    assert "esp to 10.20.0.0/16, 8h at most" in chain[4]["says"]
    assert "prepared for 10.99.0.1 to 10.20.0.0/16" in chain[5]["says"]
    assert "none of them is signed yet" in chain[6]["says"]
    assert "access control" in run("audit", "explain", answered.hex())
    with pytest.raises(UsageError, match="no record of a request"):
        run("audit", "explain", bytes(16).hex())


def test_a_refusal_is_explained(answered, run, link):
    refused_one = json.loads(run("tunnels", "list", "--all", "--json"))[1]["request_id"]
    chain = json.loads(run("audit", "explain", refused_one, "--json"))
    assert [each["link"] for each in chain[-3:]] == ["user", "refused", "accounts"]
    assert chain[-2]["says"].startswith("lifetime-not-allowed: ")
    assert not any(each["differs"] for each in chain)


FORGED = {
    "user_id": "UPDATE tunnels SET user_id = 'bob@office'",
    "host": "UPDATE tunnels SET host = 'elsewhere'",
    "key_id": "UPDATE tunnels SET key_id = request_id",
    "another's public key": "UPDATE tunnels SET public_key = zeroblob(91)",
    "objective_id": "UPDATE tunnels SET objective_id = 1",
    "networks": "UPDATE tunnels SET networks = '10.0.0.0/8'",
    "virtual_address": "UPDATE tunnels SET virtual_address = '10.99.0.7'",
    "expires_at": "UPDATE tunnels SET expires_at = 1",
    "state is refused": "UPDATE tunnels SET state = 'refused', virtual_address = NULL",
    "state is established": "UPDATE tunnels SET state = 'established'",
    "end_reason": "UPDATE tunnels SET end_reason = 'expired'",
    "evidence_digest": "UPDATE tunnels SET evidence_digest = request_id",
    "0 rows": "DELETE FROM tunnels",
    "the answer that it has for a repeated": "UPDATE tunnels SET answer = evidence",
    "its answered_at": "UPDATE tunnels SET answered_at = 1",
    "moment as established_at": "UPDATE tunnels SET established_at = 1",
    "moment as ended_at": "UPDATE tunnels SET ended_at = 1",
}
FORGED_OF_ENDED = {
    "no established_at": "UPDATE tunnels SET established_at = NULL",
    "its established_at": "UPDATE tunnels SET established_at = established_at + 90",
    "no ended_at": "UPDATE tunnels SET ended_at = NULL",
    "its ended_at": "UPDATE tunnels SET ended_at = ended_at - 90",
}


def forgeries(target, request_id, statements):
    """Yield what each changes in that row, done to the database as it is now."""
    kept = target.database.read_bytes()
    for what, statement in statements.items():
        target.database.write_bytes(kept)
        change(target, f"{statement} WHERE request_id = x'{request_id.hex()}'")
        yield what


def test_a_row_that_says_otherwise_than_the_records_is_told(answered, run, link, target, told):
    for what in forgeries(target, answered, FORGED):
        _, chain = told(answered)
        assert any(what in said for said in differing(chain)), what
        assert "office certified the request as alice@office's" in proved(chain)
        assert "prepared for 10.99.0.1 to 10.20.0.0/16" in proved(chain)
        assert not any(word in proved(chain) for word in (BOB, "elsewhere", "10.0.0.0/8"))
    said = refused(run, "audit", "explain", answered.hex())
    assert (said.exit_status, OTHERWISE in said.sentence) == (1, True)


def test_the_moments_of_a_tunnel_that_ended_are_compared(answered, target, told):
    with opened_database(target.database, "target_agent") as engine:
        records = Records(engine)
        records.establish(answered)
        records.end(answered, "ended-by-operator")
    assert not differing(told(answered)[1])
    for what in forgeries(target, answered, FORGED_OF_ENDED):
        (said,) = differing(told(answered)[1])
        assert what in said


def test_an_older_record_names_no_answer(answered, target, told):
    rewrite(target, 2, answer_digest=None)
    assert not differing(told(answered)[1])


def test_a_row_of_a_refusal_is_compared_too(answered, run, target, told):
    other = bytes.fromhex(json.loads(run("tunnels", "list", "--all", "--json"))[1]["request_id"])
    change(target, "UPDATE tunnels SET state = 'prepared', networks = '10.0.0.0/8'")
    assert {said.split()[1] for said in differing(told(other)[1])} == {"networks", "state"}
    change(target, "DELETE FROM tunnels")
    assert "it has 0 rows of this request, and not one" in differing(told(other)[1])
    assert differing(told(answered)[1])


def test_a_row_without_a_record_proves_nothing(answered, target, told):
    forged = secrets.token_bytes(16)
    change(target, f"UPDATE tunnels SET request_id = x'{forged.hex()}' WHERE state = 'prepared'")
    _, chain = told(forged)
    assert [(each.link, each.differs) for each in chain] == [
        ("database", True),
        ("accounts", False),
    ]


def test_what_nobody_granted_is_told(target, run, ask, ask_target, told):
    run("users", "add", ALICE, *GRANT)
    run("users", "remove", ALICE)
    change(target, f"INSERT INTO members VALUES ('{ALICE}', 1)")
    change(target, f"INSERT INTO grants VALUES ('{ALICE}', 3, '10.20.0.0/16', 28800)")
    (answering,) = ask_target(ask())
    assert answering.outcome == "granted"
    assert differing(told(answering.request_id)[1]) == [
        "the accounts do not show alice@office as a member",
        "the accounts do not show that she was granted esp to 10.20.0.0/16, 8h at most",
    ]


def test_a_longer_lifetime_than_was_granted_is_told(target, run, ask, ask_target, told):
    run("users", "add", ALICE, *GRANT)
    change(target, "UPDATE grants SET lifetime = 360000")
    (answering,) = ask_target(ask())
    assert ["she was granted" in said for said in differing(told(answering.request_id)[1])] == [
        True
    ]


def test_the_life_of_a_tunnel_is_told_with_its_end(answered, run, told):
    run("tunnels", "end", answered.hex())
    _, chain = told(answered)
    assert "ended: ended-by-operator" in chain[-2].says
    assert not differing(chain)


def test_other_evidence_under_the_same_request_id_changes_nothing(
    target, run, ask, ask_target, told
):
    """A Host that sends it gets a refusal, of which there is a record and no row."""
    run("users", "add", ALICE, *GRANT)
    request_id, key = secrets.token_bytes(16), SoftwareKey()
    other = ask(key, request_id=request_id, networks=("10.20.9.0/24",))
    ask_target(ask(request_id=request_id), other)
    _, chain = told(request_id)
    assert not differing(chain)
    assert "prepared for" in proved(chain)
    assert [each.link for each in chain][-3:] == ["tunnel", "other evidence", "accounts"]
    evidence = f"evidence = x'{other.evidence.hex()}', public_key = x'{other.public_key.hex()}'"
    change(target, f"UPDATE tunnels SET {evidence}")
    _, chain = told(request_id)
    assert "record 2 names evidence with the SHA-256" in differing(chain)[0]
    assert "10.20.9.0/24" not in proved(chain)


def test_a_refusal_that_is_not_the_rows_comes_last(target, run, ask, ask_target, told):
    """Her own request was refused before, or after, and that is what its row says."""
    run("users", "add", ALICE, *GRANT)
    request_id = secrets.token_bytes(16)
    hers = ask(request_id=request_id, lifetime=86400)
    ask_target(hers, ask(request_id=request_id))
    _, chain = told(request_id)
    assert [each.says.split(":")[0] for each in chain if each.link == "refused"] == [
        "lifetime-not-allowed"
    ]
    assert "office sent other evidence under this Request ID" in chain[-2].says
    assert not differing(chain)


def test_a_refusal_that_proved_nothing_is_told_without_evidence(target, run, ask, ask_target, told):
    statement = ask(user_id=BOB)
    (answering,) = ask_target(
        type(statement)(
            **{**{f: getattr(statement, f) for f in statement.__struct_fields__}, "user_id": ALICE}
        )
    )
    _, chain = told(answering.request_id)
    assert [each.link for each in chain] == ["user", "refused", "accounts"]
    assert chain[1].says.startswith("evidence-not-accepted: ")
    assert not differing(chain)


def test_what_comes_after_a_changed_record_is_not_told(answered, run, link, target, told):
    tamper(target, "UPDATE audit SET at = at + 1 WHERE number = 1")
    found, _ = told(answered)
    assert found.broken_at == 1
    assert "changed at record 1" in refused(run, "audit", "explain", answered.hex()).sentence


def test_a_chain_made_anew_is_found_by_its_signed_head(answered, run, link, target, told):
    with opened_database(target.database, "target_agent") as engine:
        asyncio.run(head_keeper(target, engine).sign_newest())
    assert "signed head of record 3 fits them, its signature verified just now" in (
        run("audit", "explain", answered.hex())
    ).replace("\n", " ")
    rewrite(target, 2, user_id=BOB)
    assert "changed at record 3" in refused(run, "audit", "explain", answered.hex()).sentence


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET facts = 'text' WHERE number = 2",
        "UPDATE audit SET event = CAST(x'ff' AS TEXT) WHERE number = 2",
        "UPDATE audit SET at = 'text' WHERE number = 2",
        "UPDATE audit_heads SET signed = 'text'",
        "UPDATE audit_heads SET signed = CAST(x'ff' AS TEXT)",
        "UPDATE tunnels SET evidence = 'text'",
        "UPDATE tunnels SET public_key = 5",
        "UPDATE tunnels SET user_id = CAST(x'ff' AS TEXT)",
    ],
)
def test_what_was_never_written_is_said_in_a_sentence(answered, run, link, target, statement):
    with opened_database(target.database, "target_agent") as engine:
        asyncio.run(head_keeper(target, engine).sign_newest())
    tamper(target, statement)
    looks = ["explain", answered.hex()], ["show"], ["show", "--json"], ["verify"], ["head"]
    failed = set()
    for look in looks:
        with contextlib.suppress(CarnetError):
            run("audit", *look)
            continue
        failed.add(look[0])
    assert "explain" in failed


@pytest.mark.parametrize(
    "changes",
    [
        {"access": 5},
        {"access": [{"objective": []}]},
        {"networks": 7},
        {"user_id": 7},
        {"host": None, "virtual_address": {"a": 1}},
        {"evidence_digest": [1]},
        {"key_id": 1},
    ],
)
def test_facts_of_other_types_are_said_in_a_sentence(answered, target, told, changes):
    rewrite(target, 2, **changes)
    with contextlib.suppress(CarnetError), readable():
        assert differing(told(answered)[1])
