"""`token-init`, `list` and `burn`: the token itself and the pairs on it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from carnet import crash
from carnet.console import confirm, print_json, read_secret, secret_options
from carnet.cover import read_cover
from carnet.errors import CarnetError, TokenError, UsageError
from carnet.interface import Revocation
from carnet.pin import PIN_VARIABLE
from carnet.token.initialise import initialise_token
from carnet.token.module import Module, TokenInfo
from carnet.token.onetime import OneTimeKeys, OneTimePair
from carnet.token.session import TokenSession
from carnet.wire.documents import Cover
from provisioning.checks import read_key_id
from provisioning.confirmation import confirm_by_label
from provisioning.host_interface import HostInterface, command_to_run, host_option
from provisioning.journal import is_unfinished, unfinished
from provisioning.options import (
    SO_PIN_VARIABLE,
    Login,
    Station,
    TokenAccess,
    json_option,
    module_option,
    officer_options,
    open_module,
    token_options,
)
from provisioning.suitability import ANY_TYPE, accept_option, check_fitness
from softhsm.damage import damaged_files


@click.command("token-init")
@click.option("--label", required=True, help="The token's name, at most 32 bytes.")
@click.option("--serial", help="The token to take  [default: a blank one].")
@click.option("--force", is_flag=True, help="Wipe a token that is initialised already.")
@click.option("--confirm", "typed", metavar="LABEL", help="The label of the token to be wiped.")
@module_option
@secret_options("pin", "the PIN")
@secret_options("so-pin", "the SO PIN")
@accept_option
@json_option
def token_init(
    label: str,
    serial: str | None,
    force: bool,
    typed: str | None,
    module: str | None,
    accept_unfit: bool,
    as_json: bool,
    **sources: Any,
) -> None:
    """Initialise a token: its label, SO PIN and PIN; then try to take a key out of it."""
    if not (label and label.isprintable()):
        raise UsageError("A label is at least one letter, and letters alone; choose another.")
    loaded = open_module(module, prepare=True)
    old = _token_to_wipe(loaded, label, serial)
    if old is not None:
        _check_wiping(old, typed, force=force)
    so_pin, pin = _read_pins(**sources, wiping=old is not None)
    selector = old.serial if old else serial
    serial = initialise_token(
        loaded, label=label, so_pin=so_pin, pin=pin, selector=selector, force=force
    )
    login = Login(module=loaded, serial=serial, pin=pin, allow_final_try=False)
    with login.session(writable=True) as session:
        check_fitness(session, ANY_TYPE, accept=accept_unfit)
    if as_json:
        print_json({"label": label, "serial": serial})
    else:
        click.echo(f"Token {label} is initialised; its serial number is {serial}.")


@click.command("list")
@token_options
@json_option
def list_pairs(access: TokenAccess, as_json: bool) -> None:
    """Show the cover and the key pairs, in the order of use."""
    with access.login().session(writable=False) as session:
        info, cover = session.token.info, read_cover(session)
        booklet = OneTimeKeys(session)
        prefixes = unfinished(session)
        cut_off = [pair.key_id for pair in booklet.pairs() if is_unfinished(pair, prefixes)]
        files = damaged_files(info.serial, session.count())
        damage = _Damage(booklet.halves(), files, cut_off)
    if as_json:
        print_json(_facts(info, cover, booklet.pairs(), damage))
    else:
        _show(info, cover, booklet.pairs())
        _show_damage(damage)


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
    with access.login().session(writable=True) as session:
        label = session.token.info.label
        if user_id:
            _check_user(session, user_id)
        booklet = OneTimeKeys(session)
        chosen = wanted or [pair.key_id for pair in booklet.pairs()] + sorted(booklet.halves())
        confirm(f"Burn {len(chosen)} key pairs on token {label}?", yes=yes)
        burned = [key_id for key_id in chosen if _destroy(booklet, key_id)]
    telling = _Telling(interface, burned, lost=lost)
    telling.tell()
    _report_burn(label, burned, telling, as_json=as_json)
    telling.check()
    _check_all_burned(label, chosen, burned)


def _destroy(booklet: OneTimeKeys, key_id: bytes) -> bool:
    destroyed = booklet.destroy(key_id)
    crash.reach("provision.burned")
    return destroyed


def _token_to_wipe(module: Module, label: str, serial: str | None) -> TokenInfo | None:
    """Return the initialised token that is meant; None if a blank one is."""
    fitting = [
        info
        for info in module.tokens()
        if info.pin_set and (info.serial == serial if serial else info.label == label)
    ]
    if len(fitting) > 1:
        raise TokenError(f"There are {len(fitting)} tokens {label}; choose one with --serial.")
    return fitting[0] if fitting else None


def _check_wiping(old: TokenInfo, typed: str | None, *, force: bool) -> None:
    if not force:
        raise TokenError(
            f"Token {old.label} (serial {old.serial}) is initialised already; take another label "
            f"and a blank token, or wipe it with --force."
        )
    confirm_by_label(old.label, typed)


def _read_pins(
    *,
    so_pin_fd: int | None,
    so_pin_file: Path | None,
    pin_fd: int | None,
    pin_file: Path | None,
    wiping: bool,
) -> tuple[str, str]:
    so_pin = read_secret(
        "the SO PIN", fd=so_pin_fd, file=so_pin_file, variable=SO_PIN_VARIABLE, confirm=not wiping
    )
    pin = read_secret("the PIN", fd=pin_fd, file=pin_file, variable=PIN_VARIABLE, confirm=True)
    if pin == so_pin:
        raise UsageError("The PIN and the SO PIN are the same; choose two.")
    return so_pin, pin


@dataclass(frozen=True)
class _Damage:
    """What a kill, a power cut or a full disk has left on a token."""

    halves: frozenset[bytes]
    files: list[Path]
    unfinished: list[bytes]
    """Whole pairs of a mint that was cut off: no batch has them."""


def _facts(
    info: TokenInfo, cover: Cover | None, pairs: list[OneTimePair], damage: _Damage
) -> dict[str, Any]:
    return {
        "token": {"label": info.label, "serial": info.serial},
        "cover": cover and {name: getattr(cover, name) for name in cover.__struct_fields__},
        "pairs": [
            {
                "key_id": pair.key_id,
                "label": pair.label,
                "key_type": pair.key_type,
                "not_after": pair.not_after,
            }
            for pair in pairs
        ],
        "damaged_pairs": sorted(damage.halves),
        "damaged_files": damage.files,
        "unfinished_pairs": damage.unfinished,
    }


def _show_damage(damage: _Damage) -> None:
    if damage.unfinished:
        click.echo(
            f"{len(damage.unfinished)} of them are of a mint that was cut off, and no Host knows "
            f"them; mint again, which destroys them first, before you hand the token out:"
        )
    for key_id in damage.unfinished:
        click.echo(f"  {key_id.hex()}")
    if damage.halves:
        click.echo(
            f"{len(damage.halves)} more have lost a half or are damaged and cannot be used; "
            f"the next mint destroys them, as does `carnet-provision burn --key ID`:"
        )
    for key_id in sorted(damage.halves):
        click.echo(f"  {key_id.hex()}")
    if damage.files:
        click.echo(
            f"{len(damage.files)} files of this token are empty or cut short, and no object in "
            f"them can be used; remove them when no program uses the token:"
        )
    for path in damage.files:
        click.echo(f"  {path}")


def _show(info: TokenInfo, cover: Cover | None, pairs: list[OneTimePair]) -> None:
    click.echo(f"Token {info.label} (serial {info.serial})")
    if cover is None:
        click.echo("No cover; mint to give it one.")
    else:
        click.echo(f"User     {cover.user_id}")
        click.echo(f"Hosts    {', '.join(cover.hosts)}")
        click.echo(f"Targets  {', '.join(cover.targets)}")
        click.echo(f"Custody  {cover.custody}")
    click.echo(f"{len(pairs)} key pairs, in the order of use:")
    for pair in pairs:
        until = f"  until {pair.not_after}" if pair.not_after else ""
        click.echo(f"  {pair.key_id.hex()}  {pair.label}  {pair.key_type}{until}")


def _check_user(session: TokenSession, user_id: str) -> None:
    cover, label = read_cover(session), session.token.info.label
    if cover is None:
        raise TokenError(
            f"Token {label} has no cover that says whose it is; burn by --key or --all."
        )
    if cover.user_id != user_id:
        raise TokenError(f"Token {label} belongs to {cover.user_id}, not to {user_id}; look again.")


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
        host = (self._host.name, self._host.url)
        run = command_to_run(host, self._burned, _BURNED, lost=self._lost)
        raise type(self._failure)(
            f"{self._failure.sentence} The pairs are burned on the token, but the Host does not "
            f"know it yet; run later: {run}"
        ) from self._failure


def _report_burn(label: str, burned: list[bytes], telling: _Telling, *, as_json: bool) -> None:
    if as_json:
        told = {} if telling.revoked is None else {"revoked_at_host": telling.revoked}
        print_json({"token": label, "burned": burned, **told})
        return
    for key_id in burned:
        click.echo(key_id.hex())
    click.echo(f"{len(burned)} key pairs on token {label} are destroyed.")
    if telling.revoked is not None:
        click.echo(f"The Host was told, and made {telling.revoked} of them invalid.")
    elif burned:
        click.echo("The Host does not know it yet; tell it with `carnet-host revoke`.")


def _check_all_burned(label: str, chosen: list[bytes], burned: list[bytes]) -> None:
    missing = [key_id.hex() for key_id in chosen if key_id not in burned]
    if missing:
        raise TokenError(f"Token {label} does not hold {', '.join(missing)}; list what it holds.")
