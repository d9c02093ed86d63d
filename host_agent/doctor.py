"""`carnet-host doctor`: part by part, what is right, and what to do where something is not.

Each part that `carnet-host serve` needs is looked at by itself. No PIN is asked for and
none is tried; nothing is made that is not there.
"""

import socket
import ssl
import time
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from carnet.counting import counted
from carnet.database.place import FilePlace
from carnet.errors import TokenError, UnreachableError, UsageError
from carnet.files import read_small
from carnet.findings import Finding, Looks, Show, WarningError, look_at
from carnet.interface import interface_name
from carnet.link import LinkSection, client_context, names_in, server_context
from carnet.token.module import Token
from carnet.token.session import check_pin_state, open_public_session
from carnet.token.transport import shows_transport_key
from host_agent.config import HostConfig, InterfaceSection, TargetSection, load
from host_agent.fitness import unfitness
from host_agent.hsm_login import find_hsm, told_to_an_operator
from host_agent.local import open_database
from softhsm.damage import what_is_damaged

_SOON_SECONDS = 30 * 86400
_WAIT_SECONDS = 5
_HELLO = b"GET / HTTP/1.1\r\nHost: carnet\r\nConnection: close\r\n\r\n"


def examine(path: Path, show: Show) -> list[Finding]:
    """Look at every part that the service needs; without a configuration, at that alone."""
    found: list[HostConfig] = []

    def configuration() -> str:
        found.append(load(path))
        return f"{path} is of Host {found[0].name}"

    def parts() -> Looks:
        yield "configuration", configuration
        if found:
            yield from _Examination(found[0]).parts()

    return look_at(parts(), show)


class _Examination:
    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._token: Token | None = None

    def parts(self) -> Looks:
        """Return the parts in the order in which the service meets them."""
        config = self._config
        yield "database", self._look_at_database
        yield "token", self._look_at_token
        yield "PIN", self._look_at_pin
        yield "transport key", self._look_at_transport_key
        yield "officer", partial(_look_at_certificate, config.officer, "the officer's `init`")
        yield "link", self._look_at_link
        if config.interface:
            yield "interface", self._look_at_interface
        for name, target in config.targets.items():
            yield f"Target {name}", partial(self._look_at_target, name, target)
        yield "clock", self._look_at_clock

    def _look_at_database(self) -> str:
        place = self._config.key_database
        if isinstance(place, FilePlace) and not place.path.exists():
            raise WarningError(f"{place} is not there yet; `carnet-host import` makes it.")
        with open_database(self._config) as database:
            valid = sum(count.pairs for count in database.count(None, "valid"))
        if not valid:
            raise WarningError(f"{place} holds no valid key pair; import a batch.")
        return f"{place} is of this version's schema, with {counted(valid, 'valid key pair')}"

    def _look_at_token(self) -> str:
        self._token = find_hsm(self._config.token)
        info = self._token.info
        found = f"{info.label}, serial {info.serial}, {info.model}"
        if damage := what_is_damaged(info.serial):
            raise WarningError(f"{found}; {damage}")
        with open_public_session(self._token) as session:
            if unfit := unfitness(session):
                raise WarningError(f"{found}; {unfit}")
        return found

    def _look_at_pin(self) -> str:
        info = self._the_token().info
        with told_to_an_operator():
            check_pin_state(info, allow_final_try=False)
        if info.pin_count_low:
            raise WarningError("A wrong PIN was entered before; make sure of it, or it locks.")
        return "set"

    def _look_at_transport_key(self) -> str:
        with open_public_session(self._the_token()) as session:
            if not shows_transport_key(session):
                raise WarningError("There is none; `carnet-host transport-key` makes it.")
        return "is there, as far as is seen without the PIN"

    def _look_at_link(self) -> str:
        link = self._config.link
        client_context(link)
        return _look_at_certificate(
            link.certificate, f"`carnet-provision certificates host {self._config.name}`",
            self._config.name,
        )  # fmt: skip

    def _look_at_interface(self) -> str:
        given = self._config.interface
        if given is None:
            return "off"
        server_context(_interface_link(given, self._config.officer))
        return _look_at_certificate(
            given.certificate, f"`carnet-provision certificates interface {self._config.name}`",
            interface_name(self._config.name),
        )  # fmt: skip

    def _look_at_target(self, name: str, target: TargetSection) -> str:
        context = client_context(self._config.link)
        where = urlsplit(target.url)
        try:
            with (
                socket.create_connection(
                    (where.hostname, where.port or 443), _WAIT_SECONDS
                ) as plain,
                context.wrap_socket(plain, server_hostname=name) as line,
            ):
                # In TLS 1.3 it is only now that it says what it thinks of our certificate.
                line.sendall(_HELLO)
                answers = bool(line.recv(1))
        except ssl.SSLError as error:
            raise UnreachableError(
                f"{target.url} and this Host do not accept each other's certificates "
                f"({error.reason}); have the security officer certify both anew."
            ) from error
        except OSError as error:
            raise UnreachableError(
                f"{target.url} does not answer ({error.strerror or error}); start "
                f"`carnet-target serve` there, or look at the network."
            ) from error
        if not answers:
            raise UnreachableError(f"{target.url} says nothing; look at its log.")
        return f"{target.url} answers, and is Target {name}"

    def _look_at_clock(self) -> str:
        """Judge by what the officer signed: there is no other time here."""
        began = _certificate(self._config.link.certificate).not_valid_before_utc
        if time.time() < began.timestamp():
            raise UsageError(f"This machine's clock is before {began:%Y-%m-%d %H:%M} UTC; set it.")
        return f"later than the certificate of the link ({began:%Y-%m-%d %H:%M} UTC)"

    def _the_token(self) -> Token:
        if self._token is None:
            raise TokenError("There is no token to look at; see to that first.")
        return self._token


def _interface_link(given: InterfaceSection, officer: Path) -> LinkSection:
    return LinkSection(certificate=given.certificate, key=given.key, authority=officer)


def _look_at_certificate(path: Path, renewed_by: str, name: str | None = None) -> str:
    """Return until when it is good; raises UsageError, WarningError if that is soon."""
    certificate = _certificate(path)
    until = certificate.not_valid_after_utc
    left = until.timestamp() - time.time()
    if left <= 0:
        raise UsageError(f"{path} expired on {until:%Y-%m-%d}; renew it by {renewed_by}.")
    if name is not None and name not in names_in(certificate):
        raise UsageError(f"{path} is not {name}'s; renew it by {renewed_by}.")
    if left < _SOON_SECONDS:
        raise WarningError(f"{path} expires on {until:%Y-%m-%d}; renew it by {renewed_by}.")
    return f"{path} is good until {until:%Y-%m-%d}"


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(read_small(path))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no certificate that can be read; get it anew.") from error
