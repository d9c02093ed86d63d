"""Step 4, first half: what the Client signed, and whether Host may speak for her. Pure."""

from carnet.wire import cbor, cose
from carnet.wire.control import TunnelRequest
from carnet.wire.envelope import SPLIT, verify_evidence
from carnet.wire.fault import WireError
from carnet.wire.messages import Request
from carnet.wire.split import host_suite
from carnet.wire.suites import find_suite, name_of


class EvidenceError(Exception):
    """The evidence does not say what Host says; the sentence is for the traveller."""


def claimed_request_id(statement: TunnelRequest) -> bytes:
    """Return the Request ID inside the evidence, of which nothing is proved yet.

    Raises WireError for evidence that is no signed request.
    """
    return cbor.unpack(cose.payload_of(statement.evidence), Request).request_id


def proved_request(statement: TunnelRequest, host: str, suites: frozenset[int]) -> Request:
    """Return the request that the Client herself signed, and that this Host may pass on.

    `host` is the name that its certificate proves; `suites` are those that the operator
    of Target allows. Raises EvidenceError.
    """
    if statement.suite not in suites:
        raise EvidenceError(
            f"Target does not allow suite {name_of(statement.suite)};"
            " have key pairs of another suite minted, or ask its operator."
        )
    try:
        suite = find_suite(statement.suite)
        if statement.custody == SPLIT:
            host_suite(suite)
        request = verify_evidence(
            statement.evidence, statement.public_key, suite, statement.custody
        ).request
    except WireError as error:
        raise EvidenceError(
            f"The signature on the request does not hold at Target ({error});"
            " ask the operator of Host."
        ) from error
    if request.user_id != statement.user_id:
        raise EvidenceError(
            f"Host speaks for {statement.user_id}, but {request.user_id} signed the request;"
            " ask the operator of Host."
        )
    if request.user_id.rpartition("@")[2] != host:
        raise EvidenceError(
            f"{host} may not speak for {request.user_id}; ask the operator of Host."
        )
    return request
