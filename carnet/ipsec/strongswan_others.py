"""Connections of strongSwan's that are not ours, and would take the keys of our tunnels.

charon looks a pre-shared key up by the names of both ends, and takes one that has either of them:
whoever calls himself as an end of a tunnel of ours is called, and has its key, has proved to be
the peer of any connection that takes peers of such a name.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from carnet.ipsec.strongswan_parts import is_ours

_PSK = "pre-shared key"
_OUR_NAMES_END = ".carnet"


def taking_our_keys(connections: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return which do, of connections as they are listed; none where each names its peer."""
    others = ((name, listed) for name, listed in connections.items() if not is_ours(name))
    return [name for name, listed in others if any(map(_takes_our_names, _peers(listed)))]


def _peers(connection: Mapping[str, Any]) -> Iterator[str]:
    """Yield what peers may be called that a pre-shared key proves, or whatever they like."""
    for key, peer in connection.items():
        if key.startswith("remote-") and peer.get("class", _PSK) == _PSK:
            yield peer.get("id", "%any")


def _takes_our_names(identity: str) -> bool:
    """Whether ours may be meant: a star stands for all before the rest, a regex for anything."""
    rest = identity.removeprefix("*")
    starred = rest != identity and (_OUR_NAMES_END.endswith(rest) or rest.endswith(_OUR_NAMES_END))
    return starred or identity.startswith(("%any", "^"))
