"""Getting a token's PIN from a person, a script or the reader's PIN pad.

What the token tells of the tries left is said before the PIN is asked for. The last
try needs an explicit yes. A PIN is never tried twice by itself.
"""

from dataclasses import dataclass, field
from pathlib import Path

import click
import msgspec

from carnet.console import has_terminal
from carnet.secret_sources import PIN_VARIABLE, has_secret, read_secret
from carnet.token.module import TokenInfo
from carnet.token.profiles import may_lock
from carnet.token.session import check_pin_state

_YES = "yes"


@dataclass(frozen=True, kw_only=True)
class Credential:
    """A PIN for one login."""

    pin: str | None = field(repr=False)
    """None: the reader's PIN pad asks for it, at every login: see say_if_at_pad()."""
    allow_final_try: bool


class PinSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where the PIN comes from, as the options of a command say."""

    fd: int | None = None
    file: Path | None = None
    allow_final_try: bool = False
    as_it_is: bool = False
    """Whether it may have in it what nobody sees, where it is typed: it is to be changed."""

    def obtain(self, info: TokenInfo) -> Credential:
        """Return the PIN for a token; from descriptor, file, environment, pad or prompt.

        A source that is given goes before the pad. Raises TokenError if a PIN would
        be tried for nothing or would be the last try, and nobody said yes to that;
        UsageError where there is no source and no terminal to ask at.
        """
        check_pin_state(info, allow_final_try=True)
        allowed = self.allow_final_try or _said_yes(info)
        check_pin_state(info, allow_final_try=allowed)
        return Credential(pin=self._pin(info), allow_final_try=allowed)

    def _pin(self, info: TokenInfo) -> str | None:
        given = self.fd is not None or self.file is not None or has_secret(PIN_VARIABLE)
        if not given and info.protected_authentication_path:
            return None
        if not given and info.pin_count_low and not info.pin_final_try:
            warning = "; too many lock it" if may_lock(info) else ""
            click.echo(f"A wrong PIN was entered at token {info.label} before{warning}.", err=True)
        return read_secret(
            f"the PIN of token {info.label}",
            option="pin",
            fd=self.fd,
            file=self.file,
            variable=PIN_VARIABLE,
            as_it_is=self.as_it_is,
        )


def say_if_at_pad(pin: str | None, label: str) -> None:
    """Say, before a login to the token of that label, where its PIN is to be entered."""
    if pin is None:
        click.echo(f"Enter the PIN of token {label} on the reader's PIN pad.", err=True)


def _said_yes(info: TokenInfo) -> bool:
    """Ask, where it is the last try and there is somebody to ask."""
    if not info.pin_final_try or not has_terminal():
        return False
    answer: str = click.prompt(
        f"Token {info.label} leaves one PIN try, and a wrong one locks it; "
        f"type {_YES} to go on, anything else to stop",
        default="",
        show_default=False,
        err=True,
    )
    return answer == _YES
