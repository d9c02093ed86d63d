"""What the Key Database's tables say of one request, to be compared with the accounts."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, Select, select

from host_agent.explain import Rows
from host_agent.schema import key_copies as _copies
from host_agent.schema import key_pairs as _pairs
from host_agent.schema import requests as _requests
from host_agent.schema import wrapped_keys as _wrapped


def rows_about(
    connection: Connection, request_id: bytes, key_ids: Collection[bytes]
) -> dict[bytes, Rows]:
    """Return the rows of these pairs, and of those that a row says this request has spent."""
    named = select(_requests.c.key_id).where(_requests.c.request_id == request_id)
    wanted = {*key_ids, *connection.scalars(named)}
    pairs = _by_key(connection, select(_pairs).where(_pairs.c.key_id.in_(wanted)))
    requests = _by_key(connection, select(_requests).where(_requests.c.key_id.in_(wanted)))
    copies = _by_key(connection, select(_copies).where(_copies.c.key_id.in_(wanted)))
    wrapped = _by_key(connection, select(_wrapped).where(_wrapped.c.key_id.in_(wanted)))
    tables = (pairs, requests, copies, wrapped)
    return {each: Rows(*(table[each] for table in tables)) for each in wanted}


def _by_key(connection: Connection, query: Select[Any]) -> dict[bytes, list[Mapping[str, Any]]]:
    rows: dict[bytes, list[Mapping[str, Any]]] = defaultdict(list)
    for row in connection.execute(query).mappings():
        rows[row["key_id"]].append(dict(row))
    return rows
