"""Where a mint keeps its journal and the cover: on the token, unless it is told a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from carnet.cover import read_cover
from carnet.token.session import TokenSession
from carnet.wire.documents import Cover
from provisioning.batch_files import BatchFiles
from provisioning.booklet import check_owner, write_cover
from provisioning.journal import Journal, TokenJournal
from provisioning.officer import Officer
from provisioning.suitability import check_keeping


@dataclass(frozen=True)
class Older:
    """What speaks of the pairs that are on a token already."""

    cover: Cover | None = None
    batches: tuple[bytes, ...] = ()
    """Signed, of a cover file; a cover on the token needs none."""


class Keeping(Journal, Protocol):
    """A place for the journal and the cover; every method raises TokenError, UsageError."""

    def check(self, session: TokenSession, key_type: str, count: int) -> None:
        """Raise an error where this place would not take what is ordered."""

    def older(
        self, session: TokenSession, officer: Officer, user_id: str, gone: frozenset[str]
    ) -> Older:
        """Return what speaks of the pairs that are there, but for those of a mint cut off.

        The labels of these begin as `gone` says.

        Raises TokenError for another user's token, or another officer's.
        """

    def write_cover(
        self,
        session: TokenSession,
        officer: Officer,
        cover: Cover,
        batches: Sequence[bytes],
        files: BatchFiles,
    ) -> None:
        """Put the cover in the place of an older one."""

    def read_cover(self, session: TokenSession, officer: Officer) -> Cover | None:
        """Read it back."""


class OnToken(TokenJournal):
    """Both on the token, in data objects."""

    def check(
        self,
        session: TokenSession,
        key_type: str,  # noqa: ARG002 - for the other place
        count: int,  # noqa: ARG002
    ) -> None:
        """Try whether it keeps data objects."""
        check_keeping(session)

    def older(
        self,
        session: TokenSession,
        officer: Officer,
        user_id: str,
        gone: frozenset[str],
    ) -> Older:
        """Return the cover on the token."""
        return Older(check_owner(session, officer, user_id, gone))

    def write_cover(
        self,
        session: TokenSession,
        officer: Officer,
        cover: Cover,
        batches: Sequence[bytes],  # noqa: ARG002
        files: BatchFiles,  # noqa: ARG002
    ) -> None:
        """Put it on the token."""
        write_cover(session, officer, cover)

    def read_cover(
        self,
        session: TokenSession,
        officer: Officer,  # noqa: ARG002 - the token says whose word it is
    ) -> Cover | None:
        """Read it from the token."""
        return read_cover(session)
