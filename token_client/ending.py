"""Asking why a tunnel went down: Host fetches what Target has signed for the traveller.

IKE's Delete has no room for a reason. Whoever answers, only Target's own word is believed:
it is verified under the officer's key, and names this tunnel.
"""

import http.client
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from itertools import cycle
from urllib.parse import urlsplit

from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_result,
)

from carnet.ending import MAX_ENDING, verify_ending
from carnet.ipsec.spec import NAME_PREFIX
from carnet.wire import documents
from carnet.wire.fault import WireError
from token_client.host import connected
from token_client.record import Session

PATIENCE_SECONDS = 6.0
"""For how long a reason is asked for where nobody has one; the tunnel is down meanwhile."""
LONGEST_PATIENCE_SECONDS = 20.0
"""The same, where Target answers that it has yet to bring the end about: it may be slow."""
_ATTEMPT_SECONDS = 5.0
_PAUSE_SECONDS = 0.2
_LONGER_PAUSE_SECONDS = 1.0
_LIVES = "tunnel-lives"
_NOT_YET = "target-not-ready"
_TIMES_LIVE = 2
"""After so many answers that Target knows of no end, it was the network, or IPsec here."""

_TIME_IS_OVER = "its time is over; run `carnet connect` for a new one"
_OVER = {
    "revoked": "its key pair was revoked at the Host; ask the operator there",
    "ended-by-operator": "Target's operator ended it; ask there before you connect again",
    "user-removed": "Target has you no longer as a member; ask its operator",
    "expired": _TIME_IS_OVER,
}
"""Somebody meant the session to be over."""
_DROPPED = {
    "restart": "Target was started anew; run `carnet connect` for a new one",
    "ike-daemon-restarted": "Target's IPsec was started anew; run `carnet connect` for a new one",
    "unloaded": "Target's IPsec was made to forget it, as its operator can do; run `carnet connect`"
    " for a new one",
    "peer-lost": "this machine was silent for too long; run `carnet connect` for a new one",
    "peer-closed": "it was ended at this end, as this machine's administrator can do, or Target"
    " lost sight of this machine; run `carnet connect` for a new one",
}
_OTHER = "Target says {reason}; ask its operator, or run `carnet connect` for a new one"


@dataclass(frozen=True)
class Ending:
    """Why a tunnel is down, or has to go."""

    sentence: str
    over: bool = False
    """Whether the session is over, by Target's word or its time: nothing of it is to be left."""
    pulled: bool = False
    """Whether it is for its token, which was pulled."""
    meant: bool = False
    """Whether the session was meant to live as its tunnel went: she had not ended it."""
    untold: bool = False
    """Whether Target has yet to say why."""
    left: bool = False
    """Whether the kernel may carry it on, by what this machine's own daemon has left there."""


def time_is_over(session: Session) -> Ending:
    """Return the end of a session by its time."""
    return Ending(f"The tunnel to {session.target} has ended: {_TIME_IS_OVER}.", over=True)


def why_ended(
    session: Session, wanted: Callable[[], bool] = lambda: True, *, once: bool = False
) -> Ending | None:
    """Return what Target says of the end of a tunnel; None where it says nothing in time.

    It is asked for while it is `wanted`; of each Host but once, where that is to do.
    """
    asking = _Asking(session, wanted, len(session.hosts) if once else None)
    ending = asking.ask() if session.hosts else None
    if ending is None:
        return None
    reason = ending.reason
    what = (_OVER | _DROPPED).get(reason) or _OTHER.format(reason=reason)
    return Ending(f"The tunnel to {session.target} has ended: {what}.", reason in _OVER)


class _Asking:
    """Asks one Host after the other."""

    def __init__(self, session: Session, wanted: Callable[[], bool], times: int | None) -> None:
        """Ask while it is wanted, so many times; None: as long as the patience lasts."""
        self._times = times
        self._session = session
        self._hosts = cycle(session.hosts)
        self._wanted = wanted
        self._lives = 0
        self._comes = False
        """Whether Target has answered that it cannot say it yet."""

    def ask(self) -> documents.Ending | None:
        attempts = Retrying(
            stop=self._is_vain,
            wait=lambda _: _LONGER_PAUSE_SECONDS if self._comes else _PAUSE_SECONDS,
            retry=retry_if_result(lambda ending: ending is None),
        )
        try:
            return attempts(self._ask_one)
        except RetryError:
            return None

    def _is_vain(self, state: RetryCallState) -> bool:
        patience = LONGEST_PATIENCE_SECONDS if self._comes else PATIENCE_SECONDS
        late = (state.seconds_since_start or 0) >= patience
        often = self._times is not None and state.attempt_number >= self._times
        return late or often or self._lives >= _TIMES_LIVE or not self._wanted()

    def _ask_one(self) -> documents.Ending | None:
        """Return what a Host has; None where it has nothing, or what is not Target's word."""
        session = self._session
        request_id = bytes.fromhex(session.name.removeprefix(NAME_PREFIX))
        try:
            body = self._post(next(self._hosts), request_id)
            officer_key = bytes.fromhex(session.officer_key)
            return verify_ending(body, request_id, session.target, officer_key) if body else None
        except (OSError, ValueError, http.client.HTTPException, WireError):
            return None

    def _post(self, host: str, request_id: bytes) -> bytes | None:
        with connected(host, _ATTEMPT_SECONDS, self._session.known_hosts) as connection:
            path = urlsplit(host).path.rstrip("/") + "/v1/endings"
            headers = {"Content-Type": "application/octet-stream"}
            connection.request("POST", path, request_id, headers)
            response = connection.getresponse()
            reason = response.getheader("Carnet-Reason")
            self._lives += reason == _LIVES
            self._comes |= reason == _NOT_YET
            return response.read(MAX_ENDING + 1) if response.status == HTTPStatus.OK else None
