"""What is said of a session that is over here, and that Target may still keep."""

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from carnet.errors import DaemonSilentError, HelperAwayError, IPsecError
from carnet.ipsec import inside
from carnet.objectives import Objective
from tests.unit.test_sessions import a_session
from token_client import (
    background,
    closing,
    connect,
    describing,
    ending,
    ending_by_hand,
    known,
    leaving,
    status,
    supervising,
    whole_end,
)
from token_client.commands import status as status_command
from token_client.config import ClientConfig
from token_client.ending import Ending
from token_client.session_states import BY_HAND, Released, State
from token_client.sessions import SessionStore

LATER = 4_102_444_800
KEPT = (
    "Target work has not confirmed that the session is over, and may keep it until"
    " 2100-01-01 00:00:00Z; its operator can end it sooner."
)
ESP, BUNDLE = Objective.ESP, Objective.AH_ESP


@pytest.mark.parametrize(
    ("heard", "objective", "ended", "signed", "said"),
    [
        (True, ESP, (), None, None),
        (False, ESP, (), None, KEPT),
        (False, BUNDLE, (), None, None),
        (False, ESP, (State.ENDED, "Token alice was pulled out."), None, None),
        (False, ESP, (State.UNHEARD, "Token alice was pulled out."), None, KEPT),
        (None, ESP, (), None, KEPT),
        (None, ESP, (), Ending("Target was started anew."), None),
        (False, ESP, (), Ending("Target was started anew."), None),
    ],
)
def test_what_target_may_keep_is_said(monkeypatch, heard, objective, ended, signed, said):
    monkeypatch.setattr(ending, "why_ended", lambda _, once: signed)
    session = a_session(*ended, objective_id=int(objective), expires=LATER)
    assert leaving.may_be_kept(session, heard) == said


def test_host_is_not_asked_where_she_does_not_wait(monkeypatch):
    monkeypatch.setattr(ending, "why_ended", lambda *_, **__: Ending("Target was started anew."))
    assert leaving.may_be_kept(a_session(expires=LATER), heard=False, ask=False) == KEPT


def test_no_target_keeps_what_has_expired():
    assert leaving.may_be_kept(a_session(expires=1), heard=False) is None


def dropped(store, name, why, **_):
    store.drop(name, why)


class Daemon:
    """What is done to it, in its order."""

    def __init__(self):
        self.done = []

    def take_leave(self, name):
        self.done.append("leave")
        return False

    def down(self, name):
        self.done.append("down")


