"""The background agent at its work, which token_client.background started.

It is two processes. The worker loads the PKCS#11 module, which may crash, and runs the
loop of token_client.watch; the supervisor starts it again.
"""

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

from filelock import FileLock, Timeout
from msgspec.structs import replace

from carnet.errors import UsageError
from carnet.ipsec.driver import Driver
from token_client.background import command_of
from token_client.closing import release
from token_client.config import ClientConfig, OnRemoval
from token_client.memory import memory_directory
from token_client.sessions import Session, SessionStore

_CRASHES = 5
"""So many in a row, and the token counts as not watched over."""
_IN_A_ROW_SECONDS = 60.0
_WORKER = "--worker"


def supervise(driver: Driver, session: Session, config: ClientConfig) -> None:
    """Keep a worker running until it is done; raises IPsecError.

    One that crashes again and again watches over nothing: what happens then is what
    happens when the token is pulled. Where another supervisor is at work, this one has
    nothing to do.
    """
    with suppress(Timeout), _watched_by_this_process(session):
        _supervise(driver, session, config)


def _watched_by_this_process(session: Session) -> FileLock:
    """Return the lock of whoever watches over a tunnel; it goes with its process."""
    directory = memory_directory()
    if directory is None:
        raise UsageError("There is no file system in memory here, and so no record of a tunnel.")
    return FileLock(directory / f"agent-{session.name}.lock", timeout=0, mode=0o600)


def _supervise(driver: Driver, session: Session, config: ClientConfig) -> None:
    crashes: list[float] = []
    while subprocess.call([*command_of(session.name), _WORKER], stdin=subprocess.DEVNULL):
        if not _is_recorded(session):
            return  # `carnet disconnect` was faster than the worker
        now = time.monotonic()
        crashes = [then for then in crashes if now - then < _IN_A_ROW_SECONDS] + [now]
        if len(crashes) >= _CRASHES:
            if config.on_removal is not OnRemoval.KEEP:
                _end(driver, session, "What watched over its token failed again and again.")
            return


def work(
    driver: Driver, session: Session, config: ClientConfig, tell: Callable[[str], None]
) -> None:
    """Watch over the tunnel, and end it where that is what the configuration says.

    Why it ended stays in its record, for `carnet status`. Raises IPsecError, TokenError.
    """
    from token_client.announce import announce  # noqa: PLC0415 - the worker's alone
    from token_client.watch import Ending, Watch, lookout  # noqa: PLC0415

    def say(sentence: str) -> None:
        tell(sentence)
        announce(sentence)

    def end(ending: Ending) -> int:
        if _is_recorded(session):  # else `carnet disconnect`: she knows
            say(ending.sentence)
            if ending.pulled or ending.over:
                _end(driver, session, ending.sentence)
        return 0

    end(Watch(driver, session, lookout(config, session), config, say, end).run())


def _end(driver: Driver, session: Session, why: str) -> None:
    driver.down(session.name)
    recorded, store = _is_recorded(session), SessionStore(memory_directory())
    release(store, session.name)
    if recorded:
        store.keep(replace(session, ended=why))


def _is_recorded(session: Session) -> bool:
    """Tell whether this machine still knows of the tunnel."""
    return any(one.name == session.name for one in SessionStore(memory_directory()).all())
