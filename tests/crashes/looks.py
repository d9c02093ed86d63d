"""What databases, tokens, IKE daemons and accounts say, each asked by itself."""

import os
from collections import Counter
from dataclasses import dataclass

from sqlalchemy import select

from carnet import audit
from carnet.audit.chain import follow
from carnet.ipsec.strongswan_parts import is_ours, tunnel_of
from carnet.ipsec.vici_link import open_session, text
from host_agent import schema as host
from softhsm.configuration import CONFIGURATION_VARIABLE
from target_agent import schema as target
from tests.processes import process_of_its_own
from tests.provisioning import tokens


@dataclass(frozen=True)
class Look:
    """The two databases at one moment, rows by their hexadecimal ids."""

    pairs: dict
    requests: dict
    tunnels: dict
    host_events: Counter
    """By event and by what it is of: Request ID or key_id."""
    target_events: Counter
    whole: bool
    """Whether both chains of accounts hold."""

    @property
    def spent(self):
        return {key_id for key_id, pair in self.pairs.items() if pair["reason"] == "spent"}

    @property
    def valid(self):
        return {key_id for key_id, pair in self.pairs.items() if pair["state"] == "valid"}

    @property
    def live(self):
        return {
            request_id: row
            for request_id, row in self.tunnels.items()
            if row["state"] in {"prepared", "established"}
        }


def look(office) -> Look:
    with office.database.begin() as connection:
        pairs = _rows(connection, host.key_pairs, "key_id")
        requests = _rows(connection, host.requests, "request_id")
        host_events, host_whole = _accounts(connection, host.audit)
    with office.records.connect() as connection:
        tunnels = _rows(connection, target.tunnels, "request_id")
        target_events, target_whole = _accounts(connection, target.audit)
    whole = host_whole and target_whole
    return Look(pairs, requests, tunnels, host_events, target_events, whole)


def _rows(connection, table, key):
    found = connection.execute(select(table)).mappings()
    return {row[key].hex(): dict(row) for row in found}


_OF_PAIR = {"imported", "revoked", "expired", "key-destroyed"}


def _accounts(connection, table):
    events = Counter()
    for record in audit.read(connection, table):
        of = record.facts.get("key_id" if record.event in _OF_PAIR else "request_id")
        events[record.event, of.hex() if isinstance(of, bytes) else ""] += 1
    return events, all(link.holds for link in follow(connection, table))


class TokenEye:
    """A process of its own that lists a SoftHSM2 token whenever it is asked."""

    def __init__(self, directory, pin):
        self._pin = pin
        self._pool = process_of_its_own(_see, str(directory))

    def holds(self):
        """Return the objects on the token, by class: each CKA_ID (or none) and label."""
        return self._pool.submit(tokens.everything, self._pin).result()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._pool.shutdown()


def _see(directory):
    os.environ[CONFIGURATION_VARIABLE] = f"{directory}/softhsm2.conf"


@dataclass(frozen=True)
class Daemon:
    """What an IKE daemon has of ours, by name."""

    sas: Counter
    connections: set
    pools: set
    secrets: set


def daemon(charon) -> Daemon:
    with open_session(charon.vici) as session:
        sas = Counter(name for sa in session.list_sas() for name in text(sa) if is_ours(name))
        connections = {name for each in session.list_conns() for name in text(each)}
        pools = set(text(session.get_pools()))
        keys = text(session.get_shared())["keys"]
    return Daemon(
        sas, set(filter(is_ours, connections)), set(filter(is_ours, pools)),
        {tunnel_of(key) for key in keys if is_ours(key)},
    )  # fmt: skip
