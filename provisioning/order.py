"""What is ordered of a mint, and what follows from that alone."""

import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path

from carnet.errors import UsageError
from carnet.wire.envelope import SPLIT
from carnet.wire.fault import WireError
from carnet.wire.split import choose_host_keys
from provisioning.choice import Choice

_MARK_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class MintOrder:
    """What is to be minted."""

    user_id: str
    count: int
    custody: str
    host_transport_keys: tuple[bytes, ...]
    """In custody `paired`: DER SubjectPublicKeyInfo, on P-256; one for each HSM of the Host."""
    host_keys: tuple[bytes, ...]
    """In custody `split`, the Host's long-term keys as a cover lists them."""
    hosts: tuple[str, ...]
    targets: tuple[str, ...]
    key_type: str
    """A name in provisioning.choice.KEY_TYPES."""
    oaep_hash: str | None
    """For RSA pairs, a name in OAEP_NAMES; None: the strongest that the token can do."""
    last_day: date | None
    """Last day of validity, UTC."""
    batch_files: tuple[Path, ...]
    """One for each transport key."""

    @property
    def mark(self) -> str:
        """What a mint that was cut off must have been of, for this one to go on from it.

        Empty in custody `paired`: what was wrapped for the Host is gone with the session. The
        batch's place is part of it: at another one, a signed batch of the same pairs would stay.
        """
        if self.custody != SPLIT:
            return ""
        places = [os.fsencode(path.resolve()) for path in self.batch_files]
        named = (self.user_id, self.key_type, str(self.last_day))
        bound = (*named, *map(bytes.hex, self.host_keys), *map(bytes.hex, places))
        return hashlib.sha256("\0".join(bound).encode()).hexdigest()[:_MARK_SIZE]

    @property
    def not_after(self) -> int | None:
        """The last second of validity, since 1970, UTC."""
        if self.last_day is None:
            return None
        return int(datetime.combine(self.last_day, time(23, 59, 59), UTC).timestamp())

    def host_key(self, choice: Choice) -> bytes:
        """Return the Host's key that the first batch is for; raises UsageError if it has none."""
        if self.custody != SPLIT:
            return self.host_transport_keys[0]
        try:
            return choose_host_keys(self.host_keys, choice.suite).sealing
        except WireError as error:
            raise UsageError(
                f"The Host has no keys for suite {choice.suite.name} ({error}); choose another "
                f"--key-type, or get its keys anew."
            ) from error
