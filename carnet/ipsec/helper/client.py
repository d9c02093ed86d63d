"""An ordinary user's way to the IPsec daemon and the packet filter: through carnet-helper."""

import socket
import struct
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from carnet.errors import HelperAwayError, IPsecError
from carnet.ipsec.block.closed import Closed, HeldBack
from carnet.ipsec.driver import Capabilities, Keep, TunnelEvent, TunnelStatus
from carnet.ipsec.helper import messages as say
from carnet.ipsec.helper.place import DEFAULT_SOCKET
from carnet.ipsec.inside.resolv_conf import ResolvConf
from carnet.ipsec.inside.resolved import Resolved
from carnet.ipsec.spec import TunnelSpec
from carnet.ipsec.unanswered import unanswered

_SECONDS = 90.0
"""For one call; an IKE negotiation of two connections may take twice 20."""
_ASKING_SECONDS = 12.0
"""For one that waits for no peer: a little longer than the helper for its IPsec daemon."""
_ASKING = (
    say.Capabilities, say.May, say.Resumes, say.Resumable, say.Status, say.Installed,
    say.Remembered, say.Works, say.Names, say.Whose,
)  # fmt: skip
_CONNECT_SECONDS = 5.0
"""In which the helper must have a place for one more who waits for it to take her call."""

_HUNG_UP = (
    "carnet-helper has hung up: it does as much for you as it does at once, or has just ended; try"
    " again soon, and start it (systemctl start carnet-helper) if that does not help."
)

_CROWDED = (
    "So many call carnet-helper just now that none could reach it in time; try again soon, and have"
    " the operator of this machine look at the helper's log if that does not help."
)


class _Link:
    """Calls, each over a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, call: say.Call, type_: Any = None) -> Any:
        """Return the result of a call. Raises IPsecError."""
        with self.open(call) as connection:
            return self.receive(connection, type_)

    def open(self, call: say.Call) -> socket.socket:
        """Return a connection over which a call was sent. Raises IPsecError.

        A helper that stood still just before is asked briefly first: see carnet.ipsec.unanswered.
        """
        try:
            unanswered.ask_first(self._path, self._ask_briefly)
            seconds = _ASKING_SECONDS if isinstance(call, _ASKING) else _SECONDS
            with unanswered.noted(self._path, BlockingIOError):
                return self._open(call, seconds)
        except OSError as error:
            raise self._silent(error) from error

    def _ask_briefly(self, seconds: float) -> None:
        """Ask what the helper says by itself, whatever that is."""
        with self._open(say.Resumes(), seconds) as connection:
            connection.recv(say.MAX_ANSWER)

    def _open(self, call: say.Call, seconds: float) -> socket.socket:
        """Return a connection over which a call was sent. Raises OSError.

        Only a socket that blocks waits for a place among those who call; else it has EAGAIN at
        once, as this has when its time is over (unix(7), socket(7)).
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _packed(seconds))
            connection.connect(str(self._path))
            connection.sendall(msgspec.json.encode(call))
            connection.settimeout(seconds)
        except BaseException:
            connection.close()
            raise
        return connection

    def receive(self, connection: socket.socket, type_: Any) -> Any:
        """Return the next result. Raises IPsecError."""
        try:
            with unanswered.noted(self._path, TimeoutError):
                data = connection.recv(say.MAX_ANSWER)
        except OSError as error:
            raise self._silent(error) from error
        if not data:
            raise HelperAwayError(_HUNG_UP)
        return say.result_of(data, type_)

    def _silent(self, error: OSError) -> HelperAwayError:
        if isinstance(error, PermissionError):
            return HelperAwayError(
                f"You may not use {self._path}; have the operator of this machine add you to its "
                f"group, and log in anew."
            )
        if isinstance(error, ConnectionResetError | BrokenPipeError):
            return HelperAwayError(_HUNG_UP)
        if isinstance(error, BlockingIOError):
            return HelperAwayError(_CROWDED)
        return HelperAwayError(
            f"carnet-helper does not answer at {self._path} ({error.strerror or error}); start it "
            f"(systemctl start carnet-helper), or run this as root."
        )


