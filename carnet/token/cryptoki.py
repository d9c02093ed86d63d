"""A PKCS#11 module loaded so that several threads may call it at once.

python-pkcs11 calls C_Initialize(NULL), which promises the module that no two
threads will call it at the same time (PKCS#11 v2.40 section 5.4), but releases the
interpreter's lock during calls: modules then crash under threads. It has no
C_InitToken either. Both are had here through the module's own function list.
"""

import contextlib
import ctypes
import os
from collections.abc import Callable

import pkcs11
from pkcs11 import _pkcs11

from carnet.token.locks import takes_locks

PARAMETERS_VARIABLE = "CARNET_PKCS11_PARAMETERS"
"""What a module wants to be told when it starts, as NSS's softoken does, in its own words."""

_OS_LOCKING_OK = 0x00000002
_LABEL_SIZE = 32
_USER_STATES = frozenset({1, 3})
"""CKS_RO_USER_FUNCTIONS and CKS_RW_USER_FUNCTIONS."""
_NOT_INITIALIZED = 0x00000190
_UNAVAILABLE = ctypes.c_ulong(-1).value
"""CK_UNAVAILABLE_INFORMATION."""
_LOOKS = 5
"""How often slots are listed while tokens keep coming."""
_TOO_SMALL = "Buffer was too small"
"""In python-pkcs11's words, which has no class for it."""
_LEAST_MEMORY = 1024
"""Bytes; what tells of less tells nothing: NSS's softoken says 1."""


def given_parameters() -> str | None:
    """Return what modules of this process are told when they start; None if nothing."""
    return os.environ.get(PARAMETERS_VARIABLE)


class NotInitializedError(pkcs11.PKCS11Error):
    """CKR_CRYPTOKI_NOT_INITIALIZED, for which python-pkcs11 has no class."""


class _Packed(ctypes.Structure):
    # PKCS#11 v2.40 section 2.1: structures are packed on Windows, aligned elsewhere.
    _pack_ = 1 if os.name == "nt" else 0


class _InitializeArguments(_Packed):
    """CK_C_INITIALIZE_ARGS; without mutex functions the module uses the system's."""

    _fields_ = (
        ("mutex_functions", ctypes.c_void_p * 4),
        ("flags", ctypes.c_ulong),
        ("reserved", ctypes.c_void_p),
    )


class _SessionInfo(_Packed):
    """CK_SESSION_INFO."""

    _fields_ = (
        ("slot_id", ctypes.c_ulong),
        ("state", ctypes.c_ulong),
        ("flags", ctypes.c_ulong),
        ("device_error", ctypes.c_ulong),
    )


class _TokenInfo(_Packed):
    """CK_TOKEN_INFO."""

    _fields_ = (
        ("texts", ctypes.c_ubyte * 96),
        ("flags_and_sessions", ctypes.c_ulong * 5),
        ("longest_pin", ctypes.c_ulong),
        ("shortest_pin", ctypes.c_ulong),
        ("total_public_memory", ctypes.c_ulong),
        ("free_public_memory", ctypes.c_ulong),
        ("total_private_memory", ctypes.c_ulong),
        ("free_private_memory", ctypes.c_ulong),
        ("versions_and_time", ctypes.c_ubyte * 20),
    )


class _FunctionList(_Packed):
    """The beginning of CK_FUNCTION_LIST, as far as it is called here."""

    _fields_ = (
        ("version", ctypes.c_ubyte * 2),
        (
            "C_Initialize",
            ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.POINTER(_InitializeArguments)),
        ),
        ("C_Finalize", ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)),
        ("infos_and_slots", ctypes.c_void_p * 4),
        (
            "C_GetTokenInfo",
            ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong, ctypes.POINTER(_TokenInfo)),
        ),
        ("mechanisms", ctypes.c_void_p * 2),
        (
            "C_InitToken",
            ctypes.CFUNCTYPE(
                ctypes.c_ulong, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p
            ),
        ),
        ("pins_and_sessions", ctypes.c_void_p * 5),
        (
            "C_GetSessionInfo",
            ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong, ctypes.POINTER(_SessionInfo)),
        ),
    )


_ERRORS: dict[int, type[pkcs11.PKCS11Error]] = {
    0x00000003: pkcs11.SlotIDInvalid,
    0x00000030: pkcs11.DeviceError,
    0x00000032: pkcs11.DeviceRemoved,
    0x00000054: pkcs11.FunctionNotSupported,
    0x000000A0: pkcs11.PinIncorrect,
    0x000000A1: pkcs11.PinInvalid,
    0x000000A2: pkcs11.PinLenRange,
    0x000000A4: pkcs11.PinLocked,
    0x000000B0: pkcs11.SessionClosed,
    0x000000B3: pkcs11.SessionHandleInvalid,
    0x000000B6: pkcs11.SessionExists,
    0x000000E0: pkcs11.TokenNotPresent,
    0x000000E1: pkcs11.TokenNotRecognised,
    0x000000E2: pkcs11.TokenWriteProtected,
    _NOT_INITIALIZED: NotInitializedError,
}


