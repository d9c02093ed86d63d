"""What charon's log of a negotiation tells: why no tunnel came up, and that one has ended."""

import re
from collections.abc import Iterable

from carnet.errors import IKERefusedError, IKESilentError, IPsecError
from carnet.ipsec.silence import BUSY, HALF_AN_ANSWER, NO_ANSWER, NO_ANSWER_ON_4500


def acknowledged(log: Iterable[str]) -> bool:
    """Whether the peer answered a DELETE, by the daemon's log of it.

    That an IKE_SA is gone does not tell: it goes too where the peer is silent.
    """
    return "IKE_SA deleted" in log


def not_up(log: Iterable[str]) -> IPsecError:
    """Return the error for an IKE negotiation that failed, from the daemon's log of it.

    Only what says no is a refusal. Target may also have begun to answer and then be silent:
    nothing is decided by that.
    """
    whole = "\n".join(log)
    refusal = _refusal(whole)
    if refusal is not None:
        return IKERefusedError(refusal)
    silence = _silence(whole)
    if silence is not None:
        return IKESilentError(silence)
    return IPsecError(
        "The IKE negotiation failed for a reason that only strongSwan's log tells; look there."
    )


def _refusal(whole: str) -> str | None:
    for pattern, sentence in _FAILURES:
        if re.search(pattern, whole):
            return sentence
    notify = re.search(r"received (\w+) (?:error )?notify", whole)
    if notify:
        return f"Target refuses the tunnel ({notify.group(1)}); ask its operator."
    return None


def _silence(whole: str) -> str | None:
    """Return what to say if the last request has no answer; None if it has one."""
    if "received packet" not in whole:
        return NO_ANSWER
    exchanged = _EXCHANGED.findall(whole)
    if not exchanged or exchanged[-1][0] == "parsed":
        return None
    last_answer = next((what for did, what in reversed(exchanged) if did == "parsed"), "")
    if "N(COOKIE)" in last_answer:
        return BUSY
    on_4500 = re.search(r"sending packet: from \S+ to \S+\[4500\]", whole)
    if on_4500 and not re.search(r"received packet: from \S+\[4500\]", whole):
        return NO_ANSWER_ON_4500
    return HALF_AN_ANSWER


_EXCHANGED = re.compile(
    r"^(generating|parsed) (?!INFORMATIONAL)\w+ (?:request|response) \d+ \[ (?!EF\()(.*)",
    re.MULTILINE,
)
"""Requests and whole answers, in their order; no fragment, and no farewell."""


_NOT_AUTHENTICATED = (
    "Target and this machine do not authenticate each other (AUTHENTICATION_FAILED):"
    " the keys of the two ends differ; connect again for fresh ones."
)
_NO_PROPOSAL = (
    "Target accepts none of the proposed algorithms, or knows no such tunnel"
    " (NO_PROPOSAL_CHOSEN); connect again, and ask its operator if that does not help."
)
_FAILURES = (
    (r"AUTHENTICATION_FAILED|MAC mismatched|N\(AUTH_FAILED\)", _NOT_AUTHENTICATED),
    (r"NO_PROPOSAL_CHOSEN|N\(NO_PROP\)", _NO_PROPOSAL),
    (r"PPK required", _NOT_AUTHENTICATED),
)
