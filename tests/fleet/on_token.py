"""What the traveller's token does for a request, and what an HSM remembers, in its own process."""

import secrets

from carnet.token.accounts import accounts_key, has_accounts_key
from carnet.token.onetime import OneTimeKeys
from carnet.wire.documents import AccountsHead, verify_document
from carnet.wire.envelope import open_response, parse_envelope, seal_request
from carnet.wire.keys import load_public_key
from carnet.wire.suites import P256
from host_agent.rollback import newest_seen
from tests.provisioning import tokens
from tests.unit.examples import make_request


def seal(pin, number):
    """Seal a request under the pair of that number; return its key_id and the request."""
    with tokens._session(pin) as session:
        booklet = OneTimeKeys(session)
        pair = booklet.pairs()[number]
        request = make_request(request_id=secrets.token_bytes(16))
        key = booklet.private_key(pair.key_id)
        return pair.key_id, seal_request(request, pair.public_key, P256, key)


def open_answer(pin, sealed, answer):
    """Open an answer; return its Request ID and session key."""
    envelope = parse_envelope(sealed)
    with tokens._session(pin) as session:
        key = OneTimeKeys(session).private_key(envelope.key_id)
        response = open_response(answer, envelope, key.pair.public_key, key)
        return response.request_id, response.session_key


def mark(pin):
    """Return the number of the record that an HSM remembers as the newest."""
    with tokens._session(pin) as session:
        return newest_seen(session).number


def signed(pin, head):
    """Return whether an HSM has the key that signed a head, and makes none that is gone."""
    with tokens._session(pin) as session:
        if not has_accounts_key(session):
            return False
        key = load_public_key(accounts_key(session), P256)
    verify_document(head, AccountsHead, key)
    return True
