"""At which addresses the Hosts are: as their names are looked up, else as they were found before.

While a tunnel is down, its block or its name servers may keep every name from being looked up.
The Hosts' addresses were found as the tunnel was asked for, and its block lets them through.
"""

import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from carnet.worker import within
from token_client.memory import memory_directory
from token_client.record import Known
from token_client.sessions import SessionStore

LOOK_UP_SECONDS = 2.0
"""For which a name is looked up where its addresses are known."""


def numbers(name: str, known: Known = ()) -> tuple[str, ...]:
    """Return a Host's addresses, as numbers; those that are known where its name leads nowhere.

    Raises OSError where there are none, ValueError for what is no name.
    """
    before = tuple(number for each, number in known if each == name)
    if not before:
        return _looked_up(name)
    try:
        return within(LOOK_UP_SECONDS, lambda: _looked_up(name))
    except OSError:  # TimeoutError, too
        return before


def found(urls: Iterable[str], known: Known) -> Known:
    """Return the addresses of Hosts, given by their URLs; those of none are left out."""
    pairs: dict[tuple[str, str], None] = {}
    for url in urls:
        name = urlsplit(url).hostname or ""
        try:
            pairs |= dict.fromkeys((name, number) for number in numbers(name, known))
        except OSError:
            continue
    return tuple(pairs)


def known_here() -> Known:
    """Return those that were found for the sessions of which there are records, newest first."""
    newest_first = reversed(SessionStore(memory_directory()).all())
    return tuple(dict.fromkeys(pair for each in newest_first for pair in each.known_hosts))


def _looked_up(name: str) -> tuple[str, ...]:
    places = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in places))
