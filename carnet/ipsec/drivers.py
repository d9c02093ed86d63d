"""Which IPsec implementations there are drivers for, and which of them answers here.

A further implementation is a row of the table below: its driver is loaded only where it
is meant, so that the traveller's command stays light.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from importlib import import_module
from pathlib import Path

import msgspec

from carnet.errors import IPsecError, UsageError
from carnet.ipsec.driver import Capabilities, Driver


class DriverName(StrEnum):
    """The name of an implementation, as `--driver` takes it."""

    STRONGSWAN = "strongswan"
    LIBRESWAN = "libreswan"
    RACOON = "racoon"
    WINDOWS = "windows"


class Implementation(msgspec.Struct, frozen=True, kw_only=True):
    """One row: where the driver is, and what kind of tunnel a dry run shows of it."""

    driver: str
    """As `module:class`; the class takes the daemon's socket, or None for the usual one."""
    programs: tuple[str, ...]
    """Where its daemon is, where it is installed: any of these."""
    ike_version: int
    """The newest in which it takes pre-shared keys."""
    ppk: bool
    """Whether it takes post-quantum ones (RFC 8784)."""
    unit: str | None = None
    """What systemd starts it as; None where nothing of ours asks for it."""


IMPLEMENTATIONS: Mapping[DriverName, Implementation] = {
    DriverName.STRONGSWAN: Implementation(
        driver="carnet.ipsec.strongswan:StrongSwan",
        programs=(
            *("/usr/sbin/charon-systemd", "/usr/lib/ipsec/charon"),
            *("/usr/libexec/ipsec/charon", "/usr/libexec/strongswan/charon"),
        ),
        ike_version=2,
        ppk=True,
        unit="strongswan",
    ),
    DriverName.LIBRESWAN: Implementation(
        driver="carnet.ipsec.libreswan:Libreswan",
        programs=("/usr/libexec/ipsec/pluto",),
        ike_version=2,
        ppk=True,
        unit="ipsec",
    ),
    DriverName.RACOON: Implementation(
        driver="carnet.ipsec.racoon:Racoon",
        programs=("/usr/local/sbin/racoon",),
        ike_version=1,
        ppk=False,
    ),
    DriverName.WINDOWS: Implementation(
        driver="carnet.ipsec.windows:Windows",
        programs=(),
        ike_version=1,
        ppk=False,
    ),
}
"""In the order in which they are looked for."""


def unit_of(driver: Driver) -> str | None:
    """Return what systemd starts a driver's daemon as, where that is known."""
    return next((row.unit for name, row in IMPLEMENTATIONS.items() if name == driver.name), None)


class Choice(msgspec.Struct, frozen=True):
    """Which driver a configuration wants, and where the daemons are."""

    named: DriverName | None = None
    """None: the first that answers."""
    sockets: Mapping[DriverName, Path | None] = msgspec.field(default_factory=dict)
    """None, or nothing: where the implementation itself puts it."""
    helper: Path | None = None
    """carnet-helper's socket, where this user has no way to the daemon herself."""


_USUAL = Choice()


def open_driver(name: DriverName, choice: Choice = _USUAL) -> Driver:
    """Return the driver of that name, whether its implementation is here or not."""
    module, _, attribute = IMPLEMENTATIONS[name].driver.partition(":")
    driver: Driver = getattr(import_module(module), attribute)(choice.sockets.get(name))
    return driver


def find_driver(choice: Choice) -> Driver:
    """Return the driver that is named, or else the first whose daemon answers.

    Where none answers it is the first that is installed, or simply the first: its own
    error says what to do. One machine has one IKE daemon: two would want the same UDP ports.
    """
    if choice.helper is not None:
        return _open_helper(choice.helper)
    if choice.named is not None:
        return open_driver(choice.named, choice)
    for name in IMPLEMENTATIONS:
        driver = open_driver(name, choice)
        if driver.answers():
            return driver
    installed = (name for name, row in IMPLEMENTATIONS.items() if _is_installed(row))
    return open_driver(next(installed, next(iter(IMPLEMENTATIONS))), choice)


