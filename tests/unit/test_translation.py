"""PKCS#11 return codes as errors of one hierarchy."""

import pkcs11
import pytest

from carnet.errors import (
    PinRefusedError,
    PinTriedError,
    TokenAwayError,
    TokenCannotError,
    TokenError,
)
from carnet.token.cryptoki import NotInitializedError
from carnet.token.translation import GONE, as_token_error


@pytest.mark.parametrize(
    "error",
    [
        *(gone() for gone in GONE),
        pkcs11.DeviceError(),
        NotInitializedError("C_GetSessionInfo returned 0x190"),
        pkcs11.PKCS11Error("PKCS11 library not initialized"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_come_back_is_away(error):
    assert type(as_token_error(error)) is TokenAwayError


def test_a_reader_that_does_not_answer_says_what_to_do():
    assert as_token_error(pkcs11.DeviceError()).sentence == (
        "The reader or its card does not answer; end other programs that use it, "
        "or plug it in again."
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (pkcs11.PinIncorrect, PinTriedError),
        (pkcs11.PinLocked, PinTriedError),
        (pkcs11.UserPinNotInitialized, PinRefusedError),
        (pkcs11.MechanismInvalid, TokenCannotError),
        (pkcs11.DeviceMemory, TokenError),
        (pkcs11.GeneralError, TokenError),
    ],
)
def test_what_does_not_come_back_by_itself_is_none_of_it(error, kind):
    assert type(as_token_error(error())) is kind
