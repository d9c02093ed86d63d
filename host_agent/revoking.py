"""Revoking, for the operator and for the officer: pairs, imports under way, tunnels."""

from collections.abc import Iterator
from dataclasses import dataclass

from carnet import crash
from carnet.counting import counted
from carnet.errors import NothingRevokedError
from host_agent.arrival import wait_for_arrival
from host_agent.keydb import KeyDatabase, Revocation


@dataclass(frozen=True)
class Revoked:
    """What came of it."""

    key_ids: list[bytes]
    """Of the pairs that were valid."""
    importing: int
    """How many pairs that are not recorded yet will never be valid."""
    tunnels: int
    """How many that live will be ended."""

    @property
    def anything(self) -> bool:
        """Whether anything of it was left to do."""
        return bool(self.key_ids or self.importing or self.tunnels)

    def and_then(self, later: "Revoked") -> "Revoked":
        """Return what came of this and, by the same once more, of what was there by then."""
        return Revoked(
            self.key_ids + later.key_ids,
            max(self.importing, later.importing),  # an import may be over in between
            self.tunnels + later.tunnels,
        )


def revoke(database: KeyDatabase, revocation: Revocation, **which: object) -> Revoked:
    """Turn invalid what `which` names: by key_id, user_id or token_serial.

    When this is over none of it is valid, nor will be by an import that has begun, nor by a
    batch that the officer's interface had by then. What is cut off is done by the same again.
    Raises NotArrivedError as wait_for_arrival() does.
    """
    done = revoke_known(database, revocation, **which)
    wait_for_arrival(database)
    # Though nobody was waited for: a batch may have come and been written down in between.
    return done.and_then(revoke_known(database, revocation, **which))


def revoke_known(database: KeyDatabase, revocation: Revocation, **which: object) -> Revoked:
    """Do it without waiting for a batch that has just come, of which nothing is known."""
    importing = database.revoke_imports(revocation, **which)
    key_ids = database.revoke(revocation.why, revocation.reason, revocation.by, **which)
    crash.reach("host.revoked")
    return Revoked(key_ids, importing, database.revoke_tunnels(revocation.why, **which))


def revoked_before(database: KeyDatabase, done: Revoked, **which: object) -> tuple[int, int]:
    """Return how many pairs and tunnels of it are revoked by now.

    Raises NothingRevokedError where `done` was nothing and none is: who mistypes is told.
    """
    before = database.revoked_before(**which)
    if done.anything or any(before):
        return before
    raise NothingRevokedError(
        "No valid key pair and no live tunnel is that; correct it where it is not as it was "
        "meant, and where its batch is not imported yet delete that file, or revoke it again "
        "after the import."
    )


def lines(done: Revoked, pairs: int, tunnels: int, owed: int) -> Iterator[str]:
    """Say what came of it, or how many pairs and tunnels were revoked before.

    `owed` is how many of the tunnels Target is yet to be told of.
    """
    if not done.anything:
        left = "revoke" if owed else "do"
        ending = f", and {counted(owed, 'live tunnel')} will be ended" if owed else ""
        yield (
            f"Nothing is left to {left}: {counted(pairs, 'key pair')} and "
            f"{counted(tunnels, 'tunnel')} were revoked before{ending}. "
            f"A batch that is not imported yet is not among them."
        )
        return
    revoked, live = counted(len(done.key_ids), "key pair"), counted(done.tunnels, "live tunnel")
    if done.tunnels and not done.key_ids:
        yield f"{live} will be ended; no key pair is left to revoke, a tunnel's is used already."
    else:
        yield f"{revoked} revoked, {live} will be ended."
    if done.importing:
        early = counted(done.importing, "key pair")
        yield f"An import is under way; {early} of it will never be valid."
