"""The strongSwan driver: tunnels and secrets through VICI, nothing on disk."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tenacity import (
    RetryCallState,
    Retrying,
    retry_base,
    retry_if_exception_type,
    retry_if_result,
    stop_after_delay,
    wait_fixed,
)
from vici import Session
from vici.exception import CommandException

from carnet.errors import IPsecError
from carnet.ipsec import strongswan_messages as messages
from carnet.ipsec import strongswan_reports as reports
from carnet.ipsec.driver import Capabilities, TunnelEvent, TunnelStatus
from carnet.ipsec.kernel import kernel_has_esp
from carnet.ipsec.spec import Mode, Role, TunnelSpec
from carnet.ipsec.strongswan_algorithms import unknown_words, weak_words
from carnet.ipsec.vici_link import ANSWER_TIME_LIMIT, Events, find_socket, open_session, text
from carnet.objectives import Objective

IKE_TIME_LIMIT = 20.0
"""Seconds for one IKE negotiation: three retransmissions of strongSwan's (4, 7.2, 13 s)."""

DELETE_TIME_LIMIT = 2.0
"""Seconds in which the peer may acknowledge that a tunnel ends; it ends without, too."""

IKE_VERSIONS = (2,)
"""IKEv1 has no PPK, and a wrong pre-shared key shows there only as silence."""

SETTLE_TIME_LIMIT = 2.0
"""Seconds for what the daemon does within milliseconds, yet not in one step: a rekeyed
IKE_SA handing over to its successor, the lease of an ended one coming back."""

_USERSPACE_ESP = "kernel-libipsec"


