"""What this machine knows of its tunnels: one record each, in memory, without secrets."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep
from typing import Any

import msgspec
from msgspec.structs import replace

from carnet.errors import UsageError
from carnet.files import rewrite_private, write_private
from carnet.token.identity import Identity
from token_client.locks import give_back, taken
from token_client.memory import RECORD
from token_client.uptime import seconds_since

GRACE_SECONDS = 5
"""For which Target is let go first, whose word it is that the time is over."""
LEAVING_SECONDS = 15.0
"""For which whoever ends a tunnel, or brings it back, is let go first."""
RELEASED = "You released it by hand; it ends whole as soon as the IPsec daemon answers."
SOON_SECONDS = 300
"""Before its end a session's end is announced."""
_LOOKS = 10
"""So often a record is looked at that is not whole, and then it is damaged."""
_LOOK_SECONDS = 0.01


Known = tuple[tuple[str, str], ...]
"""Host names, each with an address, as a number, that was found for it."""


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
    """Seconds since 1970, UTC, by the Host's clock."""
    expires: int
    """Seconds since 1970, UTC: as Target says, or counted here where its clock is wrong."""
    dns: tuple[str, ...] = ()
    """Target's name servers, where they are to be used."""
    mtu: int | None = None
    """Bytes that a packet inside the tunnel may have, as Target says."""
    clock_behind: int = 0
    """Seconds by which this machine's clock was behind the Host's, as far as that is known."""
    target_ahead: int = 0
    """Seconds by which Target's clock was ahead of this machine's, where it was wrong."""
    boot: str | None = None
    """In which boot of this machine it began; None where nothing tells."""
    begun: float | None = None
    """The moment `established_at`, in seconds since that boot, by a clock that nobody sets."""
    token_label: str
    token_serial: str
    """Which token it stands on: the agent watches for its removal."""
    module: str | None = None
    """Through which PKCS#11 module, where that was named; it is watched through the same."""
    target_addresses: tuple[str, ...] = ()
    """At which addresses Target was agreed to be; none: it is not known."""
    hosts: tuple[str, ...] = ()
    """Where to ask why it ended."""
    known_hosts: Known = ()
    """At which addresses these were found to be as the tunnel was asked for."""
    officer_key: str = ""
    """The officer's public key (DER SPKI, hexadecimal), under which the answer is verified."""
    pairs_left: int | None = None
    """On the token, when a connect of this machine's last looked."""
    block: str | None = None
    """With which packet filter packets in clear are held back, if they are."""
    ended: str | None = None
    """Why it was ended while nobody looked, as a sentence."""
    unheard: bool = False
    """Whether it was, and Target may not have heard of that."""
    released: bool = False
    """Whether she has ended it by hand, and its agent is to end what the daemon still has of it."""
    driver: str | None = None
    """The name of the driver that brought it up, and that ends it; None: not known."""
    doomed: str | None = None
    """Why it is to end, where somebody has begun to end it; empty: by her own command."""
    down: str | None = None
    """Why its tunnel went for good, as it was told then; None: it did not, as far as is known."""
    untold: bool = False
    """Whether Target had yet to say why, then."""
    unseen: bool = False
    """Whether nobody has seen its tunnel stand, which it may: see token_client.late."""

    @property
    def token(self) -> Identity:
        """Which token it stands on."""
        return Identity(self.token_serial, self.token_label)

    @property
    def lives(self) -> bool:
        """Whether it is meant to: nobody has ended it, or begun to."""
        return self.ended is None and self.doomed is None

    @property
    def is_yet_to_end(self) -> bool:
        """Whether somebody has begun to end it, and whoever goes on with that is not done."""
        return self.released or (self.ended is None and self.doomed is not None)

    def seconds_left(self, now: float) -> int:
        """Return how long it still lives, when it is `now` by this machine's clock."""
        return max(0, self.expires - int(self._never_set(now)) - self.clock_behind)

    def ends_soon(self, now: float) -> bool:
        """Tell whether its end is to be announced."""
        return self.seconds_left(now) <= SOON_SECONDS

    def is_over(self, now: float) -> bool:
        """Tell whether its time is over beyond doubt, when it is `now` by this machine's clock.

        Target ends it in time. The Host's clock came over a network that anybody may write
        to, and this machine's may have been wrong: the one that was behind counts.
        """
        now = self._never_set(now)
        return min(now, now + self.clock_behind) >= self.expires + GRACE_SECONDS

    def _never_set(self, now: float) -> float:
        """Return what this machine's clock, by which it is `now`, would tell if nobody had set it.

        That is since the session began; what no other clock tells is taken as it is.
        """
        passed = seconds_since(self.boot, self.begun)
        return now if passed is None else self.established_at - self.clock_behind + passed


