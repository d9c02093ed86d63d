"""Whether a tunnel's address may be this machine's, by what the machine is in at the moment."""

from collections.abc import Callable

from carnet.ipsec.driver import Driver
from carnet.ipsec.surroundings import Surroundings
from helper_agent.claims import Leading
from helper_agent.config import HelperConfig
from helper_agent.limits import check_virtual


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

    def check(self, leads: Leading, name: str | None = None) -> None:
        """Look at its address; what stands by that name, if any, may have set it already.

        Raises IPsecError.
        """
        live = self._driver.status() if name else ()
        its = {each.virtual_address for each in live if each.name == name}
        check_virtual(leads, self._config, self._own_addresses() - its, self._around)
