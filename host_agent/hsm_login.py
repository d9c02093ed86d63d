"""Logging in to the HSM token, and in again when it was away; everything here blocks."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NoReturn, TypeVar

import structlog

from carnet.errors import (
    CarnetError,
    FinalTryError,
    PinRefusedError,
    PinTriedError,
    TokenAwayError,
    TokenError,
)
from carnet.token.batch_keys import BatchKeys
from carnet.token.finding import find_module
from carnet.token.host_keys import HostKeys
from carnet.token.identity import Identity
from carnet.token.module import Module, Token, TokenInfo, load_module, meant
from carnet.token.onetime import OneTimeKeys
from carnet.token.presence import saying_who_has_it
from carnet.token.profiles import may_lock
from carnet.token.session import TokenSession, open_public_session, open_session
from carnet.token.turns import turn_at
from host_agent.config import TokenSection
from host_agent.fitness import log_if_unfit
from host_agent.keystore.halves import HeldKeys
from softhsm.configuration import use_default
from softhsm.kept import keep_tokens

log = structlog.get_logger()
T = TypeVar("T")

FRESH_SECONDS = 10
"""For how long after a login what it did not show is believed not to be there."""
FRESH_SHARE = 10
"""The same, in times of what the login took: no more than this share is spent on logins."""

UNJUDGED_SECONDS = 60
"""After a PIN was given to a token that did not say whether it is right; twice that after the
next one, and so on."""
UNJUDGED_SECONDS_AT_MOST = 600
UNJUDGED_TRIES = 2
"""Of a PIN that was never taken, at a token that may lock: cards have three and more."""


def find_hsm(section: TokenSection) -> Token:
    """Return the HSM token that the configuration means.

    Raises TokenAwayError if it is not there, or another program has it for itself; TokenError
    if that cannot be said of one.
    """
    module = _module(section)
    with saying_who_has_it(module):
        return module.choose(section.token)


def _module(section: TokenSection, *, again: bool = False) -> Module:
    if section.module is None:
        use_default()
    keep_tokens(again=again)
    return load_module(find_module(section.module))


@contextmanager
def told_to_an_operator() -> Iterator[None]:
    """Say what to do before the last try of the PIN: no command of the Host's has leave for it."""
    try:
        yield
    except FinalTryError as error:
        state = error.sentence.partition(";")[0]
        raise PinRefusedError(
            f"{state}; make sure of the PIN, and log in with it once, by `carnet-provision list "
            f"--allow-final-try` with the same --module and --token or by its vendor's own tool, "
            f"for the right one gives it all tries back."
        ) from error


class HsmLostError(TokenError):
    """The HSM went away under an operation; what was asked of it was not done."""


