"""Doing what a caller asks for, as far as it is hers to ask."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from carnet.errors import IKERefusedError, IPsecError
from carnet.ipsec import block
from carnet.ipsec.driver import Driver, Telling, TunnelEvent
from carnet.ipsec.helper import messages as said
from carnet.ipsec.inside import Inside
from carnet.ipsec.spec import TunnelSpec
from carnet.ipsec.surroundings import Surroundings, look_around
from helper_agent.claims import Held, Holding, Leading, held, holdings, leading
from helper_agent.config import HelperConfig
from helper_agent.guard import Guard, is_installed
from helper_agent.inner import Inner
from helper_agent.limits import (
    check_assigned,
    check_block,
    check_networks,
    check_spec,
    check_virtual,
)
from helper_agent.name_servers import NOT_HERS, Servers
from helper_agent.owners import Owners
from helper_agent.places import Places

_AGAIN_SECONDS = 1.0
"""Until what was ended as it was being brought up, and went on, is ended again."""


class Service:
    """What the helper does, for the caller whose user id the kernel vouches for."""

    def __init__(
        self,
        config: HelperConfig,
        driver: Driver,
        owners: Owners,
        own_addresses: Callable[[], frozenset[str]],
        inside: Inside,
        around: Callable[[int], Surroundings] = look_around,
    ) -> None:
        self._config = config
        self._driver = driver
        self._owners = owners
        self._own_addresses = own_addresses
        self._inside = inside
        self.name_servers = Servers(config, driver, owners, inside, self._blocks)
        self._inner = Inner(driver, owners, own_addresses)
        self._guard = Guard(driver, owners, self._went)
        self._around = around
        self._negotiating = Places(per_user=2, for_all=3, seconds=30.0)
        self._taking_leave = Places(per_user=1, for_all=2, seconds=3.0)
        """Apart, so that what is to end does not wait for what is to come up."""
        self._changed = threading.Condition()
        self._making: set[str] = set()
        """What has an owner, and perhaps nothing else yet."""
        self._rising: set[str] = set()
        """What is being brought up."""
        self._leaving: Counter[str] = Counter()
        """What may have something yet of which nothing is listed."""

    def sweep(self) -> None:
        """Let all go that has an owner and nothing else.

        A helper that was killed left that, or the daemon could not be asked as it went. No
        name becomes anybody's meanwhile.
        """
        with self._changed, suppress(IPsecError):
            idle = self._owners.names() - self._making - self._leaving.keys()
            over = idle - self._left() if idle else frozenset()
            if over:
                self._inner.clear()
            for name in over:
                self._owners.forget(name)

    def begin(self) -> None:
        """Look after what stands already, also where the daemon does not answer yet."""
        self._inner.clear_in_time()
        self.sweep()
        if self._owners.names():
            self._guard.begin_in_time()

    def look_on(self, enough: threading.Event) -> None:
        """Look after what nobody tells of, from now on, until it is enough."""
        self.name_servers.look_on(enough, self._inner.pay)

    def _went(self) -> None:
        """Take away what must not stay of a tunnel that went."""
        self.name_servers.look()
        self._inner.clear_in_time()

    def obey(self, uid: int, call: said.AnyCall) -> object:
        """Return the result of a call. Raises IPsecError.

        Her name servers, which it may have left without a tunnel, are looked at in any case.
        """
        try:
            return _DOERS[type(call)](self, uid, call)
        finally:
            name = said.name_of(call)
            if name is not None and self._owners.owns(uid, name):
                self.name_servers.look(name)

    def watch(self, uid: int, driver: Driver) -> Iterator[TunnelEvent]:
        """Yield what happens to the caller's tunnels; `driver` is this watch's own."""
        events = driver.watch()
        return (self._guard.said(each) for each in events if self._owners.owns(uid, each.name))

    def capabilities(self, _: int, __: said.Capabilities) -> object:
        """Tell what daemon and kernel can carry."""
        return self._driver.capabilities()

    def may(self, uid: int, call: said.May) -> object:
        """Refuse now what would be refused to a tunnel to these networks."""
        check_assigned(self._driver.capabilities(), self._config)
        check_networks(call.networks, self._config)
        self.sweep()
        wanted = Holding(uid, blocks=(Held(frozenset(call.networks)),))
        self._owners.check(wanted, self._others(self._driver.installed()))
        return None

    def install(self, uid: int, call: said.Install) -> object:
        """Give the daemon a tunnel that is the caller's from now on."""
        spec = said.to_spec(call.spec)
        check_spec(call.spec, self._config)
        check_assigned(self._driver.capabilities(), self._config)
        leads = leading(call.spec)
        self._check_virtual(leads)
        if self._owners.owns(uid, spec.name):
            self.name_servers.restore(spec.name)  # which may be outside the new networks
        with self._claimed(spec.name, Holding(uid, leads)):
            self._driver.install(spec)
        return None

    def up(self, uid: int, call: said.Up) -> object:
        """Initiate what she has installed.

        What this machine is in may be another since, and what is hers may be by the time this
        one's turn has come: so all is looked at again then.
        """
        self._hers(uid, call.spec)
        with self._negotiated(uid, call.spec.name):
            spec = self._hers(uid, call.spec)
            self._check_virtual(leading(call.spec))
            return self._driver.up(spec)

    def confirm(self, uid: int, call: said.Confirm) -> object:
        """Compare what stands with what she says was agreed."""
        spec = self._hers(uid, call.spec)
        try:
            return self._driver.confirm(spec)
        except IPsecError:
            self._let_go(call.spec.name)
            raise

    def forget(self, uid: int, call: said.Forget) -> object:
        """Take the keys of what is hers out of the daemon."""
        if self._owners.owns(uid, call.name):
            self._driver.forget_secrets(call.name)
        return None

    def resumes(self, _: int, __: said.Resumes) -> object:
        """Tell whether tunnels here can be negotiated anew at all."""
        return self._driver.resumes

    def resumable(self, uid: int, _: said.Resumable) -> object:
        """Name what is hers and can be negotiated anew."""
        return [each for each in self._driver.resumable() if self._owners.owns(uid, each)]

    def resume(self, uid: int, call: said.Resume) -> object:
        """Negotiate anew what is hers, which this machine may have moved away from meanwhile."""
        if not self._owners.owns(uid, call.name):
            raise IPsecError(NOT_HERS)
        with self._negotiated(uid, call.name):
            installed = self._owners.installed(uid, call.name)
            if installed is None:
                raise IPsecError(NOT_HERS)
            self._check_virtual(installed, call.name)
            status = self._driver.resume(call.name)
            if not is_installed(status, installed):
                self._driver.down(call.name)
                raise IKERefusedError(
                    "The tunnel came back as another than was installed, so it was ended;"
                    " run `carnet connect` for a new one, with the next key pair."
                )
            return status

    def leave(self, uid: int, call: said.Leave) -> object:
        """Tell Target that what is hers ends; what comes up for it is not to stand."""
        if not self._owners.owns(uid, call.name):
            return None
        with self._taking_leave.taken(uid), self._kept(call.name), self._guard.apart(call.name):
            return self._driver.take_leave(call.name)

    def down(self, uid: int, call: said.Down) -> object:
        """End what is hers; of another's she is told what she is told where there is none.

        What is just being brought up is ended first, and once more when that is over: it may
        have set something meanwhile.
        """
        if self._owners.owns(uid, call.name):
            try:
                self._cut_short(call.name)
                self._driver.down(call.name)
            finally:
                self.name_servers.restore(call.name)
                self._inner.clear_in_time()
            self._let_go(call.name)
        return None

    def status(self, uid: int, _: said.Status) -> object:
        """Report what is hers."""
        return [each for each in self._driver.status() if self._owners.owns(uid, each.name)]

    def installed(self, uid: int, _: said.Installed) -> object:
        """Name what is hers."""
        return [each for each in self._driver.installed() if self._owners.owns(uid, each)]

    def works(self, _: int, __: said.Works) -> object:
        """Tell whether there is a packet filter."""
        return block.is_possible()

    def close(self, uid: int, call: said.Close) -> object:
        """Hold packets back for a tunnel that is the caller's from now on."""
        check_block(call.block, self._config)
        userspace = self._driver.capabilities().userspace
        parts = {name: getattr(call.block, name) for name in said.Block.__struct_fields__}
        wanted = held(call.block)
        holding = Holding(uid, blocks=(wanted,), made_by=block.filter_name())
        with self._claimed(call.block.name, holding):
            self.name_servers.look(call.block.name)
            block.close(block.Closed(**parts, userspace=userspace))
            self._owners.settle(call.block.name, wanted)
        return None

    def lift(self, uid: int, call: said.Lift) -> object:
        """Take a block out that is hers."""
        if self._owners.owns(uid, call.name):
            self.name_servers.restore_unless_it_stands(call.name)
            block.lift(call.name, self._owners.block(call.name))
            self._let_go(call.name)
        return None

    def names(self, uid: int, _: said.Names) -> object:
        """Name the blocks that are hers."""
        return [each for each in self._blocks() if self._owners.owns(uid, each)]

    def fit(self, uid: int, call: said.Fit) -> object:
        """Have packets for what is hers as short as she says."""
        found = next((each for each in self._driver.status() if each.name == call.name), None)
        address = found.virtual_address if found else None
        if self._owners.owns(uid, call.name) and found and address is not None:
            self._inside.fit(call.name, address, call.mtu, {found.remote_address})
        return None

    def servers(self, uid: int, call: said.Servers) -> object:
        """Have all of this machine's names looked up in what is hers, where that may be."""
        if not self._owners.owns(uid, call.name):
            raise IPsecError(NOT_HERS)
        with self._turn(call.name):
            return self.name_servers.use(uid, call.name, call.servers)

    def follow(self, uid: int, call: said.Follow) -> object:
        """Have the name servers of what is hers go with it."""
        if self._owners.owns(uid, call.name):
            self.name_servers.follow(call.name)
        return None

    def whose(self, uid: int, _: said.Whose) -> object:
        """Name the tunnel whose name servers are used, if it is hers."""
        using = self._inside.whose_servers()
        return using if using and self._owners.owns(uid, using) else None

    def restore(self, uid: int, call: said.Restore) -> object:
        """Take the name servers of what is hers away."""
        if not self._owners.owns(uid, call.name):
            return False
        restored = self.name_servers.restore(call.name)
        self._let_go(call.name)
        return restored

    @contextmanager
    def _claimed(self, name: str, wanted: Holding) -> Iterator[None]:
        """Make a name hers, and what of it is made in here. Raises IPsecError."""
        self.sweep()
        try:
            with self._turn(name):
                names = self._driver.installed()
                installed, others = name in names, self._others(names)
                taken = installed or name in self._blocks()
                self._owners.claim(name, wanted, taken=taken, installed=installed, others=others)
                yield
        except IPsecError:
            self._let_go(name)
            raise

    @contextmanager
    def _negotiated(self, uid: int, name: str) -> Iterator[None]:
        """Bring something up in here, as soon as a place is free and nothing else is done to it.

        Raises IPsecError.
        """
        try:
            with self._negotiating.taken(uid), self._turn(name):
                self._rising.add(name)
                try:
                    with self._guard.apart(name):
                        yield
                finally:
                    self._rising.remove(name)
        except IPsecError:
            self._let_go(name)
            raise

    def _cut_short(self, name: str) -> None:
        """End what is being brought up until that is over: its end is not to wait for a peer.

        It is ended again because the negotiation may only just have begun. Raises IPsecError.
        """
        while name in self._rising:
            self._driver.down(name)
            with self._changed:
                self._changed.wait_for(lambda: name not in self._rising, _AGAIN_SECONDS)

    @contextmanager
    def _kept(self, name: str) -> Iterator[None]:
        """Keep a name from being let go in here, whatever else is done to it."""
        with self._changed:
            self._leaving[name] += 1
        try:
            yield
        finally:
            with self._changed:
                self._leaving -= Counter({name: 1})
            self._let_go(name)

    @contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        """Keep a name from being let go, and from being made anything else of, in here."""
        with self._changed:
            self._changed.wait_for(lambda: name not in self._making)
            self._making.add(name)
        try:
            yield
        finally:
            with self._changed:
                self._making.remove(name)
                self._changed.notify_all()

    def _others(self, installed: frozenset[str]) -> list[Holding]:
        """Return what tunnels hold that root made past the helper. Raises IPsecError."""
        past = installed - self._owners.names()
        if not past or not isinstance(self._driver, Telling):
            return []
        leads = self._driver.leads()
        return [each for name in past & leads.keys() for each in holdings(leads[name])]

    def _left(self) -> frozenset[str | None]:
        """Return the names of all that is left. Raises IPsecError."""
        return self._driver.installed() | self._blocks() | {self._inside.whose_servers()}

    def _blocks(self) -> frozenset[str]:
        """Return the names that have a block, by whichever packet filter. Raises IPsecError."""
        return block.names(map(self._owners.block, self._owners.names()))

    def _check_virtual(self, leads: Leading, name: str | None = None) -> None:
        """Look at its address; what stands by that name, if any, may have set it already.

        Raises IPsecError.
        """
        live = self._driver.status() if name else ()
        its = {each.virtual_address for each in live if each.name == name}
        check_virtual(leads, self._config, self._own_addresses() - its, self._around)

    def _hers(self, uid: int, spec: said.Spec) -> TunnelSpec:
        """Return a spec of what she has installed. Raises IPsecError if it is not that, or hers.

        A driver makes routes and policies of the spec that it is to bring up: with another
        one than was installed, they could lead past all that was checked.
        """
        check_spec(spec, self._config)
        if self._owners.installed(uid, spec.name) != leading(spec):
            raise IPsecError(NOT_HERS)
        return said.to_spec(spec)

    def _let_go(self, name: str) -> None:
        """Let a name go if nothing is left of it; what cannot be asked may have something."""
        with self._changed, suppress(IPsecError):
            held = name in self._making or name in self._leaving
            if not held and name not in self._left():
                self._inner.clear()
                self._owners.forget(name)


_DOERS: dict[type[said.Call], Callable[[Service, int, Any], object]] = {
    said.Capabilities: Service.capabilities,
    said.May: Service.may,
    said.Install: Service.install,
    said.Up: Service.up,
    said.Confirm: Service.confirm,
    said.Forget: Service.forget,
    said.Resumes: Service.resumes,
    said.Resumable: Service.resumable,
    said.Resume: Service.resume,
    said.Leave: Service.leave,
    said.Down: Service.down,
    said.Status: Service.status,
    said.Installed: Service.installed,
    said.Works: Service.works,
    said.Close: Service.close,
    said.Lift: Service.lift,
    said.Names: Service.names,
    said.Fit: Service.fit,
    said.Servers: Service.servers,
    said.Follow: Service.follow,
    said.Whose: Service.whose,
    said.Restore: Service.restore,
}
