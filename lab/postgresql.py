"""A PostgreSQL server of a test run's own, on a Unix socket in a directory of its own.

It syncs as a real one does, wherever that directory is. PostgreSQL does not run as root:
it runs as an unprivileged user where root can become one, and where there is none, as in a
user namespace of one id, in a namespace within that calls its one id by another number.
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from lab.errors import LabError
from lab.waiting import TIME_LIMIT, wait_until

_NOBODY = 65534
_SUPERUSER = "carnet"
_PLACES = ("/usr/lib/postgresql/{}/bin", "/usr/pgsql-{}/bin")
_VERSIONS = range(30, 12, -1)

_WAYS_DOWN = (
    ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"),
    ("unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}"),
)
_DIES_WITH_US = ("setpriv", "--pdeathsig", "INT")
"""SIGINT is the server's fast shutdown."""

_JANITOR = 'cat; for attempt in 1 2 3 4 5; do rm -rf -- "$1" && exit; sleep 0.2; done; exit 1'
"""Waits until its maker ends, however that ends, and removes the directory."""

_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "log_min_messages": "warning",
}


@dataclass(frozen=True)
class PostgresServer:
    """A server that runs."""

    directory: Path
    password_file: Path
    pid: int

    def url(self, database: str) -> str:
        """Return the URL of a database; the password is in `password_file`."""
        return f"postgresql://{_SUPERUSER}@/{database}?host={self.directory}"

    def connect(self, database: str = "postgres") -> "psycopg.Connection[tuple[object, ...]]":
        """Connect as the superuser, every statement a transaction of its own."""
        password = self.password_file.read_text().strip()
        return psycopg.connect(self.url(database), password=password, autocommit=True)

    @contextmanager
    def database(self, like: str = "template1") -> Iterator[str]:
        """Make a database, yield its name, and drop it with all that is connected to it.

        It has what is in the database `like`, to which nobody is connected.
        """
        name = f"test_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {like}")
        try:
            yield name
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have all of it stand still, as a machine does that is asleep: connections stay open."""
        stopped: list[int] = []
        try:
            for pid in self._processes():
                os.kill(pid, signal.SIGSTOP)
                stopped.append(pid)
            yield
        finally:
            for pid in reversed(stopped):
                os.kill(pid, signal.SIGCONT)

    def _processes(self) -> Iterator[int]:
        """Yield the first, which then starts no more, and those that it has started."""
        yield self.pid
        wait_until(lambda: _is_stopped(self.pid), "PostgreSQL to stand still")
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        yield from map(int, children.split())

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run a statement as the superuser."""
        with self.connect(database) as connection:
            connection.execute(statement.encode())


class PostgresMachine:
    """The server's directory, and the server that is started and stopped on it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._way = _way_down(directory)
        self._programs = _programs()
        self.password_file = directory / "password"
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(secrets.token_hex(16) + "\n")
        self._hand_over()
        self._process: subprocess.Popen[bytes] | None = None

    def initialise(self) -> None:
        """Make the cluster; raises LabError."""
        self._run(
            "initdb", f"--pgdata={self._data}", f"--username={_SUPERUSER}", "--encoding=UTF8",
            "--locale=C", "--auth=scram-sha-256", f"--pwfile={self.password_file}",
        )  # fmt: skip

    def start(self, **settings: str) -> PostgresServer:
        """Start the server, and return as soon as it answers."""
        chosen = _SETTINGS | {"unix_socket_directories": str(self._directory)} | settings
        options = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._argv("postgres", "-D", str(self._data), *options),
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/", start_new_session=True,
            )  # fmt: skip
        server = PostgresServer(self._directory, self.password_file, self._process.pid)
        wait_until(lambda: self._answers(server), "PostgreSQL to start")
        return server

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server (SIGINT), or have it die at once (SIGQUIT)."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(TIME_LIMIT)
            self._process = None

    def _answers(self, server: PostgresServer) -> bool:
        if self._process is not None and self._process.poll() is not None:
            log = (self._directory / "server.log").read_text(errors="replace")
            raise LabError(f"PostgreSQL does not start: {log.strip()}")
        try:
            server.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def _run(self, program: str, *argv: str) -> None:
        done = subprocess.run(
            self._argv(program, *argv), capture_output=True, text=True, cwd="/", check=False
        )
        if done.returncode:
            raise LabError(f"{program} failed: {(done.stdout + done.stderr).strip()}")

    def _argv(self, program: str, *argv: str) -> list[str]:
        return [*self._way, *_DIES_WITH_US, "--", str(self._programs / program), *argv]

    def _hand_over(self) -> None:
        """Give the directory to whoever the server runs as."""
        if "--reuid" in " ".join(self._way):
            for path in (self._directory, self.password_file):
                os.chown(path, _NOBODY, _NOBODY)


@contextmanager
def postgres_machine() -> Iterator[PostgresMachine]:
    """Make a cluster in a directory that is gone at the end, however that comes."""
    directory = Path(tempfile.mkdtemp(prefix="carnet-pg-"))
    janitor = subprocess.Popen(
        ["sh", "-c", _JANITOR, "janitor", str(directory)],
        stdin=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        machine = PostgresMachine(directory)
        try:
            machine.initialise()
            yield machine
        finally:
            machine.stop()
    finally:
        if janitor.stdin:
            janitor.stdin.close()
        janitor.wait(TIME_LIMIT)


def _is_stopped(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat").read_text()
    return status.rpartition(")")[2].split()[0] == "T"


def _programs() -> Path:
    for version in _VERSIONS:
        for place in _PLACES:
            if (Path(place.format(version)) / "postgres").is_file():
                return Path(place.format(version))
    found = shutil.which("postgres")
    if found:
        return Path(found).resolve().parent
    raise LabError("PostgreSQL is not installed; install the package postgresql.")


def _way_down(directory: Path) -> Sequence[str]:
    """Return what comes before a program that shall not run as root."""
    if os.geteuid() != 0:
        return ()
    for way in _WAYS_DOWN:
        probe = subprocess.run([*way, "true"], capture_output=True, check=False, cwd=directory)
        if probe.returncode == 0:
            return way
    raise LabError("PostgreSQL does not run as root, and root cannot be another user here.")
