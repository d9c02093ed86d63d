"""The Libreswan driver: ipsec.conf and ipsec.secrets in memory, whack and addconn."""

import subprocess
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from carnet import crash
from carnet.errors import AwayError, DaemonGoneError, IKERefusedError, IPsecError
from carnet.files import write_private
from carnet.ipsec import inner_address
from carnet.ipsec import libreswan_conf as conf
from carnet.ipsec import libreswan_leftovers as leftovers
from carnet.ipsec import libreswan_reports as reports
from carnet.ipsec.driver import Capabilities, Keep, Lead, TunnelEvent, TunnelStatus
from carnet.ipsec.forsaken import ended
from carnet.ipsec.iproute import NoWayError, is_left, way_to
from carnet.ipsec.kernel import kernel_has_ah, kernel_has_esp
from carnet.ipsec.libreswan_tools import ANSWER_TIME_LIMIT, DEFAULT_SOCKET, Tools
from carnet.ipsec.libreswan_watch import Watch, listener
from carnet.ipsec.main_mode import Turn
from carnet.ipsec.silence import LEFT
from carnet.ipsec.spec import Mode, Role, TunnelSpec
from carnet.ipsec.too_many import refuse_more
from carnet.ipsec.whole import all_or_nothing
from carnet.objectives import Objective


