"""One disturbance at every action boundary of a run that nothing else disturbs.

What Hypothesis meets by chance further out is gone through here one by one.
"""

import pytest

from tests.exchange.client import IKE
from tests.exchange.host import LEASE
from tests.exchange.test_stateful import Exchanges
from tests.exchange.world import PAIRS


def connect(ike=IKE.SUCCEEDS):
    def begin(run):
        run.world.client.ike = ike
        run.world.client.start()

    return begin


def connect_to_a_liar(forge):
    def begin(run):
        run.world.client.start()
        while not run.world.network.waiting("client"):
            run.world.move(run.world.moves()[0])
        forge(run)

    return begin


def revoke_another(run):
    run.revoke(PAIRS - 1)


def end_tunnel(run):
    run.world.target.end(next(iter(run.world.target.live)))


def resend(run):
    run.send_an_old_request(0)


def wait_too_long(run):
    run.pass_time(121)


def trouble(*names):
    return lambda run: run.world.target.troubles.update(names)


def slow_down(run):
    """The process that works on requests comes late, and the next one comes to another."""
    run.slow_host(0, slow=True)
    run.come_to_another_process_of_the_host(1)


def die_and_come_to_another(run):
    run.crash_host(0)
    run.come_to_another_process_of_the_host(1)


def lose_lease(run):
    """Another process takes up what the slow one is still at, and both go on."""
    slow_down(run)
    run.pass_time(LEASE)
    run.take_up_at_host()


def expel(run):
    run.world.target.member = False


def bring_ike_daemon_to_refuse_and_end(run):
    run.world.target.troubles.add("remove")
    end_tunnel(run)


def double_all(run):
    for packet in list(run.world.network.packets):
        run.world.network.post(packet.deliver)


SITUATIONS = {
    "a tunnel": (connect(),),
    "a refusal": (expel, connect()),
    "a tunnel, and another pair is invalid": (revoke_another, connect()),
    "a refusal, and another pair is invalid": (revoke_another, expel, connect()),
    "a forged no": (connect_to_a_liar(lambda run: run.forge_a_no()),),
    "a false answer": (connect_to_a_liar(lambda run: run.forge_an_answer(old=False, number=0)),),
    "ike silent": (connect(IKE.SILENT),),
    "ike refused": (connect(IKE.REFUSED),),
    "half a tunnel": (connect(IKE.HALF),),
    "no configuration": (connect(IKE.UNCONFIGURED),),
    "again after silence": (connect(IKE.SILENT), connect()),
    "hopeless": (connect(IKE.SILENT), connect(IKE.REFUSED)),
    "too late": (connect(IKE.SILENT), wait_too_long, connect(IKE.SILENT)),
    "no configuration and too late": (
        connect(IKE.SILENT), wait_too_long, connect(IKE.UNCONFIGURED),
    ),
    "not authorized just now": (trouble("authorize"), connect()),
    "not installed": (trouble("install"), connect()),
    "not recorded": (trouble("record"), connect()),
    "a refusal not recorded": (trouble("record"), expel, connect()),
    "less than agreed": (trouble("confirm"), connect()),
    "less than agreed, and not removed": (trouble("confirm", "remove"), connect()),
    "secrets not forgotten": (trouble("forget"), connect()),
    "ended": (connect(), end_tunnel),
    "end not recorded": (connect(), trouble("record"), end_tunnel),
    "end put off": (connect(), bring_ike_daemon_to_refuse_and_end),
    "end of what waits put off": (connect(IKE.SILENT), bring_ike_daemon_to_refuse_and_end),
    "up while it ends": (connect(IKE.SILENT), bring_ike_daemon_to_refuse_and_end, connect()),
    "sent again": (connect(), resend),
    "sent again to another process": (connect(), slow_down, resend),
}  # fmt: skip
"""Steps, each of which comes to rest before the next begins; the last one is disturbed."""

DISTURBANCES = {
    "nothing": lambda run: None,
    "client crashes": lambda run: run.crash_client(),
    "client leaves": lambda run: run.leave_machine(),
    "host crashes": lambda run: run.crash_host(0),
    "host crashes, another process goes on": die_and_come_to_another,
    "host loses its lease": lose_lease,
    "target crashes": lambda run: run.crash_target(),
    "ike daemon crashes": lambda run: run.crash_ike_daemon(),
    "messages are lost": lambda run: run.world.network.packets.clear(),
    "the network is cut": lambda run: run.world.network.cut(),
    "messages are doubled": double_all,
    "a no is forged": lambda run: run.world.network.waiting("client") and run.forge_a_no(),
    "an old request comes": lambda run: run.world.envelopes and resend(run),
    "the tunnel is ended": lambda run: run.world.target.live and end_tunnel(run),
    "time passes": wait_too_long,
}


def go_through(steps, disturb, boundary):
    """Return whether the last step came as far as the boundary."""
    run = Exchanges()
    *before, last = steps
    for step in before:
        step(run)
        run.rest()
    last(run)
    for _ in range(boundary):
        moves = run.world.moves()
        if not moves:
            return False
        run.world.move(moves[0])
        run.see_that_all_holds()
    disturb(run)
    run.rest()
    run.teardown()
    return True


@pytest.mark.parametrize("disturbance", DISTURBANCES)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_disturbance_at_any_boundary_breaks_nothing(situation, disturbance):
    steps, disturb = SITUATIONS[situation], DISTURBANCES[disturbance]
    boundary = 0
    while go_through(steps, disturb, boundary):
        boundary += 1
    assert boundary > 1
