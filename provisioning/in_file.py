"""The journal and the cover in files, for tokens that keep no data objects.

The cover file lists the batches, and so which pairs the token has. The journal is a file
beside it while a mint runs. Both stay with the officer until the mint is over; the
traveller gets the cover file.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from carnet import serials
from carnet.counting import counted
from carnet.cover import OFFICER_LABEL, CoverFile, read_cover, read_cover_file
from carnet.errors import TokenCannotError, TokenError, UsageError
from carnet.files import read_small, sync_directory
from carnet.token import keys
from carnet.token.data import write_data
from carnet.token.ec_type import EcType
from carnet.token.identity import Identity
from carnet.token.onetime import OneTimeKeys, is_pair_label
from carnet.token.rsa_type import RsaType
from carnet.token.session import TokenSession
from carnet.wire.cover_file import (
    MAX_COVER_FILE,
    MOST_BATCHES,
    pack_cover_file,
    unpack_cover_file,
)
from carnet.wire.documents import Batch, Cover, read_unverified
from provisioning.batch_files import BatchFiles
from provisioning.booklet import check_officer
from provisioning.journal import is_unfinished
from provisioning.keeping import Older
from provisioning.leftover import cover_may_be_left, sweep_unplaced
from provisioning.officer import Officer
from provisioning.output import write_over
from softhsm.durable import sync_token

_SUFFIX = ".minting"
_AROUND_A_KEY = 160
"""Bytes: more than a batch has for a pair besides its modulus or point."""


class _Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the journal says of a mint or an adoption that has begun."""

    labels: str
    """What those of its pairs begin with."""
    token_serial: str
    token_label: str | None = None
    """A serial number may be that of many tokens; None in a note of an older version."""
    order: str = ""
    """What a mint has to be of to go on from it."""

    def is_of(self, session: TokenSession) -> bool:
        """Tell whether it is that token's; TokenError.

        An older note of a token without a number of its own is that of whichever has the pairs.
        """
        token = session.token.info.identity
        if self.token_label is not None or serials.is_own(self.token_serial):
            return Identity(self.token_serial, self.token_label or "").may_be(token)
        pairs = OneTimeKeys(session).pairs() if self.token_serial == token.serial else []
        return any(pair.label.startswith(self.labels) for pair in pairs)

    @property
    def of_another(self) -> str:
        """Return what to say of it, and do, where it is not that token's."""
        if self.token_label is not None:
            token = str(Identity(self.token_serial, self.token_label))
        elif serials.is_own(self.token_serial):
            token = self.token_serial
        else:
            return (
                f"tells of a mint that was cut off, and not on which token; mint first on the one "
                f"that has pairs labelled {self.labels.strip()} (`carnet-provision list`), or, if "
                f"none has, remove that file"
            )
        return (
            f"tells of a mint on token {token} that was cut off; mint on that one again first, or "
            f"name another cover file"
        )


def _note_in(path: Path) -> _Note | None:
    try:
        return msgspec.json.decode(read_small(path), type=_Note)
    except (OSError, msgspec.MsgspecError):
        return None


class FileJournal:
    """The journal in a file beside the cover; no file where nothing is under way."""

    def __init__(self, cover: Path) -> None:
        self.path = cover.with_name(cover.name + _SUFFIX)

    def begin(self, session: TokenSession, prefix: str, order: str = "") -> None:
        """Write it; UsageError where that cannot be."""
        sweep_unplaced(self.path, lambda left: _note_in(left) is not None)
        serial, label = session.token.info.identity
        note = _Note(prefix, serial, label, order)
        write_over(self.path, msgspec.json.encode(note))

    def finish(self, session: TokenSession) -> None:
        """Remove it; UsageError where that cannot be."""
        sync_token(session)
        try:
            self.path.unlink(missing_ok=True)
            sync_directory(self.path.parent)
        except OSError as error:
            raise UsageError(
                f"Cannot remove {self.path} ({error.strerror}); see to it, and repeat the command."
            ) from error

    def unfinished(self, session: TokenSession) -> Mapping[str, str]:
        """Read it; UsageError for one that is another token's, or none."""
        note = self._read()
        if note is None:
            return {}
        if not note.is_of(session):
            raise UsageError(f"{self.path} {note.of_another}.")
        return {note.labels: note.order}

    def _read(self) -> _Note | None:
        if not self.path.exists():
            return None
        note = _note_in(self.path)
        if note is None:
            raise UsageError(
                f"{self.path} cannot be read as the journal of a mint; restore it, or move it away "
                f"and burn the pairs that no cover lists."
            )
        # It leads to pairs being destroyed: those of one mint, and never all.
        if not is_pair_label(f"{note.labels}0001"):
            raise UsageError(f"{self.path} is not the journal of a mint; move it away.")
        return note


