"""Host's and Target's tables walked through: what is done in each case, and in which order."""

import pytest

from carnet.exchange import host, target
from carnet.exchange.machine import Machine, run
from carnet.wire.control import CONTROL_VERSION, TunnelGrant, TunnelRefusal, TunnelRequest
from carnet.wire.envelope import Envelope, SignedRequest
from carnet.wire.messages import RefusalCode
from carnet.wire.suites import P256
from tests.unit.examples import make_request, make_tunneling_info
from tests.unit.script import Script

ENVELOPE = Envelope(P256, b"k" * 16, b"sealed", b"d" * 32)
REQUEST = make_request()
SIGNED = SignedRequest(REQUEST, b"evidence")
STATEMENT = TunnelRequest(
    version=CONTROL_VERSION,
    user_id=REQUEST.user_id,
    custody="paired",
    suite=1,
    public_key=b"p" * 32,
    evidence=SIGNED.evidence,
)
GRANT = TunnelGrant(
    request_id=REQUEST.request_id,
    session_key=bytes(1168),
    tunneling_info=make_tunneling_info(),
)
REFUSAL = TunnelRefusal(
    request_id=REQUEST.request_id, code=RefusalCode.OBJECTIVE, reason="Not for you."
)


# Host


def host_script(**answers):
    answers = {
        "Admit": [host.Admitted(ENVELOPE)],
        "LookUp": [host.PairValid(ENVELOPE)],
        "OpenRequest": [host.RequestOpened(SIGNED)],
        "SpendPair": [host.PairSpent(SIGNED)],
        "PassOn": [host.TargetAnswered(GRANT)],
        "SealResponse": [host.ResponseSealed(b"response", "granted")],
        "StoreResponse": [host.ResponseStored(b"response")],
        "DestroyKey": [host.KeyDestroyed()],
    } | answers
    return Script(**answers)


def run_host(script):
    state = run(host.machine(), host.Arrived(ENVELOPE), script.perform)
    assert script.actions.pop(0) == host.Admit(ENVELOPE)
    return state


def test_the_host_goes_its_steps_in_order_and_burns_off_the_path_of_the_answer():
    script = host_script()
    assert run_host(script) is host.State.DONE
    assert script.actions == [
        host.LookUp(ENVELOPE),
        host.OpenRequest(ENVELOPE),
        host.SpendPair(SIGNED),
        host.PassOn(SIGNED),
        host.SealResponse(GRANT),
        host.StoreResponse(b"response", "granted"),
        host.Reply(b"response"),
        host.DestroyKey(),
    ]


def test_the_host_sends_a_kept_answer_again_and_does_nothing_else():
    script = host_script(LookUp=[host.AnswerKept(b"kept")])
    assert run_host(script) is host.State.DONE
    assert script.actions[1:] == [host.Reply(b"kept")]


@pytest.mark.parametrize(
    "changes",
    [
        {"LookUp": [host.PairUnusable("why")]},
        {"OpenRequest": [host.OpeningFailed("why")]},
    ],
)
def test_the_host_rejects_and_does_nothing_else(changes):
    script = host_script(**changes)
    assert run_host(script) is host.State.REJECTED
    assert script.actions[-1] == host.Reject("why")
    assert not {"SpendPair", "PassOn", "Reply"} & set(script.done)


def test_the_host_passes_on_what_a_crash_left_without_opening_it_again():
    script = host_script(LookUp=[host.RequestUnanswered(SIGNED)])
    assert run_host(script) is host.State.DONE
    assert script.actions[1] == host.PassOn(SIGNED)
    assert script.done[-2:] == ["Reply", "DestroyKey"]


def test_the_host_looks_again_when_another_request_was_quicker():
    script = host_script(
        LookUp=[host.PairValid(ENVELOPE), host.PairUnusable("spent by other bytes")],
        SpendPair=[host.PairTaken(ENVELOPE)],
    )
    assert run_host(script) is host.State.REJECTED
    assert script.actions[-2:] == [host.LookUp(ENVELOPE), host.Reject("spent by other bytes")]


def test_the_host_stores_nothing_while_target_is_silent():
    script = host_script(PassOn=[host.TargetSilent("target-unreachable")])
    assert run_host(script) is host.State.SUSPENDED
    assert script.actions[-2:] == [host.LetGo(), host.AskAgainLater("target-unreachable")]


