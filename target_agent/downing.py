"""The end of a tunnel at the IKE daemon, or without one where there is none any more.

Where no record tells which daemon has it, at each.
"""

from collections.abc import Iterable
from contextlib import suppress
from functools import partial

from carnet.errors import IPsecError, NothingLeftError
from carnet.ipsec.driver import Driver
from carnet.ipsec.drivers import makers
from carnet.tunnel import tunnel_name
from target_agent.config import TargetConfig
from target_agent.gate import make_gate


def down(drivers: Iterable[Driver], name: str) -> None:
    """End a tunnel; where its daemon is gone, and the kernel has nothing of it, it is ended.

    Its secrets went with the daemon, or from where the next one would read them. Of several
    drivers, any of which may have made it, each is asked, whatever another says. Raises IPsecError.
    """
    failed = [error for driver in drivers if (error := _downed(driver, name)) is not None]
    if failed:
        raise failed[0]


def end_by_name(config: TargetConfig, driver: Driver, request_id: str) -> bool:
    """End the tunnel of a Request ID at whichever daemon has it; tell whether one was seen to.

    That is where no record tells which. Raises IPsecError.
    """
    name, drivers = tunnel_name(bytes.fromhex(request_id)), makers(None, driver, config.drivers)
    known = any(map(partial(_has, name), drivers))
    gate = make_gate(config) if known else None
    if gate is not None:
        gate.shut()
    down(drivers, name)
    return known


def _downed(driver: Driver, name: str) -> IPsecError | None:
    try:
        with suppress(NothingLeftError):
            driver.down(name)
    except IPsecError as error:
        return error
    return None


def _has(name: str, driver: Driver) -> bool:
    try:
        return name in driver.installed()
    except IPsecError:
        return False
