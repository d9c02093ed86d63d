"""Bringing a tunnel back that was lost: one try after the other, while its session lives.

Each may leave Target with half a negotiation, and of those a daemon takes few from one
address: so the pauses grow.
"""

import threading
from collections.abc import Callable, Iterator

from carnet.errors import (
    AwayError,
    IKERefusedError,
    IKESilentError,
    IKEUnprovenError,
    IPsecError,
)
from carnet.ipsec.driver import Driver
from token_client.ending import Ending
from token_client.memory import memory_directory
from token_client.record import Session
from token_client.returning import bring_back
from token_client.sessions import SessionStore

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 10.0
_UNPROVEN = "Target {} says no, and does not prove to be it; the tunnel comes back with it."
_SILENT = "Target {} is silent; the tunnel comes back with it."


class ComingBack:
    """One loss of a tunnel; `enough` is set when nobody wants it back any more."""

    def __init__(
        self,
        driver: Driver,
        session: Session,
        tell: Callable[[str], None],
        signed: Callable[[], Ending | None],
        enough: threading.Event,
    ) -> None:
        """Take `signed` for Target's own word of why the session is over, if it has one."""
        self._driver = driver
        self._session = session
        self._tell = tell
        self._signed = signed
        self._enough = enough
        self._told: set[str] = set()
        """Why it has not come back, as far as it was told."""

    def run(self) -> Ending | None:
        """Try until it is back, or enough; return why it never can be, if so.

        Target may be silent, or half silent, for long. A refusal is the end of it where Target
        signs that, or where it is this machine that lacks something. What keeps it here from
        coming back, as an address that means something where she is now, may pass: she is told.
        """
        target = self._session.target
        for pause in _pauses():
            try:
                self._try_once()
            except AwayError:
                pass
            except IKERefusedError as error:
                return self._signed() or Ending(error.sentence)
            except IKEUnprovenError:
                self._say_once(_UNPROVEN.format(target))
                signed = self._signed()
                if signed is not None:
                    return signed
            except IKESilentError:
                self._say_once(_SILENT.format(target))
            except IPsecError as error:
                self._say_once(f"The tunnel to {target} does not come back yet: {error.sentence}")
            else:
                self._tell(f"The tunnel to {target} is back.")
                return None
            if self._enough.wait(pause):
                return None
        return None

    def _try_once(self) -> None:
        """Let her own command go first, which may just be ending the session."""
        SessionStore(memory_directory()).wait_for_leave(self._session.name)
        bring_back(self._driver, self._session)

    def _say_once(self, why: str) -> None:
        if why not in self._told:
            self._tell(why)
        self._told.add(why)


def _pauses() -> Iterator[float]:
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
