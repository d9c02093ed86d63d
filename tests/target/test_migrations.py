"""The Target's database from one revision to the next."""

from importlib import resources

import pytest
import sqlalchemy
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from carnet.database import migrate
from carnet.database.place import FilePlace
from carnet.database.sqlite import open_engine
from target_agent import schema

BEFORE_TRANSPORT_MODE = "0002"

TUNNEL = {
    "request_id": b"1" * 16,
    "user_id": "alice@office",
    "host": "office",
    "key_id": b"2" * 16,
    "suite": 1,
    "public_key": b"3",
    "evidence": b"4",
    "evidence_digest": b"5",
    "objective_id": 3,
    "networks": "10.20.0.0/16",
    "virtual_address": "10.99.0.7",
    "state": "established",
    "answer": b"6",
    "answered_at": 1,
}
OTHER = TUNNEL | {"request_id": b"7" * 16}
TRANSPORT = OTHER | {"virtual_address": None}


@pytest.fixture
def older(tmp_path):
    """A database of the revision before tunnels could be without a virtual address."""
    engine = open_engine(FilePlace(tmp_path / "target.sqlite"))
    with (
        resources.as_file(resources.files("target_agent") / "migrations") as scripts,
        engine.begin() as connection,
    ):
        config = Config()
        config.set_main_option("script_location", str(scripts))
        config.attributes["connection"] = connection
        command.upgrade(config, BEFORE_TRANSPORT_MODE)
    yield engine
    engine.dispose()


def insert(engine, row) -> None:
    with engine.begin() as connection:
        connection.execute(schema.tunnels.insert().values(**row))


def test_the_migrations_lead_to_the_schema(engine):
    with engine.begin() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, schema.metadata) == []


def test_older_records_stay_and_newer_need_no_virtual_address(older):
    insert(older, TUNNEL)
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        insert(older, TRANSPORT)
    migrate(older, "target_agent")
    insert(older, TRANSPORT)
    with older.begin() as connection:
        rows = [row._mapping for row in connection.execute(schema.tunnels.select())]
    kept = next(row for row in rows if row["request_id"] == TUNNEL["request_id"])
    assert {name: kept[name] for name in TUNNEL} == TUNNEL
    assert kept["driver"] is None
    assert len(rows) == 2


def test_an_address_still_belongs_to_one_live_tunnel(older):
    migrate(older, "target_agent")
    insert(older, TUNNEL)
    with pytest.raises(sqlalchemy.exc.IntegrityError, match="virtual_address"):
        insert(older, OTHER)
