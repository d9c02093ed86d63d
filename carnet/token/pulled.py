"""A card that is pulled in the middle is called that, whatever its module says of it.

A module that loses its card says so, or that it failed in general, or that a PIN is not
locked. The card's reader knows better; a token without one is left to its module. That a
PIN was tried and refused is said all the same: it is one try less, wherever the card is.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from carnet.errors import PinTriedError, TokenAwayError, TokenError
from carnet.token.frozen import unless_frozen
from carnet.token.module import Token
from carnet.token.readers import Reader, look_at_readers

NOTICED_SECONDS = 1.0
"""Within which the PC/SC service notices that a card was pulled: it looks every 0.4 s."""


class Pulled(msgspec.Struct):
    """What there is to say where the token is pulled."""

    then: str
    """What became of it, and what to do; another thing as soon as that is another."""


@contextmanager
def saying_if_pulled(token: Token, then: str) -> Iterator[Pulled]:
    """Let a TokenError say so where the token was pulled meanwhile, and what to do then.

    Raises TokenAwayError then, also where the token is back; PinTriedError as it is.
    """
    label, slot_name = token.info.label, token.slot_name
    before = _reader_of(slot_name)
    pulled = Pulled(then)
    try:
        yield pulled
    except PinTriedError:
        raise
    except TokenError as error:
        if before is None or (before.occupied and _stays(before)):
            raise
        raise TokenAwayError(f"Token {label} was pulled out, in the middle; {pulled.then}") from (
            error
        )


def _stays(before: Reader) -> bool:
    """Tell whether the card is in its reader still, after the time in which that is noticed."""
    looks = Retrying(
        retry=retry_if_result(lambda reader: reader == before),
        stop=stop_after_delay(NOTICED_SECONDS),
        wait=wait_fixed(0.05),
        retry_error_callback=lambda _: before,
    )
    return looks(_reader_of, before.slot_name, before) == before


def _reader_of(slot_name: str, unless_served: Reader | None = None) -> Reader | None:
    """Return the reader as it is now; `unless_served` where there is no PC/SC service."""
    with unless_frozen():
        readers = look_at_readers()
    if readers is None:
        return unless_served
    return next((one for one in readers if one.slot_name == slot_name), None)
