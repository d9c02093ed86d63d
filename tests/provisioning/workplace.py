"""The officer's station, a traveller's token and a Host's token, each in a directory."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509

from lab.office import pipes
from softhsm.configuration import prepare
from tests.commands import run
from tests.officers import make_officer
from tests.processes import process_of_its_own
from tests.provisioning import tokens

COMMAND = Path(sys.executable).with_name("carnet-provision")

# Long, so that no file holds one of them by chance.
SECRETS = {
    "pin": "730914628550",
    "so-pin": "558206419037",
    "passphrase": "staple battery horse correct",
}


class Workplace:
    def __init__(self, directory):
        self.directory = directory
        self.host = tokens.Home(directory / "host")
        self.traveller = tokens.Home(directory / "traveller")
        self.transport_key = directory / "transport.der"
        self.outputs = []
        # Beside it: a disk that fails does not have it, it is memory.
        runtime = directory.with_name(f"{directory.name}-runtime")
        runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.environment = {
            "XDG_RUNTIME_DIR": str(runtime),
            "PATH": os.environ["PATH"],
            "PYTHONFAULTHANDLER": "1",
            "HOME": str(directory / "home"),
            "CARNET_OFFICER_DIR": str(directory / "officer"),
            "CARNET_SOFTHSM_DIR": str(self.traveller.directory),
        }

    @contextmanager
    def start(self, *arguments, secrets=(), before=(), **changed):
        """Start the command by itself; each secret goes through a pipe of its own."""
        with self._given(secrets, changed) as (options, fds):
            process = subprocess.Popen(
                [*before, COMMAND, *map(str, arguments), *options],
                env=self.environment,
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)

    def run(self, *arguments, secrets=(), before=(), **changed):
        """Run the command to its end; `before` is what starts it."""
        with self._given(secrets, changed) as (options, fds):
            argv = [COMMAND, *arguments, *options]
            done = run(argv, self.environment, before=before, pass_fds=fds)
        self.outputs += [done.stdout, done.stderr]
        return done

    def _given(self, secrets, changed):
        """Put secrets into pipes; the options name them by their descriptors."""
        values = SECRETS | {name.replace("_", "-"): value for name, value in changed.items()}
        return pipes({name: values[name] for name in secrets})

    def facts(self, *arguments, **how):
        """Run a command that has to succeed; return what it prints as JSON."""
        done = self.run(*arguments, "--json", **how)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refusal(self, status, *arguments, **how):
        """Run a command that has to fail with one sentence; return it."""
        done = self.run(*arguments, **how)
        assert done.returncode == status, (done.returncode, done.stderr)
        assert done.stdout == ""
        assert done.stderr.startswith("carnet-provision: ")
        assert done.stderr.count("\n") == 1
        assert done.stderr.endswith(".\n")
        return done.stderr

    def init(self, **how):
        return self.facts("init", secrets=["passphrase"], **how)

    def make_officer(self):
        """Do as init(), where the test is of something else."""
        make_officer(self.directory / "officer", SECRETS["passphrase"])

    def token_init(self, *options, label="alice"):
        return self.facts("token-init", "--label", label, *options, secrets=["pin", "so-pin"])

    def prepare(self):
        """Have an officer, a token for alice and the Host's transport key."""
        self.make_officer()
        self.token_init()
        self.transport_key.write_bytes(self.on(self.host, tokens.initialise_host))

    def copy(self, other):
        """Take over all that another workplace has."""
        shutil.copytree(other.directory, self.directory, dirs_exist_ok=True)
        for home in (self.host, self.traveller):
            prepare(home.directory)  # its softhsm2.conf has the other's path

    def order(self, count=3, out="batch", user="alice@office", **changed):
        options = {
            "user": user,
            "count": count,
            "host-transport-key": self.transport_key,
            "host-url": "http://host.example:8440",
            "target": "work",
            "out": self.directory / out,
        } | {name.replace("_", "-"): value for name, value in changed.items()}
        return ["mint", *(part for name, value in options.items() for part in (f"--{name}", value))]

    def mint(self, *options, **order):
        return self.facts(*self.order(**order), *options, secrets=["pin", "passphrase"])

    def listed(self):
        return self.facts("list", secrets=["pin"])

    def officer_key(self):
        pem = (self.directory / "officer" / "officer.crt").read_bytes()
        return x509.load_pem_x509_certificate(pem).public_key()

    def on(self, home, function, *arguments):
        """Call a function of tests.provisioning.tokens in a process that sees these tokens.

        SoftHSM2 reads its configuration once a process, and a process can load a module
        only once.
        """
        with process_of_its_own(home.enter) as pool:
            return pool.submit(function, *arguments).result()
