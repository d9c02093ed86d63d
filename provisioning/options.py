"""Options that several commands share, each group as one value."""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import platformdirs

from carnet.pin import PinSource, say_if_at_pad
from carnet.secret_sources import PASSPHRASE_VARIABLE, read_secret, secret_options
from carnet.token.finding import MODULE_VARIABLE, find_module
from carnet.token.frozen import unless_frozen
from carnet.token.identity import Identity
from carnet.token.module import Module, load_module
from carnet.token.presence import choose_token, saying_who_has_it
from carnet.token.session import TokenSession, open_session
from provisioning.officer import Officer, check_created, load_officer
from softhsm import configuration

DIRECTORY_VARIABLE = "CARNET_OFFICER_DIR"

Command = Callable[..., Any]

json_option = click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
module_option = click.option(
    "--module",
    metavar="PATH",
    help=f"PKCS#11 module of the token  [default: {MODULE_VARIABLE}, else SoftHSM2].",
)


directory_option = click.option(
    "--directory",
    envvar=DIRECTORY_VARIABLE,
    type=click.Path(file_okay=False, path_type=Path),
    default=lambda: platformdirs.user_data_path("carnet") / "officer",
    help=f"Where the officer's key lies (or {DIRECTORY_VARIABLE}).",
)


def open_module(path: str | None, *, prepare: bool = False) -> Module:
    """Load the token's PKCS#11 module; TokenError if there is none or it does not start.

    Where nobody chose one it is SoftHSM2 on the user's own tokens; `prepare` makes a
    place for these. One that was chosen may be another around SoftHSM2, and sees them too,
    as it does for `carnet`.
    """
    is_chosen = bool(path) or MODULE_VARIABLE in os.environ
    if prepare and not is_chosen and configuration.CONFIGURATION_VARIABLE not in os.environ:
        configuration.prepare(configuration.default_directory())
    configuration.use_default()
    with unless_frozen():
        return load_module(find_module(path))


@dataclass(frozen=True, kw_only=True)
class Login:
    """A token that was chosen, and its PIN; good for one session after another."""

    module: Module
    token: Identity
    pin: str | None = field(repr=False)
    """None where the reader has a PIN pad, which asks for it every time."""
    allow_final_try: bool

    @contextmanager
    def session(self, *, writable: bool) -> Iterator[TokenSession]:
        """Log in and yield the session; TokenError where that fails.

        What it reads comes from the token: the module was started again before.
        """
        say_if_at_pad(self.pin, self.token.label)
        with (
            unless_frozen(),
            saying_who_has_it(self.module),
            open_session(
                self.module.choose(self.token),
                self.pin,
                writable=writable,
                allow_final_try=self.allow_final_try,
            ) as session,
        ):
            yield session


@dataclass(frozen=True, kw_only=True)
class TokenAccess:
    """Which token a command is about, and where its PIN comes from."""

    module: str | None
    selector: str | None
    pin_fd: int | None
    pin_file: Path | None
    allow_final_try: bool

    def login(self) -> Login:
        """Choose the token and get its PIN. Raises TokenError, UsageError."""
        module = open_module(self.module)
        info = choose_token(module, self.selector).info
        source = PinSource(fd=self.pin_fd, file=self.pin_file, allow_final_try=self.allow_final_try)
        credential = source.obtain(info)
        return Login(
            module=module,
            token=info.identity,
            pin=credential.pin,
            allow_final_try=credential.allow_final_try,
        )


@dataclass(frozen=True, kw_only=True)
class Station:
    """Where the officer's key lies, and where her passphrase comes from."""

    directory: Path
    passphrase_fd: int | None
    passphrase_file: Path | None

    def read_passphrase(self, *, confirm: bool = False) -> str:
        """Return the passphrase; UsageError where there is no source of it."""
        return read_secret(
            "the officer's passphrase",
            option="passphrase",
            fd=self.passphrase_fd,
            file=self.passphrase_file,
            variable=PASSPHRASE_VARIABLE,
            confirm=confirm,
        )

    def officer(self) -> Officer:
        """Open the officer's key; UsageError where that fails."""
        check_created(self.directory)
        return load_officer(self.directory, self.read_passphrase())


def token_options(command: Command) -> Command:
    """Add the options of a command that logs in to a token; it takes them as `access`."""

    @secret_options("pin", "the PIN")
    @click.option("--allow-final-try", is_flag=True, help="Risk the last PIN try.")
    @click.option("--token", "selector", metavar="SELECTOR", help="The token's label or serial.")
    @module_option
    @functools.wraps(command)
    def wrapper(
        *args: Any,
        module: str | None,
        selector: str | None,
        allow_final_try: bool,
        pin_fd: int | None,
        pin_file: Path | None,
        **others: Any,
    ) -> Any:
        access = TokenAccess(
            module=module,
            selector=selector,
            pin_fd=pin_fd,
            pin_file=pin_file,
            allow_final_try=allow_final_try,
        )
        return command(*args, access=access, **others)

    return wrapper


def officer_options(command: Command) -> Command:
    """Add the options of a command that uses the officer's key; it takes them as `station`."""

    @secret_options("passphrase", "the officer's passphrase")
    @directory_option
    @functools.wraps(command)
    def wrapper(
        *args: Any,
        directory: Path,
        passphrase_fd: int | None,
        passphrase_file: Path | None,
        **others: Any,
    ) -> Any:
        station = Station(
            directory=directory, passphrase_fd=passphrase_fd, passphrase_file=passphrase_file
        )
        return command(*args, station=station, **others)

    return wrapper
