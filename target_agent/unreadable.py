"""The end of tunnels while the database cannot be used: nothing is written down, and it is said.

To revoke is to close: so whatever can be told without the records is ended. A service knows what
lives, and a Request ID is in the tunnel's name; whose it is, the records alone tell.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from carnet.errors import CarnetError, DatabaseError, IPsecError, UnreachableError
from carnet.ipsec.driver import Driver
from carnet.ipsec.drivers import unit_of
from target_agent.config import TargetConfig
from target_agent.control import Order, end_by_service, sole_hold
from target_agent.downing import end_by_name
from target_agent.gate import make_gate


@contextmanager
def ended_without_records(config: TargetConfig, driver: Driver, order: Order) -> Iterator[None]:
    """Have tunnels end where the database fails what is done in here; say what came of it.

    Raises CarnetError then.
    """
    try:
        yield
    except DatabaseError as error:
        why = error.sentence.rstrip(".")
        raise CarnetError(f"{why}; {_end(config, driver, order)}.") from error


def _end(config: TargetConfig, driver: Driver, order: Order) -> str:
    """End what can be told; return what came of it, and what is to be done."""
    try:
        with sole_hold(config.lock) as alone:
            if not alone:
                return _by_service(config, order)
            if order.request_id is None:
                return f"nothing else tells which tunnels are meant: to end all, {_stop(driver)}"
            gate = make_gate(config)
            if gate is not None:
                gate.shut()
            end_by_name(config, driver, order.request_id)
    except (IPsecError, UnreachableError) as error:
        said = error.sentence.rstrip(".")
        return f"nor can the tunnels be ended ({said}): to end all, {_stop(driver)}"
    return "the IKE daemon has no such tunnel any more, and no record says so: run this again then"


def _by_service(config: TargetConfig, order: Order) -> str:
    done = end_by_service(config, order)
    count = len((*done.ended, *done.unrecorded))
    waiting = f", {len(done.waiting)} wait for the IKE daemon" if done.waiting else ""
    return (
        f"the service ended {count} of the tunnels that are meant{waiting}, and no record may say"
        " so: run this again then"
    )


def _stop(driver: Driver) -> str:
    unit = unit_of(driver)
    return "stop the IKE daemon" + (f" (systemctl stop {unit})" if unit else "")