class SessionStore:
    """The session records of this user on this machine."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    @property
    def records(self) -> bool:
        """Whether anything can be remembered here."""
        return self._directory is not None

    def keep(self, session: Session) -> None:
        """Remember a tunnel."""
        if self._directory is not None:
            write_private(self._path(session.name), msgspec.json.encode(session))

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
        except (OSError, msgspec.MsgspecError):
            return session

    @staticmethod
    def _left(directory: Path, token: Identity) -> Path:
        return directory / f"left-{token.mark}"

    def drop(self, name: str, why: str | None = None) -> None:
        """Forget a tunnel; with a sentence why it ended its record stays, and says so."""
        if self._directory is None:
            return
        session = self.find(name) if why is not None else None
        if session is None or not self._change(session, ended=why):
            self._path(name).unlink(missing_ok=True)
        for kind in ("agent", "coming-back"):
            (self._directory / f"{kind}-{name}.lock").unlink(missing_ok=True)

    def doom(self, name: str, why: str | None) -> None:
        """Have a record say that its session is to end, before anything of it does.

        Where that cannot be carried out now, whoever watches over it goes on with it.
        """
        session = self.find(name)
        if session is not None and session.lives:
            self._change(session, doomed=why or "")

    def keep_down(self, name: str, why: str, *, untold: bool) -> None:
        """Have a record say why its tunnel went for good, and that nothing of it is left."""
        with self.leaving(name):
            session = self.find(name)
            if session is not None and session.lives:
                self._change(session, down=why, untold=untold)

    def keep_released(self, name: str) -> bool:
        """Leave what the daemon still has of a tunnel to its agent; False where no record tells.

        Its record goes when that is done.
        """
        session = self.find(name)
        return session is not None and self._change(session, ended=RELEASED, released=True)

    def keep_unheard(self, name: str, ended: str) -> None:
        """Have a record say why its tunnel was ended, and that Target may not have heard of it."""
        session = self.find(name)
        if session is not None:
            self._change(session, ended=ended, unheard=True)

    def keep_unseen(self, name: str) -> Session | None:
        """Have a record say that nobody has seen its tunnel stand; return it, if there is one."""
        with self.leaving(name):
            session = self.find(name)
            if session is None:
                return None
            self._change(session, unseen=True)
            return replace(session, unseen=True)

    def keep_seen(self, name: str) -> None:
        """Have a record say no more that nobody has seen its tunnel stand.

        Whoever is just ending it is let go first: its record does not come back.
        """
        with self.leaving(name):
            session = self.find(name)
            if session is not None:
                self._change(session, unseen=False)

    def _change(self, session: Session, **facts: Any) -> bool:
        """Have a record say something else; tell whether it does.

        Where there is no room, or no writing, that keeps nothing from going on: it then says what
        it said before.
        """
        if self._directory is not None:
            with suppress(OSError):
                data = msgspec.json.encode(replace(session, **facts))
                rewrite_private(self._path(session.name), data)
                return True
        return False

    @contextmanager
    def leaving(self, name: str) -> Iterator[None]:
        """End a tunnel in here: whoever watches over it keeps away from it meanwhile.

        One who never comes to an end is not waited for, and where there can be no lock the
        tunnel ends without.
        """
        with self._alone("leaving", name):
            yield

    @contextmanager
    def coming_back(self, name: str) -> Iterator[None]:
        """Bring a tunnel back in here, nobody else at the same time: as leaving()."""
        with self._alone("coming-back", name):
            yield

    @contextmanager
    def _alone(self, at: str, name: str) -> Iterator[None]:
        if self._directory is None:
            yield
            return
        path, lock = self._directory / f"{at}-{name}.lock", None
        with suppress(OSError):  # not to be made
            lock = taken(path, LEAVING_SECONDS)
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
            with suppress(msgspec.MsgspecError):
                return msgspec.json.decode(path.read_bytes(), type=Session)
            sleep(_LOOK_SECONDS)
        # Nothing can be made of it, now or later.
        path.unlink()
    return None