def _packed(seconds: float) -> bytes:
    """Return for how long a place is waited for, as the kernel takes it (struct timeval)."""
    return struct.pack("ll", *divmod(int(min(seconds, _CONNECT_SECONDS) * 1e6), 1_000_000))


class HelperDriver:
    """The driver of whoever has no privileges: the helper's, with the caller's tunnels in it."""

    name = "helper"

    def __init__(self, path: Path = DEFAULT_SOCKET) -> None:
        self._link = _Link(path)
        self._watching: set[socket.socket] = set()
        self._lock = threading.Lock()

    @property
    def resumes(self) -> bool:
        """Whether the helper's own driver can resume."""
        return bool(self._link.ask(say.Resumes(), bool))

    def answers(self) -> bool:
        """Tell whether helper and daemon are there."""
        try:
            self.capabilities()
        except IPsecError:
            return False
        return True

    def capabilities(self) -> Capabilities:
        """Ask what daemon and kernel can carry."""
        found: Capabilities = self._link.ask(say.Capabilities(), Capabilities)
        return found

    def check_limits(self, networks: Sequence[str]) -> None:
        """Refuse what the helper would refuse to a tunnel to these networks."""
        self._link.ask(say.May(networks=tuple(networks)))

    def install(self, spec: TunnelSpec) -> None:
        """Give the daemon the tunnel and its secrets."""
        self._link.ask(say.Install(spec=say.to_message(spec)))

    def up(self, spec: TunnelSpec) -> TunnelStatus:
        """Initiate IKE, and confirm what came up."""
        return self._report(say.Up(spec=say.to_message(spec)))

    def confirm(self, spec: TunnelSpec) -> TunnelStatus:
        """Compare the live tunnel with what was agreed."""
        return self._report(say.Confirm(spec=say.to_message(spec)))

    def _report(self, call: say.Call) -> TunnelStatus:
        found: TunnelStatus = self._link.ask(call, TunnelStatus)
        return found

    def forget_secrets(self, name: str) -> None:
        """Take the pre-shared keys out of the daemon."""
        self._link.ask(say.Forget(name=name))

    def resumable(self) -> frozenset[str]:
        """Return the caller's tunnels that can be negotiated anew."""
        return frozenset(self._link.ask(say.Resumable(), list[str]))

    def resume(self, name: str) -> TunnelStatus:
        """Initiate IKE anew for a tunnel that was lost."""
        return self._report(say.Resume(name=name))

    def lead_again(self, name: str) -> None:
        """Set the routes into the caller's tunnel that are gone, as the helper knows it."""
        self._link.ask(say.LeadAgain(name=name))

    def take_leave(self, name: str) -> bool | None:
        """End the caller's tunnel so that Target knows."""
        heard: bool | None = self._link.ask(say.Leave(name=name), bool | None)
        return heard

    def down(self, name: str) -> None:
        """End the tunnel and remove all of it."""
        self._link.ask(say.Down(name=name))

    def status(self) -> list[TunnelStatus]:
        """Report the caller's live tunnels."""
        found: list[TunnelStatus] = self._link.ask(say.Status(), list[TunnelStatus])
        return found

    def installed(self) -> frozenset[str]:
        """Return the names of all that is the caller's."""
        return frozenset(self._link.ask(say.Installed(), list[str]))

    def remembered(self) -> frozenset[str]:
        """Return of which tunnels of the caller's the helper's daemon itself has something."""
        return frozenset(self._link.ask(say.Remembered(), list[str]))

    def sweep(self, keep: Keep) -> list[str]:
        """Remove whatever of the caller's is not to be kept."""
        installed = self.installed()
        doomed = sorted(installed - keep())
        for name in doomed:
            self.down(name)
        return doomed

    def watch(self) -> Iterator[TunnelEvent]:
        """Yield what happens to the caller's tunnels from this call on.

        Raises HelperAwayError as the helper goes, unless close() was called.
        """
        connection = self._link.open(say.Watch())
        with self._lock:
            self._watching.add(connection)
        try:
            self._link.receive(connection, None)
            connection.settimeout(None)
        except BaseException:
            self._is_watching(connection)
            connection.close()
            raise
        return self._events(connection)

    def _events(self, connection: socket.socket) -> Iterator[TunnelEvent]:
        try:
            while True:
                yield self._link.receive(connection, TunnelEvent)
        except IPsecError:
            if self._is_watching(connection):
                raise
        finally:
            self._is_watching(connection)
            connection.close()

    def _is_watching(self, connection: socket.socket) -> bool:
        """Tell whether nobody has called close() for it, and see that it is no more watched."""
        with self._lock:
            watching = connection in self._watching
            self._watching.discard(connection)
        return watching

    def close(self) -> None:
        """End every watch()."""
        with self._lock:
            for connection in self._watching:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._watching.clear()

    def render(self, spec: TunnelSpec) -> str:
        """Show what the helper would be asked for, secrets masked."""
        shown = msgspec.to_builtins(say.to_message(spec))
        return "".join(
            f"{name} = {'***' if name in {'psk', 'ppk', 'ah_half'} else value}\n"
            for name, value in shown.items()
        )