def settled_driver(choice: Choice) -> Driver:
    """Return the driver for a service that keeps it for good, whatever daemon comes and goes.

    Raises UsageError where it cannot be told which is meant: with another it would know of no
    tunnel that stands, and end none. To begin anew helps nothing, for a person has to say.
    """
    if choice.named is not None or choice.helper is not None:
        return find_driver(choice)
    there = [name for name in IMPLEMENTATIONS if open_driver(name, choice).answers()]
    meant = there or [name for name, row in IMPLEMENTATIONS.items() if _is_installed(row)]
    if len(meant) > 1:
        raise UsageError(
            f"This machine has {' and '.join(meant)}, and which of them carries the tunnels cannot"
            " be told; set `driver` under `[ipsec]` in the configuration."
        )
    return open_driver(meant[0], choice) if meant else find_driver(choice)


def meant_unit(choice: Choice) -> str | None:
    """Return what systemd starts the daemon as that a service is to drive.

    strongSwan's where none is installed yet; None where nothing tells which is meant. Raises
    UsageError where it is one that nothing of ours drives.
    """
    if choice.named and IMPLEMENTATIONS[choice.named].unit is None:
        raise UsageError(
            f"What {choice.named} would be told is shown, and no service drives it; set `driver`"
            " under `[ipsec]` in the configuration to strongswan or libreswan, and run this again."
        )
    installed = [name for name, row in IMPLEMENTATIONS.items() if _is_installed(row)]
    meant = [choice.named] if choice.named else installed or [next(iter(IMPLEMENTATIONS))]
    return IMPLEMENTATIONS[meant[0]].unit if len(meant) == 1 else None


def driver_of(choice: Choice, name: str | None) -> Driver:
    """Return the driver of what the one of that name has made, whichever answers by now.

    Where no implementation has that name, or a helper stands before it, it is as find_driver().
    """
    if choice.helper is None and name in tuple(DriverName):
        return open_driver(DriverName(name), choice)
    return find_driver(choice)


def made_with(name: str | None, driver: Driver, choice: Choice) -> Driver:
    """Return the driver that made a tunnel, by the name in its record; `driver` is the one in use.

    It is that one, too, where the record names none, or none of ours.
    """
    if name == driver.name or name not in tuple(DriverName):
        return driver
    return open_driver(DriverName(name), choice)


def makers(name: str | None, driver: Driver, choice: Choice) -> tuple[Driver, ...]:
    """Return the drivers one of which made a tunnel: made_with(), where its record names it.

    Where none does, as in an older record, or where there is no record, it is each that may have.
    """
    if name is not None:
        return (made_with(name, driver, choice),)
    others = [each for each, row in IMPLEMENTATIONS.items() if row.unit and each != driver.name]
    return (driver, *(open_driver(each, choice) for each in others if _may_be_here(each, choice)))


def _may_be_here(name: DriverName, choice: Choice) -> bool:
    return _is_installed(IMPLEMENTATIONS[name]) or open_driver(name, choice).answers()


def _open_helper(path: Path) -> Driver:
    from carnet.ipsec.helper.client import HelperDriver  # noqa: PLC0415  as other drivers are

    return HelperDriver(path)


def _is_installed(row: Implementation) -> bool:
    return any(Path(program).exists() for program in row.programs)


class Sighting(msgspec.Struct, frozen=True):
    """What was found of one implementation on this machine."""

    name: DriverName
    found: Capabilities | str
    """What it carries, or the sentence that says why it cannot be used."""

    @property
    def trouble(self) -> str | None:
        """Why it cannot be used; None if it can."""
        return self.found if isinstance(self.found, str) else None


def look_around(choice: Choice) -> Iterator[Sighting]:
    """Ask each implementation in turn what it carries here, or the named one alone."""
    if choice.helper is not None:
        yield _look_through(_open_helper(choice.helper))
        return
    for name in IMPLEMENTATIONS if choice.named is None else (choice.named,):
        try:
            yield Sighting(name, open_driver(name, choice).capabilities())
        except IPsecError as error:
            yield Sighting(name, error.sentence)


def _look_through(helper: Driver) -> Sighting:
    """Ask the helper; which implementation it drives is its own affair."""
    try:
        found = helper.capabilities()
    except IPsecError as error:
        return Sighting(next(iter(IMPLEMENTATIONS)), error.sentence)
    return Sighting(DriverName(found.driver), found)
