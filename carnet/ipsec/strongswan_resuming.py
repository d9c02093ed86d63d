"""Coming back with strongSwan, if only to take leave: IKE negotiated anew.

The daemon has all of it, the secrets too, while the session lives.
"""

import time
from pathlib import Path
from typing import Any

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from carnet.errors import IKERefusedError, IKESilentError, IKEUnprovenError, IPsecError
from carnet.ipsec import strongswan_messages as messages
from carnet.ipsec import strongswan_reports as reports
from carnet.ipsec.driver import TunnelStatus
from carnet.ipsec.iproute import is_left
from carnet.ipsec.silence import HALF_AN_ANSWER, LEFT, SAID_NO
from carnet.ipsec.strongswan_listing import Listing
from carnet.ipsec.strongswan_negotiation import Negotiation
from carnet.ipsec.strongswan_parts import connection_names, is_ours, tunnel_of
from carnet.ipsec.vici_link import open_session, text

RESUME_TIME_LIMIT = 6.0
"""Seconds for one attempt to come back: two packets of strongSwan's. Then it is tried again,
so that a network that has come back is found out soon."""

MOVE_TIME_LIMIT = 3.0
"""Seconds in which what stands where this machine is no more may move by itself (MOBIKE)."""

LEAVE_TIME_LIMIT = 3.0
"""Seconds for coming back to say that the session is over: one packet of strongSwan's."""
_TRIES_TO_LEAVE = 2
"""Within that time: who watches over it may be trying to come back, and end the first."""


class Resuming:
    """The sessions whose connection and secrets are still in the daemon's memory."""

    def __init__(self, socket: Path, listed: Listing, negotiation: Negotiation) -> None:
        self._socket = socket
        self._listed = listed
        self._negotiation = negotiation

    def names(self) -> frozenset[str]:
        """Return the tunnels whose connection and secrets are still loaded."""
        with open_session(self._socket) as session:
            loaded = set(text(session.get_conns())["conns"])
            loaded &= set(text(session.get_shared())["keys"])
        return frozenset(name for name in loaded if is_ours(name) and name == tunnel_of(name))

    def resume(self, name: str) -> TunnelStatus:
        """Bring back what was lost; see Driver.resume()."""
        standing = self._listed.parts_of(name)
        stands = any(reports.is_up(part, sa) for part, sa in standing.items())
        left = stands and self._stays_left(name)
        if left and name not in self.names():
            raise IKERefusedError(LEFT)
        if left or not stands:
            self._come_back(name)
            standing = self._listed.parts_of(name)
        if not standing:
            raise IKESilentError("The tunnel went down again as it came back; try again.")
        return reports.status(name, standing, self._listed.peers(name).get(name, ()))

    def _stays_left(self, name: str) -> bool:
        """Tell whether it stands where this machine is no more, and does not move in time.

        An IKE_SA does not move while a message of its own is unanswered: the daemon sends that
        again and again from where it was (RFC 4555 section 3.5).
        """
        look = Retrying(
            retry=retry_if_result(bool),
            stop=stop_after_delay(MOVE_TIME_LIMIT),
            wait=wait_fixed(0.2),
            retry_error_callback=lambda _: True,
        )
        return bool(look(self._is_left, name))

    def _is_left(self, name: str) -> bool:
        sas = self._listed.parts_of(name).values()
        inside = ", ".join(address for sa in sas for address in sa.get("local-vips", ()))
        return any(is_left(sa["local-host"], sa["remote-host"], inside) for sa in sas)

    def _come_back(self, name: str) -> None:
        if name not in self.names():
            raise IKERefusedError(
                "The IPsec daemon has no pre-shared key of this tunnel any more;"
                " run `carnet connect` for a new one, with the next key pair."
            )
        self._negotiation.terminate(name)
        try:
            self._negotiation.start(name, has_child=True, seconds=RESUME_TIME_LIMIT)
        except IKERefusedError as error:
            # Until it has proved to have the key anybody on the way may say no for it, in
            # IKE_AUTH too (RFC 7296 section 2.21.2).
            raise IKEUnprovenError(SAID_NO) from error
        if self._has_ppk(name):
            self._protect(name)

    def _has_ppk(self, name: str) -> bool:
        with open_session(self._socket) as session:
            return messages.ppk_key_id(name) in text(session.get_shared())["keys"]

    def _protect(self, name: str) -> None:
        """Have it rekeyed: only its successor is protected by the PPK (RFC 8784 section 6).

        It is to come back whole, or not yet.
        """
        try:
            self._negotiation.rekey_ike(name)
        except IPsecError as error:
            self._negotiation.terminate(name)
            raise IKESilentError(HALF_AN_ANSWER) from error

    def take_leave(self, name: str) -> bool | None:
        """End the SAs so that the peer knows; see Driver.take_leave().

        It has no IKE_SA of them any more where it took this end for dead first: a DELETE on
        that one is nothing to it.
        """
        listed = self._listed.sas(*connection_names(name))
        if self._end(listed):
            return True
        if name not in self.names():
            return False if listed else None
        until = time.monotonic() + LEAVE_TIME_LIMIT
        return any(self._come_to_leave(name, until) for _ in range(_TRIES_TO_LEAVE))

    def _come_to_leave(self, name: str, until: float) -> bool:
        left = until - time.monotonic()
        if left <= 0:
            return False
        try:
            self._negotiation.start(name, has_child=True, seconds=left)
            return self._negotiation.terminate(name)
        except IPsecError:
            return False

    def _end(self, listed: list[tuple[str, dict[str, Any]]]) -> bool:
        """Return whether there was a peer, and it has acknowledged all of it.

        IKEv1 knows no answer to a DELETE, and no Target that waits.
        """
        parts = {part: sa["version"] == "1" for part, sa in listed}
        heard = [self._negotiation.terminate(part) or unheard for part, unheard in parts.items()]
        return bool(heard) and all(heard)