class Libreswan:
    """Libreswan's pluto, at its control socket. Safe to use from several threads."""

    name = "libreswan"
    resumes = False
    """Its secrets stand in a file, if only in memory; they are taken out once the tunnel stands."""

    def __init__(self, socket: Path | None = None) -> None:
        self._socket = socket or DEFAULT_SOCKET
        self._tools = Tools(self._socket)
        self._watching: set[Watch] = set()
        self._lock = threading.Lock()
        self._turn = Turn(self._awaited_in_main_mode, "its session is over")

    def answers(self) -> bool:
        """Tell whether the daemon is there for this user, if only silent."""
        return self._tools.answers()

    def capabilities(self) -> Capabilities:
        """Ask the daemon and the kernel what they can carry."""
        said = self._status()
        return Capabilities(
            driver=self.name,
            version=reports.version_of(said),
            ike_versions=reports.ike_versions_of(said),
            objectives=_carried(),
            modes=tuple(Mode),
            ppk=True,
            single_network=True,
        )

    def install(self, spec: TunnelSpec) -> None:
        """Give the daemon the tunnel and its secrets, in memory only.

        Raises IPsecError if this driver cannot carry the tunnel, or Libreswan refuses
        it; nothing of it is left then.
        """
        connection = conf.configuration(spec)
        if spec.objective not in _carried():
            raise conf.cannot_carry(f"the objective {spec.objective.label}")
        if spec.ike_version == 1 and 1 not in reports.ike_versions_of(self._status()):
            raise conf.cannot_carry("IKEv1 unless ipsec.conf has ikev1-policy=accept")
        self._tools.make_directory()
        with self._turn.of(spec), all_or_nothing(self.down, spec.name):
            self._tools.load_secrets(
                spec.name, conf.secrets(spec), conf.identity(spec.local_identity)
            )
            crash.reach("ipsec.secrets-loaded")
            self._tools.add(spec.name, connection)

    def _awaited_in_main_mode(self) -> list[str]:
        """Return by which connections anybody may come with IKEv1, ours or not.

        Also those whose tunnel stands and whose key is gone. Libreswan cannot take the
        connection away from its tunnel, and whoever has a key of her own may in Quick Mode
        ask for the address and the network of any of them, and is given both.
        """
        return reports.open_main_mode(self._status())

    def up(self, spec: TunnelSpec) -> TunnelStatus:
        """Initiate IKE (the paper's step 9), and confirm() what came up.

        With a PPK the IKE SA is rekeyed at once: only its successor is protected by the
        PPK too (RFC 8784 section 6).

        Raises IPsecError, saying why, if the tunnel does not come up whole; nothing of it
        is left then.
        """
        with all_or_nothing(self.down, spec.name):
            limit = conf.IKE_SECONDS + ANSWER_TIME_LIMIT
            said = self._tools.whack("--name", spec.name, "--initiate", seconds=limit)
            tunnel = self._tunnels().get(spec.name)
            if tunnel is None or not tunnel.established:
                raise reports.not_up(said)
            crash.reach("ipsec.initiated")
            if spec.ppk is not None:
                self._rekey_ike(tunnel)
            return self._compared(spec)

    def _rekey_ike(self, tunnel: reports.Tunnel) -> None:
        """Rekey, and return when the tunnel is its successor's; whack would wait for longer."""
        self._tools.whack("--name", tunnel.name, "--rekey-ike", "--asynchronous")
        look = Retrying(
            retry=retry_if_result(lambda now: now in (0, tunnel.ike_sa)),
            stop=stop_after_delay(conf.IKE_SECONDS),
            wait=wait_fixed(0.01),
        )
        try:
            look(self._ike_sa_of, tunnel.name)
        except RetryError as error:
            raise IPsecError(
                "Target does not rekey the tunnel for post-quantum protection;"
                " connect again, and ask its operator if that does not help."
            ) from error

    def _ike_sa_of(self, name: str) -> int:
        found = self._tunnels("--showstates").get(name)
        return found.ike_sa if found and found.established else 0

    def confirm(self, spec: TunnelSpec) -> TunnelStatus:
        """Compare the live tunnel with what was agreed, and lead the packets to it.

        Raises IPsecError if it is less, and removes all of it: nothing is downgraded.
        Nothing is removed where the daemon is silent, which AwayError says.
        """
        with all_or_nothing(self.down, spec.name, but=(AwayError,)):
            return self._compared(spec)

    def _compared(self, spec: TunnelSpec) -> TunnelStatus:
        """Do what confirm() does, and remove nothing."""
        tunnel = self._tunnels().get(spec.name, reports.Tunnel(spec.name))
        refuse_more(len(tunnel.ike_sas), len(tunnel.child_sas))
        in_udp = self._is_in_udp(tunnel)
        found = reports.shortfalls(spec, tunnel, encapsulated=in_udp)
        if found:
            raise IPsecError(
                f"The tunnel is less than was agreed ({', '.join(found)}) and nothing is"
                " downgraded, so it was ended; ask the operator of Target."
            )
        head = conf.head(spec)
        self._lead(tunnel, head, inner_address.install)
        return reports.status(tunnel, head, time.time(), encapsulated=in_udp)

    def _lead(self, tunnel: reports.Tunnel, head: conf.Head, install: Callable[..., None]) -> None:
        """Have packets led into a Client's tunnel, where it has an address inside."""
        if head.role is Role.CLIENT and head.virtual_address is not None:
            way = way_to(tunnel.local_address, tunnel.remote_address)
            self._tools.note_interface(tunnel.name, way.interface)
            install(head.virtual_address, head.networks, way.interface, way)

    def lead_again(self, name: str) -> None:
        """Set the routes that are gone, which are all ours to set, and the address if it is."""
        tunnel, head = self._tunnels().get(name), self._head_of(name)
        if tunnel is not None and tunnel.established and head is not None:
            # Without a way there is nothing to lead; whoever hears of one comes again.
            with suppress(NoWayError):
                self._lead(tunnel, head, inner_address.lead_again)

    def _is_in_udp(self, tunnel: reports.Tunnel) -> bool:
        """Ask the kernel, without its keys; where it does not say, it is taken to be so."""
        listed = subprocess.run(
            [*("ip", "-o", "xfrm", "state", "list", "nokeys"), *_selector(tunnel)],
            capture_output=True,
            text=True,
            check=False,
        )
        return listed.returncode != 0 or "encap type espinudp" in listed.stdout

    def forget_secrets(self, name: str) -> None:
        """Take the pre-shared keys out of the daemon; the SA lives on (step 10)."""
        self._tools.drop_secrets(name)

    def resumable(self) -> frozenset[str]:
        """Return none: the secrets of a tunnel that stands are gone."""
        return frozenset()

    def resume(self, name: str) -> TunnelStatus:
        """Raise IKERefusedError, unless the tunnel stands: only a new one can be had."""
        for status in self.status():
            if status.name == name:
                if is_left(status.local_address, status.remote_address, status.virtual_address):
                    raise IKERefusedError(LEFT)
                return status
        raise IKERefusedError(
            "Libreswan has no pre-shared key of this tunnel any more;"
            " run `carnet connect` for a new one, with the next key pair."
        )

    def take_leave(self, name: str) -> bool | None:
        """Leave it to down(): what stands is taken to be heard of, for nobody tells if it is."""
        self._tools.ask_briefly_first()
        return True if any(each.name == name for each in self.status()) else None

    def down(self, name: str) -> None:
        """End the tunnel and remove all of it; nothing to end is no error.

        Also the SAs of a daemon that was killed: whose they were, nothing tells. Without a
        daemon it goes out of the kernel all the same, which NothingLeftError says.
        """
        head = self._head_of(name)
        try:
            said = self._tools.delete(name)
        except DaemonGoneError as error:
            raise ended(error, clean=self._take_out(name, head)) from error
        if name in reports.tunnels(said):
            raise IPsecError(f"The tunnel {name} cannot be ended; restart the Libreswan daemon.")
        crash.reach("ipsec.terminated")
        address = head.virtual_address if head and head.role is Role.CLIENT else None
        # Routes go with a link that goes down, and the address stays: so it is written down, too.
        at = self._tools.interfaces(name)
        is_shared = address and not inner_address.remove(address, self._others(name), at)
        self._tools.drop_connection(name)
        if address and is_shared:
            # Of tunnels that end at the same time each was another's to the other until now.
            inner_address.remove(address, self._others(name), at)
        # It has ended whole; what others left is swept with the next one at the latest.
        with suppress(IPsecError):
            # At Target an address inside is one tunnel's alone.
            at_target = head and head.role is Role.TARGET and head.virtual_address
            if head and (at_target or (address and not is_shared)):
                leftovers.remove_policies(head)
            if head and head.role is Role.CLIENT:
                leftovers.sweep_reserved(head, said)
            leftovers.sweep(listener(self._socket), said)

    def _take_out(self, name: str, head: conf.Head | None) -> bool:
        """Take a tunnel out of the kernel without a daemon; tell if none of it is left.

        A Client's routes go first, so that nothing is led to where there is no policy any more.
        What is loaded stays so, for there is nothing that could be asked to unload it.
        """
        if head is not None and head.role is Role.CLIENT and head.virtual_address is not None:
            others = [lead for each, lead in self._loaded().items() if each != name]
            at = self._tools.interfaces(name)
            inner_address.remove(head.virtual_address, others, at)
        return leftovers.take_out(head)

    def _loaded(self) -> dict[str, Lead]:
        """Return where the tunnels lead that have files, as far as these tell."""
        heads = {name: self._head_of(name) for name in self._tools.names()}
        return {
            name: Lead(
                targets=frozenset(each for at in head.targets for each in _addresses(at)),
                networks=frozenset(head.networks),
                inner=frozenset(filter(None, [head.virtual_address])),
            )
            for name, head in heads.items()
            if head is not None and head.role is Role.CLIENT
        }

    def _others(self, name: str) -> list[Lead]:
        """Return where all tunnels lead but this one."""
        return [lead for each, lead in self.leads().items() if each != name]

    def status(self) -> list[TunnelStatus]:
        """Report the live tunnels of ours."""
        now = time.time()
        return [
            reports.status(
                tunnel, self._head_of(tunnel.name), now, encapsulated=self._is_in_udp(tunnel)
            )
            for tunnel in self._tunnels().values()
            if tunnel.established
        ]

    def installed(self) -> frozenset[str]:
        """Return the names of all that is ours in the daemon, whole or in pieces."""
        return self.remembered() | self._tools.names()

    def remembered(self) -> frozenset[str]:
        """Return of which tunnels of ours the daemon has a connection: files outlive it."""
        return frozenset(self._tunnels())

    def sweep(self, keep: Keep) -> list[str]:
        """Remove whatever of ours is not to be kept; return the names removed."""
        installed = self.installed()
        doomed = sorted(installed - keep())
        for name in doomed:
            self.down(name)
        leftovers.sweep(listener(self._socket), self._status())
        inner_address.sweep(lambda: self._addresses_of(keep()))
        return doomed

    def _addresses_of(self, names: Iterable[str]) -> set[str]:
        heads = map(self._head_of, names)
        return {head.virtual_address for head in heads if head and head.virtual_address}

    def leads(self) -> dict[str, Lead]:
        """Return by name where the tunnels of ours lead, live or loaded."""
        live = self._tunnels()
        found: dict[str, Lead] = {}
        for name in frozenset(live) | self._tools.names():
            head = self._head_of(name)
            inner = head.virtual_address if head and head.role is Role.CLIENT else None
            found[name] = Lead(
                targets=frozenset(_addresses(live[name].remote_address if name in live else "")),
                networks=frozenset(head.networks if head else ()),
                inner=frozenset((inner,) if inner else ()),
                identities=frozenset(each.lower() for each in (head.identities if head else ())),
            )
        return found

    def watch(self) -> Iterator[TunnelEvent]:
        """Yield what happens to tunnels of ours from this call on.

        Of an SA that takes another's place, as in a rekeying, or comes besides, it is told that
        something came up anew. Returns when the daemon goes away or close() is called.
        """
        watch = Watch(self._socket, self._standing)
        with self._lock:
            self._watching.add(watch)
        return self._events(watch)

    def _standing(self) -> dict[str, Hashable]:
        found = self._tunnels("--showstates")
        return {name: each.newest for name, each in found.items() if each.established}

    def _events(self, watch: Watch) -> Iterator[TunnelEvent]:
        try:
            yield from watch.events()
        finally:
            with self._lock:
                self._watching.discard(watch)

    def close(self) -> None:
        """End every watch(), from whichever thread."""
        with self._lock:
            watching = list(self._watching)
        for watch in watching:
            watch.stop()

    def render(self, spec: TunnelSpec) -> str:
        """Show what install() would write, secrets masked."""
        return conf.render(spec)

    def _tunnels(self, *order: str) -> dict[str, reports.Tunnel]:
        return reports.tunnels(self._tools.whack(*(order or ("--status", "--trafficstatus"))))

    def _status(self) -> str:
        return self._tools.whack("--status")

    def _head_of(self, name: str) -> conf.Head | None:
        try:
            return conf.head_of(self._tools.connection(name).read_text(errors="replace"))
        except OSError:
            return None

    def remind(self, name: str, lead: Lead) -> None:
        """Write the head of a Client's file anew where it is gone, or damaged."""
        if self._head_of(name) is not None:
            return
        inner = next(iter(lead.inner), None)
        head = conf.Head(Role.CLIENT, inner, tuple(lead.networks), tuple(lead.targets))
        with suppress(OSError):
            write_private(self._tools.connection(name), conf.head_line(head).encode())


def _carried() -> tuple[Objective, ...]:
    found = {Objective.AH: kernel_has_ah(), Objective.ESP: kernel_has_esp()}
    return tuple(each for each, carried in found.items() if carried)


def _addresses(text: str) -> Iterator[str]:
    """Yield it, unless it stands for whoever may come, or is not known."""
    with suppress(ValueError):
        yield str(ip_address(text))


def _selector(tunnel: reports.Tunnel) -> tuple[str, ...]:
    """Return for `ip xfrm` which SA comes in by the tunnel."""
    if not tunnel.spi:
        return ()
    return (
        *("src", tunnel.remote_address, "dst", tunnel.local_address),
        *("proto", tunnel.protocol.lower(), "spi", f"0x{tunnel.spi}"),
    )
