"""What tests see of the key store `wrapped`, and how a booklet gets there."""

from carnet.token.batch_keys import BatchKeys
from carnet.wire.keys import key_id_of
from host_agent.keydb import KeyDatabase
from tests.fleet.test_concurrency import nothing_owed
from tests.fleet.traveller import open_grant, seal, send_until_answered

PATIENCE = 120


def batch_keys(hsm):
    with hsm.session() as session:
        return BatchKeys(session).held()


def wrapped(fleet, key):
    with KeyDatabase.opened(fleet.place) as database:
        return [each.wrapped for each in database.wrapped_keys(key_id_of(key.public_key))]


def states(fleet):
    with KeyDatabase.opened(fleet.place) as database:
        return [each.state for each in database.batch_keys()]


def burned(fleet, key):
    return lambda: not wrapped(fleet, key) and nothing_owed(fleet.place)


def connect(process, key):
    request = seal(key)
    reply = send_until_answered([process.url], request)
    assert open_grant(key, request, reply)
    return reply.body
