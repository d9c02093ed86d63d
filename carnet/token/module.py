"""The PKCS#11 module of this process and the tokens that it sees."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Lock, RLock
from typing import Self, TypeVar

import msgspec
import pkcs11
from pkcs11 import TokenFlag
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from carnet.errors import NoTokenError, TokenAwayError, TokenError
from carnet.token.cryptoki import Cryptoki, check_loads
from carnet.token.identity import Identity, Selector, called, fitting
from carnet.token.translation import translated

T = TypeVar("T")

_PATIENCE_SECONDS = 0.4
"""For how long a token is looked for before it counts as away."""


class TokenInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a token tells of itself without a PIN (CK_TOKEN_INFO)."""

    label: str
    serial: str
    manufacturer: str
    model: str
    initialised: bool
    pin_set: bool
    pin_count_low: bool
    """A wrong PIN was entered since the last right one."""
    pin_final_try: bool
    """The next wrong PIN locks the token."""
    pin_locked: bool
    protected_authentication_path: bool
    """The PIN is entered on the reader's own PIN pad."""
    so_pin_final_try: bool = False
    """The next wrong SO PIN locks that, for ever on most tokens."""
    so_pin_locked: bool = False
    login_required: bool = True
    """What it holds takes a login; one without keeps nothing, such as NSS's for software keys."""

    @property
    def identity(self) -> Identity:
        """What the token is known by from now on."""
        return Identity(self.serial, self.label)

    @property
    def is_lost(self) -> bool:
        """Whether it can neither be used nor initialised: it has no PIN, and no SO PIN that serves.

        So is one of SoftHSM2's whose C_InitToken was cut off.
        """
        return self.initialised and not self.pin_set and self.so_pin_locked

    @classmethod
    def of(cls, token: pkcs11.Token) -> Self:
        """Read it from python-pkcs11's token."""
        flags = token.flags
        return cls(
            label=_printable(token.label),
            serial=_printable(token.serial.decode("ascii", "replace")),
            manufacturer=_printable(token.manufacturer_id),
            model=_printable(token.model),
            initialised=TokenFlag.TOKEN_INITIALIZED in flags,
            pin_set=TokenFlag.USER_PIN_INITIALIZED in flags,
            pin_count_low=TokenFlag.USER_PIN_COUNT_LOW in flags,
            pin_final_try=TokenFlag.USER_PIN_FINAL_TRY in flags,
            pin_locked=TokenFlag.USER_PIN_LOCKED in flags,
            protected_authentication_path=TokenFlag.PROTECTED_AUTHENTICATION_PATH in flags,
            so_pin_final_try=TokenFlag.SO_PIN_FINAL_TRY in flags,
            so_pin_locked=TokenFlag.SO_PIN_LOCKED in flags,
            login_required=TokenFlag.LOGIN_REQUIRED in flags,
        )


def _printable(text: str) -> str:
    """Return what a token says of itself, without what a terminal would obey."""
    return "".join(each if each.isprintable() else "?" for each in text)


class _HalfReadError(Exception):
    """A token that is initialised told no serial number, or no label."""


