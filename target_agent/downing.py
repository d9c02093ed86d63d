"""The end of a tunnel at the IKE daemon, or without one where there is none any more."""

from contextlib import suppress

from carnet.errors import NothingLeftError
from carnet.ipsec.driver import Driver


def down(driver: Driver, name: str) -> None:
    """End a tunnel; where its daemon is gone, and the kernel has nothing of it, it is ended.

    Its secrets went with the daemon, or from where the next one would read them. Raises
    IPsecError.
    """
    with suppress(NothingLeftError):
        driver.down(name)
