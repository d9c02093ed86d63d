"""A pair that the token does not destroy is not the next one to be tried."""

from types import SimpleNamespace

import pytest

from carnet.errors import TokenError
from carnet.exchange import client as step
from carnet.token.identity import Identity
from carnet.wire.session_key import EphemeralKey
from tests.unit.test_next_pair import ClearVault
from token_client.exchange import Exchange
from token_client.pending import Pending, PendingStore

OWN, STALE, OTHER, LONG_GONE = (bytes([number]) * 16 for number in range(4))


class StubbornKeys:
    """Stands for a token that fails when it is to destroy certain keys."""

    def __init__(self, *stubborn):
        self.stubborn = stubborn
        self.destroyed = []

    def listed(self):
        return frozenset({OWN, STALE, OTHER})

    def destroy(self, key_id):
        if key_id in self.stubborn:
            raise TokenError("The token failed; plug it in again.")
        self.destroyed.append(key_id)


@pytest.fixture
def exchange_with(tmp_path):
    def make(keys):
        notes = []
        booklet = SimpleNamespace(keys=keys, messages_of=lambda _: None)
        steps = SimpleNamespace(note=notes.append)
        means = SimpleNamespace(
            booklet=booklet,
            steps=steps,
            store=PendingStore(tmp_path, Identity("1", "alice"), None, "work"),
            notes=notes,
        )
        return Exchange(means, None, SimpleNamespace(key_id=OWN)), means

    return make


def test_a_spent_pair_that_stays_on_the_token_is_set_aside(exchange_with):
    exchange, means = exchange_with(StubbornKeys(OWN, STALE))
    means.store.set_aside(OTHER)
    exchange.destroy_pair(step.DestroyPair())
    exchange.settle_others(step.SettleOthers((STALE,)))
    assert set(means.store.aside()) == {OWN, STALE}
    assert len(means.notes) == 1
    assert "The token failed" in means.notes[0]


def test_one_key_that_stays_keeps_no_other_alive(exchange_with):
    exchange, means = exchange_with(StubbornKeys(STALE))
    exchange.destroy_pair(step.DestroyPair())
    exchange.settle_others(step.SettleOthers((STALE, OTHER)))
    assert means.booklet.keys.destroyed == [OWN, OTHER]
    assert means.store.aside() == (STALE,)


def test_nothing_is_left_aside_where_all_are_destroyed(exchange_with):
    exchange, means = exchange_with(StubbornKeys())
    means.store.set_aside(OTHER)
    exchange.settle_others(step.SettleOthers(()))
    assert means.store.aside() == ()


def test_what_the_token_does_not_hold_is_not_looked_for(exchange_with):
    exchange, means = exchange_with(StubbornKeys())
    exchange.settle_others(step.SettleOthers((LONG_GONE, STALE)))
    assert means.booklet.keys.destroyed == [STALE]


def test_what_opens_another_target_s_answer_is_not_destroyed(exchange_with, tmp_path):
    """Host says of that pair, too, that it is spent: the answer was the last of it."""
    exchange, means = exchange_with(StubbornKeys())
    other = PendingStore(tmp_path, Identity("1", "alice"), ClearVault(), "lab")
    other.keep(Pending(OTHER, b"request", EphemeralKey(bytes(96))))
    exchange.settle_others(step.SettleOthers((STALE, OTHER)))
    assert means.booklet.keys.destroyed == [STALE]
    other.drop()
    exchange.settle_others(step.SettleOthers((OTHER,)))
    assert means.booklet.keys.destroyed == [STALE, OTHER]