class Token:
    """A token in its slot; a session on it is opened in carnet.token.session."""

    def __init__(self, module: "Module", slot: pkcs11.Slot) -> None:
        self.module = module
        self._slot = slot

    @property
    def slot_id(self) -> int:
        """The module's number for the slot; it may change when the module starts again."""
        return self._slot.slot_id

    @property
    def slot_name(self) -> str:
        """What the module calls the slot: the reader's name, where there is a reader."""
        return _printable(self._slot.slot_description)

    @property
    def info(self) -> TokenInfo:
        """What the token tells of itself now. Raises TokenError if it is gone."""
        with suppress(_HalfReadError):
            return patiently(self._whole_info, while_raised=_HalfReadError)
        return TokenInfo.of(self.handle)

    def _whole_info(self) -> TokenInfo:
        info = TokenInfo.of(self.handle)
        if info.initialised and not (info.serial and info.label):
            raise _HalfReadError
        return info

    def look_anew(self) -> None:
        """Have `info` tell of the tries as they are now; called before each try of a PIN.

        A module may tell what it knew as it was started, until it is started again (OpenSC):
        what others have tried since it does not see, and where one was logged in then, all tries
        seem to be left. Raises TokenAwayError if the token is gone; TokenError where a session
        keeps the module from being started again.
        """
        self._slot = self.module.told_anew(self)._slot  # noqa: SLF001  of this class, too

    @property
    def longest_pin(self) -> int | None:
        """How many bytes a user's PIN has at most; None if the token does not tell.

        An SO PIN may be longer: a SmartCard-HSM's has 16 digits, its PIN 15 (OpenSC).
        Raises TokenError if it is gone.
        """

        def told() -> int | None:
            return self.module.library.longest_pin(self.slot_id)

        with translated():
            return patiently(told, while_raised=pkcs11.GeneralError)

    @property
    def handle(self) -> pkcs11.Token:
        """The token as python-pkcs11 has it, read anew. Raises TokenError if it is gone."""
        with translated():
            return patiently(self._slot.get_token, while_raised=pkcs11.GeneralError)


Listed = tuple[Token, TokenInfo]
"""A token, and what it told of itself when it was listed."""


