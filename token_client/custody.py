"""What the Client and the Host say under one pair, by who holds the pair's private key."""

from typing import Protocol

import msgspec

from carnet.token.onetime import OneTimePair
from carnet.wire import split
from carnet.wire.envelope import (
    SPLIT,
    Envelope,
    open_request,
    open_response,
    parse_envelope,
    seal_request,
    verify_evidence,
)
from carnet.wire.messages import Request, Response
from carnet.wire.session_key import EphemeralKey
from carnet.wire.split import HostKeys, SealedRequest
from carnet.wire.suite import PrivateKey
from carnet.wire.suites import AnySuite
from token_client.pending import Pending


class Messages(Protocol):
    """How the messages of one pair are made and read."""

    def seal(self, request: Request) -> SealedRequest:
        """Step 1: sign a request on the token and seal it; raises TokenError."""

    def read_again(self, pending: Pending) -> Request:
        """Return what an earlier run asked for; raises WireError, TokenError."""

    def open(self, answer: bytes, request: Envelope, ephemeral: EphemeralKey) -> Response:
        """Step 8: open the answer to a request; raises WireError, TokenError."""


class PairedMessages(msgspec.Struct, frozen=True):
    """Custody `paired`: the pair seals, opens and signs, both ways."""

    pair: OneTimePair
    suite: AnySuite
    key: PrivateKey

    def seal(self, request: Request) -> SealedRequest:
        """Sign on the token, seal to the pair, which can open it again."""
        data = seal_request(request, self.pair.public_key, self.suite, self.key)
        return SealedRequest(data, b"")

    def read_again(self, pending: Pending) -> Request:
        """Open on the token."""
        envelope = parse_envelope(pending.sealed)
        return open_request(envelope, self.pair.public_key, self.key).request

    def open(
        self,
        answer: bytes,
        request: Envelope,
        ephemeral: EphemeralKey,  # noqa: ARG002 - for the other custody
    ) -> Response:
        """Open on the token."""
        return open_response(answer, request, self.pair.public_key, self.key)


class SplitMessages(msgspec.Struct, frozen=True):
    """Custody `split`: the pair signs, and the Host's keys, which the cover names, do the rest."""

    pair: OneTimePair
    suite: AnySuite
    key: PrivateKey
    host_keys: HostKeys

    def seal(self, request: Request) -> SealedRequest:
        """Sign on the token, seal to the Host."""
        public_key, sealing = self.pair.public_key, self.host_keys.sealing
        return split.seal_request(request, public_key, self.suite, self.key.sign, sealing)

    def read_again(self, pending: Pending) -> Request:
        """Verify what was signed then: only the Host opens what was sent."""
        public_key = self.pair.public_key
        return verify_evidence(pending.evidence, public_key, self.suite, SPLIT).request

    def open(self, answer: bytes, request: Envelope, ephemeral: EphemeralKey) -> Response:
        """Open with the request's ephemeral key, verify under the Host's."""
        return split.open_response(answer, request, self.host_keys.signing, ephemeral)
