"""The helper's socket: who calls is what the kernel says (SO_PEERCRED), and how often is limited.

One call a connection, one thread a connection; both are few for each user, so that none
keeps the others out.
"""

import grp
import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from carnet.errors import IPsecError, UsageError
from carnet.ipsec.driver import Driver
from carnet.ipsec.helper import messages as said
from carnet.trouble import Trouble
from helper_agent.service import Service

log = structlog.get_logger()

CONNECTIONS_PER_USER = 8
CONNECTIONS = 64
CALL_SECONDS = 5.0
"""In which a call must have arrived."""
_TAKEN_IN = struct.pack("ll", 5, 0)
"""Seconds and microseconds in which a caller must take in what she is told of her tunnels: else
the IPsec daemon would keep all that it has to tell of anybody's."""
_CREDENTIALS = struct.Struct("3i")

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
        number = _number_of(group)
        if path.stat().st_gid != number:
            os.chown(path, -1, number)
        path.chmod(0o660)
        listening.listen(CONNECTIONS)
    except (OSError, KeyError) as error:
        listening.close()
        raise UsageError(
            f"Cannot make the socket {path} for the group {group}: {error}; make the group "
            f"(groupadd --system {group}), and run this as root."
        ) from error
    return listening


def _number_of(group: str) -> int:
    return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid


class Server:
    """Serves until the listening socket is closed."""

    def __init__(
        self, listening: socket.socket, service: Service, make_driver: Callable[[], Driver]
    ) -> None:
        self._listening = listening
        self._service = service
        self._make_driver = make_driver
        self._open: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._stopped = False
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
            if not self._take_place(uid):
                log.warning("too-many-connections", uid=uid)
                connection.close()
                continue
            self._begin(connection, uid)

    def _begin(self, connection: socket.socket, uid: int) -> None:
        """Serve it by a thread of its own, if the system lets the helper have one more."""
        thread = threading.Thread(target=self._serve_one, args=(connection, uid), daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._crowded.tell(str(error))
            connection.close()
            self._give_place(uid)
        else:
            self._crowded.over()

    def stop(self) -> None:
        """Take no more calls."""
        self._stopped = True
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _take_place(self, uid: int) -> bool:
        with self._lock:
            if self._open[uid] >= CONNECTIONS_PER_USER or self._open.total() >= CONNECTIONS:
                return False
            self._open[uid] += 1
            return True

    def _give_place(self, uid: int) -> None:
        with self._lock:
            self._open[uid] -= 1

    def _serve_one(self, connection: socket.socket, uid: int) -> None:
        about: dict[str, str] = {}
        try:
            with connection:
                self._obey(connection, uid, about)
        except OSError as error:
            log.info("caller-gone", uid=uid, **about, reason=str(error))
        except Exception:
            log.exception("call-failed", uid=uid, **about)
        finally:
            self._give_place(uid)

    def _obey(self, connection: socket.socket, uid: int, about: dict[str, str]) -> None:
        """Do what is asked; what is logged of the call is `about` from then on."""
        connection.settimeout(CALL_SECONDS)
        try:
            call = _decoder.decode(_receive(connection))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            log.warning("not-understood", uid=uid, reason=type(error).__name__)
            return
        about |= _about(call)
        try:
            if isinstance(call, said.Watch):
                self._watch(connection, uid)
                return
            answer = said.answer_of(self._do(uid, call))
            log.info("done", uid=uid, **about)
        except IPsecError as error:
            log.info("refused", uid=uid, **about, reason=error.sentence)
            answer = said.failure_of(error)
        connection.sendall(answer)

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
