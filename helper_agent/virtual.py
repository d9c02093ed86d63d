"""Whether a tunnel may be, by what this machine is in at the moment."""

from collections.abc import Callable, Iterable

from carnet.ipsec.driver import Driver
from carnet.ipsec.surroundings import Surroundings
from helper_agent.claims import Leading
from helper_agent.config import HelperConfig
from helper_agent.limits import check_led, check_virtual


class Virtual:
    """Looks anew at each; the rules are in helper_agent.limits."""

    def __init__(
        self,
        config: HelperConfig,
        driver: Driver,
        own_addresses: Callable[[], frozenset[str]],
        around: Callable[[int], Surroundings],
    ) -> None:
        self._config = config
        self._driver = driver
        self._own_addresses = own_addresses
        self._around = around

    def check(self, leads: Leading) -> None:
        """Look at its address, and at where it leads. Raises IPsecError."""
        self._check(leads, self._own_addresses())

    def check_unless_it_stands(self, leads: Leading, name: str) -> None:
        """Do the same with what is to come back; of what stands the machine has an address.

        So it has of what is live, and does not stand whole. Raises IPsecError.
        """
        live = [each for each in self._driver.status() if each.name == name]
        if not any(each.established for each in live):
            self._check(leads, self._own_addresses() - {each.virtual_address for each in live})

    def check_networks(self, networks: Iterable[str]) -> None:
        """Look at where a tunnel would lead. Raises IPsecError."""
        check_led(networks, self._config, self._around)

    def _check(self, leads: Leading, own: Iterable[str]) -> None:
        self.check_networks(leads.networks)
        check_virtual(leads, self._config, own, self._around)