class StrongSwan:
    """strongSwan's charon, at its VICI socket; every operation is a session of its own.

    `ike_time_limit` is in seconds. Safe to use from several threads.
    """

    name = "strongswan"

    def __init__(self, socket: Path | None = None, ike_time_limit: float = IKE_TIME_LIMIT) -> None:
        self._socket = socket or find_socket()
        self._ike_time_limit = ike_time_limit
        self._watching: set[Events] = set()
        self._lock = threading.Lock()

    def capabilities(self) -> Capabilities:
        """Ask the daemon and the kernel what they can carry."""
        with open_session(self._socket) as session:
            version = text(session.version())["version"]
            plugins = text(session.stats())["plugins"]
        esp = _USERSPACE_ESP in plugins or kernel_has_esp()
        return Capabilities(
            driver=self.name,
            version=version,
            ike_versions=IKE_VERSIONS,
            objectives=(Objective.ESP,) if esp else (),
            modes=(Mode.TUNNEL,) if esp else (),
            ppk=True,
        )

    def install(self, spec: TunnelSpec) -> None:
        """Give the daemon the tunnel and its secrets, in memory only.

        Raises IPsecError if this driver cannot carry the tunnel, or the daemon
        refuses it; nothing of it is left in the daemon then.
        """
        _refuse_what_cannot_be_carried(spec)
        with self._all_or_nothing(spec.name), open_session(self._socket) as session:
            for key in messages.shared_keys(spec):
                session.load_shared(key)
            addresses = messages.pool(spec)
            if addresses is not None:
                session.load_pool(addresses)
            session.load_conn(messages.connection(spec))

    def up(self, spec: TunnelSpec) -> TunnelStatus:
        """Initiate IKE (the paper's step 9), and confirm() what came up.

        With a PPK the IKE_SA is rekeyed at once: only its successor is protected by
        the PPK too (RFC 8784 section 6).

        Raises IPsecError, saying why, if the tunnel does not come up whole; nothing
        of it is left then.
        """
        with self._all_or_nothing(spec.name):
            self._initiate(spec.name)
            if spec.ppk is not None:
                self._rekey_ike(spec.name)
        return self.confirm(spec)

    def _initiate(self, name: str) -> None:
        """Negotiate on a thread, so that an interrupt is heard meanwhile.

        It would leave the daemon negotiating, and the library waiting for its answer:
        ending the negotiation ends the thread too.
        """
        with ThreadPoolExecutor(1, "initiate") as thread:
            negotiation = thread.submit(self._negotiate, name)
            try:
                negotiation.result()
            except BaseException:
                self._terminate(name)
                raise

    def _negotiate(self, name: str) -> None:
        log: list[str] = []
        milliseconds = int(self._ike_time_limit * 1000)
        order = {"ike": name, "child": name, "timeout": str(milliseconds)}
        with open_session(self._socket, self._ike_time_limit + ANSWER_TIME_LIMIT) as session:
            try:
                log.extend(text(line)["msg"] for line in session.initiate(order))
            except CommandException as error:
                raise reports.not_up(log) from error

    def _rekey_ike(self, name: str) -> None:
        with Events(self._socket, ["ike-rekey"], self._ike_time_limit) as events:
            with open_session(self._socket) as session:
                session.rekey({"ike": name})
            try:
                while not reports.rekeyed(events.next(), name):
                    pass
            except OSError as error:
                raise IPsecError(
                    "Target does not rekey the tunnel for post-quantum protection;"
                    " connect again, and ask its operator if that does not help."
                ) from error

    def confirm(self, spec: TunnelSpec) -> TunnelStatus:
        """Compare the live tunnel with what was agreed.

        Raises IPsecError if it is less, and removes all of it: nothing is downgraded.
        """
        with self._all_or_nothing(spec.name):
            live = [sa for _, sa in self._settled_sas(spec.name) if reports.is_live(sa)]
            found = reports.shortfalls(spec, live[-1]) if live else ["it is not established"]
            if found:
                raise IPsecError(
                    f"The tunnel is less than was agreed ({', '.join(found)}) and nothing is"
                    " downgraded, so it was ended; ask the operator of Target."
                )
            return reports.status(spec.name, live[-1])

    def forget_secrets(self, name: str) -> None:
        """Take the pre-shared keys out of the daemon; the SA lives on (step 10)."""
        with open_session(self._socket) as session:
            _unload_keys(session, name)

    def down(self, name: str) -> None:
        """End the tunnel and remove all of it; nothing to end is no error."""
        self._terminate(name)
        with open_session(self._socket) as session:
            if name in text(session.get_conns())["conns"]:
                session.unload_conn({"name": name})
            if name in session.get_pools():
                _settling(retry_if_exception_type(CommandException))(
                    session.unload_pool, {"name": name}
                )
            _unload_keys(session, name)

    def _terminate(self, name: str) -> None:
        """End the tunnel's IKE_SAs, half-open ones too, and see that they are gone."""
        order = {"ike": name, "force": "yes", "timeout": str(int(DELETE_TIME_LIMIT * 1000))}
        if not self._list_sas(name):
            return
        with open_session(self._socket) as session:
            try:
                list(session.terminate(order))
            except CommandException as error:
                # It may have ended by itself, or ended without the peer's consent.
                if self._list_sas(name):
                    raise IPsecError(
                        f"The tunnel {name} cannot be ended; restart the strongSwan daemon."
                    ) from error

    def status(self) -> list[TunnelStatus]:
        """Report the live tunnels of ours."""
        return [
            reports.status(name, sa)
            for name, sa in self._settled_sas()
            if messages.is_ours(name) and reports.is_live(sa)
        ]

    def sweep(self, keep: frozenset[str]) -> list[str]:
        """Remove whatever of ours is not to be kept; return the names removed."""
        doomed = sorted(self.installed() - keep)
        for name in doomed:
            self.down(name)
        return doomed

    def installed(self) -> frozenset[str]:
        """Return the names of all that is ours in the daemon, whole or in pieces."""
        names = {name for name, _ in self._list_sas()}
        with open_session(self._socket) as session:
            names |= set(text(session.get_conns())["conns"])
            names |= set(session.get_pools())
            names |= {messages.tunnel_of_key(key) for key in text(session.get_shared())["keys"]}
        return frozenset(name for name in names if messages.is_ours(name))

    def watch(self) -> Iterator[TunnelEvent]:
        """Yield what happens to tunnels of ours from this call on.

        A rekeying is no event. Returns when the daemon goes away or close() is called.
        """
        # An IKE_SA that ends reports each of its CHILD_SAs down, so these events are enough.
        events = Events(self._socket, ["child-updown"])
        with self._lock:
            self._watching.add(events)
        return self._tunnel_events(events)

    def _tunnel_events(self, events: Events) -> Iterator[TunnelEvent]:
        try:
            while True:
                event = reports.event(events.next())
                if event is not None:
                    yield event
        except OSError:
            return  # the daemon went away, or close() was called
        finally:
            with self._lock:
                self._watching.discard(events)
            events.close()

    def close(self) -> None:
        """End every watch(), from whichever thread."""
        with self._lock:
            watching = list(self._watching)
        for events in watching:
            events.stop()

    def render(self, spec: TunnelSpec) -> str:
        """Show what install() would load, in the manner of swanctl.conf, secrets masked."""
        return messages.render(spec)

    def _settled_sas(self, name: str | None = None) -> list[tuple[str, dict[str, Any]]]:
        """Return the IKE_SAs as _list_sas() does, none of them just handing over."""
        return _settling(retry_if_result(reports.is_handing_over))(self._list_sas, name)

    def _list_sas(self, name: str | None = None) -> list[tuple[str, dict[str, Any]]]:
        """Return the IKE_SAs, by connection name, in the order of their making."""
        wanted = {"ike": name} if name else {}
        with open_session(self._socket) as session:
            reported = [text(sa) for sa in session.list_sas(wanted)]
        sas = [item for sa in reported for item in sa.items()]
        return sorted(sas, key=lambda item: int(item[1]["uniqueid"]))

    @contextmanager
    def _all_or_nothing(self, name: str) -> Iterator[None]:
        """Remove all of the tunnel if something in here fails; that failure is what counts."""
        try:
            yield
        except BaseException as failure:
            try:
                self.down(name)
            except IPsecError as error:
                failure.add_note(error.sentence)
            raise


