"""`burn`: pairs are destroyed on the token, and the Host is told."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import click

from carnet import crash, serials
from carnet.console import confirm, print_json
from carnet.counting import agreeing, counted
from carnet.cover import read_cover
from carnet.errors import TokenCannotError, TokenError, UsageError
from carnet.token.adopted import signing_keys
from carnet.token.onetime import OneTimeKeys
from carnet.token.session import TokenSession
from carnet.wire.documents import Cover
from provisioning.burn_telling import Telling
from provisioning.checks import read_key_id
from provisioning.covered import cover_option, read_covered
from provisioning.host_interface import HostInterface, host_option
from provisioning.options import (
    Station,
    TokenAccess,
    json_option,
    officer_options,
    token_options,
)


@click.command()
@click.option("--key", "keys", multiple=True, metavar="ID", help="This key pair, repeatable.")
@click.option("--all", "every", is_flag=True, help="All key pairs on the token.")
@click.option("--user", "user_id", help="All key pairs, if the token is this user's.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--lost", is_flag=True, help="Tell the Host that they were lost, not revoked.")
@cover_option
@host_option(required=False)
@token_options
@officer_options
@json_option
def burn(
    access: TokenAccess,
    station: Station,
    keys: tuple[str, ...],
    every: bool,
    user_id: str | None,
    yes: bool,
    lost: bool,
    cover: Path | None,
    host: tuple[str, str] | None,
    as_json: bool,
) -> None:
    """Destroy key pairs on the token, and have the Host make them invalid.

    It is told over its interface where --host names it, else by `carnet-host revoke` there.
    """
    if [bool(keys), every, bool(user_id)].count(True) != 1:
        raise UsageError("Say what to burn: one of --key, --all and --user.")
    wanted = [read_key_id(text) for text in dict.fromkeys(keys)]
    interface = HostInterface.of(host, station) if host else None
    burning = _Burning(show=not as_json)
    try:
        with access.login().session(writable=True) as session:
            label = session.token.info.label
            booklet, whose = _booklet(session, cover, station)
            if user_id:
                _check_user(label, whose(), user_id)
            chosen = wanted or [pair.key_id for pair in booklet.pairs()] + sorted(booklet.halves())
            if not chosen and cover is None:
                _check_not_adopted(session)
            confirm(f"Burn {counted(len(chosen), 'key pair')} on token {label}?", yes=yes)
            burning.burn(booklet, chosen)
    except BaseException:
        _tell_of_a_part(interface, burning, lost=lost, as_json=as_json)
        raise
    telling = Telling(interface, burning.over, destroyed=not burning.kept, lost=lost)
    telling.tell()
    _report_burn(label, burning, telling, as_json=as_json)
    telling.check()
    _check_all_burned(label, chosen, burning.over)
    _check_told(label, burning, telling)


class _Burning:
    """Destroying pairs, and what of it is done when it is cut off."""

    def __init__(self, *, show: bool) -> None:
        self._show = show
        self.burned: list[bytes] = []
        """The last of them perhaps in part, where burn() is cut off."""
        self.kept: list[bytes] = []
        """Those that the token does not destroy: the Host alone makes them invalid."""

    @property
    def over(self) -> list[bytes]:
        """All that shall be used no more."""
        return self.burned + self.kept

    def burn(self, booklet: OneTimeKeys, key_ids: list[bytes]) -> None:
        """Destroy those that are there, and show each at once: a kill leaves what was shown."""
        for key_id in key_ids:
            self.burned.append(key_id)
            try:
                if not booklet.destroy(key_id):
                    self.burned.remove(key_id)
                elif self._show:
                    click.echo(key_id.hex())
            except TokenCannotError:
                self.burned.remove(key_id)
                self.kept.append(key_id)
            crash.reach("provision.burned")


def _booklet(
    session: TokenSession, path: Path | None, station: Station
) -> tuple[OneTimeKeys, Callable[[], Cover | None]]:
    """Return the pairs that may be meant, and what reads the cover.

    That is asked only where it matters: what claims to be the cover may be none.
    """
    if path is None:
        return OneTimeKeys(session), partial(read_cover, session)
    file, booklet = read_covered(session, path, station.directory)
    return booklet, lambda: file.cover


def _check_user(label: str, cover: Cover | None, user_id: str) -> None:
    if cover is None:
        raise TokenError(
            f"Token {label} has no cover that says whose it is; burn by --key or --all."
        )
    if cover.user_id != user_id:
        raise TokenError(f"Token {label} belongs to {cover.user_id}, not to {user_id}; look again.")


def _check_not_adopted(session: TokenSession) -> None:
    """Raise TokenError where keys stay that may be pairs all the same: `adopt` marks none."""
    info, found = session.token.info, len(signing_keys(session))
    by = f"token-serial {info.serial}" if serials.is_own(info.serial) else "user"
    if found:
        raise TokenError(
            f"Token {info.label} has no minted key pairs, and {counted(found, 'key')} that may "
            f"have been adopted; name their file with --cover, or make these pairs invalid with "
            f"`carnet-host revoke --{by}` or `carnet-provision revoke`, and the keys with the "
            f"token's own tool."
        )


def _tell_of_a_part(
    host: HostInterface | None, burning: _Burning, *, lost: bool, as_json: bool
) -> None:
    """Tell Host and officer of what a burn destroyed that was cut off."""
    burned = burning.over
    if not burned:
        return
    telling = Telling(host, burned, destroyed=not burning.kept, lost=lost)
    telling.tell()
    # Nobody may read any more: a terminal that closes is what cut it off.
    with suppress(OSError):
        if as_json:
            print_json({"burned": burned, "cut_off": True, **telling.facts()})
        over = counted(len(burned), "key pair")
        told = "the Host was told." if telling.revoked is not None else telling.advice()
        click.echo(f"carnet-provision: The burn was cut off after {over}; {told}", err=True)


def _report_burn(label: str, burning: _Burning, telling: Telling, *, as_json: bool) -> None:
    burned, kept = burning.burned, burning.kept
    if as_json:
        of_cards = {"not_destroyed": kept} if kept else {}
        print_json({"token": label, "burned": burned, **of_cards, **telling.facts()})
        return
    if burned or not kept:
        are = agreeing(len(burned), "is", "are")
        click.echo(f"{counted(len(burned), 'key pair')} on token {label} {are} destroyed.")
    if kept:
        click.echo(
            f"{counted(len(kept), 'key pair')} {agreeing(len(kept), 'stays', 'stay')} on token "
            f"{label}, which destroys no keys; {agreeing(len(kept), 'it opens', 'they open')} "
            f"nothing once the Host knows."
        )
    if telling.revoked is not None:
        click.echo(f"The Host was told, and made {telling.revoked} of them invalid.")
    elif burned:
        click.echo("The Host does not know it yet; tell it with `carnet-host revoke`.")


def _check_all_burned(label: str, chosen: list[bytes], burned: list[bytes]) -> None:
    missing = [key_id.hex() for key_id in chosen if key_id not in burned]
    if missing:
        raise TokenError(f"Token {label} does not hold {', '.join(missing)}; list what it holds.")


def _check_told(label: str, burning: _Burning, telling: Telling) -> None:
    """Raise TokenError for pairs that are as good as before."""
    if burning.kept and telling.revoked is None:
        raise TokenError(
            f"Token {label} destroys no keys, so its pairs are over when the Host makes them "
            f"invalid, but {telling.advice()}."
        )
