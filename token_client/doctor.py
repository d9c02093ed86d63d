"""`carnet doctor`: part by part, what is right, and what to do where something is not."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from carnet.errors import CarnetError, UnreachableError
from carnet.ipsec.strongswan import StrongSwan
from token_client.booklet import find_token
from token_client.config import ClientConfig
from token_client.memory import memory_directory
from token_client.tokens import list_tokens

_TCP_SECONDS = 5
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Finding:
    """What one part of this machine is like."""

    part: str
    good: bool
    sentence: str
    exit_status: int = 0


def examine(config: ClientConfig, selector: str | None) -> list[Finding]:
    """Look at every part that `carnet connect` needs; one part's trouble hides no other's."""
    return [
        _look("token", lambda: _token(config, selector)),
        _look("IPsec", lambda: _ipsec(config)),
        _look("Host", lambda: _host(config)),
        _memory(),
    ]


def _look(part: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(part, good=True, sentence=look())
    except CarnetError as error:
        return Finding(part, good=False, sentence=error.sentence, exit_status=error.exit_status)


def _token(config: ClientConfig, selector: str | None) -> str:
    info = find_token(config, selector).info
    return f"{info.label}, serial {info.serial}"


def _ipsec(config: ClientConfig) -> str:
    driver = StrongSwan(config.vici) if config.vici else StrongSwan()
    capabilities = driver.capabilities()
    able = ", ".join(objective.label for objective in capabilities.objectives)
    return f"{capabilities.driver} {capabilities.version} carries {able}"


def _host(config: ClientConfig) -> str:
    hosts = config.hosts or tuple(host for token in list_tokens(config) for host in token.hosts)
    if not hosts:
        raise UnreachableError("No token tells a Host's address; plug in yours.")
    failures = []
    for host in hosts:
        try:
            url = urlsplit(host)
            address = (url.hostname or "", url.port or _PORTS[url.scheme])
            socket.create_connection(address, _TCP_SECONDS).close()
        except (OSError, ValueError, KeyError) as error:
            failures.append(f"{host}: {getattr(error, 'strerror', None) or error}")
        else:
            return f"{host} answers"
    raise UnreachableError(f"No Host answers ({'; '.join(failures)}); check the network.")


def _memory() -> Finding:
    directory = memory_directory()
    if directory is None:
        sentence = "no file system in memory: an interrupted request cannot be sent again"
    else:
        sentence = f"{directory} keeps what must not reach a disk"
    return Finding("memory", good=True, sentence=sentence)
