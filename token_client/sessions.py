"""The records of this machine's tunnels: one each, in memory, without secrets."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from time import sleep

import msgspec
from msgspec.structs import replace

from carnet.errors import UsageError
from carnet.files import rewrite_private, write_private
from carnet.token.identity import Identity
from token_client.locks import give_back, taken
from token_client.memory import RECORD
from token_client.record import Session, decode, encode
from token_client.session_states import Change, Ended

LEAVING_SECONDS = 15.0
"""For which whoever ends a tunnel, or brings it back, is let go first."""
CHANGING_SECONDS = 5.0
"""The same for whoever writes a record, which takes no time unless it stands still."""
_LOOKS = 10
"""So often a record is looked at that is not whole, and then it is damaged."""
_LOOK_SECONDS = 0.01


class SessionStore:
    """The session records of this user on this machine."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    @property
    def records(self) -> bool:
        """Whether anything can be remembered here."""
        return self._directory is not None

    def keep(self, session: Session) -> bool:
        """Remember a tunnel; tell whether it may go on, which not what its record has yet to end.

        That record stays.
        """
        with self._changing(session.name):
            known = self.find(session.name)
            if known is not None and known.stage.is_yet_to_end:
                return False
            if self._directory is not None:
                write_private(self._path(session.name), encode(session))
        return True

    def all(self) -> list[Session]:
        """Return the records, oldest first."""
        if self._directory is None:
            return []
        found = (_read(path) for path in self._directory.glob(f"{RECORD}*.json"))
        seen = [self._with_pairs_left(session) for session in found if session]
        return sorted(seen, key=lambda session: session.established_at)

    def find(self, name: str) -> Session | None:
        """Return the record of that name, if there is one, and whole."""
        return next((session for session in self.all() if session.name == name), None)

    def keep_pairs_left(self, token: Identity, left: int) -> None:
        """Remember how many pairs are on a token, whatever tunnels stand on it.

        That is a file of its own: a record written anew could be one just dropped.
        """
        if self._directory is not None:
            write_private(self._left(self._directory, token), msgspec.json.encode(left))

    def _with_pairs_left(self, session: Session) -> Session:
        if self._directory is None:
            return session
        try:
            data = self._left(self._directory, session.token).read_bytes()
            return replace(session, pairs_left=msgspec.json.decode(data, type=int))
        except (OSError, ValueError):
            return session

    @staticmethod
    def _left(directory: Path, token: Identity) -> Path:
        return directory / f"left-{token.mark}"

    def drop(self, name: str, why: str | None = None) -> None:
        """Forget a tunnel; with a sentence why it ended its record stays, and says so."""
        if self._directory is None:
            return
        with self._changing(name):
            said = self._say(name, Ended(why)) if why is not None else None
            if said is None or not said.stage.is_ended:
                self._path(name).unlink(missing_ok=True)
        for kind in ("agent", "coming-back"):
            (self._directory / f"{kind}-{name}.lock").unlink(missing_ok=True)

    def change(self, name: str, change: Change) -> Session | None:
        """Have a record say what became of its session; return what it says then.

        None where there is none. One that has no row for that says what it said before.
        """
        with self._changing(name):
            return self._say(name, change)

    def _say(self, name: str, change: Change) -> Session | None:
        """Do what change() does, nobody else at the same time.

        Where there is no room, or no writing, that keeps nothing from going on: it then says what
        it said before.
        """
        session = self.find(name)
        changed = session and session.after(change)
        if changed is None or changed == session:
            return session
        with suppress(OSError):
            rewrite_private(self._path(name), encode(changed))
            return changed
        return session

    @contextmanager
    def leaving(self, name: str) -> Iterator[None]:
        """End a tunnel in here: whoever watches over it keeps away from it meanwhile.

        One who never comes to an end is not waited for, and where there can be no lock the
        tunnel ends without.
        """
        with self._alone("leaving", name, LEAVING_SECONDS):
            yield

    @contextmanager
    def coming_back(self, name: str) -> Iterator[None]:
        """Bring a tunnel back in here, nobody else at the same time: as leaving()."""
        with self._alone("coming-back", name, LEAVING_SECONDS):
            yield

    def _changing(self, name: str) -> AbstractContextManager[None]:
        """Read a record and write it anew in here, nobody else at the same time: as leaving().

        That is for a moment, and who has it waits for nothing, so whoever has another lock may
        take it.
        """
        return self._alone("changing", name, CHANGING_SECONDS)

    @contextmanager
    def _alone(self, at: str, name: str, seconds: float) -> Iterator[None]:
        if self._directory is None:
            yield
            return
        path, lock = self._directory / f"{at}-{name}.lock", None
        with suppress(OSError):  # not to be made
            lock = taken(path, seconds)
        try:
            yield
        finally:
            if lock is not None:  # else it is another's, to whom others come
                give_back(path, lock)

    def wait_for_leave(self, name: str) -> None:
        """Return when nobody is just ending that tunnel."""
        if self._directory is not None and (self._directory / f"leaving-{name}.lock").exists():
            with self.leaving(name):
                pass

    def choose(self, named: str | None) -> list[Session]:
        """Return the tunnels of that name or Target; all of them where none is named.

        Raises UsageError if a name fits none.
        """
        sessions = self.all()
        if named is None:
            return sessions
        fitting = [s for s in sessions if named in (s.name, s.target)]
        if not fitting:
            known = ", ".join(sorted({s.target for s in sessions})) or "none"
            raise UsageError(f"There is no tunnel {named!r}; `carnet status` shows: {known}.")
        return fitting

    def _path(self, name: str) -> Path:
        if self._directory is None:
            raise ValueError("there is no directory to keep records in")
        return self._directory / f"{RECORD}{name}.json"


def _read(path: Path) -> Session | None:
    """Return a record; None if another process drops it meanwhile, or it is none of ours.

    Where it is just written anew in its own place half of it may be seen: see rewrite_private().
    """
    with suppress(OSError):
        for _ in range(_LOOKS):
            with suppress(ValueError):
                return decode(path.read_bytes())
            sleep(_LOOK_SECONDS)
        # Nothing can be made of it, now or later.
        path.unlink()
    return None
