"""A Key Database whose tables are put back to an older state."""

from sqlalchemy import text

from host_agent.keydb import KeyDatabase
from tests.host.test_accounts import lift


def newest(place):
    """The number of the newest record of the accounts."""
    with KeyDatabase.opened(place) as database, database.begin() as connection:
        return connection.execute(text("SELECT max(number) FROM audit")).scalar()


def cut_off(place, number):
    """Put the tables back in their place: no connection is lost by it."""
    with KeyDatabase.opened(place) as database, database.engine.begin() as connection:
        lift(connection)
        for statement in (
            "ALTER TABLE audit RENAME TO newer",
            "CREATE TABLE audit AS SELECT * FROM newer",
            f"DELETE FROM audit WHERE number > {number}",  # noqa: S608  a number of ours
            "DELETE FROM requests",
            "UPDATE key_pairs SET state = 'valid', reason = NULL, invalid_at = NULL",
        ):
            connection.execute(text(statement))
