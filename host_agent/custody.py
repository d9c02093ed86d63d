"""Who holds a pair's private key decides with which key of the HSM a request is worked on.

It is the pair's record that says it, never the request.
"""

from carnet.wire.envelope import SPLIT, Envelope, SignedRequest
from carnet.wire.messages import Response
from host_agent.hsm import Hsm
from host_agent.keydb import KeyDatabase, PairRecord
from host_agent.keystore.halves import Half
from host_agent.keystore.stores import store_of


def holds_private_key(pair: PairRecord) -> bool:
    """Tell whether the HSM had a half of the pair, which the burn destroys."""
    return pair.custody != SPLIT


async def open_request(
    hsm: Hsm, database: KeyDatabase, envelope: Envelope, pair: PairRecord
) -> SignedRequest:
    """Step 2: open a request to this pair; raises WireError, TokenError."""
    if pair.custody == SPLIT:
        return await hsm.open_split_request(envelope, pair.public_key, _host_key(pair))
    return await hsm.open_request(envelope, pair.public_key, await _half_of(database, pair))


async def seal_response(
    hsm: Hsm,
    database: KeyDatabase,
    response: Response,
    envelope: Envelope,
    pair: PairRecord,
    asked: SignedRequest,
) -> bytes:
    """Step 7: sign and seal the response to what was asked; raises TokenError."""
    if pair.custody == SPLIT:
        ephemeral_key = asked.request.request_info.ephemeral_key
        return await hsm.seal_split_response(response, envelope, ephemeral_key, _host_key(pair))
    half = await _half_of(database, pair)
    return await hsm.seal_response(response, envelope, pair.public_key, half)


async def _half_of(database: KeyDatabase, pair: PairRecord) -> Half:
    return await store_of(pair.key_store).half_of(database, pair)


def _host_key(pair: PairRecord) -> bytes:
    if pair.host_key_id is None:
        raise RuntimeError("a pair in custody split is imported with the Host's key for it")
    return pair.host_key_id
