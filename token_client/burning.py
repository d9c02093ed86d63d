"""The burn: a spent key pair leaves the token (step 10), its own and those of earlier runs."""

from collections.abc import Callable, Iterable

from carnet.errors import TokenCannotError, TokenError
from carnet.token.onetime import OneTimeKeys
from token_client.pending import PendingStore


class Burning:
    """Destroys spent pairs; a token that fails now takes nothing of the outcome away.

    A spent pair is invalid for ever at Host, which names it again in its next answer. Until
    then what could not be destroyed is set aside, so that the next request is made with
    another one. `note` is told what the traveller should know, each sentence once.
    """

    def __init__(self, keys: OneTimeKeys, store: PendingStore, note: Callable[[str], None]) -> None:
        self._keys = keys
        self._store = store
        self._note = note
        self._unburned: set[bytes] = set()
        self._said: set[str] = set()

    def burn(self, key_id: bytes) -> None:
        """Destroy one pair, or see to it that it is not tried again."""
        try:
            self._keys.destroy(key_id)
        except TokenCannotError:
            self._store.remember_spent(key_id)
            self._say_once("This token destroys no keys: spent pairs stay on it, and open nothing.")
        except TokenError as error:
            self._unburned.add(key_id)
            self._store.set_aside(key_id)
            self._say_once(
                f"A spent key pair could not be destroyed ({error.sentence.rstrip('.')}); "
                f"it opens nothing any more, and the next `carnet connect` destroys it."
            )

    def burn_listed(self, key_ids: Iterable[bytes]) -> None:
        """Destroy those that the token held when it was unlocked.

        Host names every pair that was ever spent, and to look for one takes as long as all
        the rest. One that opens the answer of another Target stays until that is settled.
        """
        listed = self._keys.listed() - self._store.elsewhere().keys()
        for key_id in key_ids:
            if key_id in listed:
                self.burn(key_id)

    def settle(self) -> None:
        """Leave aside only what could not be destroyed: the Host has said which pairs are spent."""
        self._store.leave_aside(self._unburned)

    def _say_once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._note(sentence)
