"""The Host is told of pairs that were burned, now or later."""

from carnet.errors import CarnetError, NothingRevokedError
from carnet.interface import Revocation
from provisioning.host_interface import HostInterface, command_to_run

_WHY = {True: "burned on the token", False: "burned; the token destroys no keys"}
"""For the accounts, by whether all of them are destroyed."""
_STANDING = {
    True: "The pairs are burned on the token, but",
    False: "The token destroys no keys, and",
}


class Telling:
    """Telling the Host of pairs that are burned, which it may not hear just now."""

    def __init__(
        self, host: HostInterface | None, burned: list[bytes], *, destroyed: bool, lost: bool
    ) -> None:
        self._host, self._burned, self._lost = host, burned, lost
        self._destroyed = destroyed
        self.revoked: int | None = None
        """How many are invalid by it at the Host; None where it was not told."""
        self._failure: CarnetError | None = None

    def tell(self) -> None:
        """Tell it, if there is something and somebody to be told."""
        if self._host is None or not self._burned:
            return
        key_ids = tuple(key_id.hex() for key_id in self._burned)
        revocation = Revocation(key_ids=key_ids, why=_WHY[self._destroyed], lost=self._lost)
        try:
            told = self._host.revoke(revocation)
            self.revoked = told.revoked + told.importing
        except NothingRevokedError:
            self.revoked = 0
        except CarnetError as error:
            self._failure = error

    def check(self) -> None:
        """Raise the error that kept it from hearing, with the command to be run later."""
        if self._host is None or self._failure is None:
            return
        raise type(self._failure)(
            f"{self._failure.sentence} {_STANDING[self._destroyed]} {self.advice()}"
        ) from self._failure

    def advice(self) -> str:
        """Say how it is told later."""
        if self._host is None:
            named = " ".join(key_id.hex() for key_id in self._burned)
            return (
                f"the Host does not know it yet; tell it with `carnet-host revoke --key` of "
                f"each: {named}"
            )
        host = (self._host.name, self._host.url)
        run = command_to_run(host, self._burned, _WHY[self._destroyed], lost=self._lost)
        return f"the Host does not know it yet; run later: {run}"

    def facts(self) -> dict[str, int]:
        """Return what the Host answered, for scripts."""
        return {} if self.revoked is None else {"revoked_at_host": self.revoked}
