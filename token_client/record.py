"""What this machine knows of one of its tunnels, without secrets: its record."""

from typing import Any

import msgspec
from msgspec.structs import asdict, replace

from carnet.token.identity import Identity
from token_client.session_states import Change, Stage, Told, told
from token_client.uptime import seconds_since

GRACE_SECONDS = 5
"""For which Target is let go first, whose word it is that the time is over."""
SOON_SECONDS = 300
"""Before its end a session's end is announced."""

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
    driver: str | None = None
    """The name of the driver that brought it up, and that ends it; None: not known."""
    stage: Stage = Stage()
    """Where it is, and why."""

    @property
    def token(self) -> Identity:
        """Which token it stands on."""
        return Identity(self.token_serial, self.token_label)

    @property
    def lives(self) -> bool:
        """Whether it is meant to: nobody has ended it, or begun to."""
        return self.stage.lives

    def after(self, change: Change) -> "Session":
        """Return it as it is after that."""
        return replace(self, stage=self.stage.after(change))

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of it, by name: as its record has it, and what scripts are shown."""
        own = {name: getattr(self, name) for name in self.__struct_fields__ if name != "stage"}
        return own | asdict(told(self.stage))

    def seconds_left(self, now: float) -> int:
        """Return how long it still lives, when it is `now` by this machine's clock."""
        return max(0, self.expires - int(self._never_set(now)) - self.clock_behind)

    def age(self, now: float) -> int:
        """Return how many seconds it has lived, those included in which its tunnel was lost."""
        return max(0, int(self._never_set(now)) + self.clock_behind - self.established_at)

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


FACTS = (
    *(name for name in Session.__struct_fields__ if name != "stage"),
    *Told.__struct_fields__,
)
"""The names of all that is known of one."""


def encode(session: Session) -> bytes:
    """Return the record of a session."""
    return msgspec.json.encode(session.facts)


def decode(data: bytes) -> Session:
    """Return the session of a record. Raises ValueError for what is none."""
    stage = msgspec.json.decode(data, type=Told).stage
    return replace(msgspec.json.decode(data, type=Session), stage=stage)
