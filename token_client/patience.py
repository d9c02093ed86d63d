"""Waiting for carnet-helper, which may be started anew while its tunnels stand."""

import threading
from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_when_event_set, wait_exponential
from tenacity.nap import sleep_using_event

from carnet.errors import HelperAwayError

Found = TypeVar("Found")

_FIRST_SECONDS = 0.1
_MOST_SECONDS = 5.0


def until_the_helper_is_back(
    ask: Callable[[], Found],
    enough: threading.Event | None = None,
    away: Callable[[], None] = lambda: None,
) -> Found:
    """Return what `ask` returns, called again with pauses that grow while the helper is away.

    There is no limit but `enough`: what a tunnel stands on may be taken away from it by the
    helper alone, and giving up would leave a tunnel that is to end, and that nobody watches.
    It costs a call every five seconds.

    `away` is called before each pause. Raises what `ask` raises: HelperAwayError only when it
    is `enough`.
    """
    enough = enough or threading.Event()
    return Retrying(
        retry=retry_if_exception_type(HelperAwayError),
        wait=wait_exponential(multiplier=_FIRST_SECONDS, max=_MOST_SECONDS),
        stop=stop_when_event_set(enough),
        sleep=sleep_using_event(enough),
        before_sleep=lambda _: away(),
        reraise=True,
    )(ask)
