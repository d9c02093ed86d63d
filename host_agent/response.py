"""What Host answers the Client: made of Target's answer (step 7), or a refusal of its own."""

from carnet.wire.control import TunnelAnswer, TunnelGrant, TunnelRefusal
from carnet.wire.messages import Grant, Refusal, RefusalCode, Request, Response
from host_agent.keydb import PairRecord


def own_refusal(
    request: Request, pair: PairRecord, *, knows_target: bool, too_late: bool
) -> TunnelRefusal | None:
    """Return what Host refuses itself; sealed and signed like any other answer."""
    target = request.request_info.target
    checks = {
        RefusalCode.WRONG_USER: (
            request.user_id != pair.user_id,
            "This key pair belongs to another user.",
        ),
        RefusalCode.UNKNOWN_TARGET: (not knows_target, f"This Host knows no Target {target}."),
        RefusalCode.TOO_LATE: (too_late, "The request is too old to be taken up again."),
    }
    for code, (applies, reason) in checks.items():
        if applies:
            return TunnelRefusal(request_id=request.request_id, code=code, reason=reason)
    return None


def response_to(answer: TunnelAnswer, invalid_pairs: tuple[bytes, ...]) -> Response:
    """Return Host's response, sealed and signed next, for Target's answer or Host's own."""
    if isinstance(answer, TunnelGrant):
        return Grant(
            request_id=answer.request_id,
            session_key=answer.session_key,
            tunneling_info=answer.tunneling_info,
            invalid_pairs=invalid_pairs,
        )
    return Refusal(
        request_id=answer.request_id,
        code=answer.code,
        reason=answer.reason,
        invalid_pairs=invalid_pairs,
    )


def outcome_of(answer: TunnelAnswer) -> str:
    """Return the answer's outcome, for the accounts."""
    return "granted" if isinstance(answer, TunnelGrant) else str(answer.code)
