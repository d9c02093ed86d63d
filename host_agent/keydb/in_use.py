"""Which keys an HSM has to have for what may still come."""

from dataclasses import dataclass

from sqlalchemy import exists, or_, select

from carnet.wire.envelope import PAIRED
from host_agent.keydb.copies import is_over
from host_agent.keydb.store import Store
from host_agent.schema import batch_keys as _keks
from host_agent.schema import key_copies as _copies
from host_agent.schema import key_pairs as _pairs
from host_agent.schema import wrapped_keys as _wrapped
from host_agent.store_name import KeyStoreName


@dataclass(frozen=True)
class KeysInUse:
    """The keys on one HSM that requests may need."""

    pairs: frozenset[bytes] = frozenset()
    """By key_id, those that are objects of their own there."""
    batch_keys: frozenset[bytes] = frozenset()
    """The key-encryption keys (KEKs), by their id, that unwrap others."""
    host_keys: frozenset[bytes] = frozenset()
    """In custody `split`, the Host's long-term keys that requests are sealed to."""


class InUse(Store):
    """What would fail if an HSM did not have it."""

    def keys_in_use(self, hsm_serial: str) -> KeysInUse:
        """Return the keys for pairs that are valid, or whose requests have no answer yet."""
        copy = select(_copies.c.key_id).where(_copies.c.key_id == _pairs.c.key_id)
        here = copy.where(_copies.c.hsm_serial == hsm_serial, _copies.c.destroyed_at.is_(None))
        on_token = (_pairs.c.custody == PAIRED) & (_pairs.c.key_store == KeyStoreName.TOKEN)
        pairs = select(_pairs.c.key_id).where(
            on_token, ~is_over(), or_(here.exists(), ~copy.exists())
        )
        keks = select(_keks.c.kek_id).where(
            _keks.c.token_serial == hsm_serial,
            _keks.c.destroyed_at.is_(None),
            exists().where(_wrapped.c.kek_id == _keks.c.kek_id),
        )
        split = select(_pairs.c.host_key_id).where(_pairs.c.host_key_id.is_not(None), ~is_over())
        with self._reading.begin() as connection:
            queries = (pairs, keks, split.distinct())
            return KeysInUse(*(frozenset(connection.scalars(each)) for each in queries))
