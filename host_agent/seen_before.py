"""What the bytes of a request have led to before: read, and nothing changed by it."""

from carnet.exchange import host as step
from carnet.exchange.machine import Event
from carnet.wire.envelope import Envelope, SignedRequest, verify_evidence
from host_agent.clock_watch import ClockWatch
from host_agent.keydb import ANSWER_KEPT, PairRecord, RequestRecord


def settled(request: RequestRecord, envelope: Envelope, clock: ClockWatch) -> Event | None:
    """Return what follows for these bytes; None where they may be taken up, unanswered."""
    if request.digest != envelope.digest:
        return step.PairUnusable("the pair is spent by other bytes")
    if aged_by_leap(request, clock):
        return step.ClockLeapt()
    if request.response is not None:
        return step.AnswerKept(request.response)
    if request.outcome is not None:
        return step.PairUnusable("the answer is no longer kept")
    return None


def aged_by_leap(request: RequestRecord, clock: ClockWatch) -> bool:
    """Tell whether a request is too old by nothing but a clock that has leapt ahead."""
    return request.too_old and clock.leap(request.looked_up_at) > 0


def is_too_late(request: RequestRecord, clock: ClockWatch) -> bool:
    """Tell whether a request is too old to be taken up, by a clock that has not leapt.

    One that was dated when the clock was ahead has, from when that is over, as long as any.
    """
    if request.is_ahead:
        clock.leap(request.looked_up_at)  # which it may not know to be over
        return clock.steady_for >= ANSWER_KEPT
    return request.too_old


def read_again(request: RequestRecord, pair: PairRecord, envelope: Envelope) -> SignedRequest:
    """Read what the Client signed, from the evidence that is kept of it."""
    return verify_evidence(request.evidence, pair.public_key, envelope.suite, pair.custody)
