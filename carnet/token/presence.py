"""Whether a token is plugged in, as reader and module say on a fresh look.

A card's reader answers in a millisecond and without disturbing the card, so the module
is asked only when the reader reports another state than at the last look. Where the PC/SC
service is another one than then, the module is started again first: OpenSC tells for ever of
the cards that it saw by the old one. A module without readers, such as SoftHSM2, is started
again and asked every time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path

from carnet.errors import TokenAwayError, TokenError
from carnet.token.frozen import unless_frozen
from carnet.token.identity import Identity, Selector
from carnet.token.module import Module, Token, load_module, meant, patiently
from carnet.token.readers import Reader, look_at_readers, service_met

_DOUBTS = 20
"""So often a card that came and is no token that is known is looked at again."""


class Presence(StrEnum):
    """What a look for a token found."""

    HERE = "here"
    GONE = "gone"
    UNSEEN = "unseen"
    """It cannot be looked at: the PC/SC service is gone, or another program has the card."""


@contextmanager
def saying_who_has_it(module: Module) -> Iterator[None]:
    """Let a TokenAwayError say so where it is that another program holds the card."""
    try:
        yield
    except TokenAwayError as error:
        reason = held_by_another(module)
        if reason is None:
            raise
        raise TokenAwayError(reason) from error


def choose_token(module: Module, selector: Selector) -> Token:
    """Choose as Module.choose() does; say so where another program holds the card.

    Raises TokenAwayError, TokenError.
    """
    with unless_frozen(), saying_who_has_it(module):
        return module.choose(selector)


def held_by_another(module: Module) -> str | None:
    """Say which card of the module's another program has for itself; None if there is none."""
    held = [reader for reader in look_at_readers() or () if reader.held]
    if not held:
        return None
    try:
        names = set(module.slot_names())
    except TokenError:
        # OpenSC does not even tell of its slots then.
        names = {reader.slot_name for reader in held}
    theirs = next((reader.name for reader in held if reader.slot_name in names), None)
    return theirs and f"Another program has the card in {theirs} for itself; end that program."


