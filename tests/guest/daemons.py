"""A machine that has one of the two IKE daemons at a time, and the driver that speaks to it."""

from dataclasses import dataclass

from carnet.ipsec.driver import Driver
from carnet.ipsec.libreswan import Libreswan
from carnet.ipsec.strongswan import StrongSwan
from carnet.ipsec.vici_link import open_session, text
from lab.charon import Charon, Lane
from lab.machine import Machine
from lab.pluto import Pluto


@dataclass
class Seat:
    """Where a daemon sits, until another takes its place."""

    machine: Machine
    name: str = ""
    daemon: Charon | Pluto | None = None
    driver: Driver | None = None

    def take(self, name: str) -> Driver:
        """Have that daemon run, and return its driver."""
        if name != self.name or self.driver is None:
            self.leave()
            self.name, self.driver = name, self._started(name)
        return self.driver

    def _started(self, name: str) -> Driver:
        if name == "libreswan":
            self.daemon = Pluto(self.machine)
            self.daemon.start()
            return Libreswan(self.daemon.socket)
        self.daemon = Charon(self.machine, Lane.KERNEL)
        self.daemon.start()
        return StrongSwan(self.daemon.vici)

    def renewed(self, tunnel: str) -> bool:
        """Whether it has replaced the IKE SA with which that tunnel began, as initiator."""
        if isinstance(self.driver, Libreswan):
            # Numbers are given in the order of making, and the IPsec SA is the second.
            found = self.driver._tunnels("--showstates")[tunnel]
            return found.ike_sa > found.child_sa
        assert isinstance(self.daemon, Charon)
        with open_session(self.daemon.vici) as session:
            counted = text(session.get_counters({"all": "yes"}))["counters"]
        # Of what never happened with a tunnel it may say nothing.
        return counted.get(tunnel, {}).get("ike-rekey-init", "0") != "0"

    def leave(self) -> None:
        if self.daemon is not None:
            self.daemon.stop()
        self.daemon, self.driver = None, None


def keyed(machine):
    """How many SAs the kernel has there."""
    return machine.run(["ip", "-o", "xfrm", "state", "list", "nokeys"]).stdout.count(" spi ")
