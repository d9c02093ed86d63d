"""What was minted is read back: a token or a disk may say that it has kept what it has not."""

from pathlib import Path

from carnet.errors import TokenError, UsageError
from carnet.files import read_small
from carnet.token.onetime import OneTimeKeys
from carnet.token.session import TokenSession
from carnet.wire.documents import Batch, verify_document
from carnet.wire.fault import WireError
from provisioning.leftover import MAX_FILE
from provisioning.officer import Officer


def check_token(session: TokenSession, batch: Batch, *, is_covered: bool) -> None:
    """Raise TokenError unless the token holds what was minted, in that order, under its cover."""
    held = [(pair.label, pair.public_key) for pair in OneTimeKeys(session).pairs()]
    minted = [(pair.label, pair.public_key) for pair in batch.pairs]
    if held[-len(minted) :] != minted or not is_covered:
        raise TokenError(
            "The token did not keep what was stored on it; let nothing else work on it meanwhile, "
            "make room on it, or use another token."
        )


def check_file(path: Path, officer: Officer, batch: Batch) -> None:
    """Raise UsageError unless the batch file says what was minted."""
    try:
        signed = read_small(path, MAX_FILE)
        written = verify_document(signed, Batch, officer.verification_key)
    except (OSError, WireError) as error:
        raise UsageError(f"{path} cannot be read back; choose another place for it.") from error
    if written != batch:
        raise UsageError(f"{path} was changed while it was written; choose another place for it.")
