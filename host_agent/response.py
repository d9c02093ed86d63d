"""What Host answers the Client, made of Target's answer (step 7)."""

from carnet.wire.control import TunnelGrant, TunnelRefusal
from carnet.wire.messages import Grant, Refusal, Response


def response_to(answer: TunnelGrant | TunnelRefusal, invalid_pairs: tuple[bytes, ...]) -> Response:
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


def outcome_of(answer: TunnelGrant | TunnelRefusal) -> str:
    """Return the answer's outcome, for the accounts."""
    return "granted" if isinstance(answer, TunnelGrant) else str(answer.code)