class HelperFilter:
    """The packet filter of whoever has no privileges."""

    name = "carnet-helper"

    def __init__(self, path: Path = DEFAULT_SOCKET) -> None:
        self._link = _Link(path)

    def works(self) -> bool:
        """Whether it can be told here all that a block needs; raises HelperAwayError."""
        try:
            return bool(self._link.ask(say.Works(), bool))
        except HelperAwayError:
            raise  # not to be taken for a machine that has no block
        except IPsecError:
            return False

    def close(self, closed: Closed) -> None:
        """Close. Raises IPsecError."""
        self._link.ask(say.Close(block=say.to_block(closed)))

    def lift(self, name: str) -> None:
        """Take the block of that tunnel out. Raises IPsecError."""
        self._link.ask(say.Lift(name=name))

    def names(self) -> frozenset[str]:
        """Return the caller's tunnels that have a block here. Raises IPsecError."""
        return frozenset(self._link.ask(say.Names(), list[str]))

    def held_back(self) -> dict[str, HeldBack]:
        """Return nothing: the helper itself looks at what another's holds back."""
        return {}


class HelperInside:
    """What belongs to the inside of a tunnel, for whoever has no privileges."""

    def __init__(self, path: Path = DEFAULT_SOCKET) -> None:
        self._link = _Link(path)

    def fit(
        self,
        name: str,
        address: str,  # noqa: ARG002
        mtu: int,
        peers: Collection[str],  # noqa: ARG002
        networks: Collection[str],  # noqa: ARG002
    ) -> None:
        """Have no longer ones go in; the helper knows where the tunnel leads. Raises IPsecError."""
        self._link.ask(say.Fit(name=name, mtu=mtu))

    def use_servers(self, name: str, servers: Sequence[str]) -> str | None:
        """Have names looked up at a tunnel's servers; return why that cannot be had, if so.

        What the helper mounts may be a mount in its own unit alone: here it is looked at.
        """
        try:
            trouble: str | None = self._link.ask(
                say.Servers(name=name, servers=tuple(servers)), str | None
            )
        except IPsecError as error:
            return error.sentence.rstrip(".")
        seen = Resolved(None).is_meant() or ResolvConf(None).whose() == name
        if trouble is None and not seen:
            self.restore_servers(name)
            return "carnet-helper runs where its mounts are its own"
        return trouble

    def follow_servers(self, name: str) -> None:
        """Have a tunnel's servers go with it to another interface, if they are used at all."""
        with suppress(IPsecError):
            if Resolved(None).is_meant():
                self._link.ask(say.Follow(name=name))

    def whose_servers(self) -> str | None:
        """Return the caller's tunnel whose servers are used; None where there is none."""
        try:
            found: str | None = self._link.ask(say.Whose(), str | None)
        except IPsecError:
            return None
        return found

    def restore_servers(self, name: str) -> bool:
        """Put back what there was before that tunnel's; tell whether there was anything to."""
        try:
            return bool(self._link.ask(say.Restore(name=name), bool))
        except IPsecError:
            return False

    def restore_unrecorded(self, servers: Sequence[str]) -> bool:  # noqa: ARG002
        """Leave it to the helper, whose records nobody else writes to."""
        return False
