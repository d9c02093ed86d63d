"""The token of one `carnet connect`: found or waited for, unlocked, and still the same one.

A token that is pulled in the middle and plugged in again gets a new session. Any
other is left alone.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from carnet.errors import CarnetError, PinRefusedError, TokenAwayError, TokenError
from carnet.pin import Credential, PinSource
from carnet.token.finding import find_module
from carnet.token.frozen import say_so, unless_frozen
from carnet.token.identity import Identity
from carnet.token.module import Token, TokenInfo, load_module
from carnet.token.presence import Lookout, Presence, choose_token, saying_who_has_it
from carnet.token.pulled import NOTICED_SECONDS
from carnet.token.readers import Reader, look_at_readers
from softhsm.configuration import use_default
from token_client.booklet import Booklet, check_cover, open_booklet
from token_client.config import ClientConfig
from token_client.waiting import wait_for_token

T = TypeVar("T")


class Plug:
    """Where the token of this command is plugged in.

    `pulled` is called with what a token is known by that is pulled while in use.
    Raises TokenError where there is no token, and this command does not `wait`.
    """

    def __init__(
        self,
        config: ClientConfig,
        selector: str | None,
        *,
        wait: bool,
        tell: Callable[[str], None],
        pulled: Callable[[Identity], None],
    ) -> None:
        self._config = config
        self._wait = wait
        self._tell = tell
        self._pulled = pulled
        self._path = find_module(config.module)
        self.identity = self._find(selector or config.token).identity
        with unless_frozen(self._cannot_be_seen):
            look_at_readers()  # a restart of their service is noticed from now on
        self._lookout = Lookout(self._path, self.identity)
        self._pin_taken = False
        """Whether the token has taken the PIN of this command: then it is not wrong."""

    def _find(self, selector: str | None) -> TokenInfo:
        use_default()
        with unless_frozen():
            if self._wait:
                return self._wait_for(selector)
            return choose_token(load_module(self._path), selector).info

    def _wait_for(self, selector: str | None) -> TokenInfo:
        # One that only does not start may want its token first; another waits in vain.
        with suppress(TokenAwayError):
            load_module(self._path)
        while True:
            token = wait_for_token(self._path, selector, self._tell)
            with suppress(TokenError):
                return token.info  # unless it was pulled as soon as it was seen

    def obtain_pin(self, source: PinSource) -> Credential:
        """Get the PIN for the token, if it has a cover; raises TokenError, UsageError.

        However long that takes: use() looks whether it is the same token still.
        """
        return source.obtain(self._at_hand(self._covered))

    def use(self, credential: Credential, use: Callable[[Booklet], T]) -> T:
        """Unlock the token, verify its cover, and return what `use` does with it.

        Pulled meanwhile, it is waited for and used again if this command waits for
        tokens; a PIN that was wrong, or may have been, is never tried again. Raises
        TokenError, and whatever `use` raises.
        """
        return self._at_hand(lambda token: self._use(token, credential, use))

    def _at_hand(self, work: Callable[[Token], T]) -> T:
        """Do something with the token; pulled meanwhile, it is taken back, and done again."""
        with unless_frozen(self._cannot_be_seen):
            return self._until_done(work)

    def _cannot_be_seen(self) -> int:
        """Do what is done for a token that was pulled, before this process ends."""
        with suppress(CarnetError):
            self._pulled(self.identity)
        return say_so()

    def _until_done(self, work: Callable[[Token], T]) -> T:
        while True:
            failure: TokenError | None = None
            presence, plugged = self._lookout.look(), self._lookout.reader
            token = self._lookout.token
            if self._lookout.alike:
                token = choose_token(load_module(self._path), self.identity)
            if token:
                try:
                    return work(token)
                except PinRefusedError:
                    raise
                except TokenError as error:
                    presence = self._look_after_failure(plugged)
                    if presence is Presence.HERE and self._lookout.reader == plugged:
                        with saying_who_has_it(load_module(self._path)):
                            raise
                    self._refuse_another_try(error)
                    failure = error
            self._take_back(presence, failure)

    def _refuse_another_try(self, failure: TokenError) -> None:
        """Raise TokenError where the PIN may have been wrong, and the token could not say so."""
        if failure.pin_given and not self._pin_taken:
            self._pulled(self.identity)
            raise TokenError(
                f"Token {self.identity.label} was pulled out as it was given the PIN, and did not "
                f"say whether that is right; insert it again, see what `carnet tokens` says of "
                f"its PIN, and run `carnet connect` again."
            ) from failure
        # One that was right may have cost a try all the same: it is given once more, and no more.
        self._pin_taken = self._pin_taken and not failure.pin_given

    def _look_after_failure(self, plugged: Reader | None) -> Presence:
        """Look until the reader tells that the card was pulled, or has had the time to.

        The card is gone before the service of the readers has noticed.
        """
        looks = Retrying(
            retry=retry_if_result(
                lambda found: found is Presence.HERE and self._lookout.reader == plugged
            ),
            stop=stop_after_delay(NOTICED_SECONDS if plugged else 0),
            wait=wait_fixed(0.05),
            retry_error_callback=lambda _: Presence.HERE,
        )
        return looks(self._lookout.look)

    def _covered(self, token: Token) -> TokenInfo:
        check_cover(token, self._config)
        return token.info

    def _use(self, token: Token, credential: Credential, use: Callable[[Booklet], T]) -> T:
        """Return what `use` does; done is done, even if the token fails at the logout."""
        done: list[T] = []
        try:
            with open_booklet(token, credential, self._config) as booklet:
                self._pin_taken = True
                done.append(use(booklet))
        except TokenError:
            if not done:
                raise
        return done[0]

    def _take_back(self, presence: Presence, failure: TokenError | None) -> None:
        """Wait for the token that was pulled, and for no other."""
        self._pulled(self.identity)
        unseen = presence is Presence.UNSEEN
        how = (
            "cannot be seen (no smart-card service, or another program has it)"
            if unseen
            else "was pulled out"
        )
        if not self._wait:
            raise TokenError(
                f"Token {self.identity.label} {how}, in the middle; see to it and run `carnet "
                f"connect` again within ten minutes: no further key pair is used, unless it only "
                f"signs."
            ) from failure
        self._tell(f"Token {self.identity.label} {how}; plug it in again to go on.")
        wait_for_token(self._path, self.identity, self._tell)
