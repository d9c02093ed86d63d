"""An office whose agents die where a test says, and are started again."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from carnet.database import opened_database
from host_agent.keydb import KeyDatabase
from lab.office import pipes
from lab.world import World
from tests.crashes.looks import Look, TokenEye, look
from tests.lab.offices import AtWork

KILLED = {-9, 137}
SWITCH = "CARNET_CRASH_AT"
READY = '"event": "ready"'


class Mortal(AtWork):
    """Both agents look into a file for the place at which to die; it is empty at first."""

    def configure(self) -> None:
        """Name the driver too: Target's agent begins here without a daemon by which to tell."""
        super().configure()
        path = self.world.target.directory / "etc" / "target.toml"
        setting = '# driver = "strongswan" or "libreswan"'
        assert setting in path.read_text()
        path.write_text(path.read_text().replace(setting, 'driver = "strongswan"'))

    def watch(self, closing: ExitStack) -> None:
        """Open what the test looks at: databases and tokens."""
        host, target = self.world.host.directory, self.world.target.directory
        self.database = closing.enter_context(KeyDatabase.opened(host / "var" / "keys.sqlite"))
        where = next((target / "var").glob("*.sqlite"))
        self.records = closing.enter_context(opened_database(where, "target_agent"))
        plug = host / ".local" / "share" / "carnet" / "softhsm"
        self.hsm = closing.enter_context(TokenEye(plug, self.secrets.hsm_pin))
        self.token = closing.enter_context(TokenEye(self.world.token, self.secrets.pin))
        self.minted = frozenset(look(self).pairs)

    def arm(self, machine, place: str) -> None:
        (machine.directory / "crash-at").write_text(place)

    def serve_host(self, extra=None):
        return _ready(self.begin_host())

    def serve_target(self, extra=None):
        argv = [*self._target_argv(), "serve"]
        return _ready(
            self.world.target.start(
                argv, log="carnet-target.log", extra=self._looking(self.world.target)
            )
        )

    def begin_host(self):
        """Start the Host's agent, and do not wait for it: it may die before it is ready."""
        argv = [*self._host_argv(), "serve"]
        with pipes(self.hsm_pin) as (options, fds):
            return self.world.host.start(
                [*argv, *options], log="carnet-host.log", pass_fds=fds,
                extra=self._looking(self.world.host),
            )  # fmt: skip

    def _looking(self, machine) -> dict[str, str]:
        return {SWITCH: f"@{machine.directory / 'crash-at'}"}

    def host_dies(self) -> Look:
        """Wait until the Host's agent is dead; return what there was then. It is up again."""
        assert self.host_agent.wait(60) in KILLED, self.host_agent.output()
        died = look(self)
        self.arm(self.world.host, "")
        self.host_agent = self.serve_host()
        return died

    def target_dies(self) -> Look:
        assert self.target_agent.wait(60) in KILLED, self.target_agent.output()
        died = look(self)
        self.arm(self.world.target, "")
        self.target_agent = self.serve_target()
        return died

    def killed(self, machine, *argv, place, given=None) -> Look:
        """Run a command that dies there; return what there was then."""
        done = self.command(machine, *argv, given=given, extra={SWITCH: place}, check=False)
        assert done.returncode in KILLED, (place, done.stdout, done.stderr)
        return look(self)

    def connect(self) -> None:
        done = self.carnet("connect")
        assert done.returncode == 0, done.stderr


def _ready(process):
    """Wait for the agent that was just started: its output is what it has written itself."""
    process.wait_for(lambda: READY in process.output(), "being ready", 60)
    return process


@contextmanager
def mortal_office(lane, pairs) -> Iterator[Mortal]:
    with World() as world, ExitStack() as closing:
        office = Mortal(world, lane)
        office.leave_unwatched()
        office.set_up(pairs)
        office.watch(closing)
        office.start()
        yield office
