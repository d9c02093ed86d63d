"""The key stores, by name."""

from host_agent.keystore.store import KeyStore
from host_agent.keystore.token import TokenStore
from host_agent.keystore.wrapped import WrappedStore
from host_agent.store_name import KeyStoreName

_STORES: dict[KeyStoreName, KeyStore] = {each.name: each for each in (TokenStore(), WrappedStore())}


def store_of(name: KeyStoreName) -> KeyStore:
    """Return the key store of that name."""
    return _STORES[name]
