"""One session after the other on a token, where one does not last."""

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from carnet.token.session import TokenSession
from provisioning.options import Login


class Sessions:
    """A context manager: logged in to the token, and logged in anew when asked to.

    A TPM's resource manager (tpm2-abrmd) holds 27 objects for a session, and tpm2-pkcs11
    lets go of none before it logs out: it makes fourteen pairs, or uses 27, and no more.
    """

    def __init__(self, login: Login, *, writable: bool) -> None:
        self._login, self._writable = login, writable
        self._open = ExitStack()
        self.current: TokenSession
        """What was read through an earlier one is not to be used any more."""

    def __enter__(self) -> Self:
        self._log_in()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return self._open.__exit__(kind, error, trace)

    def renew(self) -> TokenSession:
        """Log out and in again; raises TokenError."""
        self._open.close()
        return self._log_in()

    def _log_in(self) -> TokenSession:
        self.current = self._open.enter_context(self._login.session(writable=self._writable))
        return self.current
