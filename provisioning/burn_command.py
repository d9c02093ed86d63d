"""`burn`: pairs are destroyed on the token, and the Host is told."""

from contextlib import suppress

import click

from carnet import crash
from carnet.console import confirm, print_json
from carnet.cover import read_cover
from carnet.errors import CarnetError, TokenError, UsageError
from carnet.interface import Revocation
from carnet.token.adopted import signing_keys
from carnet.token.onetime import OneTimeKeys
from carnet.token.session import TokenSession
from provisioning.checks import read_key_id
from provisioning.host_interface import HostInterface, command_to_run, host_option
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
            if user_id:
                _check_user(session, user_id)
            booklet = OneTimeKeys(session)
            chosen = wanted or [pair.key_id for pair in booklet.pairs()] + sorted(booklet.halves())
            if not chosen:
                _check_not_adopted(session)
            confirm(f"Burn {len(chosen)} key pairs on token {label}?", yes=yes)
            burning.burn(booklet, chosen)
    except BaseException:
        _tell_of_a_part(interface, burning.burned, lost=lost, as_json=as_json)
        raise
    telling = _Telling(interface, burning.burned, lost=lost)
    telling.tell()
    _report_burn(label, burning.burned, telling, as_json=as_json)
    telling.check()
    _check_all_burned(label, chosen, burning.burned)


class _Burning:
    """Destroying pairs, and what of it is done when it is cut off."""

    def __init__(self, *, show: bool) -> None:
        self._show = show
        self.burned: list[bytes] = []
        """The last of them perhaps in part, where burn() is cut off."""

    def burn(self, booklet: OneTimeKeys, key_ids: list[bytes]) -> None:
        """Destroy those that are there, and show each at once: a kill leaves what was shown."""
        for key_id in key_ids:
            self.burned.append(key_id)
            if not booklet.destroy(key_id):
                self.burned.remove(key_id)
            elif self._show:
                click.echo(key_id.hex())
            crash.reach("provision.burned")


def _check_user(session: TokenSession, user_id: str) -> None:
    cover, label = read_cover(session), session.token.info.label
    if cover is None:
        raise TokenError(
            f"Token {label} has no cover that says whose it is; burn by --key or --all."
        )
    if cover.user_id != user_id:
        raise TokenError(f"Token {label} belongs to {cover.user_id}, not to {user_id}; look again.")


def _check_not_adopted(session: TokenSession) -> None:
    """Raise TokenError where keys stay that may be pairs all the same: `adopt` marks none."""
    info, found = session.token.info, len(signing_keys(session))
    if found:
        raise TokenError(
            f"Token {info.label} has no minted key pairs, and {found} keys that may have been "
            f"adopted, which burn does not destroy; make these pairs invalid with "
            f"`carnet-host revoke --token-serial {info.serial}` or `carnet-provision revoke`, and "
            f"the keys with the card's own tool."
        )


_BURNED = "burned on the token"


class _Telling:
    """Telling the Host of pairs that are burned, which it may not hear just now."""

    def __init__(self, host: HostInterface | None, burned: list[bytes], *, lost: bool) -> None:
        self._host, self._burned, self._lost = host, burned, lost
        self.revoked: int | None = None
        """How many the Host made invalid; None where it was not told."""
        self._failure: CarnetError | None = None

    def tell(self) -> None:
        """Tell it, if there is something and somebody to be told."""
        if self._host is None or not self._burned:
            return
        key_ids = tuple(key_id.hex() for key_id in self._burned)
        revocation = Revocation(key_ids=key_ids, why=_BURNED, lost=self._lost)
        try:
            self.revoked = self._host.revoke(revocation).revoked
        except CarnetError as error:
            self._failure = error

    def check(self) -> None:
        """Raise the error that kept it from hearing, with the command to be run later."""
        if self._host is None or self._failure is None:
            return
        raise type(self._failure)(
            f"{self._failure.sentence} The pairs are burned on the token, but {self.advice()}"
        ) from self._failure

    def advice(self) -> str:
        """Say how it is told later."""
        if self._host is None:
            named = " ".join(key_id.hex() for key_id in self._burned)
            return (
                f"the Host does not know it yet; tell it with `carnet-host revoke --key` of "
                f"each: {named}"
            )
        host = (self._host.name, self._host.url)
        run = command_to_run(host, self._burned, _BURNED, lost=self._lost)
        return f"the Host does not know it yet; run later: {run}"

    def facts(self) -> dict[str, int]:
        """Return what the Host answered, for scripts."""
        return {} if self.revoked is None else {"revoked_at_host": self.revoked}


def _tell_of_a_part(
    host: HostInterface | None, burned: list[bytes], *, lost: bool, as_json: bool
) -> None:
    """Tell Host and officer of what a burn destroyed that was cut off."""
    if not burned:
        return
    telling = _Telling(host, burned, lost=lost)
    telling.tell()
    # Nobody may read any more: a terminal that closes is what cut it off.
    with suppress(OSError):
        if as_json:
            print_json({"burned": burned, "cut_off": True, **telling.facts()})
        told = "the Host was told of them." if telling.revoked is not None else telling.advice()
        click.echo(
            f"carnet-provision: The burn was cut off after {len(burned)} key pairs; {told}",
            err=True,
        )


def _report_burn(label: str, burned: list[bytes], telling: _Telling, *, as_json: bool) -> None:
    if as_json:
        print_json({"token": label, "burned": burned, **telling.facts()})
        return
    click.echo(f"{len(burned)} key pairs on token {label} are destroyed.")
    if telling.revoked is not None:
        click.echo(f"The Host was told, and made {telling.revoked} of them invalid.")
    elif burned:
        click.echo("The Host does not know it yet; tell it with `carnet-host revoke`.")


def _check_all_burned(label: str, chosen: list[bytes], burned: list[bytes]) -> None:
    missing = [key_id.hex() for key_id in chosen if key_id not in burned]
    if missing:
        raise TokenError(f"Token {label} does not hold {', '.join(missing)}; list what it holds.")