class Glance:
    """Tells whether the module has to be asked: not where its readers have not changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.readers: tuple[Reader, ...] | None = None
        """As they were at the last look; None where there is no PC/SC service."""
        self.service = 0
        """The number of that service, as service_met() has it; 0 where there is none."""

    def changed(self) -> bool:
        """Look at the readers; False only if the module can have nothing new to say."""
        now = look_at_readers()
        changed = not now or now != self.readers or not self._has_readers_alone(now)
        self.readers, self.service = now, 0 if now is None else service_met()
        return changed

    def _has_readers_alone(self, readers: tuple[Reader, ...]) -> bool:
        names = {reader.slot_name for reader in readers}
        try:
            return names.issuperset(load_module(self._path).slot_names())
        except TokenError:
            return False


class Lookout:
    """Keeps an eye on one token, known as carnet.token.identity says.

    The module at `path` may come and go with the token, as SoftHSM2's configuration
    does with a memory stick. With `let_go` the module is stopped while the reader alone
    can tell, so that other programs may have the card for themselves; no session must
    be open then. `is_away` tells of a serial number whose token is away for certain, where
    anybody can know: it is not looked for patiently then. `in_reader` says that a reader has
    it, as far as is known: without the PC/SC service it cannot be seen then, from the first.
    That service is taken to be the one that this process looked at last.
    """

    def __init__(
        self,
        path: Path,
        identity: Identity,
        *,
        let_go: bool = False,
        is_away: Callable[[str], bool] = lambda _: False,
        in_reader: bool = False,
    ) -> None:
        self._path = path
        self._identity = identity
        self._let_go = let_go
        self._is_away = is_away
        self._glance = Glance(path)
        self.reader: Reader | None = None
        """The reader that held the token at the last look, as it was then; None where the
        module has none. Pulled and plugged in again it is another value, and so it is by
        another PC/SC service."""
        self.token: Token | None = None
        """The token, where the last look found it here."""
        self.alike = False
        """Whether there was another that nothing tells from it."""
        self._doubts = 0
        self._last = Presence.HERE
        """Until the first look it is taken to be there, so that it is looked for patiently."""
        self._in_reader = in_reader
        self._place: str | None = None
        """What the module calls the reader that held the token last."""
        self._service = service_met()
        """The PC/SC service by which the module sees the cards that it tells of; 0 without one."""
        self._served = True
        """That service has not been away since the token was last here, in its reader; or
        another token has been seen in its place."""

    def look(self) -> Presence:
        """Look for the token, and return what was found."""
        changed = self._glance.changed()
        served = self._glance.readers is not None and not self._is_served_anew()
        if not served and (self._in_reader or self.reader is not None):
            self._served = False
        found = self._look(changed=changed)
        if found is Presence.GONE and not self._served:
            # A service that has just come back may not know all readers and cards yet.
            found = Presence.UNSEEN
        if found is Presence.HERE:
            self._served, self._in_reader = True, False
        else:
            self.token = None
        self._last = found
        return found

    def _is_served_anew(self) -> bool:
        return self._service not in {0, self._glance.service}

    def _look(self, *, changed: bool) -> Presence:
        readers = self._glance.readers
        if self.reader is not None:
            if readers is None:
                return Presence.UNSEEN
            now = next((one for one in readers if one.name == self.reader.name), None)
            if now == self.reader:
                return Presence.HERE
            if now is None or not now.occupied:
                self.reader = None
                return Presence.GONE
        elif not changed and self._last is not Presence.UNSEEN and not self._in_doubt():
            return self._last
        if changed:
            self._doubts = _DOUBTS
        return self._ask(readers or ())

    def _in_doubt(self) -> bool:
        """Tell whether a card may be the token that could not be read when it came.

        That it can be read now is no change at its reader.
        """
        occupied = any(reader.occupied for reader in self._glance.readers or ())
        if self._last is Presence.HERE or not occupied or not self._doubts:
            return False
        self._doubts -= 1
        return True

    def _ask(self, readers: tuple[Reader, ...]) -> Presence:
        """Ask the module; what it sees by itself counts where the token has a reader."""
        self.token = self._find(restart=self._is_served_anew())
        self._service = self._glance.service
        self.reader = _reader_of(self.token, readers)
        if self.reader is None:
            expected = self._last is Presence.HERE and not self._is_away(self._identity.serial)
            self.token = self._find_again() if expected else self._find()
            self.reader = _reader_of(self.token, readers)
        if self.reader is not None:
            self._place = self.reader.slot_name
        if self.token is None and any(reader.held for reader in readers):
            return Presence.UNSEEN
        if self.reader is not None and self._let_go:
            self.token = None
            load_module(self._path).stop()
            return Presence.HERE
        return Presence.HERE if self.token else Presence.GONE

    def _find_again(self) -> Token | None:
        with suppress(TokenAwayError):
            return patiently(self._find_here)
        return None

    def _find_here(self) -> Token:
        token = self._find()
        if token is None:
            raise TokenAwayError(f"Token {self._identity} is gone.")
        return token

    def _find(self, *, restart: bool = True) -> Token | None:
        try:
            tokens = load_module(self._path).present(restart=restart)
            listed = [(one, one.info) for one in tokens]
        except TokenError:
            # A module that fails has no token to show; the next look starts it again.
            return None
        # NSS has another, which keeps nothing.
        found = meant([each for each in listed if each[1].login_required], self._identity)
        self.alike = len(found) > 1
        if not found and self._place in {token.slot_name for token, _ in listed}:
            self._served = True
        return found[0][0] if found else None


def _reader_of(token: Token | None, readers: tuple[Reader, ...]) -> Reader | None:
    name = token.slot_name if token else None
    return next((one for one in readers if one.slot_name == name), None)
