"""Commands that fork from a process which has loaded what they stand on.

A command by itself is a new Python, which loads SQLAlchemy, aiohttp and others for half a
second before it does anything. Where thousands of commands run, they fork instead from a
process that has these packages and the product's own modules loaded (lab.fork_server). All
else is as ever: what runs is the console script, in a process of its own, with its arguments,
environment, directory and descriptors, in the namespaces of its machine; it loads the modules
of tokens itself.

What such a command starts to outlive it, the agent that watches over a tunnel, is forked from
there, too; /proc shows the arguments of that as they are.

What differs: /proc shows the arguments and the environment of the process forked from, all
processes of one template have the same seed of str's hashes, and no module is loaded later
than another. Whoever tests those starts the command by itself, as the demonstration does.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Self

from lab.errors import LabError

COMMANDS = ("carnet", "carnet-host", "carnet-target", "carnet-provision")
_MODULES = ("lab.http_client", "lab.token_listing", "tests.lab.ikev1_client")
"""What runs as `python -m MODULE`."""

FOREIGN = (
    *("asyncio", "concurrent.futures.thread", "csv", "ctypes", "getpass", "http.client"),
    *("importlib.metadata", "ipaddress", "logging.config", "sqlite3", "ssl", "tomllib", "uuid"),
    *("aiohttp.web", "alembic.command", "alembic.migration", "cbor2", "click", "filelock"),
    *("cryptography.hazmat.primitives.asymmetric.mlkem", "cryptography.hazmat.primitives.hpke"),
    *("cryptography.x509", "cryptography.hazmat.primitives.asymmetric.rsa"),
    *("cryptography.hazmat.asn1", "cryptography.hazmat.primitives.serialization.pkcs12"),
    *("cryptography.hazmat.primitives.ciphers.aead", "cryptography.hazmat.primitives.kdf.hkdf"),
    *("cryptography.hazmat.primitives.kdf.scrypt", "cryptography.hazmat.primitives.padding"),
    *("limits.strategies", "msgspec.json", "msgspec.toml", "platformdirs"),
    *("pkcs11._pkcs11", "pkcs11.attributes", "pkcs11.util.ec"),
    *("psycopg", "rich.console", "rich.progress", "rich.table", "smartcard.scard"),
    *("cryptography.hazmat.backends.openssl.backend", "_strptime"),
    *("sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite.pysqlite"),
    *("structlog", "tenacity", "tomlkit", "vici"),
)
"""What the commands import of others; none of it reads anything but its own files."""

PRODUCT = ("carnet", "host_agent", "provisioning", "softhsm", "target_agent", "token_client")
_RUN_BY_OTHERS = ("__main__", "migrations")
"""What is not imported, but run: by Python, and by Alembic."""

_MESSAGE = 1 << 10


@dataclass(frozen=True)
class Place:
    """Where a command runs: its environment, its directory, and the machine (its keeper's id)."""

    environment: Mapping[str, str]
    directory: Path
    machine: int | None = None


class Forked:
    """A command that was forked, with what subprocess.Popen offers of it."""

    stdin: IO[bytes] | None = None
    stdout: IO[bytes] | None = None

    def __init__(self, argv: Sequence[str], answers: socket.socket) -> None:
        self.args = list(argv)
        self.returncode: int | None = None
        self._answers = answers
        told = answers.recv(_MESSAGE)
        if not told:
            raise LabError(f"{argv[0]} could not be forked from its template.")
        self.pid: int = json.loads(told)

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs; negative if a signal ended it."""
        if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status; raises subprocess.TimeoutExpired after so many seconds."""
        if self.returncode is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self._end()
        return self.returncode or 0

    def _end(self) -> None:
        # Its template was killed, and it with that, where nothing is told.
        self.returncode = json.loads(self._answers.recv(_MESSAGE) or str(-signal.SIGKILL))
        self._answers.close()

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; one that has ended gets none."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _own_modules() -> tuple[str, ...]:
    """Return the names of the product's modules."""
    root = Path(__file__).parents[1]
    files = (path.relative_to(root) for name in PRODUCT for path in (root / name).rglob("*.py"))
    dotted = (".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files)
    return tuple(sorted(name for name in dotted if set(name.split(".")).isdisjoint(_RUN_BY_OTHERS)))


OWN = _own_modules()


class Template:
    """The process that commands fork from; a context manager that ends it."""

    def __init__(self, modules: Sequence[str] = FOREIGN + OWN) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = [sys.executable, "-m", "lab.fork_server", str(theirs.fileno()), *modules]
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parents[1],
            )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def start(
        self,
        argv: Sequence[str],
        place: Place,
        stdio: Sequence[int],
        *,
        pass_fds: Sequence[int] = (),
        session: bool = False,
    ) -> Forked:
        """Start a command; `stdio` are its three descriptors, `session` if it has its own."""
        order = {
            "argv": list(argv),
            "machine": place.machine,
            "directory": str(place.directory),
            "environment": dict(place.environment),
            "fds": [0, 1, 2, *pass_fds],
            "session": session,
        }
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            given = [theirs.fileno(), *stdio, *pass_fds]
            socket.send_fds(self._orders, [json.dumps(order).encode()], given)
        return Forked(argv, answers)

    def run(
        self,
        argv: Sequence[str],
        place: Place,
        *,
        stdin: str = "",
        timeout: float | None = None,
        pass_fds: Sequence[int] = (),
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end; it may fail, the caller looks.

        Raises subprocess.TimeoutExpired, and ends the command, if it takes longer.
        """
        with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
            given.write(stdin.encode())
            given.seek(0)
            stdio = [each.fileno() for each in (given, out, err)]
            forked = self.start(argv, place, stdio, pass_fds=pass_fds)
            try:
                status = forked.wait(timeout)
            except BaseException:
                forked.send_signal(signal.SIGKILL)
                forked.wait()
                raise
            return subprocess.CompletedProcess(list(argv), status, _content(out), _content(err))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._orders.close()
        self._process.wait()


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


_in_use: list[Template | None] = [None]


@contextmanager
def in_use(template: Template | None) -> Iterator[None]:
    """Have machines fork commands from this template, or start them by themselves if None."""
    _in_use.append(template)
    try:
        yield
    finally:
        _in_use.pop()


def template_for(argv: Sequence[str]) -> Template | None:
    """Return the template that this command forks from, if there is one in use for it."""
    program, *rest = argv
    is_module = program == "python" and rest[:1] == ["-m"] and rest[1] in _MODULES
    return _in_use[-1] if is_module or Path(program).name in COMMANDS else None
