"""What this machine knows of its tunnels: one record each, in memory, without secrets."""

from pathlib import Path

import msgspec

from carnet.errors import UsageError
from carnet.files import write_private

_PREFIX = "session-"


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A tunnel that `carnet connect` brought up."""

    name: str
    target: str
    user_id: str
    objective_id: int
    networks: tuple[str, ...]
    virtual_address: str | None
    ppk: bool
    established_at: int
    """Seconds since 1970, UTC."""
    expires: int
    token_label: str
    token_serial: str
    """Which token it stands on: the agent watches for its removal."""
    ended: str | None = None
    """Why it was ended while nobody looked, as a sentence."""


class SessionStore:
    """The session records of this user on this machine."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def keep(self, session: Session) -> None:
        """Remember a tunnel."""
        if self._directory is not None:
            write_private(self._path(session.name), msgspec.json.encode(session))

    def all(self) -> list[Session]:
        """Return the records, oldest first."""
        if self._directory is None:
            return []
        sessions = []
        for path in self._directory.glob(f"{_PREFIX}*.json"):
            try:
                sessions.append(msgspec.json.decode(path.read_bytes(), type=Session))
            except msgspec.MsgspecError:
                # Not a record of ours: nothing can be made of it, now or later.
                path.unlink(missing_ok=True)
        return sorted(sessions, key=lambda session: session.established_at)

    def drop(self, name: str) -> None:
        """Forget a tunnel."""
        if self._directory is not None:
            self._path(name).unlink(missing_ok=True)

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
        return self._directory / f"{_PREFIX}{name}.json"