class Module:
    """A PKCS#11 module; get the process's one of a path from load_module()."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # A session that nobody closes ends as it is collected: in whatever its thread does then.
        self._lock = RLock()
        self._objects = RLock()
        self._sessions = 0
        self._listed = False
        try:
            check_loads(str(path))
            self.library = Cryptoki(str(path))
        except pkcs11.PKCS11Error as error:
            raise TokenAwayError(
                f"{path} does not start as a PKCS#11 module; correct the path, "
                f"or look at the module's own configuration."
            ) from error
        except OSError as error:
            raise TokenError(
                f"{path} cannot be loaded, or is no PKCS#11 module; correct the path, or install "
                f"the module anew."
            ) from error

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the module from being started again while a session is open."""
        with self._lock:
            self._sessions += 1
        try:
            yield
        finally:
            with self._lock:
                self._sessions -= 1

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Keep other threads from searching for, storing and destroying objects meanwhile.

        SoftHSM2, with its own locks, still loses an object that one thread stores while
        another searches: the storing fails, or the object is not found any more. Using
        keys needs no such care.
        """
        with self._objects:
            yield

    def tokens(self) -> list[TokenInfo]:
        """Return what each token tells of itself, those not yet initialised included."""
        return [token.info for token in self.present()]

    def choose(self, selector: Selector) -> Token:
        """Return the initialised token with that label or serial number, or that very one.

        Without a selector there must be exactly one. Raises TokenAwayError if there is
        no such token, TokenError if more than one is; both name the choices.
        """
        return patiently(
            lambda: choose_among([(token, token.info) for token in self.present()], selector)
        )

    def present(self, *, restart: bool = True) -> list[Token]:
        """Return every token in a slot, those not yet initialised included.

        Raises TokenError if the module fails. As long as no session is open the
        module is started again first: some see a new token in no other way. Without
        `restart` it only lists what it sees by itself, which spares a card the work.
        """
        with translated(), self._lock:
            if restart and self._listed and self._sessions == 0:
                self.library.reinitialize()
            self._listed = True
            slots = self.library.slots(token_present=True)
            return [Token(self, slot) for slot in slots if _readable(slot)]

    def told_anew(self, token: Token) -> Token:
        """Return the token as it is now, which is to be given a PIN; see Token.look_anew()."""
        identity, slot_id = token.info.identity, token.slot_id

        def look() -> Token:
            alike = [each for each in self.present() if each.info.identity == identity]
            same = [each for each in alike if each.slot_id == slot_id] if len(alike) > 1 else alike
            if not same:
                raise TokenAwayError(
                    f"Token {identity} is gone, and was not given its PIN; insert it again and "
                    f"repeat the command."
                )
            return same[0]

        with self._lock:
            if self._sessions:
                raise TokenError(
                    f"This program uses the module of token {identity} already, so it does not "
                    f"see how many tries of the PIN are left; end that, and repeat the command."
                )
            return patiently(look)

    def stop(self) -> None:
        """Let go of every card until present() starts the module again; raises TokenError."""
        with translated(), self._lock:
            self.library.finalize()

    def slot_names(self) -> list[str]:
        """Return what the module calls its slots, empty ones included; raises TokenError."""
        with translated(), self._lock:
            return [_printable(slot.slot_description) for slot in self.library.slots()]


def patiently(look: Callable[[], T], *, while_raised: type[Exception] = TokenAwayError) -> T:
    """Look again for a moment as long as the token is away.

    SoftHSM2 shows no token whose file another program just writes, as with each login; of one
    that it has shown before it fails to tell (CKR_GENERAL_ERROR), or leaves out the
    serial number or the label.
    """
    looks = Retrying(
        retry=retry_if_exception_type(while_raised),
        stop=stop_after_delay(_PATIENCE_SECONDS),
        wait=wait_fixed(0.02),
        reraise=True,
    )
    return looks(look)


def choose_among(listed: list[Listed], selector: Selector) -> Token:
    """Choose among tokens that were listed, as Module.choose() does."""
    usable = [each for each in listed if each[1].initialised and each[1].login_required]
    if not usable:
        raise NoTokenError(
            "No token was found; insert it, see what `carnet doctor` finds, or have the security "
            "officer initialise one."
        )
    if selector is None:
        return _the_one(_with_pin(usable))
    named, those = called(selector), meant(usable, selector)
    if not those:
        raise TokenAwayError(f"There is no token {named}; choose one of {_names(usable)}.")
    return _the_one(_with_pin(those), f" {named}")


def meant(listed: list[Listed], selector: Selector) -> list[Listed]:
    """Return those of the listed tokens that are meant; more than one may be."""
    fit = fitting([info.identity for _, info in listed], selector)
    return [each for each, fits in zip(listed, fit, strict=True) if fits]


def _with_pin(listed: list[Listed]) -> list[Listed]:
    """Leave out those that never got a PIN, unless all are so: a cut-off one may stay for ever."""
    return [each for each in listed if each[1].pin_set] or listed


def _readable(slot: pkcs11.Slot) -> bool:
    """Tell whether there is a token in the slot; one that fails must not hide the others."""
    try:
        token = slot.get_token()
    except pkcs11.PKCS11Error:
        return False
    return not _is_half_read(token)


def _is_half_read(token: pkcs11.Token) -> bool:
    """Tell whether OpenSC did not get as far as a PIV card's number: it was pulled meanwhile."""
    is_piv = str(token.manufacturer_id).startswith("piv_II")
    return is_piv and not token.serial.strip(b"0 \0")


def _the_one(listed: list[Listed], which: str = "") -> Token:
    if len(listed) == 1:
        return listed[0][0]
    counted = f"There are {len(listed)} tokens{which}"
    if len({info.identity for _, info in listed}) == 1:
        raise TokenError(
            f"{counted}, alike in label and serial number; take one out, or give it another label "
            f"with its vendor's tool."
        )
    raise TokenError(
        f"{counted}; choose one with --token by label or serial number: {_names(listed)}."
    )


def _names(listed: list[Listed]) -> str:
    return ", ".join(sorted(str(info.identity) for _, info in listed))


@cache
def _load(path: Path) -> Module:
    return Module(path)


_loading = Lock()


def load_module(path: Path) -> Module:
    """Return the process's one Module of that path, loading it the first time.

    A module can be initialised but once a process. Raises TokenError if it does not
    load.
    """
    with _loading:
        return _load(path.resolve())
