"""The helper's socket: who calls is what the kernel says (SO_PEERCRED), and how often is limited.

One call a connection, one thread a connection; both are few for each user, so that none
keeps the others out. What ends something, or only asks, has no place among the calls of all, which
several users in league may hold: each user can always end what is hers.
"""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path

import msgspec
import structlog

from carnet.errors import HelperAwayError, IPsecError, UsageError
from carnet.ipsec.driver import Driver
from carnet.ipsec.helper import messages as said
from carnet.trouble import Trouble
from helper_agent.callers import NO_MEMBER, Callers
from helper_agent.members import number_of
from helper_agent.places import Places
from helper_agent.service import Service

log = structlog.get_logger()

CONNECTIONS_PER_USER = 8
"""Of which it is not known yet what they are for, or that end something or ask."""
CALLS_PER_USER = 8
CALLS = 64
"""Of all users together, but for what ends something, asks, or watches."""
CONNECTIONS = WATCHES = 64
"""Of each of these kinds of all users together, but that each user has one in any case."""
WATCHES_PER_USER = 8
"""Of each user, whatever the others have: who is not told of her tunnel would lose it."""
_TOLD_SECONDS = 60.0
"""In which the log has one line of whom is hung up on for want of a place, of each user."""
CALL_SECONDS = 5.0
"""In which a call must have arrived."""
_TAKEN_IN = struct.pack("ll", 5, 0)
"""Seconds and microseconds in which a caller must take in what she is told of her tunnels: else
the IPsec daemon would keep all that it has to tell of anybody's."""
_CREDENTIALS = struct.Struct("3i")

_UNCOUNTED = (
    said.Down, said.Lift, said.Restore, said.Forget, said.Leave,
    said.Capabilities, said.Resumes, said.Resumable, said.Status, said.Installed,
    said.Remembered, said.Works, said.Names, said.Whose,
)  # fmt: skip
"""What ends something, or only asks."""
_KEEPING = (said.Watch, said.Fit, said.Follow, said.LeadAgain)
"""What keeps up something that is the caller's, and makes nothing new."""
_FULL = "Too much is asked of carnet-helper just now; try again soon."
_UNKNOWN_USER = (
    "Your user id is no member of carnet-helper's group in this machine's user database; have the"
    " operator of this machine add you to it, and log in anew."
)

_decoder = msgspec.json.Decoder(said.AnyCall)


def listen(path: Path, group: str) -> socket.socket:
    """Return a new listening socket, which root and that group may use.

    Raises UsageError if there can be none.
    """
    try:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:
        raise UsageError(
            f"This system lets the helper make no local socket ({error.strerror}); let its unit "
            f"have AF_UNIX (RestrictAddressFamilies=)."
        ) from error
    try:
        path.parent.mkdir(mode=0o755, exist_ok=True)
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            listening.bind(str(path))
        finally:
            os.umask(before)
        number = number_of(group)
        if path.stat().st_gid != number:
            os.chown(path, -1, number)
        path.chmod(0o660)
        listening.listen(socket.SOMAXCONN)
    except (OSError, KeyError) as error:
        listening.close()
        raise UsageError(
            f"Cannot make the socket {path} for the group {group}: {error}; make the group "
            f"(groupadd --system {group}), and run this as root."
        ) from error
    return listening


