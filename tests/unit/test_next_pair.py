"""Which pair `carnet connect` takes next."""

from types import SimpleNamespace

from token_client import connect
from token_client.pending import PendingStore

KEY_IDS = [bytes([number]) * 16 for number in range(5)]


def test_pairs_set_aside_are_all_tried_in_the_end(tmp_path):
    """A good one among them is not kept back by those before it that the Host does not know."""
    pairs = [SimpleNamespace(key_id=key_id) for key_id in KEY_IDS]
    store = PendingStore(tmp_path, "serial", None)
    means = SimpleNamespace(store=store, booklet=SimpleNamespace(usable=lambda: pairs))
    taken = []
    for _ in range(4):
        tried = set()
        for _ in range(connect.MAX_SET_ASIDE):
            pair = connect._next_pair(means, tried)
            tried.add(pair.key_id)
            store.set_aside(pair.key_id)
            taken.append(pair.key_id)
    assert taken == (KEY_IDS * 3)[: len(taken)]