def steady(list_once: Callable[[], list[pkcs11.Slot]]) -> list[pkcs11.Slot]:
    """Return slots as python-pkcs11 lists them, though tokens come and go meanwhile.

    It asks for their number and then for as many: a token that came in between is
    CKR_BUFFER_TOO_SMALL, and one that went is slot 0 in its place, maybe once more.
    """
    for _ in range(_LOOKS - 1):
        try:
            return _each_once(list_once())
        except pkcs11.PKCS11Error as error:
            if type(error) is not pkcs11.PKCS11Error or _TOO_SMALL not in str(error):
                raise
    return _each_once(list_once())


def _each_once(slots: list[pkcs11.Slot]) -> list[pkcs11.Slot]:
    return list({slot.slot_id: slot for slot in slots}.values())


def _check(function: str, code: int) -> None:
    if code != 0:
        raise _ERRORS.get(code, pkcs11.GeneralError)(f"{function} returned {code:#x}")


def check_loads(path: str) -> None:
    """Raise OSError unless there is a PKCS#11 module at this path that can be loaded."""
    try:
        _ = ctypes.CDLL(path).C_GetFunctionList
    except AttributeError as error:
        raise OSError(f"{path} is no PKCS#11 module") from error


class Cryptoki(_pkcs11.lib):
    """The library of python-pkcs11, initialised with CKF_OS_LOCKING_OK where that can be.

    Raises pkcs11.PKCS11Error if it does not start; see check_loads().
    """

    def __init__(self, path: str) -> None:
        # The parent's __init__ would call C_Initialize(NULL); its __cinit__, which
        # loads the module, has run by now.
        self._module = ctypes.CDLL(path)
        self._locks = takes_locks(path)
        functions = ctypes.POINTER(_FunctionList)()
        _check("C_GetFunctionList", self._module.C_GetFunctionList(ctypes.byref(functions)))
        self._functions = functions.contents
        self.initialize()

    def initialize(self) -> None:
        """Call C_Initialize, asking for locks, with the environment's parameters if any.

        Without arguments, which promises that only one thread calls at a time, where the
        module fails with locks.
        """
        parameters = given_parameters()
        text = None if parameters is None else ctypes.c_char_p(os.fsencode(parameters))
        arguments = _InitializeArguments(
            flags=_OS_LOCKING_OK, reserved=ctypes.cast(text, ctypes.c_void_p) if text else None
        )
        given = ctypes.byref(arguments) if self._locks else None
        _check("C_Initialize", self._functions.C_Initialize(given))

    def finalize(self) -> None:
        """Call C_Finalize, which ends every session of the process.

        A module that is not initialised, since something else ended it or it could not
        be started last time, is what is wanted.
        """
        with contextlib.suppress(NotInitializedError):
            _check("C_Finalize", self._functions.C_Finalize(None))

    def slots(self, *, token_present: bool = False) -> list[pkcs11.Slot]:
        """Return the slots, each once; raises PKCS11Error."""
        return steady(lambda: self.get_slots(token_present=token_present))

    def is_logged_in(self, session: int) -> bool:
        """Tell whether the session of that handle is the user's; PKCS11Error if it is gone."""
        info = _SessionInfo()
        code = self._functions.C_GetSessionInfo(session, ctypes.byref(info))
        _check("C_GetSessionInfo", code)
        return info.state in _USER_STATES

    def free_memory(self, slot_id: int) -> int | None:
        """Return the bytes that are left for private objects; None if the token does not tell."""
        info = self._token_info(slot_id)
        total, free = info.total_private_memory, info.free_private_memory
        return free if _LEAST_MEMORY <= total < _UNAVAILABLE and free <= total else None

    def longest_pin(self, slot_id: int) -> int | None:
        """Return how many bytes a user's PIN has at most; None if the token does not tell."""
        longest = self._token_info(slot_id).longest_pin
        return longest if 0 < longest < _UNAVAILABLE else None

    def _token_info(self, slot_id: int) -> _TokenInfo:
        info = _TokenInfo()
        _check("C_GetTokenInfo", self._functions.C_GetTokenInfo(slot_id, ctypes.byref(info)))
        return info

    def reinitialize(self) -> None:
        """Start the module again; also where it did not come up the last time."""
        self.finalize()
        self.initialize()

    def init_token(self, slot_id: int, so_pin: str, label: str) -> None:
        """Call C_InitToken, which destroys whatever the token holds.

        Raises ValueError for a label of more than 32 bytes.
        """
        padded = label.encode().ljust(_LABEL_SIZE)
        if len(padded) > _LABEL_SIZE:
            raise ValueError(f"A token label has at most {_LABEL_SIZE} bytes.")
        pin = so_pin.encode()
        _check("C_InitToken", self._functions.C_InitToken(slot_id, pin, len(pin), padded))
