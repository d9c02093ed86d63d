"""Where the life of a session of this machine's is: one table.

A row is as those of `carnet.exchange.machine`: in this state, on this event, to that state; and
nothing is asked of anybody. What has no row is no bug here: several processes have a part in a
session, and none knows what the others have just done. Such an event does nothing, so that whoever
comes late with what is no longer so is not believed: after an end nothing stands or went, and
the first reason stays. Nothing leads back from an end.
"""

from enum import StrEnum

import msgspec

from carnet.exchange.machine import Event, Machine, Table, nothing

BY_HAND = "You released it by hand; it ends whole as soon as the IPsec daemon answers."


class State(StrEnum):
    """Where a session is."""

    UNSEEN = "unseen"
    """Nobody has seen its tunnel stand, which it may: see token_client.late."""
    STANDING = "standing"
    """Its tunnel was seen to stand, and does, or may come back."""
    UNTOLD = "gone untold"
    """Its tunnel went for good, and Target had yet to say why; the session lives."""
    GONE = "gone"
    """Its tunnel went for good, and it is known why; the session lives."""
    TO_END = "to end"
    """Somebody has begun to end it; who watches over it goes on with that."""
    ENDED = "ended"
    """It was ended while nobody looked; its daemon may have a rest, which is cleaned up."""
    UNHEARD = "ended unheard"
    """The same, and Target may not have heard of that."""
    RELEASED = "released"
    """She has ended it by hand, and its agent is to end what the daemon still has of it."""


class Change(Event, frozen=True):
    """Something that happened to a session."""

    why: str | None = None
    """As a sentence, where there is a reason; of an end None: by her own command."""


class Seen(Change, frozen=True):
    """Its tunnel was seen to stand."""


class LeftUnseen(Change, frozen=True):
    """Who brought its tunnel up has left without knowing whether it stands."""


class Went(Change, frozen=True):
    """Its tunnel went for good, and nothing of it is left, for this reason."""


class WentUntold(Change, frozen=True):
    """The same, and Target has yet to say why."""


class EndBegun(Change, frozen=True):
    """It is to end, before anything of it does."""


class Ended(Change, frozen=True):
    """Its tunnel and its block are gone, for this reason."""


class LeftUnheard(Change, frozen=True):
    """Target may not have heard that it was ended, which the reason says as well."""


class Released(Change, frozen=True):
    """Its block is lifted by her hand, and what its daemon has of it is left to its agent."""


_S = State

TABLE: Table[State] = {
    (_S.UNSEEN, Seen): (_S.STANDING, nothing),
    (_S.UNSEEN, EndBegun): (_S.TO_END, nothing),
    (_S.UNSEEN, Ended): (_S.ENDED, nothing),
    (_S.UNSEEN, Released): (_S.RELEASED, nothing),
    (_S.STANDING, LeftUnseen): (_S.UNSEEN, nothing),
    (_S.STANDING, WentUntold): (_S.UNTOLD, nothing),
    (_S.STANDING, Went): (_S.GONE, nothing),
    (_S.STANDING, EndBegun): (_S.TO_END, nothing),
    (_S.STANDING, Ended): (_S.ENDED, nothing),
    (_S.STANDING, Released): (_S.RELEASED, nothing),
    # Who goes on with its request may have it stand again.
    (_S.UNTOLD, Seen): (_S.STANDING, nothing),
    (_S.UNTOLD, LeftUnseen): (_S.UNSEEN, nothing),
    (_S.UNTOLD, WentUntold): (_S.UNTOLD, nothing),
    (_S.UNTOLD, Went): (_S.GONE, nothing),
    (_S.UNTOLD, EndBegun): (_S.TO_END, nothing),
    (_S.UNTOLD, Ended): (_S.ENDED, nothing),
    (_S.UNTOLD, Released): (_S.RELEASED, nothing),
    (_S.GONE, Seen): (_S.STANDING, nothing),
    (_S.GONE, LeftUnseen): (_S.UNSEEN, nothing),
    (_S.GONE, Went): (_S.GONE, nothing),
    (_S.GONE, EndBegun): (_S.TO_END, nothing),
    (_S.GONE, Ended): (_S.ENDED, nothing),
    (_S.GONE, Released): (_S.RELEASED, nothing),
    (_S.TO_END, Ended): (_S.ENDED, nothing),
    (_S.TO_END, Released): (_S.RELEASED, nothing),
    (_S.ENDED, LeftUnheard): (_S.UNHEARD, nothing),
    (_S.ENDED, Released): (_S.RELEASED, nothing),
    (_S.UNHEARD, Released): (_S.RELEASED, nothing),
}

