"""Which pair `carnet connect` takes next, and what it says where none leads anywhere."""

from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from carnet.token.identity import Identity
from carnet.wire.session_key import EphemeralKey
from token_client import choosing, connect, pending, preflight
from token_client.booklet import Booklet
from token_client.config import ClientConfig
from token_client.means import Wish
from token_client.pending import (
    KEPT_SECONDS,
    Pending,
    PendingStore,
    asked_with_here,
    spent_here,
)

ALICE = Identity("00", "alice")
KEY_IDS = [bytes([number]) * 16 for number in range(5)]


class ClearVault:
    """What is kept, as it is: a token would open it."""

    def seal(self, _, plaintext, __):
        return plaintext

    def open(self, _, sealed, __):
        return sealed


def means_of(directory, key_ids):
    pairs = [SimpleNamespace(key_id=key_id, not_after=None) for key_id in key_ids]
    booklet = Booklet(ALICE, None, SimpleNamespace(pairs=lambda: pairs), b"", None)
    return SimpleNamespace(store=PendingStore(directory, ALICE, None, "work"), booklet=booklet)


def tried_in_one_run(means):
    """Try pairs as `carnet connect` does where each gets an unsealed no."""
    tried = set()
    while len(tried) < connect.MAX_SET_ASIDE and (pair := choosing.next_pair(means, tried)):
        tried.add(pair.key_id)
        means.store.set_aside(pair.key_id)
        yield pair.key_id


def test_what_is_kept_of_a_token_is_not_anothers_of_the_same_serial_number(tmp_path):
    PendingStore(tmp_path, ALICE, None, "work").remember_spent(KEY_IDS[0])
    assert spent_here(tmp_path, ALICE) == {KEY_IDS[0]}
    assert spent_here(tmp_path, ALICE._replace(label="bob")) == set()


def test_pairs_set_aside_are_all_tried_in_the_end(tmp_path):
    """A good one among them is not kept back by those before it that the Host does not know."""
    means = means_of(tmp_path, KEY_IDS)
    taken = [key_id for _ in range(4) for key_id in tried_in_one_run(means)]
    assert taken == (KEY_IDS * 3)[: 4 * connect.MAX_SET_ASIDE]


def test_it_is_said_how_many_were_not_tried_yet_and_when_all_were(tmp_path):
    """As on a token whose pairs are all spent: it was restored from a copy."""
    means = means_of(tmp_path, KEY_IDS)
    first = choosing.no_pair(means, {*tried_in_one_run(means)})
    assert first.exit_status == 6
    assert first.sentence.startswith("3 key pairs got an unsealed no and are set aside")
    assert "for the 2 that were not tried yet" in first.sentence
    one = choosing.no_pair(means, {KEY_IDS[0]}).sentence
    assert one.startswith("1 key pair got an unsealed no and is set aside, not destroyed: it is ")
    second = choosing.no_pair(means, {*tried_in_one_run(means)})
    assert second.exit_status == 6
    assert second.sentence.startswith("Each key pair that is left on token alice got")
    assert "restored from a copy" in second.sentence


@pytest.mark.parametrize("count", [1, 2])
def test_a_pair_that_was_refused_is_not_said_to_be_gone(tmp_path, count):
    means = means_of(tmp_path, KEY_IDS[:count])
    assert "new booklet" in choosing.no_pair(means, {*tried_in_one_run(means)}).sentence
    assert "Each key pair that is left" in choosing.no_pair(means, {KEY_IDS[0]}).sentence


def test_an_empty_booklet_is_called_that(tmp_path):
    empty = choosing.no_pair(means_of(tmp_path, ()), set())
    assert empty.exit_status == 7
    assert "No usable key pair is left on token alice" in empty.sentence


@pytest.fixture
def asked_elsewhere(tmp_path, monkeypatch):
    """Another Target was asked with the first pair; it returns how to let time pass."""
    store = PendingStore(tmp_path, ALICE, ClearVault(), "lab")
    store.keep(Pending(KEY_IDS[0], b"request", EphemeralKey(bytes(96))))
    since = pending._now()
    return lambda seconds: monkeypatch.setattr(pending, "_now", lambda: since + seconds)


def test_a_pair_with_which_another_target_was_asked_is_not_taken(tmp_path, asked_elsewhere):
    means = means_of(tmp_path, KEY_IDS[:2])
    assert choosing.next_pair(means, set()).key_id == KEY_IDS[1]
    assert choosing.next_pair(means, {KEY_IDS[1]}) is None
    asked_elsewhere(KEPT_SECONDS)
    assert choosing.next_pair(means, set()).key_id == KEY_IDS[1]
    assert choosing.next_pair(means, {KEY_IDS[1]}).key_id == KEY_IDS[0]


def test_a_pair_with_which_another_target_was_asked_is_not_told_as_left(
    tmp_path, monkeypatch, asked_elsewhere
):
    means = means_of(tmp_path, KEY_IDS[:2])
    for module in (connect, preflight):
        monkeypatch.setattr(module, "memory_directory", lambda: tmp_path)

    def told(target):
        cover = SimpleNamespace(user_id="alice@office", hosts=())
        booklet = replace(means.booklet, cover=cover)
        capabilities = SimpleNamespace(driver="strongSwan", version="5.9.8")
        wish = Wish(target, 3, None, None)
        found = preflight.plan(booklet, capabilities, wish, ClientConfig())
        return found["pairs_left"], found["key_id"]

    assert asked_with_here(tmp_path, ALICE) == {KEY_IDS[0]}
    assert connect._pairs_left(means) == 1
    assert told("work") == (1, KEY_IDS[1].hex())
    assert told("lab") == (2, KEY_IDS[0].hex())
    means.store.remember_spent(KEY_IDS[1])
    assert told("work") == (0, None)
    asked_elsewhere(KEPT_SECONDS)
    assert asked_with_here(tmp_path, ALICE) == set()
    assert (connect._pairs_left(means), told("work")) == (1, (1, KEY_IDS[0].hex()))


def test_where_no_other_pair_is_left_it_is_said_what_goes_on_with_it(tmp_path, asked_elsewhere):
    asked_elsewhere(60)
    error = choosing.no_pair(means_of(tmp_path, KEY_IDS[:1]), set())
    assert error.exit_status == 7
    assert "`carnet connect lab` with the options that it had" in error.sentence
    assert "or ask the security officer for a new booklet" in error.sentence
    assert error.sentence.endswith("; a pair that is not spent can be used again in 9m.")


def test_each_target_has_what_is_kept_for_it(tmp_path, asked_elsewhere):
    stores = [PendingStore(tmp_path, ALICE, ClearVault(), each) for each in ("work", "lab")]
    stores[0].keep(Pending(KEY_IDS[1], b"another", EphemeralKey(bytes(96))))
    assert [store.find().key_id for store in stores] == [KEY_IDS[1], KEY_IDS[0]]
    stores[0].drop()
    assert [store.find() is None for store in stores] == [True, False]
    asked_elsewhere(KEPT_SECONDS)
    assert (stores[1].find(), stores[1].aside()) == (None, (KEY_IDS[0],))
