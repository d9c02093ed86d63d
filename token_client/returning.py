"""A tunnel that comes up anew: the same session, the same key pair, a new IKE_SA.

It is negotiated where it was lost, and by the IPsec daemon itself where Target has it do so:
by a redirect (RFC 5685), or by a time limit for its authentication (RFC 4478). Target may
assign another address inside each time. Suites, identities and the post-quantum key are
those of the daemon's connection, which the daemon insists on.
"""

import time

from msgspec.structs import replace

from carnet.errors import IKERefusedError
from carnet.ipsec.agreed import elsewhere, is_between, leads_to
from carnet.ipsec.driver import Driver, TunnelStatus
from carnet.ipsec.spec import Role
from token_client.memory import memory_directory
from token_client.record import Session
from token_client.sessions import SessionStore

ANOTHER = (
    "The tunnel to {} became another than was agreed, so it was ended; ask its operator before you"
    " run `carnet connect` for a new one, with the next key pair."
)
_UNKNOWN = (
    "What this machine's IPsec driver keeps of the tunnel to {} cannot be read any more, so that"
    " nobody can tell whether it is as was agreed, and it was ended; run `carnet connect` for a new"
    " one, with the next key pair."
)
_ELSEWHERE = (
    "The tunnel to {} went to {}, another than was agreed for Target, so it was ended; have its"
    " operator name that address, then run `carnet connect` for a new one, with the next key pair."
)


OVER = (
    "The time of the session to {} is over; run `carnet connect` for a new one, with the next key"
    " pair."
)


def bring_back(driver: Driver, session: Session) -> None:
    """Negotiate IKE anew; a tunnel that stands is left as it is.

    Raises IKESilentError if Target does not answer yet, or somebody else may have;
    IKERefusedError if only a new key pair helps; IPsecError.
    """
    if session.is_over(time.time()):
        raise IKERefusedError(OVER.format(session.target))
    # Two at once would each end what the other has begun.
    with SessionStore(memory_directory()).coming_back(session.name):
        end_another(driver, session, driver.resume(session.name))


def end_another(driver: Driver, session: Session, live: TunnelStatus) -> None:
    """End a tunnel that is another than was agreed: it came up so, or moved to other addresses.

    Raises IKERefusedError once it is ended; IPsecError.
    """
    if not _is_as_agreed(session, live):
        driver.down(session.name)
        raise IKERefusedError(_what_it_is(session, live))


def _what_it_is(session: Session, live: TunnelStatus) -> str:
    """Return the sentence for what is not as agreed, or cannot be compared."""
    lacks = live.virtual_address is None and session.virtual_address is not None
    if lacks and live.role is not Role.CLIENT:
        return _UNKNOWN.format(session.target)
    where = elsewhere(live, session.target_addresses)
    if where and _is_as_agreed(replace(session, target_addresses=()), live):
        return _ELSEWHERE.format(session.target, where[0])
    return ANOTHER.format(session.target)


def _is_as_agreed(session: Session, live: TunnelStatus) -> bool:
    between = is_between(live, session.virtual_address, session.target_addresses)
    return live.ppk == session.ppk and between and leads_to(live, session.networks)
