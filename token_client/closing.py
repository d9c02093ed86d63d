"""Which packets are held back while a session is meant to live, and when they no more are."""

from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from carnet import crash
from carnet.errors import AwayError, IPsecError
from carnet.ipsec import block
from carnet.ipsec.driver import Capabilities, Forgetful, Lead
from carnet.objectives import Objective
from carnet.wire.messages import TunnelingInfo
from token_client import name_servers
from token_client.by_record import Ends
from token_client.leaving import take_leave
from token_client.record import Known, Session
from token_client.session_states import EndBegun
from token_client.sessions import SessionStore
from token_client.whereabouts import numbers

_PORTS = {"http": 80, "https": 443}


class Closing:
    """The blocks that one run of `carnet connect` makes; `wanted` is False where there are none."""

    def __init__(self, capabilities: Capabilities, hosts: Sequence[str], *, wanted: bool) -> None:
        self._userspace = capabilities.userspace
        self._hosts = hosts
        self._wanted = wanted

    def check(self, objective: Objective) -> None:
        """Refuse, before a key pair is spent, where nothing could be closed. Raises IPsecError."""
        if self._wanted and objective is not Objective.NATIVE:
            block.find_filter()

    def made_by(self, objective: Objective) -> str | None:
        """Return the packet filter with which close() makes a block; None where it makes none.

        Raises IPsecError.
        """
        return block.filter_name() if self._wanted and objective is not Objective.NATIVE else None

    def close(self, name: str, info: TunnelingInfo, hosts: Known) -> None:
        """Hold back what is meant for the tunnel; without IPsec all is meant to be in clear.

        `hosts` is where the Hosts were found to be. Raises IPsecError.
        """
        if not self._wanted or info.objective_id == Objective.NATIVE:
            return
        targets = _numbers(info.target_addresses)
        own = tuple(str(ip_network(each)) for each in targets)
        block.close(
            block.Closed(
                name=name,
                networks=info.networks or own,
                targets=targets,
                hosts=tuple(_places(self._hosts, hosts)),
                userspace=self._userspace,
            )
        )
        crash.reach("client.closed")


def raise_it(error: IPsecError) -> None:
    """Raise what keeps a tunnel from being taken down: the rest of its end does not go on."""
    raise error


def end_session(
    driver: Ends,
    sessions: SessionStore,
    name: str,
    not_down: Callable[[IPsecError], None] = raise_it,
    why: str | None = None,
    let_go: Callable[[SessionStore, str, str | None], None] | None = None,
) -> bool | None:
    """End a session for good: its tunnel, then its block, then what is known of it.

    An interrupt while Target is told of it ends the waiting for that alone. `not_down` is what
    is done where the tunnel cannot be taken down; if it returns, the rest goes all the same, by
    `let_go` in the place of release(). `why` is what its record is to say, for whom it ends
    unseen; one that is gone stays so. That it is to end is in its record before anything else:
    where it fails, or this process is gone, whoever watches over it goes on with it.

    Returns whether Target has heard of it; see Driver.take_leave(). Raises IPsecError; whatever
    comes after what failed is left.
    """
    with sessions.leaving(name):
        remind(driver, sessions.change(name, EndBegun(why)))
        try:
            heard = take_leave(driver, name)
        finally:
            try:
                driver.down(name)
            except IPsecError as error:
                not_down(error)
            crash.reach("client.disconnected")
            (let_go or release)(sessions, name, why)
    return heard


def remind(driver: Ends, session: Session | None) -> None:
    """Tell a driver what it knows by a file alone of a session that it is to end."""
    if session is not None and isinstance(driver, Forgetful):
        inner = frozenset(filter(None, [session.virtual_address]))
        targets, networks = frozenset(session.target_addresses), frozenset(session.networks)
        driver.remind(session.name, Lead(targets=targets, networks=networks, inner=inner))


def take_down_those_with_its_address(
    driver: Ends, sessions: SessionStore, session: Session
) -> None:
    """Take down what a session's Target has ended, since it gives the virtual address again.

    That is before the address is the machine's anew: taken down after it, it would be taken
    along. Its block and record stay until the new tunnel stands, as those of any older session
    do, so that nothing leaves in clear meanwhile. Raises IPsecError.
    """
    its = (session.target, session.virtual_address)
    for older in sessions.all():
        another = older.name != session.name and session.virtual_address is not None
        if another and (older.target, older.virtual_address) == its:
            driver.down(older.name)


def release(
    sessions: SessionStore,
    name: str,
    why: str | None = None,
    not_restored: Callable[[IPsecError], None] = raise_it,
) -> None:
    """Restore name servers, lift a session's block and drop it, its tunnel being gone.

    `not_restored` is what is done where name servers stay; if it returns, the rest goes.
    Raises IPsecError; the session is then known as ever, for another try.
    """
    try:
        restored = _restored(name, not_restored)
        session = sessions.find(name)
        block.lift(name, session.block if session else None)
    except IPsecError as error:
        kind = type(error) if isinstance(error, AwayError) else IPsecError
        raise kind(
            f"{error.sentence.rstrip('.')}: the tunnel is down, and what goes with it, such as"
            f" its block against packets in clear, stays until `carnet disconnect` ends it, or the"
            f" agent of this machine."
        ) from error
    crash.reach("client.released")
    sessions.drop(name, why)
    if restored or (session is not None and session.dns):  # the helper restores them by itself
        name_servers.use_those_of_an_older_one(sessions)


def _restored(name: str, not_restored: Callable[[IPsecError], None]) -> bool:
    try:
        return name_servers.restore(name)
    except IPsecError as error:
        not_restored(error)
        return False


def numbers_of(hosts: Known) -> frozenset[str]:
    """Return the addresses of Hosts, as numbers."""
    return frozenset(_canonical(number) for _, number in hosts)


def _numbers(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return addresses as numbers, host names looked up; what has none is left out."""
    found = (number for address in addresses for number in _look_up(address))
    return tuple(dict.fromkeys(found))


def _places(urls: Iterable[str], found: Known) -> Iterable[tuple[str, int]]:
    for url in urls:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
        its = (number for name, number in found if name == parts.hostname)
        yield from ((_canonical(number), port) for number in its)


def _look_up(name: str) -> list[str]:
    try:
        return list(map(_canonical, numbers(name)))
    except OSError:
        return []


def _canonical(number: str) -> str:
    """Return an address without its zone, and one that stands for IPv4 as that."""
    address = ip_address(number.partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)
