"""Taking away the addresses inside of users' tunnels that are over.

The IPsec daemon that had them may have ended without: the next one knows nothing of them, and
they, with the routes through them, would be this machine's for ever.
"""

from carnet.errors import IPsecError
from carnet.ipsec import inner_address
from carnet.ipsec.driver import Driver, Telling
from helper_agent.owners import Owners


class Inner:
    """The addresses that this machine has by users' tunnels. Safe to use from several threads."""

    def __init__(self, driver: Driver, owners: Owners) -> None:
        self._driver = driver
        self._owners = owners
        self._owed = False

    def clear(self) -> None:
        """Take away those that no tunnel in the daemon has, whose user or root it may be.

        One that her tunnel has not brought is not hers, whatever she claims: somebody has set it
        who made no route into a tunnel, and it stays. The daemon is asked once they are listed:
        what is set meanwhile stays. Raises IPsecError where it cannot be asked.
        """
        self._owed = True
        led = inner_address.led_from(self._of(self._owners.names()))
        if led:
            for address in led.keys() - self._in_use():
                inner_address.remove(address, at=led[address])
        self._owed = False

    def clear_in_time(self) -> None:
        """Do the same, or owe it, until pay() finds a daemon that can be asked."""
        try:
            self.clear()
        except IPsecError:
            self._owed = True

    def pay(self) -> None:
        """Do what is owed, if it can be done now."""
        if self._owed:
            self.clear_in_time()

    def _in_use(self) -> frozenset[str]:
        """Return those of all tunnels that the daemon has. Raises IPsecError."""
        loaded = self._driver.leads().values() if isinstance(self._driver, Telling) else ()
        return self._of(self._driver.installed()).union(*(each.inner for each in loaded))

    def _of(self, names: frozenset[str]) -> frozenset[str]:
        leads = filter(None, map(self._owners.leading, names))
        return frozenset(each.virtual_address for each in leads if each.virtual_address)
