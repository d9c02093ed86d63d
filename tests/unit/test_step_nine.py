"""What is left of a tunnel of which step 9 fails: nothing, or all that it may still need."""

from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from carnet.errors import DaemonSilentError, HelperAwayError, IKERefusedError, IPsecError
from carnet.exchange import client as step
from carnet.exchange.machine import Machine, run
from carnet.ipsec import block
from carnet.tunnel import tunnel_name
from tests.unit.examples import make_tunneling_info
from tests.unit.test_sessions import a_session
from token_client.bringing_up import BringingUp
from token_client.exchange import Exchange
from token_client.session_states import BY_HAND, State
from token_client.sessions import SessionStore
from token_client.steps import Steps

REQUEST_ID = bytes(range(16))
NAME = tunnel_name(REQUEST_ID)
SILENT = DaemonSilentError("The daemon does not answer; start it.")
AWAY = HelperAwayError("The helper does not answer; start it.")
GONE = IPsecError("There is no daemon; start it.")


class Packets:
    """The packet filter, with the block of the tunnel."""

    name = "packets"

    def __init__(self):
        self.blocks = {NAME}

    def works(self):
        return True

    def lift(self, name):
        self.blocks.discard(name)


@pytest.fixture
def fail(tmp_path, monkeypatch, capsys):
    """Return what fails in step 9, and as it is taken back; that returns what is left and said."""
    packets, store, agents = Packets(), SessionStore(tmp_path), []
    monkeypatch.setattr(block, "_here", block._PacketFilters((packets,)))
    store.keep(replace(a_session(), name=NAME))

    def failing(first, then, *, watched=False):
        errors = iter([first, then])

        def ask(_):
            raise next(errors)

        booklet = SimpleNamespace(keys=None, messages_of=lambda _: None)
        means = SimpleNamespace(
            driver=SimpleNamespace(up=ask, down=ask),
            sessions=store,
            steps=Steps(),
            booklet=booklet,
            store=None,
            heir=SimpleNamespace(
                begin_if_it_can=lambda session: agents.append(session) or watched,
                dismiss=lambda: None,
            ),
        )
        exchange = Exchange(means, None, None)
        exchange._asking.request = SimpleNamespace(request_id=REQUEST_ID)
        exchange._tunnel._spec = None
        machine = Machine(step.TABLE, step.State.OPENED)
        state = run(machine, step.TunnelConfigured(grant=None), exchange._perform)
        assert (state, exchange.failure) == (step.State.FAILED, first.sentence)
        found = store.find(NAME)
        assert agents == ([found] if found else [])
        assert found is None or found.stage.is_unseen
        return (found is not None, NAME in packets.blocks), capsys.readouterr().out

    return failing


@pytest.mark.parametrize("error", [SILENT, AWAY], ids=["daemon", "helper"])
def test_what_may_still_come_up_keeps_its_record_and_its_block(fail, error):
    """Whoever does not answer may have the tunnel, and go on with it once he does."""
    left, said = fail(error, error)
    assert left == (True, True)
    assert "the tunnel may stand, and `carnet disconnect` ends it" in said
    assert "start it" not in said  # which is the last word of the command
    assert "agent" not in said


def test_what_may_still_come_up_is_left_to_an_agent(fail):
    """Its token is watched then, and its time."""
    left, said = fail(SILENT, SILENT, watched=True)
    assert left == (True, True)
    assert "ends it then; the agent of this machine watches over it" in said


def test_another_reason_why_it_may_stand_is_told(fail):
    left, said = fail(IPsecError("Target says no."), SILENT)
    assert left == (True, True)
    assert SILENT.sentence.rstrip(".") in said


def test_nothing_is_left_of_what_a_daemon_had_that_is_gone(fail):
    assert fail(GONE, GONE) == ((False, False), "")


@pytest.mark.parametrize(
    "stays", [(State.TO_END, "Its token was pulled out."), (State.RELEASED, BY_HAND)], ids=str
)
def test_what_is_to_end_is_not_gone_on_with(tmp_path, stays):
    """Another pair opens another tunnel, and who has begun to end this one goes on with that."""
    store, ending = SessionStore(tmp_path), a_session(*stays, name=NAME)
    store.keep(ending)
    means = SimpleNamespace(sessions=store, steps=Steps(quiet=True))
    asking = SimpleNamespace(
        request=SimpleNamespace(request_id=REQUEST_ID), resumed=SimpleNamespace(age=1)
    )
    grant = SimpleNamespace(tunneling_info=SimpleNamespace(initiate_within=60))
    outcome = BringingUp(means, asking).configure(step.ConfigureTunnel(grant))
    assert isinstance(outcome, step.TunnelHopeless)
    assert "is to end, and does not come back" in outcome.reason
    assert store.all() == [ending]


def test_what_somebody_has_just_begun_to_end_is_not_gone_on_with_either(tmp_path):
    """It was looked at before that."""
    store, ending = SessionStore(tmp_path), a_session(State.TO_END, name=NAME)
    store.keep(ending)
    means = SimpleNamespace(
        sessions=store,
        life=SimpleNamespace(dns=False),
        booklet=SimpleNamespace(token=ending.token, officer_key=b""),
        module=None,
        hosts=(),
        driver=SimpleNamespace(name="strongswan"),
        closing=SimpleNamespace(made_by=lambda _: None),
    )
    request = SimpleNamespace(
        request_id=REQUEST_ID, user_id="alice@office", request_info=SimpleNamespace(target="work")
    )
    bringing_up = BringingUp(means, SimpleNamespace(request=request))
    bringing_up._counted = SimpleNamespace(clock_behind=0, expires=1, target_ahead=0)
    grant = SimpleNamespace(tunneling_info=make_tunneling_info())
    with pytest.raises(IKERefusedError, match="is to end, and does not come back"):
        bringing_up._remember_session(grant, (), stands=False)
    assert store.all() == [ending]
