"""A tunnel that was lost comes back: the same session, the same key pair, a new IKE_SA."""

from carnet.errors import IKERefusedError
from carnet.ipsec.driver import Driver
from token_client.sessions import Session


def bring_back(driver: Driver, session: Session) -> None:
    """Negotiate IKE anew; a tunnel that stands is left as it is.

    Raises IKESilentError if Target does not answer yet; IKERefusedError if only a new key
    pair helps; IPsecError.
    """
    status = driver.resume(session.name)
    agreed = (session.ppk, session.virtual_address)
    if (status.ppk, status.virtual_address) != agreed:
        driver.down(session.name)
        raise IKERefusedError(
            "The tunnel came back as less than was agreed, so it was ended;"
            " run `carnet connect` for a new one, with the next key pair."
        )
