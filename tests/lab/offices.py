"""An office at work, shared by a test module, and how tests look at it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from carnet.files import write_private
from lab.charon import Lane
from lab.network import SERVER_ADDRESS
from lab.office import Office
from lab.process import Process
from lab.serving import served
from lab.waiting import wait_until
from lab.world import World

FILE_SERVER = Path(__file__).parents[2] / "lab" / "file_server.py"
FILE_URL = f"http://{SERVER_ADDRESS}/plan.txt"
FILE = b"the plan of the work network\n"


class AtWork(Office):
    """An office whose agents and daemons tests stop, kill and start again."""

    host_agent: Process
    target_agent: Process

    def make_officer(self) -> None:
        """Without the command: see make_officer()."""
        from tests.officers import make_officer  # noqa: PLC0415  long to load, in a guest above all

        home = self.world.officer.directory
        make_officer(home / ".local" / "share" / "carnet" / "officer", self.secrets.passphrase)

    def start(self) -> None:
        self.client_charon.start()
        self.target_charon.start()
        self.target_agent = self.serve_target()
        self.host_agent = self.serve_host()

    def valid_pairs(self) -> int:
        return sum(pair["state"] == "valid" for pair in self.pairs())

    def spent_pairs(self) -> list[str]:
        return [pair["key_id"] for pair in self.pairs() if pair["reason"] == "spent"]

    def live_tunnels(self) -> list[dict]:
        return [t for t in self.tunnels() if t["state"] in {"prepared", "established"}]

    def keys_on(self, machine) -> set[str]:
        pin = self.secrets.hsm_pin if machine is self.world.host else self.secrets.pin
        return {key["key_id"] for key in self.listing(machine, pin)}

    def configure_client(self, text: str) -> dict[str, str]:
        """Write a configuration file for the traveller; return what names it."""
        path = self.world.client.directory / "client.toml"
        write_private(path, text.encode())
        return {"CARNET_CLIENT_CONFIG": str(path)}

    def hear(self) -> dict[str, str]:
        """Keep what the traveller's desktop would show; return what has a command find it."""
        shown = self.world.client.directory / "bin"
        shown.mkdir(exist_ok=True)
        self._told.unlink(missing_ok=True)
        program = shown / "notify-send"
        program.write_text(f'#!/bin/sh\nfor last; do :; done; echo "$last" >> {self._told}\n')
        program.chmod(0o700)
        return {"PATH": f"{shown}:{self.world.client.environment()['PATH']}"}

    def heard(self) -> str:
        """Return what was shown since."""
        return self._told.read_text() if self._told.exists() else ""

    @property
    def _told(self) -> Path:
        return self.world.client.directory / "told"

    def disconnect(self) -> None:
        """End what the traveller has, and return when Target has recorded the end of it."""
        self.carnet("disconnect")
        wait_until(lambda: self.live_tunnels() == [], "the end at Target")

    def start_target_charon(self) -> None:
        """Start Target's daemon, and return when Target's agent watches it and has compared."""
        compared = self._times_compared()
        self.target_charon.start()
        self.target_agent.wait_for(lambda: self._times_compared() > compared, "its daemon")

    def _times_compared(self) -> int:
        return self.target_agent.output().count('"event": "ike-daemon-compared"')

    def change_target_file(self, old: str, new: str) -> None:
        """Change Target's configuration, for its next start."""
        path = self.world.target.directory / "etc" / "target.toml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def leave_unwatched(self) -> None:
        """Have no agent stay with a tunnel, where the tests are of something else."""
        directory = self.world.client.directory / ".config" / "carnet"
        directory.mkdir(parents=True)
        write_private(directory / "client.toml", b"agent = false\n")


@contextmanager
def office_at_work(
    lane: Lane,
    pairs: int,
    *,
    watched: bool = True,
    impatient: bool = False,
    at_target: Mapping[str, str] | None = None,
) -> Iterator[AtWork]:
    """Give an office; `at_target` is what to put into the place of what in Target's file."""
    with World() as world, serving_file(world):
        office = AtWork(world, lane)
        for charon in (office.client_charon, office.target_charon):
            charon.impatient = impatient
        if not watched:
            office.leave_unwatched()
        office.set_up(pairs)
        for old, new in (at_target or {}).items():
            office.change_target_file(old, new)
        office.start()
        yield office


@contextmanager
def split_office_at_work(lane: Lane, pairs: int = 0, *, watched: bool = False) -> Iterator[AtWork]:
    """The same in custody `split`; without pairs where the token is another than SoftHSM2."""
    with World() as world, serving_file(world):
        office = AtWork(world, lane)
        if not watched:
            office.leave_unwatched()
        office.initialise_tokens()
        office.certify()
        office.configure()
        office.fetch_host_keys()
        if pairs:
            assert office.mint(pairs, custody="split")["custody"] == "split"
            office.carry_over()
            assert office.import_batch()["new"] == pairs
        office.admit()
        office.start()
        yield office


@contextmanager
def serving_file(world: World) -> Iterator[None]:
    """Have FILE at FILE_URL, inside the work network."""
    (world.server.directory / "plan.txt").write_bytes(FILE)
    with served(world.server, SERVER_ADDRESS):
        yield


def is_one_sentence(done) -> bool:
    """Whether a failed command said one sentence on standard error, and no traceback."""
    lines = done.stderr.strip().splitlines()
    return len(lines) == 1 and lines[0].startswith("carnet: ") and lines[0].endswith(".")


class WrappedOffice(AtWork):
    """Its Host keeps private keys wrapped in the Key Database."""

    def configure(self):
        super().configure()
        path = self.world.host.directory / "etc" / "host.toml"
        setting = '# key_store = "token"'
        assert setting in path.read_text()
        path.write_text(path.read_text().replace(setting, 'key_store = "wrapped"'))

    def batches(self):
        return json.loads(self.host("keys", "--batches", "--json").stdout)
