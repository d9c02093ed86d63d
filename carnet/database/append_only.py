"""Tables to which the database itself lets nobody do more than append, or than not delete.

It keeps a mistake from happening; whoever owns the database can lift it, and what he
then does is found by the chain and its signed heads (carnet.audit).
"""

from sqlalchemy import Connection, text

_POSTGRESQL_FUNCTION = """
    CREATE OR REPLACE FUNCTION carnet_{name}() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION '{refusal}'; END $$
"""
_POSTGRESQL_TRIGGER = """
    CREATE TRIGGER {table}_{name} BEFORE {verbs} OR TRUNCATE ON {table}
    EXECUTE FUNCTION carnet_{name}()
"""
_SQLITE_TRIGGER = """
    CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table}
    BEGIN SELECT RAISE(ABORT, '{refusal}'); END
"""


def forbid_changes(connection: Connection, table: str) -> None:
    """Have the database refuse UPDATE and DELETE on a table of the schema's."""
    refusal = "the accounts are append-only"
    _forbid(connection, table, ("UPDATE", "DELETE"), "append_only", refusal)


def forbid_deletion(connection: Connection, table: str) -> None:
    """Have the database refuse DELETE on a table of the schema's."""
    _forbid(connection, table, ("DELETE",), "kept", "records are never deleted")


def _forbid(
    connection: Connection, table: str, verbs: tuple[str, ...], name: str, refusal: str
) -> None:
    if connection.dialect.name == "postgresql":
        named = {"table": table, "name": name, "verbs": " OR ".join(verbs), "refusal": refusal}
        for statement in (_POSTGRESQL_FUNCTION, _POSTGRESQL_TRIGGER):
            connection.execute(text(statement.format(**named)))
        return
    for verb in verbs:
        statement = _SQLITE_TRIGGER.format(table=table, verb=verb, refusal=refusal)
        connection.execute(text(statement))
