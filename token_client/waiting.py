"""`carnet connect --wait`: plug in and go.

A hint of the readers wakes the wait, and an interval does where there are none. What
counts is what the module says on a fresh look.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from carnet.errors import TokenError
from carnet.token.identity import Identity, Selector
from carnet.token.module import Listed, Token, TokenInfo, choose_among, load_module, meant
from carnet.token.presence import Glance, held_by_another
from carnet.token.readers import LOOK_SECONDS, ReaderWatcher
from softhsm.configuration import use_default

Tell = Callable[[str], None]


def wait_for_token(path: Path, selector: Selector, tell: Tell) -> Token:
    """Return the token of that label or serial number as soon as it is plugged in.

    Without a selector any one token will do. Another that is plugged in meanwhile is
    told of and passed over. `path` is the PKCS#11 module. Raises TokenError where more
    than one token fits, and for a file of SoftHSM2's that is to be mended first.
    """
    return _Wait(path, selector, tell).run()


class _Wait:
    """One wait; what was told already is not told again."""

    def __init__(self, path: Path, selector: Selector, tell: Tell) -> None:
        self._path = path
        self._selector = selector
        self._tell = tell
        self._hint = threading.Event()
        self._glance = Glance(path)
        self._passed_over: set[Identity] = set()
        self._waiting = False

    def run(self) -> Token:
        with ReaderWatcher(self._hint.set):
            while True:
                self._hint.clear()
                token = self._look()
                if token is not None:
                    return token
                self._say_what_for()
                self._hint.wait(LOOK_SECONDS)

    def _look(self) -> Token | None:
        """Return the token that fits; some modules see one only when started again."""
        use_default()  # SoftHSM2's directory may be what is being plugged in
        if not self._glance.changed() and not self._in_doubt():
            return None
        listed = self._fitting(restart=False) or self._fitting(restart=True)
        if len(listed) > 1:
            return choose_among(listed, self._selector)
        return listed[0][0] if listed else None

    def _in_doubt(self) -> bool:
        """Tell whether a card is in a reader of which the last look saw no token.

        Another program had it just then, or it could be read in part only; that it can be
        read now is no change at the readers.
        """
        occupied = [reader for reader in self._glance.readers or () if reader.occupied]
        return len(occupied) > len({each.serial for each in self._passed_over})

    def _fitting(self, *, restart: bool) -> list[Listed]:
        """Return the tokens that fit, and tell of those that do not."""
        try:
            present = load_module(self._path).present(restart=restart)
            tokens = [(token, token.info) for token in present]
        except TokenError:
            return []  # a module that fails has none to show, as far as is known yet
        usable = [each for each in tokens if each[1].initialised and each[1].login_required]
        those = meant(usable, self._selector)
        self._pass_over([each[1] for each in usable if each not in those])
        return those

    def _pass_over(self, infos: list[TokenInfo]) -> None:
        for info in infos:
            if info.identity not in self._passed_over:
                self._tell(f"Token {info.identity} is not the one waited for, and is left alone.")
        self._passed_over = {info.identity for info in infos}

    def _say_what_for(self) -> None:
        if not self._waiting:
            which = f"token {self._selector}" if self._selector else "a token"
            self._tell(f"Waiting for {which}; plug it in, or end this with Ctrl-C.")
            self._say_what_is_in_the_way()
        self._waiting = True

    def _say_what_is_in_the_way(self) -> None:
        """Tell of a module that does not start, or of a card that another program has."""
        try:
            reason = held_by_another(load_module(self._path))
        except TokenError as error:
            reason = error.sentence
        if reason is not None:
            self._tell(reason)
