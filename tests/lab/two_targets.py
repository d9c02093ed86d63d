"""An office whose traveller may have tunnels to two Targets: `work` and `lab`."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lab.charon import Charon, Lane
from lab.machine import Machine
from lab.network import WORK_NETWORK
from lab.office import TARGET_PORT, USER
from lab.serving import served
from lab.world import World
from tests.lab.offices import AtWork, serving_file

LAB_ADDRESS, ROUTER_TO_LAB = "198.51.101.2", "198.51.101.1"
LAB_SERVER, LAB_NETWORK = "10.30.0.10", "10.30.0.0/16"
LAB_URL = f"http://{LAB_SERVER}/plan.txt"
LAB_FILE = b"the plan of the lab\n"
EVERYTHING = "0.0.0.0/0"

_LINK = """
link add name lab netns {router} type veth peer name eth0 netns {lab}
"""
_AT_ROUTER = f"""
address add {ROUTER_TO_LAB}/29 dev lab
link set lab up
"""
_AT_LAB = f"""
link set lo up
address add {LAB_ADDRESS}/29 dev eth0
link set eth0 up
route add default via {ROUTER_TO_LAB}
link add in0 type veth peer name in1
link set in0 up
link set in1 up
address add {LAB_SERVER}/16 dev in0
address add {WORK_NETWORK.replace("0.0/16", "0.10/32")} dev in0
"""
"""Behind it is a server at the address of the one behind `work`, too."""


class TwoTargets(AtWork):
    """She may have all of IPv4 through `lab`, and the file in it with whichever networks."""

    def __init__(self, world: World, lane: Lane) -> None:
        super().__init__(world, lane)
        directory = world.directory / "lab"
        directory.mkdir(mode=0o700)
        hidden = [machine.directory for machine in world.machines] + [world.token]
        self.lab = Machine("lab", directory, hidden)
        self.lab_charon = Charon(self.lab, lane)
        (directory / "plan.txt").write_bytes(LAB_FILE)
        pids = {"router": world.router.pid, "lab": self.lab.pid}
        for machine, lines in (
            (world.router, _LINK.format(**pids) + _AT_ROUTER),
            (self.lab, _AT_LAB),
        ):
            with machine.network():
                subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)
        self.lab.path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    @property
    def _config(self) -> Path:
        return self.lab.directory / "etc" / "target.toml"

    def at_lab(self, *argv: str) -> str:
        """Run carnet-target at the second one; return what it says."""
        return self.command(self.lab, "carnet-target", "--config", str(self._config), *argv).stdout

    def certify(self) -> None:
        super().certify()
        out = self.world.officer.directory / "lab-link"
        self.command(
            self.world.officer, "carnet-provision", "certificates", "target", "lab",
            "--out", str(out), given={"passphrase": self.secrets.passphrase},
        )  # fmt: skip
        shutil.copytree(out, self.lab.directory / "etc")

    def host(self, *argv: str, given=None) -> "subprocess.CompletedProcess[str]":
        more = ("--target", "lab", f"https://{LAB_ADDRESS}:{TARGET_PORT}")
        return super().host(*argv, *(more if argv[0] == "init" else ()), given=given)

    def configure(self) -> None:
        super().configure()
        self.at_lab(
            "init", "--name", "lab", "--address", LAB_ADDRESS,
            "--network", EVERYTHING, "--virtual-addresses", "10.98.0.0/24",
        )  # fmt: skip
        text = self._config.read_text().replace("/var/lib/carnet-target", "../var")
        self._config.write_text(text)

    def mint_command(self, count: int, **changes: str) -> list[str]:
        return [*super().mint_command(count, **changes), "--target", "lab"]

    def admit(self, **changes: str) -> None:
        super().admit(**changes)
        self.at_lab(
            "users", "add", USER, "--objective", "esp", "--network", EVERYTHING,
            "--lifetime", "8h",
        )  # fmt: skip

    def start(self) -> None:
        super().start()
        self.lab_charon.start()
        argv = ["carnet-target", "--config", str(self._config), "serve"]
        self.lab.start(argv, log="carnet-target.log").wait_for_line('"event": "ready"')


@contextmanager
def two_targets(lane: Lane, pairs: int) -> Iterator[TwoTargets]:
    with World() as world, serving_file(world), ExitStack() as stack:
        office = TwoTargets(world, lane)
        stack.callback(office.lab.close)
        office.leave_unwatched()
        office.set_up(pairs)
        office.start()
        stack.enter_context(served(office.lab, EVERYTHING.removesuffix("/0")))
        yield office
