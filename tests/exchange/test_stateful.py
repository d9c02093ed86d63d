"""The three tables against each other, on a network that an enemy owns and machines that crash.

The same runs every time; `make soak` looks further, in another order every time.
"""

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from carnet.exchange.client import State
from carnet.exchange.target import State as TargetState
from tests.exchange.client import IKE
from tests.exchange.host import LEASE
from tests.exchange.network import Rejection, Silence
from tests.exchange.seals import envelope_of
from tests.exchange.world import PAIRS, World

PICKS = st.integers(min_value=0, max_value=7)
TROUBLES = ("authorize", "install", "record", "confirm", "forget", "remove")
UNFINISHED = (TargetState.ENDING, TargetState.CLOSING)


def pick(number, things):
    return things[number % len(things)]


class Exchanges(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.world = World()
        self.witness = self.world.witness

    # what goes its way

    @precondition(lambda self: not self.world.processes.runs("client"))
    @rule()
    def connect(self):
        self.world.client.start()

    @precondition(lambda self: not self.world.processes.runs("client"))
    @rule(ike=st.sampled_from(IKE))
    def connect_undisturbed(self, ike):
        self.world.client.ike = ike
        self.world.connect_undisturbed()

    @precondition(lambda self: self.world.moves())
    @rule(picks=st.lists(PICKS, min_size=1, max_size=16))
    def go_on(self, picks):
        for number in picks:
            if moves := self.world.moves():
                self.world.move(pick(number, moves))

    @precondition(lambda self: self.world.moves())
    @rule(count=st.integers(min_value=1, max_value=60))
    def go_on_in_order(self, count):
        for _ in range(count):
            if moves := self.world.moves():
                self.world.move(moves[0])

    # the network

    @precondition(lambda self: self.world.network.packets)
    @rule(number=PICKS)
    def lose(self, number):
        self.world.network.packets.remove(pick(number, self.world.network.packets))

    @precondition(lambda self: self.world.network.packets)
    @rule(number=PICKS)
    def double(self, number):
        self.world.network.post(pick(number, self.world.network.packets).deliver)

    @rule(is_cut=st.booleans())
    def cut_or_mend(self, is_cut):
        if is_cut:
            self.world.network.cut()
        self.world.network.is_cut = is_cut

    @precondition(lambda self: self.world.network.waiting())
    @rule(number=PICKS)
    def time_out(self, number):
        pick(number, self.world.network.waiting()).answer(Silence())

    # the enemy

    @precondition(lambda self: self.world.network.waiting("client"))
    @rule()
    def forge_a_no(self):
        self.world.network.waiting("client")[0].answer(Rejection())

    @precondition(lambda self: self.world.network.waiting("client"))
    @rule(old=st.booleans(), number=PICKS)
    def forge_an_answer(self, old, number):
        known = sorted(set().union(*self.witness.responses.values()))
        forged = pick(number, known) if old and known else b"forged"
        self.world.network.waiting("client")[0].answer(forged)

    @precondition(lambda self: self.world.envelopes)
    @rule(number=PICKS)
    def send_an_old_request(self, number):
        self.world.host.receive(pick(number, self.world.envelopes), None)

    @precondition(lambda self: self.world.envelopes)
    @rule(number=PICKS)
    def forge_a_request(self, number):
        key_id = pick(number, self.world.envelopes).key_id
        self.world.host.receive(envelope_of(key_id, b"forged"), None)

    # crashes, and what else goes wrong

    @rule()
    def crash_client(self):
        self.world.client.stop()

    @rule()
    def leave_machine(self):
        self.world.client.leave_machine()

    @rule(number=PICKS)
    def crash_host(self, number):
        pick(number, self.world.host.processes).restart()

    @rule(number=PICKS)
    def come_to_another_process_of_the_host(self, number):
        self.world.host.front = pick(number, self.world.host.processes)

    @rule(number=PICKS, slow=st.booleans())
    def slow_host(self, number, slow):
        pick(number, self.world.host.processes).become(slow=slow)

    @rule()
    def crash_target(self):
        self.world.target.restart()

    @rule()
    def crash_ike_daemon(self):
        self.world.target.restart_daemon()

    @rule(trouble=st.sampled_from(TROUBLES))
    def fail_at_target(self, trouble):
        self.world.target.troubles.add(trouble)

    @rule(count=st.integers(min_value=0, max_value=3))
    def flood_host(self, count):
        self.world.host.over_limit = count

    @rule(ike=st.sampled_from(IKE))
    def fail_ike(self, ike):
        self.world.client.ike = ike

    @precondition(lambda self: self.world.target.live)
    @rule(number=PICKS, refused=st.booleans())
    def end_tunnel(self, number, refused):
        if refused:
            self.world.target.troubles.add("remove")
        self.world.target.end(pick(number, sorted(self.world.target.live)))

    @precondition(lambda self: self.world.target.daemon.up)
    @rule(number=PICKS, stands=st.booleans())
    def hear_of_tunnel(self, number, stands):
        self.world.hear_of_tunnel(pick(number, sorted(self.world.target.daemon.up)), stands=stands)

    @precondition(lambda self: self.world.target.live)
    @rule(number=PICKS)
    def hear_of_change(self, number):
        self.world.hear_of_change(pick(number, sorted(self.world.target.live)))

    @rule(member=st.booleans())
    def change_membership(self, member):
        self.world.target.member = member

    @rule(number=PICKS)
    def revoke(self, number):
        self.world.host.valid.discard(pick(number, sorted(self.world.key_ids)))

    @rule(seconds=st.sampled_from((1, LEASE, 30, 121, 601, 3601)))
    def pass_time(self, seconds):
        self.world.pass_time(seconds)

    @rule()
    def sweep_host(self):
        self.world.host.sweep()

    @rule()
    def take_up_at_host(self):
        self.world.host.take_up_unanswered()

    # what holds at every step

    @invariant()
    def one_key_pair_makes_at_most_one_session_key(self):
        assert all(len(keys) == 1 for keys in self.witness.session_keys.values())

    @invariant()
    def host_forwards_only_after_the_pair_is_durably_invalid(self):
        assert not self.witness.forwarded_valid

    @invariant()
    def a_client_that_gives_up_a_pair_was_told_by_the_real_host_or_has_the_tunnel(self):
        assert not self.witness.given_up_unfounded
        destroyed = self.world.key_ids.difference(self.world.client.keys)
        assert not destroyed & self.world.host.valid

    @invariant()
    def every_run_whose_messages_get_through_reaches_step_10_or_a_sealed_refusal(self):
        assert not self.witness.stranded

    @invariant()
    def one_pair_gets_one_response(self):
        assert all(len(responses) == 1 for responses in self.witness.responses.values())

    @invariant()
    def nothing_is_visible_before_it_is_durable(self):
        assert not self.witness.replied_unstored
        assert not self.witness.replied_unrecorded

    @invariant()
    def a_request_is_taken_from_a_slow_process_only(self):
        assert not self.witness.taken_from_the_quick

    @invariant()
    def a_lost_answer_costs_no_pair(self):
        assert not self.witness.rejected_its_own

    @invariant()
    def a_client_knows_of_its_request_until_it_is_settled(self):
        if self.witness.unsettled is not None:
            pending = self.world.client.pending
            assert pending is not None
            assert pending.key_id == self.witness.unsettled

    @invariant()
    def secrets_leave_the_ike_daemon_before_the_pair_is_burned(self):
        assert not self.witness.burned_before_secrets

    @invariant()
    def a_state_at_rest_says_what_is_so(self):
        assert not self.witness.misplaced, self.witness.misplaced

    @invariant()
    def an_end_that_was_promised_survives_a_crash(self):
        target = self.world.target
        for request_id in self.witness.promised_ends & target.live.keys():
            # What has ended is looked up when the same bytes come again.
            if target.records[request_id].state != "ended":
                assert target.live[request_id].machine.state in UNFINISHED

    # what holds in the end

    def teardown(self):
        world = self.world
        world.client.ike = IKE.SUCCEEDS
        world.target.troubles.clear()
        world.host.over_limit = 0
        world.host.become_quick()
        world.network.is_cut = False
        self.rest()
        if world.host.valid & set(world.client.keys):
            self.a_tunnel_or_a_refusal_comes_in_the_end()
        self.nothing_is_left_when_its_time_is_over()

    def a_tunnel_or_a_refusal_comes_in_the_end(self):
        for _ in range(PAIRS + 1):
            self.world.connect_undisturbed()
            self.see_that_all_holds()
            if self.world.client.outcome in (State.ESTABLISHED, State.REFUSED):
                return
        raise AssertionError(f"{PAIRS + 1} runs, and it ends {self.world.client.outcome}")

    def nothing_is_left_when_its_time_is_over(self):
        host, target = self.world.host, self.world.target
        # What the daemon would not remove, Target removes a second later.
        self.world.pass_time(1)
        self.rest()
        assert not target.daemon.secrets.keys() & target.daemon.up
        # The second time is for an end that was put off because of trouble.
        for seconds in (3601, 2):
            self.world.pass_time(seconds)
            # What Target was silent about, and nobody asked again, Host's sweep takes up.
            host.take_up_unanswered()
            self.rest()
        host.sweep()
        assert all(spent.answered_at is not None for spent in host.spent.values())
        assert host.keys == host.valid
        assert not target.daemon.known()
        assert not target.live
        assert {record.state for record in target.records.values()} <= {"ended", "refused"}

    def rest(self):
        """Let everything through, with the invariants checked at the end of it."""
        self.world.rest()
        self.see_that_all_holds()

    def see_that_all_holds(self):
        for each in self.invariants:
            each.function(self)


TestExchanges = Exchanges.TestCase
TestExchanges.settings = settings(
    stateful_step_count=50,
    deadline=None,
    # Telling which part of a failing run matters takes longer than finding it.
    phases=set(Phase) - {Phase.explain},
    suppress_health_check=[HealthCheck.too_slow],
)
