"""Beginning a tunnel, bringing it back, and ending it."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from carnet.errors import IKERefusedError, IPsecError
from carnet.ipsec.driver import Shared
from carnet.ipsec.helper import messages as said
from carnet.ipsec.spec import TunnelSpec
from helper_agent.claims import Held, Holding, identities, leading
from helper_agent.guard import is_installed
from helper_agent.limits import check_assigned, check_networks, check_others, check_spec
from helper_agent.owners import NOT_HERS
from helper_agent.parts import Parts

log = structlog.get_logger()

_UNKNOWN = (
    "carnet-helper cannot tell what came up, so it was ended; run `carnet connect` for a new"
    " tunnel, with the next key pair, and have the operator of this machine look at the helper's"
    " log if that does not help."
)


def may(parts: Parts, uid: int, call: said.May) -> object:
    """Refuse now what would be refused to a tunnel to these networks."""
    _check_daemon(parts)
    check_networks(call.networks, parts.config)
    parts.virtual.check_networks(call.networks)
    parts.names.check(Holding(uid, blocks=(Held(frozenset(call.networks)),)))
    return None


def install(parts: Parts, uid: int, call: said.Install) -> object:
    """Give the daemon a tunnel that is the caller's from now on."""
    spec = said.to_spec(call.spec)
    check_spec(call.spec, parts.config)
    _check_daemon(parts)
    leads = leading(call.spec)
    parts.virtual.check(leads)
    if parts.owners.owns(uid, spec.name):
        parts.name_servers.restore(spec.name)  # which may be outside the new networks
    with parts.names.claimed(spec.name, Holding(uid, leads, identities=identities(call.spec))):
        parts.driver.install(spec)
    return None


def up(parts: Parts, uid: int, call: said.Up) -> object:
    """Initiate what she has installed.

    What this machine is in may be another since, and what is hers may be by the time this
    one's turn has come: so all is looked at again then.
    """
    _hers(parts, uid, call.spec)
    with parts.negotiating.brought_up(uid, call.spec.name), _known(parts, call.spec.name):
        spec = _hers(parts, uid, call.spec)
        parts.virtual.check(leading(call.spec))
        return parts.driver.up(spec)


def confirm(parts: Parts, uid: int, call: said.Confirm) -> object:
    """Compare what stands with what she says was agreed."""
    spec = _hers(parts, uid, call.spec)
    try:
        with _known(parts, spec.name):
            return parts.driver.confirm(spec)
    except IPsecError:
        parts.names.sweep()
        raise


def forget(parts: Parts, uid: int, call: said.Forget) -> object:
    """Take the keys of what is hers out of the daemon."""
    if parts.owners.owns(uid, call.name):
        parts.driver.forget_secrets(call.name)
    return None


def resume(parts: Parts, uid: int, call: said.Resume) -> object:
    """Negotiate anew what is hers, which this machine may have moved away from meanwhile."""
    if not parts.owners.owns(uid, call.name):
        raise IPsecError(NOT_HERS)
    with parts.negotiating.brought_up(uid, call.name), _known(parts, call.name):
        installed = parts.owners.installed(uid, call.name)
        if installed is None:
            raise IPsecError(NOT_HERS)
        parts.virtual.check_unless_it_stands(installed, call.name)
        status = parts.driver.resume(call.name)
        if not is_installed(status, installed):
            parts.driver.down(call.name)
            raise IKERefusedError(
                "The tunnel came back as another than was installed, so it was ended;"
                " run `carnet connect` for a new one, with the next key pair."
            )
        return status


def leave(parts: Parts, uid: int, call: said.Leave) -> object:
    """Tell Target that what is hers ends; what comes up for it is not to stand."""
    if not parts.owners.owns(uid, call.name):
        return None
    with parts.negotiating.left(uid, call.name):
        return parts.driver.take_leave(call.name)


def down(parts: Parts, uid: int, call: said.Down) -> object:
    """End what is hers.

    What is just being brought up is ended first, and once more when that is over: it may
    have set something meanwhile.
    """
    if parts.owners.owns(uid, call.name):
        try:
            with parts.guard.ended(call.name):
                parts.negotiating.cut_short(call.name)
                parts.driver.down(call.name)
        finally:
            parts.name_servers.restore(call.name)
            parts.inner.clear_in_time()
        parts.names.sweep()
    return None


def _check_daemon(parts: Parts) -> None:
    """Raise IPsecError where what the daemon has besides would turn her tunnel against others."""
    check_assigned(parts.driver.capabilities(), parts.config)
    if isinstance(parts.driver, Shared):
        check_others(parts.driver.taking_our_keys())


@contextmanager
def _known(parts: Parts, name: str) -> Iterator[None]:
    """End what comes up in here where something goes wrong that nobody has thought of.

    Raises IPsecError.
    """
    try:
        yield
    except IPsecError:
        raise
    except Exception as error:
        log.exception("not-compared", tunnel=name)
        parts.driver.down(name)
        raise IKERefusedError(_UNKNOWN) from error


def _hers(parts: Parts, uid: int, spec: said.Spec) -> TunnelSpec:
    """Return a spec of what she has installed. Raises IPsecError if it is not that, or hers.

    A driver makes routes and policies of the spec that it is to bring up: with another
    one than was installed, they could lead past all that was checked.
    """
    check_spec(spec, parts.config)
    if parts.owners.installed(uid, spec.name) != leading(spec):
        raise IPsecError(NOT_HERS)
    return said.to_spec(spec)
