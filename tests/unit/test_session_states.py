"""Where a session of this machine's is: every row of the table, and every one that it has not."""

from itertools import product

import msgspec
import pytest

from tests.unit.test_sessions import a_session
from token_client import record
from token_client.session_states import (
    BY_HAND,
    TABLE,
    EndBegun,
    Ended,
    LeftUnheard,
    LeftUnseen,
    Released,
    Seen,
    Stage,
    State,
    Told,
    Went,
    WentUntold,
    machine,
    told,
)

CHANGES = (Seen, LeftUnseen, WentUntold, Went, EndBegun, Ended, LeftUnheard, Released)
LEADS = """
unseen         standing  -       -            -     to end  ended  -              released
standing       -         unseen  gone untold  gone  to end  ended  -              released
gone untold    standing  unseen  gone untold  gone  to end  ended  -              released
gone           standing  unseen  -            gone  to end  ended  -              released
to end         -         -       -            -     -       ended  -              released
ended          -         -       -            -     -       -      ended unheard  released
ended unheard  -         -       -            -     -       -      -              released
released       -         -       -            -     -       -      -              -
"""
ROWS = [[each.strip() for each in line.split("  ") if each] for line in LEADS.strip().splitlines()]
CELLS = [
    (State(first), change, leads)
    for first, *rest in ROWS
    for change, leads in zip(CHANGES, rest, strict=True)
]
LIVING = [State.UNSEEN, State.STANDING, State.UNTOLD, State.GONE]
OVER = [State.ENDED, State.UNHEARD, State.RELEASED]
WHY, BEFORE = "Token alice was pulled out.", "Its key pair was revoked."


@pytest.mark.parametrize(("state", "change", "leads"), CELLS)
def test_what_a_change_leads_to(state, change, leads):
    """What has no row leaves all as it is, the reason too."""
    stays = Stage(state, BEFORE)
    then = stays if leads == "-" else Stage(State(leads), WHY)
    assert stays.after(change(WHY)) == then
    assert ((state, change) in TABLE) == (leads != "-")


def test_each_state_is_looked_at_with_each_change():
    assert [State(first) for first, *_ in ROWS] == list(State)
    assert len(CELLS) == len(State) * len(CHANGES)
    assert {change for _, change in TABLE} == set(CHANGES)


def test_no_row_leads_back_from_an_end():
    """Those that live, then one that is to end, then those that are over."""
    height = {**dict.fromkeys(LIVING, 0), State.TO_END: 1, **dict.fromkeys(OVER, 2)}
    assert set(height) == set(State)
    assert all(height[state] <= height[leads] for (state, _), (leads, _) in TABLE.items())


@pytest.mark.parametrize("state", [*LIVING, State.TO_END])
def test_whatever_is_not_over_can_be_ended(state):
    for change in (Ended, Released):
        assert Stage(state).after(change(WHY)).is_ended
    assert not Stage(state).after(EndBegun(WHY)).lives


def test_a_session_begins_as_one_that_nobody_has_seen():
    assert machine().state is State.UNSEEN


@pytest.mark.parametrize("state", State)
def test_what_is_asked_of_a_state(state):
    stage = Stage(state, WHY)
    assert stage.lives == (state in LIVING)
    assert stage.is_ended == (state in OVER)
    assert stage.is_yet_to_end == (state in {State.TO_END, State.RELEASED})
    assert stage.is_to_end == (state is State.TO_END)
    assert stage.is_unseen == (state is State.UNSEEN)
    assert stage.is_gone == (state in {State.UNTOLD, State.GONE})
    assert stage.is_untold == (state is State.UNTOLD)
    assert stage.is_unheard == (state is State.UNHEARD)
    assert stage.is_released == (state is State.RELEASED)


@pytest.mark.parametrize(
    ("stage", "facts"),
    [
        (Stage(), {}),
        (Stage(State.UNSEEN), {"unseen": True}),
        (Stage(State.UNTOLD, WHY), {"down": WHY, "untold": True}),
        (Stage(State.GONE, WHY), {"down": WHY}),
        (Stage(State.TO_END, WHY), {"doomed": WHY}),
        (Stage(State.TO_END), {"doomed": ""}),
        (Stage(State.ENDED, WHY), {"ended": WHY}),
        (Stage(State.UNHEARD, WHY), {"ended": WHY, "unheard": True}),
        (Stage(State.RELEASED, BY_HAND), {"ended": BY_HAND, "released": True}),
    ],
)
def test_a_record_says_it_as_ever_and_is_read_so(stage, facts):
    """Also by who watches over a tunnel since before there were states."""
    session = a_session(stage=stage)
    raw = msgspec.json.decode(record.encode(session))
    plain = msgspec.structs.asdict(Told())
    assert {name: raw[name] for name in plain} == {**plain, **facts}
    assert set(raw) == set(record.FACTS)
    assert record.decode(record.encode(session)) == session


@pytest.mark.parametrize(
    ("facts", "stage"),
    [
        ({"doomed": WHY, "ended": WHY}, Stage(State.ENDED, WHY)),
        ({"doomed": "", "down": BEFORE, "untold": True}, Stage(State.TO_END)),
        ({"doomed": WHY, "unseen": True}, Stage(State.TO_END, WHY)),
        ({"ended": WHY, "unseen": True, "unheard": True}, Stage(State.UNHEARD, WHY)),
        ({"doomed": WHY, "ended": BY_HAND, "released": True}, Stage(State.RELEASED, BY_HAND)),
        ({"down": BEFORE, "unseen": True}, Stage(State.UNSEEN)),
        ({"released": True}, Stage(State.RELEASED, BY_HAND)),
    ],
    ids=str,
)
def test_what_records_had_together_is_one_state(facts, stage):
    old = {**msgspec.json.decode(record.encode(a_session())), **facts}
    assert record.decode(msgspec.json.encode(old)).stage == stage


def test_whatever_a_record_has_together_is_one_state_and_stays_it():
    no_yes = (False, True)
    for ended, doomed, down in product((None, "", WHY), repeat=3):
        for unheard, released, untold, unseen in product(no_yes, repeat=4):
            said = Told(
                ended=ended,
                unheard=unheard,
                released=released,
                doomed=doomed,
                down=down,
                untold=untold,
                unseen=unseen,
            )
            stage = said.stage
            assert told(stage).stage == stage
            assert stage.is_ended == (released or ended is not None)
            assert stage.lives == (not stage.is_ended and doomed is None)
