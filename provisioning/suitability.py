"""Whether a token is fit for what is ordered, found out before anything is made on it."""

from collections.abc import Iterable

import click

from carnet.console import confirm, has_terminal
from carnet.counting import counted
from carnet.errors import TokenCannotError, TokenError
from carnet.token import data, keys
from carnet.token.fitness import warning, ways_out
from carnet.token.pair_type import PairType
from carnet.token.room import Room, room_on
from carnet.token.rsa_type import RsaType
from carnet.token.session import TokenSession
from carnet.token.trials import Making

accept_option = click.option(
    "--accept-unfit-token",
    "accept_unfit",
    is_flag=True,
    help="Use a token that lets private keys out.",
)


def check_room(session: TokenSession, count: int, type_: PairType, *, yes: bool) -> Room:
    """Say how many pairs fit, where anybody knows; TokenError if it is fewer than ordered.

    What is only reckoned is asked about, unless `yes`. Raises click.Abort on a no.
    """
    room = room_on(session, type_)
    label = session.token.info.label
    if room.pairs is None:
        return room
    more = counted(room.pairs, "more key pair")
    if count <= room.pairs:
        click.echo(f"Token {label} has room for {more}.", err=True)
    elif room.counted:
        raise TokenError(
            f"Token {label} has room for {more}, not for {count}; "
            f"order fewer, or burn some that are no longer needed."
        )
    else:
        confirm(
            f"Token {label} seems to have room for about {more}; try {count} all the same?",
            yes=yes,
        )
    return room


def check_keeping(session: TokenSession) -> None:
    """Raise TokenCannotError where a mint could keep neither its journal nor the cover."""
    try:
        data.check_keeping(session)
    except TokenCannotError as error:
        raise TokenCannotError(
            f"{error.sentence.partition(';')[0]}; have the cover kept in a file by --cover, in "
            f"custody split, or take another token."
        ) from error


def check_fitness(
    session: TokenSession, types: Iterable[PairType], *makings: Making, accept: bool
) -> list[str]:
    """Try to take keys out of the token; return the ways that led out, if that is accepted.

    Tried as ways_out() does, with keys made so. Raises TokenError where one came out,
    nobody accepts that and there is nobody to ask; click.Abort on a no.
    """
    ways = ways_out(session, types, *makings)
    if not ways:
        return []
    said = warning(session.token.info.label, ways)
    if not accept and not has_terminal():
        raise TokenError(f"{said}; take another token, or accept it by --accept-unfit-token.")
    click.echo(f"{said}.", err=True)
    if not accept:
        click.confirm("Use it all the same?", abort=True, err=True)
    return ways


ANY_TYPE = (keys.P256, keys.RSA[0])
"""The types that a token is tried with before anything is ordered."""


def tried_by(ordered: PairType) -> tuple[PairType, ...]:
    """Return the types that a token is tried with; a small RSA key is made far sooner."""
    return (keys.RSA[0], ordered) if isinstance(ordered, RsaType) else (ordered,)
