"""What databases, tokens, IKE daemons and accounts say, each asked by itself."""

import os
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import create_engine, select

from carnet import audit
from carnet.audit.chain import follow
from carnet.ipsec.strongswan_parts import is_ours, tunnel_of
from carnet.ipsec.vici_link import open_session, text
from host_agent import schema as host
from softhsm.configuration import CONFIGURATION_VARIABLE
from target_agent import schema as target
from tests.processes import process_of_its_own
from tests.provisioning import tokens

_OF_PAIR = {"imported", "revoked", "expired", "key-destroyed"}


class Accounts:
    """The rows of a chain at one moment, read for what they say when that is asked."""

    def __init__(self, connection, table):
        self._table = table
        self._rows = connection.execute(select(table)).all()

    @cached_property
    def events(self):
        """How often there is which, by event and by what it is of: Request ID or key_id."""
        events = Counter()
        with self._as_database() as connection:
            for record in audit.read(connection, self._table):
                of = record.facts.get("key_id" if record.event in _OF_PAIR else "request_id")
                events[record.event, of.hex() if isinstance(of, bytes) else ""] += 1
        return events

    @cached_property
    def whole(self):
        with self._as_database() as connection:
            return all(link.holds for link in follow(connection, self._table))

    @contextmanager
    def _as_database(self):
        """Put the rows where the product's own functions read them."""
        engine = create_engine("sqlite://")
        with engine.connect() as connection:
            self._table.create(connection)
            if self._rows:
                connection.execute(self._table.insert(), [row._asdict() for row in self._rows])
            yield connection
        engine.dispose()


@dataclass(frozen=True)
class Look:
    """The two databases at one moment, rows by their hexadecimal ids."""

    pairs: dict
    requests: dict
    tunnels: dict
    host_accounts: Accounts
    target_accounts: Accounts

    @property
    def host_events(self):
        return self.host_accounts.events

    @property
    def target_events(self):
        return self.target_accounts.events

    @property
    def whole(self):
        """Whether both chains of accounts hold."""
        return self.host_accounts.whole and self.target_accounts.whole

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
        host_accounts = Accounts(connection, host.audit)
    with office.records.connect() as connection:
        tunnels = _rows(connection, target.tunnels, "request_id")
        target_accounts = Accounts(connection, target.audit)
    return Look(pairs, requests, tunnels, host_accounts, target_accounts)


def _rows(connection, table, key):
    found = connection.execute(select(table)).mappings()
    return {row[key].hex(): dict(row) for row in found}


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
    addresses: dict
    """The virtual ones of each SA."""


def daemon(charon) -> Daemon:
    with open_session(charon.vici) as session:
        listed = [named for sa in session.list_sas() for named in text(sa).items()]
        connections = {name for each in session.list_conns() for name in text(each)}
        pools = set(text(session.get_pools()))
        keys = text(session.get_shared())["keys"]
    sas = [(name, sa) for name, sa in listed if is_ours(name)]
    return Daemon(
        Counter(name for name, _ in sas),
        set(filter(is_ours, connections)),
        set(filter(is_ours, pools)),
        {tunnel_of(key) for key in keys if is_ours(key)},
        {name: [*sa.get("local-vips", ()), *sa.get("remote-vips", ())] for name, sa in sas},
    )
