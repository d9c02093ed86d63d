"""`token-init`: a token gets its label, SO PIN and PIN."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from carnet.console import print_json
from carnet.errors import TokenCannotError, TokenError, UsageError
from carnet.secret_sources import PIN_VARIABLE, SO_PIN_VARIABLE, read_secret, secret_options
from carnet.token.identity import Identity
from carnet.token.initialise import initialise_token
from carnet.token.module import Module, TokenInfo
from carnet.token.pins import check_so_pin_state
from carnet.token.trials import copied, generated
from provisioning.alone import alone_on
from provisioning.confirmation import confirm_by_label
from provisioning.options import Login, json_option, module_option, open_module
from provisioning.suitability import ANY_TYPE, accept_option, check_fitness
from softhsm.kept import keep_tokens


@click.command("token-init")
@click.option("--label", required=True, help="The token's name, at most 32 bytes.")
@click.option("--serial", help="The token to take  [default: a blank one].")
@click.option("--force", is_flag=True, help="Wipe a token that is initialised already.")
@click.option("--confirm", "typed", metavar="LABEL", help="The label of the token to be wiped.")
@click.option("--allow-final-try", is_flag=True, help="Risk the last try of its SO PIN.")
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
    allow_final_try: bool,
    module: str | None,
    accept_unfit: bool,
    as_json: bool,
    **sources: Any,
) -> None:
    """Initialise a token: its label, SO PIN and PIN; then try to take a key out of it."""
    if not (label and label.isprintable() and label == label.strip()):
        raise UsageError(
            "A label is at least one letter, has letters alone, and no blank before or behind "
            "them; choose another."
        )
    loaded = open_module(module, prepare=True)
    old = _token_to_wipe(loaded, label, serial)
    if old is not None:
        _check_wiping(old, typed, force=force)
        check_so_pin_state(old, allow_final_try=allow_final_try)
    so_pin, pin = _read_pins(**sources, wiping=old is not None)
    try:
        with alone_on(old.identity) if old else nullcontext():
            serial = initialise_token(
                loaded,
                label=label,
                so_pin=so_pin,
                pin=pin,
                selector=old.identity if old else serial,
                force=old is not None,
                allow_final_try=allow_final_try,
            )
    except TokenCannotError as error:
        raise TokenCannotError(
            "This token is not initialised through PKCS#11; use its vendor's own tool, and then "
            "`carnet-provision adopt` for keys made with that."
        ) from error
    login = Login(module=loaded, token=Identity(serial, label), pin=pin, allow_final_try=False)
    with login.session(writable=True) as session:
        check_fitness(session, ANY_TYPE, generated, copied, accept=accept_unfit)
    keep_tokens(again=True)
    if as_json:
        print_json({"label": label, "serial": serial})
    else:
        click.echo(f"Token {label} is initialised; its serial number is {serial}.")


def _token_to_wipe(module: Module, label: str, serial: str | None) -> TokenInfo | None:
    """Return the initialised token that is meant; None if a blank one is."""
    fitting = [
        info
        for info in module.tokens()
        if info.pin_set and (info.serial == serial if serial else info.label == label)
    ]
    if serial and len(fitting) > 1:
        fitting = [info for info in fitting if info.label == label] or fitting
    if len(fitting) > 1:
        raise TokenError(
            f"There are {len(fitting)} tokens {serial or label}; choose one with --serial, or take "
            f"the others out."
        )
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
        "the SO PIN",
        option="so-pin",
        fd=so_pin_fd,
        file=so_pin_file,
        variable=SO_PIN_VARIABLE,
        confirm=not wiping,
    )
    pin = read_secret(
        "the PIN",
        option="pin",
        fd=pin_fd,
        file=pin_file,
        variable=PIN_VARIABLE,
        confirm=True,
    )
    if pin == so_pin:
        raise UsageError("The PIN and the SO PIN are the same; choose two.")
    return so_pin, pin
