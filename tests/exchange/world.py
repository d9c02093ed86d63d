"""Client, Host and Target with everything between them."""

from carnet.exchange.target import CameAnew, CameUp, Over
from carnet.wire.envelope import Envelope
from tests.exchange.client import IKE, Client
from tests.exchange.host import LEASE, Host
from tests.exchange.network import Network, Packet, Silence
from tests.exchange.processes import Process, Processes
from tests.exchange.seals import Seals, envelope_of
from tests.exchange.target import Target
from tests.exchange.witness import Witness

PAIRS = 5
MOVES_TO_REST = 2000
"""More than any run needs that comes to rest at all."""


class World:
    """One of each, one clock, one booklet."""

    def __init__(self) -> None:
        self.now = 1_000_000
        self._calm = False
        self.processes = Processes()
        self.network = Network()
        self.seals = Seals()
        self.witness = Witness()
        booklet = [f"key pair {number:07}".encode() for number in range(PAIRS)]
        self.key_ids = frozenset(booklet)
        self.envelopes: list[Envelope] = []
        """Every sealed request that was ever on the wire."""
        self._pairs: dict[bytes, bytes] = {}
        self._requests: dict[bytes, bytes] = {}
        self.client = Client(self, booklet)
        self.host = Host(self, booklet)
        self.target = Target(self)

    def seal_request(self, key_id: bytes) -> bytes:
        """Make a sealed request, and remember whose it is."""
        sealed = self.seals.seal_request(key_id)
        request_id = self._open(sealed, key_id)
        self._pairs[request_id] = key_id
        self._requests[sealed] = request_id
        return sealed

    def pair_of(self, request_id: bytes) -> bytes:
        """Return the pair that signed a request."""
        return self._pairs[request_id]

    def request_id_of(self, sealed: bytes) -> bytes:
        """Return the Request ID in a sealed request."""
        return self._requests[sealed]

    def initiate(self, request_id: bytes, session_key: bytes) -> bool:
        """Negotiate with Target's IKE daemon; tell whether the keys are the same."""
        daemon = self.target.daemon
        if daemon.secrets.get(request_id) != session_key:
            return False
        daemon.up.add(request_id)
        self.target.feed_later(request_id, CameUp())
        return True

    def hear_of_tunnel(self, request_id: bytes, *, stands: bool) -> None:
        """Have Target hear once more that a tunnel is up, or that its peer has closed it."""
        if not stands:
            self.target.daemon.up.discard(request_id)
        self.target.feed_later(request_id, CameUp() if stands else Over("peer-closed"))

    def hear_of_change(self, request_id: bytes) -> None:
        """Have Target hear that a tunnel may be another than before, or is about to come up."""
        self.target.feed_later(request_id, CameAnew())

    def pass_time(self, seconds: int) -> None:
        """Put the clock on."""
        self.now += seconds
        self.host.pass_time()
        self.target.ring()

    def connect_undisturbed(self) -> None:
        """Have the Client run with everything let through, and nothing failing that is not set.

        The leases of processes that died run out first.
        """
        self.host.become_quick()
        self.host.over_limit = 0
        self.rest()
        self.pass_time(LEASE)
        self.rest()
        trouble = self.target.troubles or self.network.is_cut
        self._calm = self.client.ike is IKE.SUCCEEDS and not trouble
        self.client.start()
        self.rest()
        self._calm = False

    def is_calm(self) -> bool:
        """Tell whether from now on all gets through and nothing fails."""
        return self._calm

    def moves(self) -> list[Process | Packet]:
        """Return what could happen next: an action, or a message's arrival."""
        return [*self.processes.ready(), *self.network.packets]

    def move(self, move: Process | Packet) -> None:
        """Let one thing happen."""
        if isinstance(move, Packet):
            self.network.deliver(move)
        else:
            self.processes.go_on(move)

    def rest(self) -> None:
        """Let everything through until nothing moves; whoever waits for what is lost gives up."""
        for _ in range(MOVES_TO_REST):
            moves = self.moves()
            waiting = self.network.waiting()
            if moves:
                self.move(moves[0])
            elif waiting:
                waiting[0].answer(Silence())
            else:
                return
        raise AssertionError("it never comes to rest")

    def _open(self, sealed: bytes, key_id: bytes) -> bytes:
        signed = self.seals.open_request(envelope_of(key_id, sealed))
        assert signed is not None
        return signed.request.request_id
