"""Asking why a tunnel went down: Host fetches what Target has signed for the traveller.

IKE's Delete has no room for a reason. Whoever answers, only Target's own word is believed:
it is verified under the officer's key, and names this tunnel.
"""

import http.client
from http import HTTPStatus
from itertools import cycle
from urllib.parse import urlsplit

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from carnet.ending import MAX_ENDING, verify_ending
from carnet.ipsec.spec import NAME_PREFIX
from carnet.wire.documents import Ending
from carnet.wire.fault import WireError
from token_client.host import connected
from token_client.sessions import Session

PATIENCE_SECONDS = 6.0
"""For how long a reason is asked for; the tunnel is down meanwhile."""
_ATTEMPT_SECONDS = 5.0
_PAUSE_SECONDS = 0.2

TIME_IS_OVER = "its time is over; run `carnet connect` for a new one"
_REASONS = {
    "revoked": "its key pair was revoked at the Host; ask the operator there",
    "ended-by-operator": "Target's operator ended it; ask there before you connect again",
    "user-removed": "Target has you no longer as a member; ask its operator",
    "expired": TIME_IS_OVER,
    "restart": "Target was started anew; run `carnet connect` for a new one",
    "ike-daemon-restarted": "Target's IPsec was started anew; run `carnet connect` for a new one",
    "peer-closed": "Target lost sight of this machine; run `carnet connect` for a new one",
}
_OTHER = "Target says {reason}; ask its operator, or run `carnet connect` for a new one"


def why_ended(session: Session) -> str | None:
    """Return, as a sentence, why Target ended a tunnel; None where it did not say so in time."""
    ending = _ask(session) if session.hosts else None
    if ending is None:
        return None
    reason = _REASONS.get(ending.reason) or _OTHER.format(reason=ending.reason)
    return f"The tunnel to {session.target} has ended: {reason}."


def _ask(session: Session) -> Ending | None:
    hosts = cycle(session.hosts)
    attempts = Retrying(
        stop=stop_after_delay(PATIENCE_SECONDS),
        wait=wait_fixed(_PAUSE_SECONDS),
        retry=retry_if_result(lambda ending: ending is None),
    )
    try:
        return attempts(lambda: _ask_one(next(hosts), session))
    except RetryError:
        return None


def _ask_one(host: str, session: Session) -> Ending | None:
    """Return what one Host has; None where it has nothing, or what is not Target's word."""
    request_id = bytes.fromhex(session.name.removeprefix(NAME_PREFIX))
    try:
        body = _post(host, request_id)
        officer_key = bytes.fromhex(session.officer_key)
        return verify_ending(body, request_id, session.target, officer_key) if body else None
    except (OSError, ValueError, http.client.HTTPException, WireError):
        return None


def _post(host: str, request_id: bytes) -> bytes | None:
    with connected(host, _ATTEMPT_SECONDS) as connection:
        path = urlsplit(host).path.rstrip("/") + "/v1/endings"
        headers = {"Content-Type": "application/octet-stream"}
        connection.request("POST", path, request_id, headers)
        response = connection.getresponse()
        return response.read(MAX_ENDING + 1) if response.status == HTTPStatus.OK else None
