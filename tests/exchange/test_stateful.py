"""The three tables against each other, on a network that an enemy owns and machines that crash.

CARNET_EXAMPLES=20000 looks further, in another order every time.
"""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from carnet.exchange.client import State
from tests.exchange.client import IKE
from tests.exchange.host import LEASE
from tests.exchange.network import Rejection, Silence
from tests.exchange.seals import envelope_of
from tests.exchange.world import PAIRS, World

PICKS = st.integers(min_value=0, max_value=7)
TROUBLES = ("authorize", "install", "record", "confirm", "forget", "remove")


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
    def one_pair_makes_one_session_key(self):
        assert all(len(keys) == 1 for keys in self.witness.session_keys.values())

    @invariant()
    def one_pair_gets_one_response(self):
        assert all(len(responses) == 1 for responses in self.witness.responses.values())

    @invariant()
    def nothing_is_visible_before_it_is_durable(self):
        assert not self.witness.forwarded_valid
        assert not self.witness.replied_unstored
        assert not self.witness.replied_unrecorded

    @invariant()
    def a_request_is_taken_from_a_slow_process_only(self):
        assert not self.witness.taken_from_the_quick

    @invariant()
    def a_lost_answer_costs_no_pair(self):
        assert not self.witness.rejected_its_own

    @invariant()
    def a_client_that_gives_a_pair_up_was_told_or_has_its_tunnel(self):
        assert not self.witness.destroyed_in_doubt
        destroyed = self.world.key_ids.difference(self.world.client.keys)
        assert not destroyed & self.world.host.valid

    @invariant()
    def a_client_knows_of_its_request_until_it_is_settled(self):
        if self.witness.unsettled is not None:
            pending = self.world.client.pending
            assert pending is not None
            assert pending.key_id == self.witness.unsettled

    # what holds in the end

    def teardown(self):
        world = self.world
        world.client.ike = IKE.SUCCEEDS
        world.target.troubles.clear()
        for process in world.host.processes:
            process.become(slow=False)
        world.host.over_limit = 0
        self.rest()
        if world.host.valid & set(world.client.keys):
            self.every_request_is_answered_in_the_end()
        self.nothing_is_left_when_its_time_is_over()

    def every_request_is_answered_in_the_end(self):
        for _ in range(PAIRS + 1):
            self.world.pass_time(LEASE)
            self.world.client.start()
            self.rest()
            if self.world.client.outcome in (State.ESTABLISHED, State.REFUSED):
                return
        raise AssertionError(f"{PAIRS + 1} runs, and it ends {self.world.client.outcome}")

    def nothing_is_left_when_its_time_is_over(self):
        host, target = self.world.host, self.world.target
        # What the daemon would not remove, Target removes a second later.
        self.world.pass_time(1)
        self.rest()
        assert not target.daemon.secrets.keys() & target.daemon.up
        self.world.pass_time(3601)
        # What Target was silent about, and nobody asked again, Host's sweep takes up;
        # an end that it could not write down, Target tries to write again by itself.
        host.take_up_unanswered()
        target.finish_ends()
        self.rest()
        host.sweep()
        assert all(spent.answered_at is not None for spent in host.spent.values())
        assert host.keys == host.valid
        assert not target.daemon.known()
        assert {record.state for record in target.records.values()} <= {"ended", "refused"}

    def rest(self):
        """Let everything through, with the invariants checked at the end of it."""
        self.world.rest()
        self.one_pair_makes_one_session_key()
        self.one_pair_gets_one_response()
        self.nothing_is_visible_before_it_is_durable()
        self.a_client_that_gives_a_pair_up_was_told_or_has_its_tunnel()


EXAMPLES = os.environ.get("CARNET_EXAMPLES")

TestExchanges = Exchanges.TestCase
TestExchanges.settings = settings(
    max_examples=int(EXAMPLES or 200),
    stateful_step_count=50,
    derandomize=EXAMPLES is None,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