def _settling(condition: retry_base) -> Retrying:
    """Look or try again as long as the daemon has not settled; then take it as it is."""
    return Retrying(
        retry=condition,
        stop=stop_after_delay(SETTLE_TIME_LIMIT),
        wait=wait_fixed(0.02),
        retry_error_callback=_as_it_is,
    )


def _as_it_is(state: RetryCallState) -> Any:
    return state.outcome.result() if state.outcome else None


def _unload_keys(session: Session, name: str) -> None:
    for key_id in messages.key_ids(name):
        session.unload_shared({"id": key_id})


def _refuse_what_cannot_be_carried(spec: TunnelSpec) -> None:
    unknown = unknown_words(spec.ike_proposals + spec.esp_proposals)
    weak = weak_words(spec.ike_proposals + spec.esp_proposals)
    for refused, what in (
        (spec.objective is not Objective.ESP, f"the objective {spec.objective.label}"),
        (spec.mode is not Mode.TUNNEL, f"{spec.mode} mode"),
        (spec.ike_version not in IKE_VERSIONS, f"IKEv{spec.ike_version}"),
        (not spec.ike_proposals or not spec.esp_proposals, "a tunnel without proposals"),
        (bool(spec.ah_proposals), "AH proposals"),
        (bool(unknown), f"the algorithms {', '.join(unknown)}"),
        (bool(weak), f"the weak algorithms {', '.join(weak)}"),
        (spec.role is Role.CLIENT and not spec.remote_addresses, "a Client that knows no Target"),
    ):
        if refused:
            raise IPsecError(
                f"The strongSwan driver cannot carry {what} and nothing is downgraded;"
                " choose another objective or driver."
            )
