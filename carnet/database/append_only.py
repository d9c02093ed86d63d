"""Tables to which the database itself lets nobody do more than append.

It keeps a mistake from happening; whoever owns the database can lift it, and what he
then does is found by the chain and its signed heads (carnet.audit).
"""

from sqlalchemy import Connection, text

_REFUSAL = "the accounts are append-only"

_POSTGRESQL_FUNCTION = f"""
    CREATE OR REPLACE FUNCTION carnet_append_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$
"""
_POSTGRESQL_TRIGGER = """
    CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
    EXECUTE FUNCTION carnet_append_only()
"""
_SQLITE_TRIGGER = """
    CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table}
    BEGIN SELECT RAISE(ABORT, '{refusal}'); END
"""


def forbid_changes(connection: Connection, table: str) -> None:
    """Have the database refuse UPDATE and DELETE on a table of the schema's."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(_POSTGRESQL_FUNCTION))
        connection.execute(text(_POSTGRESQL_TRIGGER.format(table=table)))
        return
    for verb in ("UPDATE", "DELETE"):
        statement = _SQLITE_TRIGGER.format(table=table, verb=verb, refusal=_REFUSAL)
        connection.execute(text(statement))
