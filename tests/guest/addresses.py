"""Whom the tests of this folder reach, by IP version."""

from dataclasses import dataclass

from lab.network import (
    CLIENT_ADDRESS,
    CLIENT_ADDRESS_V6,
    SERVER_ADDRESS,
    SERVER_ADDRESS_V6,
    TARGET_ADDRESS,
    TARGET_ADDRESS_V6,
    WORK_NETWORK,
    WORK_NETWORK_V6,
)


@dataclass(frozen=True)
class Addresses:
    """Client, Target, a server behind it, and the network that the server is in."""

    client: str
    target: str
    server: str
    network: str


BY_VERSION = {
    4: Addresses(CLIENT_ADDRESS, TARGET_ADDRESS, SERVER_ADDRESS, WORK_NETWORK),
    6: Addresses(CLIENT_ADDRESS_V6, TARGET_ADDRESS_V6, SERVER_ADDRESS_V6, WORK_NETWORK_V6),
}
