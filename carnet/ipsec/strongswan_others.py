"""Connections of strongSwan's that are not ours, and would take the keys of our tunnels.

charon looks a pre-shared key up by the names of both ends, and takes one that has either of them:
whoever calls himself as an end of a tunnel of ours is called, and has its key, has proved to be
the peer of any connection that takes peers of such a name. Where it does not say what this end
is called, the peer does, and has proved to be whoever it takes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from carnet.ipsec.strongswan_parts import is_ours

_PSK = "pre-shared key"
_ANY = "%any"
_OUR_NAMES_END = ".carnet"


def taking_our_keys(connections: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return which do, of connections as they are listed; none where each names its peer."""
    others = ((name, listed) for name, listed in connections.items() if not is_ours(name))
    return [name for name, listed in others if _takes(listed)]


def _takes(connection: Mapping[str, Any]) -> bool:
    peers = list(_peers(connection))
    unnamed = any(end.get("id", _ANY) == _ANY for end in _ends(connection, "local"))
    return any(map(_takes_our_names, peers)) or (bool(peers) and unnamed)


def _ends(connection: Mapping[str, Any], which: str) -> list[Mapping[str, Any]]:
    return [end for key, end in connection.items() if key.startswith(f"{which}-")]


def _peers(connection: Mapping[str, Any]) -> Iterator[str]:
    """Yield what peers may be called that a pre-shared key proves, or whatever they like."""
    for peer in _ends(connection, "remote"):
        if peer.get("class", _PSK) == _PSK:
            yield peer.get("id", _ANY)


def _takes_our_names(identity: str) -> bool:
    """Whether ours may be meant: a star stands for all before the rest, a regex for anything.

    charon takes small and capital letters for the same.
    """
    identity = identity.lower()
    rest = identity.removeprefix("*")
    starred = rest != identity and (_OUR_NAMES_END.endswith(rest) or rest.endswith(_OUR_NAMES_END))
    return starred or identity.startswith(("%any", "^"))
