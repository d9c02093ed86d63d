"""Sealing as a perfect lock: only what was sealed here opens, under its own key pair only."""

from dataclasses import dataclass
from itertools import count

import msgspec

from carnet.wire.envelope import Envelope, SignedRequest
from carnet.wire.messages import Response
from carnet.wire.suites import P256
from tests.unit.examples import make_request

_REQUEST = make_request()


@dataclass(frozen=True)
class _SealedResponse:
    key_id: bytes
    digest: bytes
    response: Response


class Seals:
    """All that was ever sealed, signed or made at random."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._requests: dict[bytes, tuple[bytes, SignedRequest]] = {}
        self._responses: dict[bytes, _SealedResponse] = {}
        self._evidence: dict[bytes, tuple[bytes, SignedRequest]] = {}

    def fresh(self, kind: str) -> bytes:
        """Return bytes that were never seen before."""
        return f"{kind} {next(self._numbers)}".encode()

    def seal_request(self, key_id: bytes) -> bytes:
        """Make a request, signed by a pair and sealed to it."""
        request = msgspec.structs.replace(_REQUEST, request_id=self.fresh("request id"))
        signed = SignedRequest(request, self.fresh("evidence"))
        sealed = self.fresh("request")
        self._requests[sealed] = self._evidence[signed.evidence] = (key_id, signed)
        return sealed

    def open_request(self, envelope: Envelope) -> SignedRequest | None:
        """Return the request, None if the seal does not open under this pair."""
        key_id, signed = self._requests.get(envelope.sealed, (None, None))
        return signed if key_id == envelope.key_id else None

    def signer(self, evidence: bytes) -> tuple[bytes, SignedRequest]:
        """Return which pair signed the evidence, and what."""
        return self._evidence[evidence]

    def seal_response(self, envelope: Envelope, response: Response) -> bytes:
        """Seal the Host's response to the request that it answers."""
        sealed = self.fresh("response")
        self._responses[sealed] = _SealedResponse(envelope.key_id, envelope.digest, response)
        return sealed

    def open_response(self, answer: bytes, envelope: Envelope) -> Response | None:
        """Return the response, None if it is not the Host's to this very request."""
        found = self._responses.get(answer)
        if found is None or (found.key_id, found.digest) != (envelope.key_id, envelope.digest):
            return None
        return found.response


def envelope_of(key_id: bytes, sealed: bytes) -> Envelope:
    """Return what everybody can see of a sealed request; here it is its own digest."""
    return Envelope(P256, key_id, sealed, digest=sealed)