class InFile(FileJournal):
    """Both in files."""

    def __init__(self, cover: Path) -> None:
        super().__init__(cover)
        self._cover = cover

    def check(self, session: TokenSession, key_type: str, count: int) -> None:
        """Raise an error for a token that has a cover, or more pairs than a file takes."""
        label = session.token.info.label
        if read_cover(session) is not None:
            raise TokenError(f"Token {label} keeps its cover itself; leave --cover out.")
        most = MAX_COVER_FILE // (_AROUND_A_KEY + _size(key_type))
        if count > most:
            raise UsageError(
                f"A cover file has room for {counted(most, 'key pair')} of type {key_type}; order "
                f"no more."
            )

    def older(
        self, session: TokenSession, officer: Officer, user_id: str, gone: frozenset[str]
    ) -> Older:
        """Return what the file says, but for batches of which no pair is left on the token.

        Nor is it asked of a mint that was cut off.
        """
        label, booklet = session.token.info.label, OneTimeKeys(session)
        sweep_unplaced(self._cover, cover_may_be_left)
        check_officer(session, officer)
        cover, batches = self._standing(session, officer, gone)
        if cover is not None and cover.user_id != user_id:
            raise TokenError(f"{self._cover} is the cover of {cover.user_id}; name another file.")
        here = {pair.public_key for pair in booklet.pairs() if not is_unfinished(pair, gone)}
        listed = [{pair.public_key for pair in _batch(each).pairs} for each in batches]
        if unlisted := len(here.difference(*listed)):
            raise TokenError(
                f"Token {label} holds {counted(unlisted, 'key pair')} that {self._cover} does not "
                f"list; name the file that does, or burn first what is on the token."
            )
        left = [each for each, pairs in zip(batches, listed, strict=True) if pairs & here]
        if batches and not left:
            raise TokenError(
                f"{self._cover} is the cover of key pairs of which none is on token {label}; name "
                f"a new file."
            )
        if len(left) >= MOST_BATCHES:
            raise TokenError(
                f"{self._cover} has as many batches as a cover file takes; burn the pairs of one "
                f"first."
            )
        return Older(cover if left else None, tuple(left))

    def write_cover(
        self,
        session: TokenSession,
        officer: Officer,
        cover: Cover,
        batches: Sequence[bytes],
        files: BatchFiles,
    ) -> None:
        """Write the file; the token names the officer, where it keeps private data objects."""
        file = pack_cover_file(officer.sign(cover), batches)
        if len(file) > MAX_COVER_FILE:
            raise UsageError(f"{self._cover} would be too large; order fewer key pairs.")
        with suppress(TokenCannotError):
            write_data(session, OFFICER_LABEL, officer.public_key, private=True, sync=sync_token)
        files.replace(self._cover, file, self._bytes())

    def read_cover(self, session: TokenSession, officer: Officer) -> Cover | None:
        """Read it back from the file."""
        data = self._bytes()
        return None if data is None else self._verified(data, session, officer).cover

    def _standing(
        self, session: TokenSession, officer: Officer, gone: frozenset[str]
    ) -> tuple[Cover | None, list[bytes]]:
        data = self._bytes()
        if data is None:
            return None, []
        cover = self._verified(data, session, officer).cover
        batches = [
            each
            for each in unpack_cover_file(data)[1]
            if not _batch(each).pairs[0].label.startswith(tuple(gone))
        ]
        return (cover if batches else None), batches

    def _verified(self, data: bytes, session: TokenSession, officer: Officer) -> CoverFile:
        try:
            return read_cover_file(data, officer.public_key, session.token.info.serial)
        except TokenError as error:
            why = error.sentence.partition(";")[0]
            raise TokenError(
                f"{self._cover}: {why}; restore it from a backup, or name a new file and burn the "
                f"pairs that it lists."
            ) from error

    def _bytes(self) -> bytes | None:
        try:
            return read_small(self._cover, MAX_COVER_FILE)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(
                f"Cannot read {self._cover} ({error.strerror}); name another cover file."
            ) from error


def _batch(signed: bytes) -> Batch:
    return read_unverified(signed, Batch)


def _size(key_type: str) -> int:
    """Return the bytes of the point or modulus."""
    type_ = keys.TYPES[key_type]
    if isinstance(type_, RsaType):
        return type_.bits // 8
    return type_.point_size if isinstance(type_, EcType) else 0