class Server:
    """Serves until the listening socket is closed."""

    def __init__(
        self,
        listening: socket.socket,
        service: Service,
        make_driver: Callable[[], Driver],
        is_member: Callable[[int], bool],
    ) -> None:
        """Have only members, by their user ids, make anything; anybody keeps and ends hers.

        `is_member` may take long; nobody waits for it who does not need its answer.
        """
        self._listening = listening
        self._service = service
        self._make_driver = make_driver
        self._callers = Callers(is_member, service.parts.owners.has_any)
        self._connections = Places(CONNECTIONS_PER_USER, CONNECTIONS, one_kept=True)
        self._calls = Places(CALLS_PER_USER, CALLS)
        self._watches = Places(WATCHES_PER_USER, WATCHES, one_kept=True)
        self._stopped = False
        self._told: dict[int, float] = {}
        """When whoever had no place was told of last, by whom they counted as."""
        self._crowded = Trouble(log, "call-not-served", "calls-served-again")

    @property
    def failed(self) -> list[str]:
        """Names what the helper is to do and does not; empty: it is well."""
        return [*self._service.failed, *([] if _can_serve() else ["calls"])]

    def serve(self, alive: Callable[[], None] = lambda: None, every: float | None = None) -> None:
        """Take calls until stop() is called, and say so every so often, in seconds.

        Raises IPsecError if no more can be taken, so that a service
        manager starts it anew.
        """
        due = time.monotonic()
        while True:
            if every is not None and time.monotonic() >= due:
                alive()
                due = time.monotonic() + every
            try:
                self._listening.settimeout(every)
                connection, _ = self._listening.accept()
            except TimeoutError:
                continue
            except OSError as error:
                if self._stopped:
                    return
                raise IPsecError(
                    f"The helper can take no more calls ({error.strerror}); start it anew."
                ) from error
            uid = _caller(connection)
            counted = self._callers.known(uid)
            if self._connections.take(counted):
                self._begin(connection, uid, counted)
            else:
                connection.close()
                self._tell_of_too_many(uid, counted)

    def _begin(self, connection: socket.socket, uid: int, counted: int) -> None:
        """Serve it by a thread of its own, if the system lets the helper have one more."""
        about = (connection, uid, counted)
        thread = threading.Thread(target=self._serve_one, args=about, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._crowded.tell(str(error))
            connection.close()
            self._connections.give(counted)
        else:
            self._crowded.over()

    def _tell_of_too_many(self, uid: int, counted: int) -> None:
        """Say that there was no place, unless that was said a moment ago."""
        now = time.monotonic()
        if now - self._told.get(counted, float("-inf")) >= _TOLD_SECONDS:
            self._told[counted] = now
            log.warning("too-many-connections", uid=uid)

    def stop(self) -> None:
        """Take no more calls."""
        self._stopped = True
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _serve_one(self, connection: socket.socket, uid: int, counted: int) -> None:
        about: dict[str, str] = {}
        try:
            with ExitStack() as place, connection:
                place.callback(self._connections.give, counted)
                found = self._callers.counted(uid) if counted < 0 else counted
                if found != counted:
                    place.close()
                    if not self._connections.take(found):
                        self._tell_of_too_many(uid, found)
                        return
                    place.callback(self._connections.give, found)
                self._obey(connection, uid, found, about, place)
        except OSError as error:
            log.info("caller-gone", uid=uid, **about, reason=str(error))
        except Exception:
            log.exception("call-failed", uid=uid, **about)

    def _obey(
        self,
        connection: socket.socket,
        uid: int,
        counted: int,
        about: dict[str, str],
        place: ExitStack,
    ) -> None:
        """Do what is asked; what is logged of the call is `about` from then on.

        The `place` of the connection is given back for one among the calls, where it needs that.
        """
        connection.settimeout(CALL_SECONDS)
        try:
            call = _decoder.decode(_receive(connection))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            log.warning("not-understood", uid=uid, reason=type(error).__name__)
            return
        about |= _about(call)
        try:
            with self._counted(call, uid, counted, place):
                if isinstance(call, said.Watch):
                    self._watch(connection, uid)
                    return
                answer = said.answer_of(self._do(uid, call))
            log.info("done", uid=uid, **about)
        except IPsecError as error:
            log.info("refused", uid=uid, **about, reason=error.sentence)
            answer = said.failure_of(error)
        connection.sendall(answer)

    def _counted(
        self, call: said.AnyCall, uid: int, counted: int, place: ExitStack
    ) -> AbstractContextManager[object]:
        """Return the place that a call has. Raises IPsecError where it may have none.

        That is HelperAwayError where there is none free: nothing is known from that of a tunnel.
        """
        if isinstance(call, _UNCOUNTED):
            return nullcontext()
        may = isinstance(call, _KEEPING) or self._callers.is_member(uid)
        if counted == NO_MEMBER or not may:
            raise IPsecError(_UNKNOWN_USER)
        places = self._watches if isinstance(call, said.Watch) else self._calls
        if not places.take(counted):
            raise HelperAwayError(_FULL)
        taken = ExitStack()
        taken.callback(places.give, counted)
        place.close()
        return taken

    def _do(self, uid: int, call: said.AnyCall) -> object:
        """Return what comes of it. Raises IPsecError, also where this machine lets nothing be."""
        try:
            return self._service.obey(uid, call)
        except OSError as error:  # not of her connection
            raise IPsecError(
                f"carnet-helper cannot do that ({error}); have the operator of this machine make"
                " room there or look at the helper's log, and try again."
            ) from error

    def _watch(self, connection: socket.socket, uid: int) -> None:
        """Tell the caller what happens to her tunnels until she or the daemon goes."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TAKEN_IN)
        driver = self._make_driver()
        events = self._service.watch(uid, driver)
        try:
            threading.Thread(target=_close_with, args=(connection, driver), daemon=True).start()
            connection.sendall(said.answer_of(None))
            log.info("watching", uid=uid)
            for event in events:
                connection.sendall(said.answer_of(event))
        finally:
            driver.close()
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _can_serve() -> bool:
    """Tell whether the system lets the helper have a thread, as each call needs one."""
    try:
        threading.Thread(target=int, daemon=True).start()
    except RuntimeError:
        return False
    return True


def _about(call: said.Call) -> dict[str, str]:
    """Return what is logged of a call: which it is, and the tunnel, if it is of one."""
    name = said.name_of(call)
    return {"call": type(call).__name__.lower()} | ({"tunnel": name} if name else {})


def _close_with(connection: socket.socket, driver: Driver) -> None:
    """End a watch when its caller goes, or says another word."""
    with suppress(OSError):
        connection.settimeout(None)
        connection.recv(1)
    driver.close()


def _receive(connection: socket.socket) -> bytes:
    """Return one message. Raises ValueError if it is longer than one may be."""
    data, _, flags, _ = connection.recvmsg(said.MAX_MESSAGE)
    if flags & socket.MSG_TRUNC:
        raise ValueError("too long")
    return data


def _caller(connection: socket.socket) -> int:
    """Return the user id of who connected, as the kernel knows it (unix(7))."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(packed)
    return int(uid)