_LIVING = frozenset({_S.UNSEEN, _S.STANDING, _S.UNTOLD, _S.GONE})
_OVER = frozenset({_S.ENDED, _S.UNHEARD, _S.RELEASED})


def machine() -> Machine[State]:
    """Return a session whose tunnel is to come up."""
    return Machine(TABLE, State.UNSEEN)


class Stage(msgspec.Struct, frozen=True):
    """Where a session is, and why, where there is a reason."""

    state: State = State.STANDING
    why: str | None = None

    def after(self, change: Change) -> "Stage":
        """Return where it is then: there still, if the table has no such row."""
        row = TABLE.get((self.state, type(change)))
        return self if row is None else Stage(row[0], change.why)

    @property
    def lives(self) -> bool:
        """Whether it is meant to: nobody has ended it, or begun to."""
        return self.state in _LIVING

    @property
    def is_ended(self) -> bool:
        """Whether nothing is held back for it any more."""
        return self.state in _OVER

    @property
    def is_to_end(self) -> bool:
        """Whether somebody has begun to end it, and that is not done."""
        return self.state is State.TO_END

    @property
    def is_yet_to_end(self) -> bool:
        """The same, or whether its agent is to end what she has released."""
        return self.is_to_end or self.is_released

    @property
    def is_unseen(self) -> bool:
        """Whether nobody has seen its tunnel stand, which it may."""
        return self.state is State.UNSEEN

    @property
    def is_gone(self) -> bool:
        """Whether its tunnel went for good while it lives."""
        return self.state in {State.UNTOLD, State.GONE}

    @property
    def is_untold(self) -> bool:
        """Whether it did, and Target had yet to say why."""
        return self.state is State.UNTOLD

    @property
    def is_unheard(self) -> bool:
        """Whether it was ended, and Target may not have heard of that."""
        return self.state is State.UNHEARD

    @property
    def is_released(self) -> bool:
        """Whether she has ended it by hand, and something may be left of it."""
        return self.state is State.RELEASED


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A life as records have it, and what scripts are shown: more words than there are states.

    Records have had this form before there were states, and who watches over a tunnel while this
    package is replaced reads and writes it as ever. Of what no state has together, the end counts.
    """

    ended: str | None = None
    """Why it was ended while nobody looked, as a sentence."""
    unheard: bool = False
    """Whether it was, and Target may not have heard of that."""
    released: bool = False
    """Whether she has ended it by hand, and its agent is to end what the daemon still has of it."""
    doomed: str | None = None
    """Why it is to end, where somebody has begun to end it; empty: by her own command."""
    down: str | None = None
    """Why its tunnel went for good, as it was told then; None: it did not, as far as is known."""
    untold: bool = False
    """Whether Target had yet to say why, then."""
    unseen: bool = False
    """Whether nobody has seen its tunnel stand, which it may."""

    @property
    def stage(self) -> Stage:
        """The one state that this is."""
        if self.released:
            return Stage(State.RELEASED, self.ended or BY_HAND)
        if self.ended is not None:
            return Stage(State.UNHEARD if self.unheard else State.ENDED, self.ended)
        if self.doomed is not None:
            return Stage(State.TO_END, self.doomed or None)
        if self.unseen:
            return Stage(State.UNSEEN)
        if self.down is not None:
            return Stage(State.UNTOLD if self.untold else State.GONE, self.down)
        return Stage()


def told(stage: Stage) -> Told:
    """Return a life as records have it."""
    return Told(
        ended=stage.why if stage.is_ended else None,
        unheard=stage.is_unheard,
        released=stage.is_released,
        doomed=(stage.why or "") if stage.is_to_end else None,
        down=stage.why if stage.is_gone else None,
        untold=stage.is_untold,
        unseen=stage.is_unseen,
    )