def test_the_host_leaves_a_request_to_the_process_that_has_its_lease():
    script = host_script(LookUp=[host.InProgress()])
    assert run_host(script) is host.State.SUSPENDED
    assert script.actions[1:] == [host.AskAgainLater(host.NOT_READY)]


def test_the_host_refuses_nothing_by_a_clock_that_has_leapt():
    script = host_script(LookUp=[host.ClockLeapt()])
    assert run_host(script) is host.State.SUSPENDED
    assert script.actions[1:] == [host.AskAgainLater(host.NOT_READY)]


def test_the_host_looks_again_when_the_pair_was_burned_while_it_was_opened():
    script = host_script(
        LookUp=[host.PairValid(ENVELOPE), host.AnswerKept(b"kept")],
        OpenRequest=[host.PairTaken(ENVELOPE)],
    )
    assert run_host(script) is host.State.DONE
    assert script.actions[-2:] == [host.LookUp(ENVELOPE), host.Reply(b"kept")]


def test_the_host_sends_the_answer_that_was_stored_first():
    script = host_script(StoreResponse=[host.AnswerKept(b"the other")])
    assert run_host(script) is host.State.DONE
    assert script.actions[-1] == host.Reply(b"the other")


# Target


def target_script(**answers):
    answers = {
        "LookUp": [target.RequestNew(STATEMENT, "office")],
        "VerifyEvidence": [target.EvidenceTrue(REQUEST)],
        "Authorize": [target.Authorized(REQUEST, "terms")],
        "InstallTunnel": [target.TunnelInstalled(GRANT)],
        "Record": [target.Recorded(GRANT)],
        "ConfirmTunnel": [target.TunnelConfirmed()],
        "ForgetSecrets": [target.SecretsForgotten()],
        "RecordEstablished": [target.EstablishedRecorded()],
        "RemoveTunnel": [target.TunnelRemoved("why")],
        "RecordEnded": [target.EndRecorded()],
    } | answers
    return Script(**answers)


def run_target(script, *events):
    machine = target.machine()
    for event in (target.Arrived(STATEMENT, "office"), *events):
        run(machine, event, script.perform)
    return machine.state


def end_from(state, script, event):
    return run(Machine(target.TABLE, state), event, script.perform)


def test_the_target_goes_its_steps_in_order():
    script = target_script()
    assert run_target(script) is target.State.PREPARED
    assert script.actions == [
        target.LookUp(STATEMENT, "office"),
        target.VerifyEvidence(STATEMENT, "office"),
        target.Authorize(REQUEST),
        target.InstallTunnel(REQUEST, "terms"),
        target.Record(GRANT),
        target.Reply(GRANT),
        target.AwaitIKE(),
    ]


def test_the_target_confirms_forgets_and_records_in_this_order():
    script = target_script()
    assert run_target(script, target.CameUp()) is target.State.ESTABLISHED
    tail = ["ConfirmTunnel", "ForgetSecrets", "RecordEstablished", "AwaitExpiry"]
    assert script.done[-4:] == tail


def test_a_client_that_comes_back_is_compared_and_her_session_lasts_no_longer():
    script = target_script()
    back = (target.CameUp(), target.TunnelConfirmed())
    events = (target.CameUp(), target.WentSilent(), *back)
    assert run_target(script, *events) is target.State.ESTABLISHED
    assert script.done[-3:] == ["AwaitReturn", "ConfirmTunnel", "AwaitExpiry"]


def test_a_tunnel_that_may_be_another_is_looked_at_as_far_as_it_stands():
    script = target_script(CheckTunnel=[None, target.TunnelConfirmed()])
    anew = target.CameAnew()
    assert run_target(script, anew, target.CameUp(), anew) is target.State.ESTABLISHED
    assert script.done[-8:-5] == ["AwaitIKE", "CheckTunnel", "ConfirmTunnel"]
    assert script.done[-2:] == ["CheckTunnel", "AwaitExpiry"]
    assert [each.whole for each in script.actions if hasattr(each, "whole")] == [False, True]


@pytest.mark.parametrize("asked", ["ConfirmTunnel", "ForgetSecrets"])
@pytest.mark.parametrize("told", [target.CameUp(), target.CameAnew()])
def test_a_tunnel_of_which_the_daemon_told_nothing_is_compared_again(asked, told):
    script = target_script(ConfirmTunnel=[target.TunnelConfirmed()] * 2)
    script.answers[asked].insert(0, None)
    assert run_target(script, target.CameUp(), told) is target.State.ESTABLISHED
    tail = ["ConfirmTunnel", "ForgetSecrets", "RecordEstablished", "AwaitExpiry"]
    assert script.done[-5:] == [asked, *tail]