class HsmLogin:
    """One login after the other to one and the same token; for one thread.

    The PIN is kept in memory, to log in again with. The first token logged in to is the
    only one that it is ever given to. Object handles are good for one login, and may
    mean other objects in the next: they are listed anew each time, and nothing that
    holds one leaves use().
    """

    def __init__(
        self, section: TokenSection, pin: str, check: Callable[[TokenSession], None]
    ) -> None:
        self._section = section
        self._pin = pin
        self._check_new = check
        self._identity: Identity | None = None
        self._closing = ExitStack()
        self._open: HeldKeys | None = None
        self._host_keys: HostKeys | None = None
        self._fresh_until = 0.0
        self.seconds = 0.0
        """What the last login took, the listing of the keys included."""
        self.has_stored = False
        """Whether this login may have stored something: what others did may be hidden from it."""
        self._refused: PinRefusedError | None = None
        self._pin_taken = False
        self._unjudged = 0
        """How often in a row the token failed as it was given the PIN: it may be as many tries
        less."""
        self._not_before = 0.0
        self._turn = ExitStack()
        """Held from a PIN that was not judged to its verdict: all of a user's programs together
        give it no more tries than one."""

    @property
    def serial(self) -> str | None:
        """The token's serial number; None before the first login."""
        return self._identity.serial if self._identity else None

    def log_in(self) -> str:
        """Close what is left of the last login, log in; return the token's serial number.

        Raises PinRefusedError, and from then on again without trying the PIN; TokenAwayError
        where the token is not there, or another one is in its place; TokenError, and
        what the check of a new session raises.
        """
        began = time.monotonic()
        self.log_out()
        token = find_hsm(self._section) if not self._identity else self._same(self._identity)
        session = self._session_on(token)
        self._check_new(session)
        if self._identity is None:
            log_if_unfit(session)
        identity = token.info.identity
        serial = identity.serial
        self.has_stored = False
        self._open = HeldKeys(serial, session, OneTimeKeys(session), BatchKeys(session))
        self._identity = identity
        self.seconds = time.monotonic() - began
        self._fresh_until = began + self.seconds + max(FRESH_SECONDS, FRESH_SHARE * self.seconds)
        return serial

    def _session_on(self, token: Token) -> TokenSession:
        # A login that was given up for its slowness may have been refused since.
        if self._refused is not None:
            raise PinRefusedError(self._refused.sentence)
        with open_public_session(token):
            info = token.info  # what fails in here, fails without the PIN
        if self._unjudged:
            self._check_tries(info)
        try:
            session = self._judged(token, info)
        except PinRefusedError as error:
            self._refused = error
            if isinstance(error, PinTriedError):
                self._turn.close()
            raise
        self._pin_taken, self._unjudged = True, 0
        self._turn.close()
        return session

    def _judged(self, token: Token, info: TokenInfo) -> TokenSession:
        """Give the token the PIN; raises PinRefusedError, and TokenError where it did not judge."""
        with ExitStack() as turn, told_to_an_operator():
            if may_lock(info) and not self._unjudged:
                turn.enter_context(turn_at(info.identity))
            try:
                session = self._closing.enter_context(open_session(token, self._pin, writable=True))
            except TokenError as error:
                if not error.pin_given:
                    raise
                self._turn.push(turn.pop_all())
                self._put_off_next_try(info, error)
                raise TokenAwayError(error.sentence) from error
        return session

    def _check_tries(self, info: TokenInfo) -> None:
        """Raise PinRefusedError where the last try cost one, TokenAwayError where it is too early.

        A card that loses its power as it is asked may be one try less each time, by the right
        PIN too. The last one that it tells of open_session() leaves to a person.
        """
        if info.pin_count_low and may_lock(info):
            self._refuse_for_ever(info)
        if time.monotonic() < self._not_before:
            raise TokenAwayError(
                f"The HSM token, {info.identity}, was given the PIN and did not say whether it is "
                f"right; it is asked again, after a minute at first, if it tells of no wrong PIN."
            )

    def _put_off_next_try(self, info: TokenInfo, failure: TokenError) -> None:
        """Have the next try wait; raise PinRefusedError where there is to be none."""
        self._unjudged += 1
        is_sure = self._pin_taken or not may_lock(info)
        if self._unjudged >= UNJUDGED_TRIES and not is_sure:
            self._refuse_for_ever(info, failure)
        pause = min(UNJUDGED_SECONDS * 2 ** (self._unjudged - 1), UNJUDGED_SECONDS_AT_MOST)
        self._not_before = time.monotonic() + pause

    def _refuse_for_ever(self, info: TokenInfo, failure: TokenError | None = None) -> NoReturn:
        self._refused = PinRefusedError(
            f"The HSM token, {info.identity}, was given the PIN and did not say whether it is "
            f"right; see what `carnet-host doctor` says of its PIN, then start carnet-host anew."
        )
        raise self._refused from failure

    def renew(self) -> None:
        """Log in anew while the token is there.

        Raises HsmLostError where that fails, PinRefusedError as log_in() does.
        """
        try:
            self.log_in()
        except PinRefusedError:
            raise
        except CarnetError as error:
            raise HsmLostError(error.sentence) from error

    @property
    def fresh_for(self) -> float:
        """For how many seconds more renew_unless_fresh() leaves the login as it is."""
        return max(0.0, self._fresh_until - time.monotonic())

    def renew_unless_fresh(self) -> None:
        """Log in anew unless that was done just now; raises as renew() does.

        For a key that was not seen: SoftHSM2, when it writes right after another process
        did, takes over the other's count of changes without looking at them, and shows none
        of them before the next change or login.
        """
        if time.monotonic() >= self._fresh_until:
            log.info("hsm-login-renewed", reason="A key was not seen; another process may have it.")
            self.renew()

    def log_out(self) -> None:
        """Close the session; one that is gone already is closed."""
        self._open = self._host_keys = None
        with suppress(TokenError):
            self._closing.close()

    def use(self, work: Callable[[HeldKeys], T]) -> T:
        """Do something with the keys.

        Raises HsmLostError if the HSM is gone, TokenError if it is there and fails, and
        what `work` raises.
        """
        held = self._logged_in()
        return self.use_session(lambda _: work(held))

    def use_host_keys(self, work: Callable[[HostKeys], T]) -> T:
        """Do something with the Host's long-term keys; raises as use() does."""

        def with_keys(session: TokenSession) -> T:
            self._host_keys = self._host_keys or HostKeys(session)
            return work(self._host_keys)

        return self.use_session(with_keys)

    def store(self, work: Callable[[TokenSession], T]) -> T:
        """Do something with the session that may store objects; raises as use() does."""
        self.has_stored = True
        return self.use_session(work)

    def use_session(self, work: Callable[[TokenSession], T]) -> T:
        """Do something with the session; raises as use() does."""
        session = self._logged_in().session
        try:
            return work(session)
        except TokenAwayError as error:
            raise HsmLostError(error.sentence) from error
        except TokenError:
            # It may be one key that fails, which must not log everybody out.
            _check(session)
            raise

    def check(self) -> None:
        """Raise HsmLostError if the HSM is gone."""
        _check(self._logged_in().session)

    def _logged_in(self) -> HeldKeys:
        if self._open is None:
            raise HsmLostError("There is no login to the HSM token; wait for it.")
        return self._open

    def _same(self, identity: Identity) -> Token:
        # Another program may have been killed meanwhile as SoftHSM2 wrote the token's file.
        module = _module(self._section, again=True)
        with saying_who_has_it(module):
            return self._only(identity, module)

    def _only(self, identity: Identity, module: Module) -> Token:
        """Return the one token that is this one; raises TokenAwayError."""
        present = [(token, token.info) for token in module.present()]
        initialised = [each for each in present if each[1].initialised]
        same = meant(initialised, identity)
        if len(same) > 1:
            raise TokenAwayError(
                f"{len(same)} tokens are there that may be the HSM token, {identity}; take out all "
                "but that one."
            )
        if same:
            return same[0][0]
        others = [info for _, info in initialised]
        if others:
            raise TokenAwayError(
                f"The HSM token, {identity}, is not there, and {_names(others)} is; "
                f"put the right one back, or start carnet-host anew for another."
            )
        raise TokenAwayError(f"The HSM token, {identity}, is gone; insert it again.")


def _check(session: TokenSession) -> None:
    try:
        session.check()
    except TokenError as error:
        raise HsmLostError(error.sentence) from error


def _names(tokens: list[TokenInfo]) -> str:
    return ", ".join(f"token {info.label} (serial {info.serial})" for info in tokens)
