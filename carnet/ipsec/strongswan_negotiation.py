"""IKE negotiations of strongSwan's daemon, begun and ended from here."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_exponential
from vici import Session
from vici.exception import CommandException

from carnet.errors import IPsecError
from carnet.ipsec import strongswan_leftovers as leftovers
from carnet.ipsec import strongswan_reports as reports
from carnet.ipsec.strongswan_listing import Listing, settling
from carnet.ipsec.strongswan_log import acknowledged, not_up
from carnet.ipsec.strongswan_parts import tunnel_of
from carnet.ipsec.vici_link import ANSWER_TIME_LIMIT, Events, open_session, text

DELETE_TIME_LIMIT = 2.0
"""Seconds in which the peer may acknowledge that a tunnel ends; it ends without, too."""
OCCUPIED_TIME_LIMIT = 1.0
"""Seconds for what it has yet to answer before it can be told."""
_LOOKS = wait_exponential(multiplier=0.005, max=0.5)
"""Between the looks whether it has, and the orders to end: soon at first, and then more seldom,
for an order costs the daemon as much as there are IKE_SAs."""
_AT_ONCE = "-1"
"""The time limit of who does not wait for what comes of it."""
_NONE_FOUND = "no matching SAs to terminate found"
"""What the daemon says of a name by which it has no IKE_SA."""


class Negotiation:
    """What is asked of the daemon, over its VICI socket; `time_limit` is in seconds."""

    def __init__(self, socket: Path, listed: Listing, time_limit: float) -> None:
        self._socket = socket
        self._listed = listed
        self._time_limit = time_limit

    def start(self, name: str, *, has_child: bool, seconds: float | None = None) -> None:
        """Negotiate on a thread, so that an interrupt is heard meanwhile.

        It would leave the daemon negotiating, and the library waiting for its answer:
        ending the negotiation ends the thread too.

        Raises IPsecError, saying why, if nothing comes of it.
        """
        with ThreadPoolExecutor(1, "initiate") as thread:
            limit = self._time_limit if seconds is None else seconds
            negotiation = thread.submit(self._negotiate, name, has_child, limit)
            try:
                negotiation.result()
            except BaseException:
                self.end_at_once(name)
                raise

    def _negotiate(self, name: str, has_child: bool, seconds: float) -> None:
        log: list[str] = []
        # To VICI 0 is no limit at all.
        order = {"ike": name, "timeout": str(max(1, int(seconds * 1000)))}
        if has_child:
            order["child"] = name
        with open_session(self._socket, seconds + ANSWER_TIME_LIMIT) as session:
            try:
                log.extend(text(line)["msg"] for line in session.initiate(order))
            except CommandException as error:
                raise not_up(log) from error

    def rekey_ike(self, name: str) -> None:
        """Replace an IKE_SA by its successor. Raises IPsecError."""
        with Events(self._socket, ["ike-rekey"], self._time_limit) as events:
            with open_session(self._socket) as session:
                session.rekey({"ike": name})
            try:
                while not reports.rekeyed(events.next(), name):
                    pass
            except OSError as error:
                self._listed.sas(name)  # raises where it is the daemon here that is silent
                raise IPsecError(
                    "Target does not rekey the tunnel for post-quantum protection;"
                    " connect again, and ask its operator if that does not help."
                ) from error

    def end(self, *parts: str) -> None:
        """End the IKE_SAs of connections, as terminate() does, all together.

        What can tell the peer at once is not waited for: nothing passes here any more from then
        on, whatever the peer hears. A lost packet would be sent again after the time limit only.
        Of what cannot yet, the SAs go out of the kernel, as far as they are there; it is waited
        for, and holds none of the daemon's threads meanwhile, which are few. What is not listed
        is ended, too: see end_at_once().
        """
        free, not_free = self._who_can_tell(parts)
        self._order_end(free, force="yes")
        occupied = self._sas(not_free)
        busy = tuple(dict.fromkeys(part for part, _ in occupied))
        self._order_end(busy)
        leftovers.remove_listed(sa for _, sa in occupied)
        waiting = Retrying(
            retry=retry_if_result(bool),
            stop=stop_after_delay(OCCUPIED_TIME_LIMIT),
            wait=_LOOKS,
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),
        )
        waiting(self._left, busy)
        self.end_at_once(*parts)

    def end_at_once(self, *parts: str) -> None:
        """End the IKE_SAs of connections, but wait for no peer, and see that they are gone.

        It is ordered by name until the daemon finds none: it does not list an IKE_SA with so many
        CHILD_SAs that the message would be too long, and that one carries packets all the same.
        """
        found = retry_if_result(bool)
        left = settling(found, _LOOKS)(self._order_end, parts, force="yes")
        if left:
            raise _cannot_be_ended(left[0])

    def ends_unlisted(self, *parts: str) -> bool:
        """Order the end of what is not listed of these connections; tell whether there was any."""
        return not self._sas(parts) and bool(self._order_end(parts, force="yes"))

    def _order_end(self, parts: Iterable[str], **how: str) -> list[str]:
        """Return of which of these connections the daemon found IKE_SAs."""
        with open_session(self._socket) as session:
            return [part for part in parts if _found(session, {"ike": part} | how)]

    def _who_can_tell(self, parts: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return which of these connections have IKE_SAs: whose peer has answered all; others."""
        listed = self._sas(parts)
        occupied = dict.fromkeys(part for part, sa in listed if not reports.can_tell_its_end(sa))
        free = dict.fromkeys(part for part, _ in listed if part not in occupied)
        return list(free), list(occupied)

    def _left(self, parts: Sequence[str]) -> list[str]:
        """Return which of these connections have IKE_SAs."""
        return list(dict.fromkeys(part for part, _ in self._sas(parts)))

    def _sas(self, parts: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
        return self._listed.sas(*parts) if parts else []

    def terminate(self, part: str) -> bool:
        """End the IKE_SAs of a connection, half-open ones too, and see that they are gone.

        Returns whether a peer has acknowledged that.
        """
        order = {"ike": part, "force": "yes", "timeout": str(int(DELETE_TIME_LIMIT * 1000))}
        log: list[str] = []
        with open_session(self._socket) as session:
            try:
                log.extend(text(line)["msg"] for line in session.terminate(order))
            except CommandException:
                # It may have ended by itself, or ended without the peer's consent.
                self.end_at_once(part)
        return acknowledged(log)


def _found(session: Session, order: dict[str, str]) -> bool:
    """Order an end; tell whether the daemon found what to end, though it may have failed."""
    try:
        for _ in session.terminate({"timeout": _AT_ONCE} | order):
            pass
    except CommandException as error:
        return _NONE_FOUND not in str(error)
    return True


def _cannot_be_ended(part: str) -> IPsecError:
    return IPsecError(
        f"The tunnel {tunnel_of(part)} cannot be ended; restart the strongSwan daemon."
    )
