"""The tables by themselves: what each machine does, and what it must never do."""

import pytest

from carnet.exchange import client, host, target
from carnet.exchange.machine import ImpossibleEventError, run
from carnet.wire.messages import Grant, Refusal, RefusalCode
from tests.unit.examples import make_tunneling_info
from tests.unit.script import Script

GRANT = Grant(
    request_id=bytes(16),
    session_key=bytes(1168),
    tunneling_info=make_tunneling_info(),
    invalid_pairs=(b"x" * 16,),
)
REFUSAL = Refusal(request_id=bytes(16), code=RefusalCode.OBJECTIVE, reason="No.", invalid_pairs=())


def client_script(**answers):
    answers = {
        "SealRequest": [client.RequestSealed(b"sealed")],
        "KeepPending": [client.PendingKept(b"sealed")],
        "SendRequest": [client.AnswerArrived(b"answer")],
        "OpenAnswer": [client.Granted(GRANT)],
        "ConfigureTunnel": [client.TunnelConfigured(GRANT)],
        "InitiateIKE": [client.TunnelUp(GRANT)],
    } | answers
    return Script(**answers)


def run_client(script, event=None):
    return run(client.machine(), event or client.PairChosen(b"k" * 16), script.perform)


def test_the_client_goes_the_ten_steps_in_order():
    script = client_script()
    assert run_client(script) is client.State.ESTABLISHED
    assert script.done == [
        "SealRequest", "KeepPending", "SendRequest", "OpenAnswer", "ConfigureTunnel",
        "InitiateIKE", "ForgetSecrets", "DestroyPair", "SettleOthers", "DropPending",
    ]  # fmt: skip


def test_a_sealed_refusal_destroys_the_pair():
    script = client_script(OpenAnswer=[client.Refused(REFUSAL)])
    assert run_client(script) is client.State.REFUSED
    assert script.done[-3:] == ["DestroyPair", "SettleOthers", "DropPending"]


def test_an_unsealed_no_destroys_nothing():
    script = client_script(SendRequest=[client.UnsealedNo()])
    assert run_client(script) is client.State.SET_ASIDE
    assert script.done[-2:] == ["SetPairAside", "DropPending"]
    assert "DestroyPair" not in script.done


def test_silence_keeps_the_request_for_the_next_run():
    script = client_script(SendRequest=[client.NoAnswer("host-unreachable", "")])
    assert run_client(script) is client.State.SUSPENDED
    assert not {"DestroyPair", "DropPending"} & set(script.done)


def test_a_false_answer_is_no_answer():
    script = client_script(
        SendRequest=[client.AnswerArrived(b"forged"), client.AnswerArrived(b"answer")],
        OpenAnswer=[client.AnswerFalse(b"sealed"), client.Granted(GRANT)],
    )
    assert run_client(script) is client.State.ESTABLISHED
    sent = [action for action in script.actions if isinstance(action, client.SendRequest)]
    assert sent == [client.SendRequest(b"sealed")] * 2


@pytest.mark.parametrize("failing", ["ConfigureTunnel", "InitiateIKE"])
def test_a_failed_tunnel_is_taken_out_and_its_answer_kept(failing):
    script = client_script(**{failing: [client.TunnelFailed("no")]})
    assert run_client(script) is client.State.FAILED
    assert script.done[-1] == "RemoveTunnel"
    assert not {"DestroyPair", "DropPending"} & set(script.done)


@pytest.mark.parametrize("failing", ["ConfigureTunnel", "InitiateIKE"])
def test_what_is_hopeless_is_given_up(failing):
    script = client_script(**{failing: [client.TunnelHopeless("no")]})
    assert run_client(script) is client.State.GIVEN_UP
    assert script.done[-3:] == ["RemoveTunnel", "DestroyPair", "DropPending"]


def test_a_found_request_is_sent_as_it_is():
    script = client_script()
    assert run_client(script, client.PendingFound(b"sealed")) is client.State.ESTABLISHED
    assert script.done[0] == "SendRequest"


def rows_with(table, action):
    """The rows of a table that lead to an action, by trying each with a stand-in event."""

    class Anything:
        def __getattr__(self, _):
            return self

    found = set()
    for (state, event), (_, act) in table.items():
        try:
            actions = act(Anything())
        except TypeError:
            continue
        if any(isinstance(done, action) for done in actions):
            found.add((state, event))
    return found


def test_the_client_destroys_a_pair_only_after_a_sealed_answer():
    assert rows_with(client.TABLE, client.DestroyPair) == {
        (client.State.ANSWERED, client.Refused),
        (client.State.OPENED, client.TunnelHopeless),
        (client.State.CONFIGURED, client.TunnelHopeless),
        (client.State.CONFIGURED, client.TunnelUp),
    }


def test_the_host_passes_on_only_what_is_durably_spent():
    rows = rows_with(host.TABLE, host.PassOn)
    assert rows == {
        (host.State.SPENDING, host.PairSpent),
        (host.State.LOOKING, host.RequestUnanswered),
    }
    assert {host.TABLE[row][0] for row in rows} == {host.State.SPENT}


def test_the_host_lets_go_of_a_request_before_it_asks_for_it_again():
    _, act = host.TABLE[host.State.SPENT, host.TargetSilent]
    assert [type(each) for each in act(host.TargetSilent("target-unreachable"))] == [
        host.LetGo,
        host.AskAgainLater,
    ]


def test_a_host_does_nothing_with_what_another_process_works_on():
    script = Script(Admit=[host.Admitted(None)], LookUp=[host.InProgress()])
    assert run(host.machine(), host.Arrived(None), script.perform) is host.State.SUSPENDED
    assert script.done == ["Admit", "LookUp", "AskAgainLater"]


def test_the_host_replies_only_with_what_is_stored():
    events = {event for _, event in rows_with(host.TABLE, host.Reply)}
    assert events == {host.ResponseStored, host.AnswerKept}


def test_the_host_rejects_in_one_way_before_it_has_verified():
    before = (host.State.LOOKING, host.State.OPENING)
    assert {row[0] for row in rows_with(host.TABLE, host.Reject)} == set(before)


def test_the_target_replies_only_with_what_is_recorded():
    events = {event for _, event in rows_with(target.TABLE, target.Reply)}
    assert events == {target.Recorded, target.AnswerKnown}


@pytest.mark.parametrize("module", [client, host, target])
def test_an_event_out_of_its_place_is_refused_loudly(module):
    machine = module.machine()
    first = machine.state

    class Surprise(module.Event):
        pass

    with pytest.raises(ImpossibleEventError):
        machine.handle(Surprise())
    assert machine.state is first


@pytest.mark.parametrize("module", [client, host, target])
def test_every_state_is_reached_and_every_event_has_a_row(module):
    reached = {module.machine().state} | {row[0] for row in module.TABLE.values()}
    assert reached == set(module.State)
    events = {event for _, event in module.TABLE}
    declared = {
        thing
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, module.Event) and thing is not module.Event
    }
    assert events == declared