def test_the_target_gives_the_recorded_answer_and_does_nothing_else():
    script = target_script(LookUp=[target.AnswerKnown(GRANT)])
    assert run_target(script) is target.State.REPLIED
    assert script.actions[1:] == [target.Reply(GRANT)]


@pytest.mark.parametrize("asked", ["LookUp", "VerifyEvidence", "Authorize", "InstallTunnel"])
def test_the_target_records_a_refusal_before_it_is_seen(asked):
    no = target.NotAuthorized(REFUSAL.request_id, REFUSAL.code, REFUSAL.reason)
    script = target_script(**{asked: [no], "Record": [target.Recorded(REFUSAL)]})
    assert run_target(script) is target.State.REFUSED
    assert script.actions[-2:] == [target.Record(REFUSAL), target.Reply(REFUSAL)]


@pytest.mark.parametrize("asked", ["Authorize", "InstallTunnel"])
def test_the_target_asks_for_patience_where_the_ike_daemon_does_not_serve(asked):
    script = target_script(**{asked: [target.NotInstalled("later")]})
    assert run_target(script) is target.State.SUSPENDED
    assert script.done[-2:] == [asked, "AskAgainLater"]
    assert script.actions[-1] == target.AskAgainLater("later")


def test_a_refusal_that_cannot_be_recorded_is_not_given():
    no = target.NotAuthorized(REFUSAL.request_id, REFUSAL.code, REFUSAL.reason)
    script = target_script(Authorize=[no], Record=[target.NotRecorded("disk full")])
    assert run_target(script) is target.State.SUSPENDED
    assert script.actions[-2:] == [target.Record(REFUSAL), target.AskAgainLater("disk full")]


def test_a_grant_that_cannot_be_recorded_is_withdrawn_before_host_may_ask_again():
    script = target_script(Record=[target.NotRecorded("disk full")])
    assert run_target(script) is target.State.SUSPENDED
    assert script.actions[-2:] == [target.Withdraw(), target.AskAgainLater("disk full")]


@pytest.mark.parametrize(
    ("asked", "event"),
    [
        ("ConfirmTunnel", target.Over("why")),
        ("CheckTunnel", target.Over("why")),
        ("ForgetSecrets", target.Over("why")),
        ("RecordEstablished", target.NotRecorded("why")),
    ],
)
def test_a_tunnel_that_is_not_as_agreed_or_cannot_be_recorded_is_ended(asked, event):
    script = target_script(**{asked: [event]})
    told = target.CameAnew() if asked == "CheckTunnel" else target.CameUp()
    assert run_target(script, told) is target.State.ENDED
    assert script.actions[-2:] == [target.RemoveTunnel("why"), target.RecordEnded("why")]


@pytest.mark.parametrize("events", [(), (target.CameUp(),)])
def test_a_tunnel_whose_time_is_over_is_removed_and_then_recorded(events):
    script = target_script()
    assert run_target(script, *events, target.Over("why")) is target.State.ENDED
    assert script.actions[-2:] == [target.RemoveTunnel("why"), target.RecordEnded("why")]


def test_a_removal_that_fails_is_written_down_and_tried_again():
    script = target_script(RemoveTunnel=[target.NotRemoved("why"), target.TunnelRemoved("why")])
    assert run_target(script, target.Over("why")) is target.State.ENDING
    assert script.actions[-1] == target.RecordEnding("why")
    assert end_from(target.State.ENDING, script, target.Over("why")) is target.State.ENDED
    assert script.done[-3:] == ["RecordEnding", "RemoveTunnel", "RecordEnded"]


def test_an_end_that_cannot_be_recorded_is_recorded_later():
    script = target_script(RecordEnded=[target.NotRecorded("disk full"), target.EndRecorded()])
    assert run_target(script, target.Over("why")) is target.State.CLOSING
    assert end_from(target.State.CLOSING, script, target.Over("why")) is target.State.ENDED
    assert script.actions[-2:] == [target.RecordEnded("why")] * 2


@pytest.mark.parametrize("state", [target.State.ENDING, target.State.CLOSING])
def test_a_tunnel_that_comes_up_while_it_ends_goes_on_ending(state):
    """It came up after the IKE daemon refused to remove it, or was heard of too late."""
    script = target_script()
    assert end_from(state, script, target.CameUp()) is state
    assert script.done == []