def test_who_releases_by_hand_is_told_too(tmp_path, monkeypatch):
    monkeypatch.setattr(ending_by_hand, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(closing, "release", dropped)
    monkeypatch.setattr(status.block, "names", lambda _: frozenset())
    SessionStore(tmp_path).keep(a_session(expires=LATER))
    told = []
    assert ending_by_hand.release_by_hand(Daemon(), None, told.append, lambda _: True) == ["work"]
    assert told == [KEPT]
    assert SessionStore(tmp_path).all() == []


class Silent(Daemon):
    """An IPsec daemon that does not answer."""

    def down(self, name):
        raise DaemonSilentError(AWAY)


AWAY = "The IPsec daemon does not answer."
MAY_GO_ON = tuple(
    f"The tunnel to work may go on until there is an answer; {who} ends it then."
    for who in ("`carnet disconnect`", "the agent of this machine")
)
"""Without an agent, and with one."""


@pytest.mark.parametrize("agent", [True, False])
def test_what_she_releases_while_the_daemon_is_silent_is_ended_by_an_agent(
    tmp_path, monkeypatch, agent
):
    """And by hand alone where there is none: then nothing would clear its record away."""
    for module in (ending_by_hand, known, whole_end):
        monkeypatch.setattr(module, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(closing, "release", dropped)
    monkeypatch.setattr(status.block, "names", lambda _: frozenset())
    store, session, told, asked = SessionStore(tmp_path), a_session(expires=LATER), [], []
    store.keep(session)

    def leave_to_agent(left):
        asked.append(left.name)
        return agent

    ending_by_hand.release_by_hand(Silent(), None, told.append, leave_to_agent)
    assert told == [AWAY, MAY_GO_ON[agent], KEPT]
    assert asked == [session.name]
    assert [each.stage.is_released for each in store.all()] == [True] * agent
    assert not known.is_recorded(session)
    daemon = Daemon()
    if agent:
        restored = daemon.done.append
        monkeypatch.setattr(whole_end.name_servers, "restore", restored)
        supervising.work(daemon, session, ClientConfig(), told.append)
        assert daemon.done == ["leave", "down", session.name]
    assert store.all() == []
    assert told == [AWAY, MAY_GO_ON[agent], KEPT]


class Emptied(Daemon):
    """One in which no tunnel stands, and that still has what the released one was made of."""

    def status(self):
        return []

    def resumable(self):
        return frozenset({"carnet-00"})


@pytest.fixture
def released(tmp_path, monkeypatch):
    """The records, in which there is one of a session that she released; its agent is gone."""
    for module in (describing, ending_by_hand, status):
        monkeypatch.setattr(module, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(closing, "release", SessionStore.drop)
    monkeypatch.setattr(status.block, "names", lambda _: frozenset())
    store = SessionStore(tmp_path)
    store.keep(a_session(expires=LATER))
    store.change("carnet-00", Released(BY_HAND))
    return store


def test_what_was_released_and_is_not_gone_is_found(released):
    """Its secrets are in the daemon as ever."""
    daemon, told = Emptied(), []
    (state,) = status.tunnels(daemon)
    said = describing.describe(state)
    assert "You released it by hand" in said
    assert "nobody sees to that: `carnet disconnect work` does" in said
    assert not state.resumable
    (ended,) = ending_by_hand.end(daemon, None, told.append).states
    assert (ended.name, daemon.done) == ("carnet-00", ["leave", "down"])
    assert (released.all(), told) == ([], [])


def test_who_ends_what_was_released_is_started_again(released, monkeypatch):
    started = []
    monkeypatch.setattr(background, "start", lambda left, _: not started.append(left.name))
    (session,) = released.all()
    said = background.finish_what_was_ended(session, ClientConfig())
    assert "the agent of this machine ends" in said
    assert started == ["carnet-00"]
    alone = ClientConfig(agent=False)
    assert "`carnet disconnect` ends" in background.finish_what_was_ended(session, alone)
    assert started == ["carnet-00"]


@pytest.mark.parametrize(
    ("stage", "expires", "said"),
    [
        ((State.ENDED, "Its key pair was revoked."), LATER, "ended: Its key pair was revoked."),
        ((State.RELEASED, BY_HAND), LATER, "ended: You released it by hand"),
        ((State.TO_END, "Token alice was pulled out."), LATER, "to end: Token alice was pulled"),
        ((State.TO_END,), LATER, "to end: you have ended it, and that was not possible whole."),
        ((State.GONE, "Target was started anew."), LATER, "down: Target was started anew."),
        ((), LATER, "not known whether it stands, "),
        ((), 1, "not known whether it stands; its time is over"),
    ],
    ids=str,
)
def test_where_no_daemon_is_the_records_still_tell_of_sessions(
    tmp_path, monkeypatch, stage, expires, said
):
    monkeypatch.setattr(describing, "memory_directory", lambda: tmp_path)
    SessionStore(tmp_path).keep(a_session(*stage, expires=expires))
    (text,) = describing.describe_recorded()
    assert text.startswith("work  ")
    assert text.partition("\n  ")[2].startswith(said)


@pytest.mark.parametrize("asked", [["--json"], ["--watch"], ["--watch", "--json"]], ids=str)
def test_scripts_and_who_watches_are_told_from_the_records_too(tmp_path, monkeypatch, asked):
    def away(*_):
        raise IPsecError(AWAY)

    for module in (describing, status):
        monkeypatch.setattr(module, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(status.block, "names", lambda _: frozenset({"carnet-00"}))
    monkeypatch.setattr(status_command, "drivers", lambda _: SimpleNamespace(status=away))
    monkeypatch.setattr(status_command.configuration, "load", lambda: None)
    monkeypatch.setattr(status_command.interruption, "listen", lambda: None)
    SessionStore(tmp_path).keep(a_session(State.TO_END, expires=LATER))
    shown = CliRunner().invoke(status_command.status, asked)
    assert isinstance(shown.exception, IPsecError)
    if "--json" not in asked:
        assert "to end: you have ended it" in shown.stdout
        return
    (told,) = json.loads(shown.stdout)
    assert (told["name"], told["up"], told["doomed"], told["closed"]) == (
        "carnet-00",
        None,
        "",
        True,
    )
    assert told["trouble"].startswith(AWAY.rstrip("."))


def test_where_the_helper_is_gone_her_records_tell_what_is_held_back(tmp_path, monkeypatch):
    """Nothing else that she may ask does, nor can she lift it then."""

    def away(*_):
        raise HelperAwayError("carnet-helper does not answer.")

    monkeypatch.setattr(status, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(status.block, "names", away)
    store, block = SessionStore(tmp_path), "carnet-helper"
    store.keep(a_session(networks=("10.20.0.0/16",), block=block))
    store.keep(a_session(name="carnet-01", networks=("10.30.0.0/16",)))
    over = (State.ENDED, "Its key pair was revoked.")
    store.keep(a_session(*over, name="carnet-02", networks=("10.40.0.0/16",), block=block))
    with pytest.raises(IPsecError) as raised:
        status.tunnels(SimpleNamespace(status=away))
    assert raised.value.sentence == (
        "carnet-helper does not answer; meanwhile nothing leaves in clear for 10.20.0.0/16."
    )


def test_leave_is_taken_while_the_tunnel_can_still_be_negotiated(tmp_path, monkeypatch):
    monkeypatch.setattr(closing, "release", SessionStore.drop)
    daemon, store = Daemon(), SessionStore(tmp_path)
    store.keep(a_session())
    assert closing.end_session(daemon, store, "carnet-00") is False
    assert daemon.done == ["leave", "down"]
    assert list(tmp_path.iterdir()) == []


def test_what_target_may_keep_of_a_replaced_session_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(closing, "release", SessionStore.drop)
    store, notes = SessionStore(tmp_path), []
    store.keep(a_session(expires=LATER))
    newer = a_session(name="carnet-01")
    steps = SimpleNamespace(note=notes.append)
    connect._replace_older(SimpleNamespace(others=Daemon(), sessions=store, steps=steps), newer)
    assert notes == [f"the older tunnel was ended here: {KEPT}"]
    assert store.all() == []


def test_what_had_the_address_that_target_gives_again_is_down_first_and_closed_as_ever(tmp_path):
    daemon, store, newer = Daemon(), SessionStore(tmp_path), a_session(name="carnet-03")
    others = (
        a_session(name="carnet-01", target="other"),
        a_session(name="carnet-02", virtual_address="10.30.0.2"),
    )
    for each in (a_session(), *others, newer):
        store.keep(each)
    closing.take_down_those_with_its_address(daemon, store, newer)
    assert daemon.done == ["down"]
    assert {each.name for each in store.all()} == {f"carnet-0{number}" for number in range(4)}


class Failing(Daemon):
    """It cannot end the first, and has both."""

    def status(self):
        return []

    def resumable(self):
        return frozenset()

    installed = resumable

    def down(self, name):
        super().down(name)
        if name == "carnet-00":
            raise DaemonSilentError(AWAY)


def test_what_cannot_be_ended_keeps_no_other_from_ending(released, monkeypatch):
    released.keep(a_session(name="carnet-01", target="other", expires=LATER))
    monkeypatch.setattr(ending_by_hand, "may_be_kept", lambda *_, **__: None)
    monkeypatch.setattr(inside, "_inside", inside.Here(None))
    ended = ending_by_hand.end(Failing(), None, str)
    assert [state.name for state in ended.states] == ["carnet-01"]
    assert [error.sentence for error in ended.failures] == [AWAY]
    assert [each.name for each in released.all()] == ["carnet-00"]


def test_what_her_command_could_only_write_down_is_left_to_an_agent_that_there_is(
    released, monkeypatch
):
    """And of a name of which no record tells it is said that none does."""

    def silent():
        raise HelperAwayError(AWAY)

    released.drop("carnet-00")
    released.keep(a_session(expires=LATER))
    monkeypatch.setattr(ending_by_hand, "is_watched", lambda *_: True)
    with pytest.raises(IPsecError, match="is to end, by the agent of this machine or another"):
        ending_by_hand.end(SimpleNamespace(status=silent), "work", str)
    with pytest.raises(IPsecError, match="; no record tells of a tunnel 'nosuch'"):
        ending_by_hand.end(SimpleNamespace(status=silent), "nosuch", str)


@pytest.mark.parametrize("named", ["work", None], ids=str)
def test_that_a_session_is_to_end_is_written_down_though_no_daemon_answers(
    tmp_path, monkeypatch, named
):
    """Whoever watches over it goes on with that, and nothing of another is ended."""

    def silent():
        raise HelperAwayError(AWAY)

    for module in (ending_by_hand, status):
        monkeypatch.setattr(module, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(status.block, "names", lambda _: frozenset())
    store, sessions = SessionStore(tmp_path), (a_session(), a_session(name="carnet-01", target="o"))
    for each in sessions:
        store.keep(each)
    with pytest.raises(IPsecError) as raised:
        ending_by_hand.end(SimpleNamespace(status=silent), named, str)
    said = raised.value.sentence
    assert said.startswith(AWAY.rstrip("."))
    assert ("each session to o and work is to end" in said) == (named is None)
    assert said.endswith(" is to end, by another `carnet disconnect`.")
    states = {each.name: each.stage.state for each in store.all()}
    other = State.TO_END if named is None else State.STANDING
    assert states == {"carnet-00": State.TO_END, "carnet-01": other}


class Impatient(Daemon):
    """Its user does not wait for Target."""

    def take_leave(self, name):
        raise KeyboardInterrupt


def test_who_does_not_wait_for_target_has_ended_the_tunnel_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(closing, "release", SessionStore.drop)
    monkeypatch.setattr(ending_by_hand, "memory_directory", lambda: tmp_path)
    session = a_session(expires=LATER)
    state = status.TunnelState(
        session.name, session, live=None, closed=True, comes_back=True, watched=False
    )
    monkeypatch.setattr(ending_by_hand, "tunnels", lambda driver: [state])
    SessionStore(tmp_path).keep(session)
    daemon, told = Impatient(), []
    with pytest.raises(KeyboardInterrupt):
        ending_by_hand.end(daemon, None, told.append)
    assert daemon.done == ["down"]
    assert told == [KEPT]
    assert list(tmp_path.iterdir()) == []
