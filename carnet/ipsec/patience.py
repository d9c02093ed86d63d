"""Waiting for carnet-helper, which may be started anew, or for an IPsec daemon that is silent.

Their tunnels stand meanwhile.
"""

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_when_event_set,
    wait_exponential,
)
from tenacity.nap import sleep_using_event

from carnet.errors import AwayError

Found = TypeVar("Found")

_FIRST_SECONDS = 0.1
_MOST_SECONDS = 5.0


def pauses() -> Iterator[float]:
    """Yield the seconds of pauses that grow up to a bound, for ever."""
    seconds = _FIRST_SECONDS
    while True:
        yield seconds
        seconds = min(2 * seconds, _MOST_SECONDS)


def until_answered(
    ask: Callable[[], Found],
    enough: threading.Event | None = None,
    away: Callable[[AwayError], None] = lambda _: None,
) -> Found:
    """Return what `ask` returns, called again with pauses that grow while nobody answers.

    There is no limit but `enough`: what a tunnel stands on may be taken away from it by helper
    and daemon alone, and giving up would leave a tunnel that is to end, and that nobody watches.
    It costs a call every five seconds.

    `away` is called before each pause. Raises what `ask` raises: AwayError only when it is
    `enough`.
    """

    def tell(state: RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        if isinstance(error, AwayError):
            away(error)

    enough = enough or threading.Event()
    return Retrying(
        retry=retry_if_exception_type(AwayError),
        wait=wait_exponential(multiplier=_FIRST_SECONDS, max=_MOST_SECONDS),
        stop=stop_when_event_set(enough),
        sleep=sleep_using_event(enough),
        before_sleep=tell,
        reraise=True,
    )(ask)
