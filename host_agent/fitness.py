"""Whether the HSM keeps the keys that the Host has it keep: tried once, where it comes into use."""

import click
import structlog

from carnet.console import has_terminal
from carnet.errors import TokenError
from carnet.token import keys
from carnet.token.fitness import warning, ways_out
from carnet.token.session import TokenSession
from carnet.token.trials import generated, unwrapped, without_login

log = structlog.get_logger()
_TYPES = (keys.P256,)
"""What the Host's own keys are of; the least work for an HSM besides."""
_ADVICE = "take another HSM, and have key pairs minted for that."


def unfitness(session: TokenSession) -> str | None:
    """Say that keys came out of the HSM; None where none did, or it could not be tried.

    Without a login with what little such a session makes.
    """
    makings = (generated, unwrapped) if session.logged_in else (without_login,)
    try:
        ways = ways_out(session, _TYPES, *makings)
    except TokenError:  # what it is really asked for will say it better
        return None
    return f"{warning(session.token.info.label, ways)}; {_ADVICE}" if ways else None


def check_fit(session: TokenSession, *, accept: bool) -> None:
    """Say it before a key is printed that others will seal to, and have it confirmed.

    Raises TokenError where nobody accepts it and there is nobody to ask; click.Abort on a no.
    """
    said = unfitness(session)
    if said is None:
        return
    if not accept and not has_terminal():
        raise TokenError(f"{said.removesuffix('.')}, or accept this one by --accept-unfit-hsm.")
    click.echo(f"carnet-host: {said}", err=True)
    if not accept:
        click.confirm("Use it all the same?", abort=True, err=True)


def tell_if_unfit(session: TokenSession) -> None:
    """Have a command say it."""
    if said := unfitness(session):
        click.echo(f"carnet-host: {said}", err=True)


def log_if_unfit(session: TokenSession) -> None:
    """Have the service's log say it."""
    if said := unfitness(session):
        log.warning("hsm-unfit", reason=said)
