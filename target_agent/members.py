"""Membership and the access control list, in the Target's database."""

import time
from collections import defaultdict
from collections.abc import Iterable

from sqlalchemy import Connection, Engine, Row, select
from sqlalchemy.dialects.sqlite import insert

from carnet import audit
from carnet.database import snapshot, transaction
from carnet.objectives import Objective
from target_agent.access import AccessEntry, Member
from target_agent.schema import audit as audit_table
from target_agent.schema import grants, members


class Members:
    """Who is one of ours, and what she may have."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, user_id: str) -> Member | None:
        """Return a member with her lines of the access control list, None if she is none."""
        with snapshot(self._engine) as connection:
            found = _select(connection, user_id)
        return found[0] if found else None

    def all(self) -> list[Member]:
        """Return all members, by name."""
        with snapshot(self._engine) as connection:
            return _select(connection)

    def add(self, user_id: str, entries: Iterable[AccessEntry]) -> None:
        """Make her a member if she is none, and add to, or change, what she may have."""
        with transaction(self._engine) as connection:
            connection.execute(
                insert(members)
                .values(user_id=user_id, since=int(time.time()))
                .on_conflict_do_nothing()
            )
            for entry in entries:
                _grant(connection, user_id, entry)

    def remove(self, user_id: str) -> bool:
        """Take her membership and all her lines away; return whether she was a member."""
        with transaction(self._engine) as connection:
            removed = connection.execute(members.delete().where(members.c.user_id == user_id))
            if removed.rowcount:
                audit.append(connection, audit_table, "member-removed", user_id=user_id)
            return bool(removed.rowcount)


def _grant(connection: Connection, user_id: str, entry: AccessEntry) -> None:
    connection.execute(
        insert(grants)
        .values(
            user_id=user_id,
            objective_id=int(entry.objective),
            network=entry.network,
            lifetime=entry.lifetime,
        )
        .on_conflict_do_update(
            index_elements=["user_id", "objective_id", "network"],
            set_={"lifetime": entry.lifetime},
        )
    )
    audit.append(connection, audit_table, "access-granted", user_id=user_id, **as_facts(entry))


def as_facts(entry: AccessEntry) -> dict[str, str | int]:
    """Return a line of the access control list as the accounts write it."""
    return {
        "objective": entry.objective.label,
        "network": entry.network,
        "lifetime": entry.lifetime,
    }


def _select(connection: Connection, user_id: str | None = None) -> list[Member]:
    who, what = select(members).order_by(members.c.user_id), select(grants)
    if user_id is not None:
        who = who.where(members.c.user_id == user_id)
        what = what.where(grants.c.user_id == user_id)
    entries: dict[str, list[AccessEntry]] = defaultdict(list)
    for row in connection.execute(what):
        entries[row.user_id].append(_entry(row))
    return [
        Member(row.user_id, row.since, tuple(sorted(entries[row.user_id])))
        for row in connection.execute(who)
    ]


def _entry(row: Row[tuple[str, int, str, int]]) -> AccessEntry:
    return AccessEntry(Objective(row.objective_id), row.network, row.lifetime)
