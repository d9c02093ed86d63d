"""The Key Database from one revision to the next, with pairs in it."""

from importlib import resources

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import insert
from sqlalchemy.exc import DBAPIError

from carnet.database import postgresql, sqlite
from carnet.database.place import FilePlace
from host_agent import schema
from host_agent.keydb import KeyDatabase
from tests.host.conftest import new_pair, sealed_request
from tests.unit.examples import SoftwareKey

BEFORE_RECORDS_WERE_KEPT = "0009"


@pytest.fixture
def filled(place):
    """A database of the revision before, with two pairs, and a third revoked before it comes."""
    module = sqlite if isinstance(place, FilePlace) else postgresql
    engine, pairs = module.open_engine(place), [new_pair(SoftwareKey()) for _ in range(2)]
    with (
        resources.as_file(resources.files("host_agent") / "migrations") as scripts,
        engine.begin() as connection,
    ):
        config = Config()
        config.set_main_option("script_location", str(scripts))
        config.attributes["connection"] = connection
        command.upgrade(config, BEFORE_RECORDS_WERE_KEPT)
        rows = [{**vars(each), "state": "valid", "imported_at": 0} for each in pairs]
        connection.execute(insert(schema.key_pairs), rows)
        early = {"key_id": bytes(16), "revoked_at": 0, "reason": "lost", "why": "a test"}
        connection.execute(insert(schema.revoked_early), early)
    engine.dispose()
    return place


@pytest.mark.parametrize("table", ["key_pairs", "requests", "revoked_early"])
def test_a_filled_database_lets_nothing_be_deleted_from_then_on(filled, table):
    key = SoftwareKey()
    with KeyDatabase.opened(filled) as database:
        database.add_pairs([new_pair(key)])
        assert database.spend(*sealed_request(key))
        statements = [f"DELETE FROM {table}"]  # noqa: S608  a table of ours
        if not isinstance(filled, FilePlace):
            statements.append(f"TRUNCATE {table} CASCADE")
        for statement in statements:
            with (
                pytest.raises(DBAPIError, match="records are never deleted"),
                database.engine.begin() as connection,
            ):
                connection.exec_driver_sql(statement)
        assert sum(each.pairs for each in database.count()) == 3
