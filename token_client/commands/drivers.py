"""Which driver a command of `carnet` works with, and who does what takes privileges."""

from carnet.ipsec import block, inside
from carnet.ipsec.driver import Driver
from carnet.ipsec.drivers import driver_of
from token_client.by_record import ByRecord
from token_client.config import ClientConfig
from token_client.memory import memory_directory
from token_client.record import Session


def driver(config: ClientConfig, session: Session | None = None) -> Driver:
    """Return the driver that brought a session up, or where that is not told, who answers."""
    use_privileges(config)
    return driver_of(config.drivers, session.driver if session else None)


def drivers(config: ClientConfig) -> ByRecord:
    """Return what ends any session by the driver that brought it up."""
    use_privileges(config)
    return ByRecord(config.drivers)


def use_privileges(config: ClientConfig) -> None:
    """Have what takes privileges be done by the helper, where there is one."""
    choice = config.drivers
    if choice.helper is None:
        inside.use(inside.Here(memory_directory()))
    else:
        from carnet.ipsec.helper.client import (  # noqa: PLC0415  only where there is one
            HelperFilter,
            HelperInside,
        )

        block.use(HelperFilter(choice.helper))
        inside.use(HelperInside(choice.helper))
